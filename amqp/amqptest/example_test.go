package amqptest_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// A program that is not a test starts a server too.
func ExampleStart() {
	srv, err := amqptest.Start(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	ctx := context.Background()
	conn, err := amqp.Dial(ctx, srv.URI(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "q"}); err != nil {
		fmt.Println(err)
		return
	}
	if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: []byte("hello")}); err != nil {
		fmt.Println(err)
		return
	}
	info, _ := srv.Queue("q")
	fmt.Println(info)
	// Output: queue "q" (classic): 1 ready, 0 unacked, 0 consumers
}

// The tests that the examples show, run.
func TestExamples(t *testing.T) {
	t.Run("table-driven", testRouting)
	t.Run("faults", testFaults)
	t.Run("synctest", testRetryLater)
}

// What the README shows of them stands in their files.
func TestExamples_Readme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(readme), "## Tests without a broker\n")
	if !ok {
		t.Fatal("README.md has no such section any more")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var shown strings.Builder
	for _, name := range []string{"table", "fault", "synctest"} {
		raw, err := os.ReadFile("example_" + name + "_test.go")
		if err != nil {
			t.Fatal(err)
		}
		shown.WriteString(unindented(string(raw)))
	}
	blocks := strings.Split(section, "```go\n")[1:]
	for _, b := range blocks {
		b, _, _ = strings.Cut(b, "```")
		if !strings.Contains(shown.String(), unindented(b)) {
			t.Errorf("no example holds this part of the README:\n%s", b)
		}
	}
	if len(blocks) != 3 {
		t.Errorf("the README shows %d examples; want 3", len(blocks))
	}
}

func unindented(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.TrimLeft(line, "\t"))
	}
	return b.String()
}
