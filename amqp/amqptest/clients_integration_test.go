//go:build integration

package amqptest_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/warrenmq/warren/amqp/amqptest"
)

// These tests drive amqptest with clients that others wrote: Debian's
// amqp-tools (rabbitmq-c) and python3-pika. .ci/run installs them; elsewhere
// they may be missing.

// tool finds a program, and passes the test over where there is none.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed", names[len(names)-1])
	}
	t.Skipf("%s is not installed: apt-get install amqp-tools python3-pika", names[len(names)-1])
	return ""
}

// pika is a Python that has the module.
func pika(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(name, "-c", "import pika").Run() == nil {
			return name
		}
	}
	return tool(t, "python3-pika")
}

// base is the server's URI without a virtual host, which each client reads in
// its own way.
func base(srv *amqptest.Server) string { return strings.TrimSuffix(srv.URI(), "/") }

// run runs a program and gives what it printed; a failure is the test's.
func run(t *testing.T, stdin, program string, args ...string) string {
	t.Helper()
	out, err := try(t, stdin, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try is run for a program that may fail; the error has its complaints.
func try(t *testing.T, stdin, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = time.Second // for a child that keeps the pipes open
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &complaints
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, out.String(), complaints.String())
	}
	return out.String(), nil
}

func TestAMQPTools_PublishGetConsume(t *testing.T) {
	publish, get, consume := tool(t, "amqp-publish"), tool(t, "amqp-get"), tool(t, "amqp-consume")
	declare, remove := tool(t, "amqp-declare-queue"), tool(t, "amqp-delete-queue")
	srv := amqptest.NewServer(t)
	uri := "--url=" + base(srv)

	if got := run(t, "", declare, uri, "--queue=work", "--durable"); got != "work\n" {
		t.Errorf("amqp-declare-queue printed %q; want the name", got)
	}
	run(t, "", publish, uri, "--routing-key=work", "--body=hello", "--persistent", "--header=k: v")
	if got := run(t, "", get, uri, "--queue=work"); got != "hello" {
		t.Errorf("amqp-get printed %q; want hello", got)
	}
	if out, err := try(t, "", get, uri, "--queue=work"); err == nil {
		t.Errorf("amqp-get from an empty queue succeeded, and printed %q; want status 2", out)
	}
	large := strings.Repeat("0123456789", 30000)
	run(t, large, publish, uri, "--routing-key=work")
	if got := run(t, "", consume, uri, "--queue=work", "--count=1", "cat"); got != large {
		t.Errorf("amqp-consume gave %d octets; want the %d that were published", len(got), len(large))
	}
	run(t, "one\ntwo\nthree\n", publish, uri, "--routing-key=work", "--line-buffered")
	if got := run(t, "", consume, uri, "--queue=work", "--count=3", "--prefetch-count=1", "cat"); strings.TrimSpace(got) != "one\ntwo\nthree" {
		t.Errorf("amqp-consume of three lines printed %q", got)
	}
	run(t, "", publish, uri, "--routing-key=work", "--body=left")
	if got := run(t, "", remove, uri, "--queue=work"); got != "1\n" {
		t.Errorf("amqp-delete-queue printed %q; want the count 1", got)
	}
}

func TestAMQPTools_ExchangeAndServerNamedQueue(t *testing.T) {
	publish, consume := tool(t, "amqp-publish"), tool(t, "amqp-consume")
	srv := amqptest.NewServer(t)
	uri := "--url=" + base(srv)
	var got string
	done := make(chan struct{})
	go func() {
		defer close(done) // also where run gives up
		got = run(t, "", consume, uri, "--exchange=amq.topic", "--routing-key=a.#", "--count=1", "cat")
	}()
	for len(srv.Consumers()) == 0 {
		select {
		case <-done:
			t.Fatal("amqp-consume ended before it consumed")
		case <-time.After(5 * time.Millisecond):
		}
	}
	run(t, "", publish, uri, "--exchange=amq.topic", "--routing-key=a.b.c", "--body=found")
	if <-done; got != "found" {
		t.Errorf("amqp-consume printed %q; want found", got)
	}
}

func TestAMQPTools_Refusals(t *testing.T) {
	publish := tool(t, "amqp-publish")
	srv := amqptest.NewServer(t)
	for _, tt := range []struct{ name, url, want string }{
		{"password", strings.Replace(srv.URI(), "guest:guest", "guest:wrong", 1), "ACCESS_REFUSED"},
		{"vhost", base(srv) + "/nowhere", "vhost nowhere not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := try(t, "", publish, "--url="+tt.url, "--routing-key=x", "--body=x")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("amqp-publish: %v, %q; want a failure that says %q", err, out, tt.want)
			}
		})
	}
}

func TestPika_BlockingConnection(t *testing.T) {
	srv := amqptest.NewServer(t)
	want := []string{
		`server-named True`,
		`get a.b False text/plain [('deep', {'list': [1, 'two', True]}), ('n', 1)] b'hello'`,
		`again True b'hello'`,
		`empty (None, None, None)`,
		`unroutable 312 NO_ROUTE b'lost'`,
		`nacked []`,
		`consumed True b'0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19'`,
		`requeued 0`,
		`closed 404 NOT_FOUND - no queue 'missing' in vhost '/'`,
		`cancelled ['mine']`,
		`tx b'2'`,
		`closed True`,
	}
	got := strings.Split(strings.TrimSpace(run(t, "", pika(t), "testdata/clients/blocking.py", base(srv)+"/%2F")), "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("pika's BlockingConnection (-want +got):\n%s", d)
	}
}

func TestPika_SelectConnection(t *testing.T) {
	srv := amqptest.NewServer(t)
	want := []string{
		`declared work 0 0`,
		`consuming worker`,
		`confirmed 51 nacked 0 returned [(312, 'nowhere', b'lost')]`,
		`received True`,
		`[('cancelled', 'worker'), ('deleted', 0)]`,
		`channel closed 404 NOT_FOUND - no queue 'elsewhere' in vhost '/'`,
		`closed 200`,
	}
	got := strings.Split(strings.TrimSpace(run(t, "", pika(t), "testdata/clients/select.py", base(srv)+"/%2F")), "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("pika's SelectConnection (-want +got):\n%s", d)
	}
}
