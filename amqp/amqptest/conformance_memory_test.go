package amqptest_test

import (
	"context"
	"net"
	"os"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// TestConformance plays the suite on amqptest, each case on a server of its own
// and in fake time, so that a case that waits for seconds takes none.
func TestConformance(t *testing.T) {
	n, kept := 0, keptDifferences(t)
	for _, f := range suite(t) {
		t.Run(f.name(), func(t *testing.T) {
			for _, c := range f.cases {
				if !selected(t, c) {
					continue
				}
				n++
				why := kept[c.file+"/"+c.name]
				t.Run(c.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						res := runInMemory(t, c)
						if why == "" {
							check(t, c, res)
						} else if res.err == nil && c.transcript(nil) == c.transcript(res.got) {
							t.Errorf("%s lists this case, and it does not differ any more", differences)
						}
					})
				})
			}
		})
	}
	if *caseNames == "" && n < 300 {
		t.Errorf("the suite has %d cases; want at least 300", n)
	}
}

// differences is where the cases stand in which amqptest answers otherwise
// than RabbitMQ on purpose, each with its reason.
const differences = "../../docs/amqptest.md"

var difference = regexp.MustCompile("(?m)^- `([a-z]+/[^`]+)`: (.+)")

// keptDifferences maps cases, as file/name, to the reasons why amqptest differs.
func keptDifferences(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(differences)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]bool{}
	for _, f := range suite(t) {
		for _, c := range f.cases {
			cases[c.file+"/"+c.name] = true
		}
	}
	kept := map[string]string{}
	for _, m := range difference.FindAllStringSubmatch(string(raw), -1) {
		if !cases[m[1]] {
			t.Errorf("%s lists %q, which is no case", differences, m[1])
		}
		kept[m[1]] = m[2]
	}
	return kept
}

func runInMemory(t *testing.T, c *scriptCase) result { return runInMemoryAs(t, c, false) }

// runInMemoryAs plays a case on a server of its own, and with record only takes
// down what comes. It wants to be in a synctest bubble.
func runInMemoryAs(t *testing.T, c *scriptCase, record bool) result {
	srv := amqptest.NewServer(t, suiteConfig())
	tg := target{
		dial:    func() (net.Conn, error) { return srv.Dial(context.Background(), "", "") },
		prefix:  "k7.x",
		timeout: 5 * time.Second,
		settle:  50 * time.Millisecond,
		record:  record,
		operate: func(verb, text string) {
			switch verb {
			case "block":
				srv.Block("")
			case "unblock":
				srv.Unblock()
			case "close":
				for _, c := range srv.Connections() {
					srv.CloseConnection(c.Name, amqp.ConnectionForced, text)
				}
			}
		},
	}
	got, err := tg.run(c)
	return result{got, err}
}

// suiteConfig has the users and virtual hosts that the scripts take for granted.
func suiteConfig() amqptest.Config {
	all := amqptest.Permissions{Configure: ".*", Write: ".*", Read: ".*"}
	return amqptest.Config{
		VHosts:     []string{"other", "sealed"},
		Mechanisms: []string{"PLAIN", "ANONYMOUS", "AMQPLAIN"},
		Users: []amqptest.User{
			{Name: "guest", Password: "guest", Permissions: map[string]amqptest.Permissions{"/": all, "other": all}},
			{Name: "limited", Password: "limited", Permissions: map[string]amqptest.Permissions{"/": {Configure: "cfg", Write: "wr", Read: "rd"}}},
			{Name: "muted", Password: "muted", Permissions: map[string]amqptest.Permissions{"/": {Configure: "^$", Write: "^$", Read: "^$"}}},
			{Name: "impersonator", Password: "impersonator", Impersonator: true, Permissions: map[string]amqptest.Permissions{"/": all}},
			{Name: "stranger", Password: "stranger", Permissions: map[string]amqptest.Permissions{}},
		},
	}
}
