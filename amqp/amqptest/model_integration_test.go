//go:build integration

package amqptest_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/warrenmq/warren/internal/rabbittest"
)

// TestModel_RandomSequencesOnRabbitMQ runs some of the sequences on RabbitMQ: the
// reference model that amqptest is held to is then RabbitMQ's as well.
func TestModel_RandomSequencesOnRabbitMQ(t *testing.T) {
	addr := *broker
	if addr == "" {
		b := rabbittest.Shared(t)
		if !strings.HasPrefix(b.Version(), "4.3.") {
			t.Skipf("the model is of RabbitMQ 4.3, and this is %s", b.Version())
		}
		addr = b.Addr()
	}
	run := fmt.Sprintf("m%x-", time.Now().UnixMilli()&0xffffff)
	failed, tries := 0, 0
	for seed := range uint64(100) {
		ok := checkSequence(t, seed, 30, func(ops []op) error {
			tries++
			return modelTarget{
				wait: 20 * time.Second, prefix: fmt.Sprintf("%s%d-", run, tries),
				dial: func() (net.Conn, error) { return net.Dial("tcp", addr) },
			}.run(ops)
		})
		if !ok {
			if failed++; failed == 3 {
				t.Fatalf("gave up after seed %d", seed)
			}
		}
	}
}
