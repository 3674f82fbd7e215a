package amqp

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// TestMain makes released memory unreadable, but where speed is measured, and
// looks for goroutines that outlive the tests.
func TestMain(m *testing.M) {
	flag.Parse()
	poisonReleased = flag.Lookup("test.bench").Value.String() == ""
	goleak.VerifyTestMain(m)
}
