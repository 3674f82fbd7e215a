//go:build integration

package amqptest_test

import (
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/warrenmq/warren/internal/rabbittest"
)

var broker = flag.String("broker", "", "conformance: host:port of a running RabbitMQ 4.3 that has the suite's users")

func TestMain(m *testing.M) { os.Exit(rabbittest.Main(m)) }

// suiteUsers makes what the scripts take for granted; permissions.txt says who
// may do what.
const suiteUsers = `set -e
R="rabbitmqctl -q"
$R add_vhost other; $R add_vhost sealed
$R set_permissions -p other guest '.*' '.*' '.*'
for u in limited muted impersonator stranger; do $R add_user $u $u; done
$R set_permissions -p / limited cfg wr rd
$R set_permissions -p / muted '^$' '^$' '^$'
$R set_permissions -p / impersonator '.*' '.*' '.*'
$R set_user_tags impersonator impersonator
`

// conformanceBroker is the address of a RabbitMQ that the scripts can run on.
func conformanceBroker(t *testing.T) string {
	t.Helper()
	if *broker != "" {
		return *broker
	}
	b := rabbittest.Shared(t)
	if !strings.HasPrefix(b.Version(), "4.3.") {
		t.Skipf("the scripts record RabbitMQ 4.3, and this is %s, which answers otherwise in places", b.Version())
	}
	if out, err := b.Run("sh", "-c", suiteUsers); err != nil && !strings.Contains(out+err.Error(), "already exists") {
		t.Fatalf("making the suite's users: %v: %s", err, out)
	}
	return b.Addr()
}

// TestConformance_RabbitMQ plays the suite on RabbitMQ, which is what makes its
// answers facts. With -record it writes them.
func TestConformance_RabbitMQ(t *testing.T) {
	addr := conformanceBroker(t)
	tg := target{
		dial:    func() (net.Conn, error) { return net.Dial("tcp", addr) },
		timeout: 30 * time.Second,
		settle:  25 * time.Millisecond,
		pace:    10 * time.Millisecond,
		record:  *record,
	}
	if *record {
		tg.settle = 250 * time.Millisecond
	}
	var all, alone []*scriptCase
	files := suite(t)
	for _, f := range files {
		if f.name() == "operator" { // what concerns everybody
			alone = append(alone, f.cases...)
		} else {
			all = append(all, f.cases...)
		}
	}
	run := fmt.Sprintf("r%x", time.Now().UnixMilli()&0xffffff)
	results := runCases(t, tg, all, 24, run)
	if !*record {
		maps.Copy(results, playAgain(t, tg, all, results, run))
	}
	if *broker == "" {
		tg.operate = operator(t, rabbittest.Shared(t))
		maps.Copy(results, runCases(t, tg, alone, 1, run+"o"))
	}
	for _, f := range files {
		if *record {
			if err := f.rewrite(results); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(f.name(), func(t *testing.T) {
			for _, c := range f.cases {
				if res, ok := results[c]; ok {
					t.Run(c.name, func(t *testing.T) { check(t, c, res) })
				}
			}
		})
	}
}

// playAgain plays the cases that differed once more, a few at a time and slowly.
// RabbitMQ does much in its own time, which on a busy machine outlasts the pauses;
// a real difference is still there.
func playAgain(t *testing.T, tg target, cases []*scriptCase, results map[*scriptCase]result, run string) map[*scriptCase]result {
	t.Helper()
	var again []*scriptCase
	for _, c := range cases {
		if res, ok := results[c]; ok && (res.err != nil || c.transcript(nil) != c.transcript(res.got)) {
			t.Logf("%s/%s differed; it is played again", c.file, c.name)
			again = append(again, c)
		}
	}
	tg.settle, tg.pace = 10*tg.settle, 10*tg.pace
	return runCases(t, tg, again, 2, run+"again")
}

// operator does on RabbitMQ what scripts want of an operator.
func operator(t *testing.T, b *rabbittest.Broker) func(verb, text string) {
	end := func() {}
	return func(verb, text string) {
		switch verb {
		case "block":
			end = b.MemoryAlarm(t)
		case "unblock":
			end()
		case "close":
			b.CloseAllConnections(t, text)
		}
	}
}

// rewrite saves a file with the answers that came.
func (f *scriptFile) rewrite(results map[*scriptCase]result) error {
	for _, c := range f.cases {
		res, ok := results[c]
		if !ok || res.err != nil {
			continue
		}
		for _, s := range c.steps {
			s.want = res.got[s]
		}
	}
	return os.WriteFile(f.path, []byte(formatScript(f.preface, f.cases)), 0o644)
}

// formatScript writes cases back, with got in place of the answers they want.
func formatScript(preface []string, cases []*scriptCase) string {
	var b strings.Builder
	for _, l := range preface {
		b.WriteString(l + "\n")
	}
	for i, c := range cases {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString("-- " + c.name + "\n" + c.transcript(nil))
	}
	return b.String()
}
