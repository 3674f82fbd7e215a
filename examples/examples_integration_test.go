//go:build integration

package examples

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warrenmq/warren/examples/internal/exampletest"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// bin is where TestMain puts the examples' programs.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if bin, err = os.MkdirTemp("", "warren-examples"); err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(bin) }()
		if out, err := exec.Command("go", "build", "-o", bin, "./...").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
			return 1
		}
		return rabbittest.Main(m)
	}())
}

// command is an example's program. The examples name their queues and exchanges
// each its own way, so that they can share a virtual host.
func command(ctx context.Context, uri, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // as Ctrl-C does
	cmd.WaitDelay = 20 * time.Second                                      // who does not listen is killed
	cmd.Env = append(os.Environ(), "AMQP_URL="+uri)
	return cmd
}

// start runs a program until Stop.
func start(t *testing.T, uri, name string, args ...string) *exampletest.Process {
	t.Helper()
	return exampletest.Start(t, func(ctx context.Context, out io.Writer) error {
		cmd := command(ctx, uri, name, args...)
		cmd.Stdout, cmd.Stderr = out, out
		// A program that ends well after Ctrl-C ends without an error, but Wait
		// gives the context's.
		if err := cmd.Run(); cmd.ProcessState == nil || !cmd.ProcessState.Success() {
			return err
		}
		return nil
	})
}

// run runs a program to its end and returns what it printed.
func run(t *testing.T, uri, name string, args ...string) string {
	t.Helper()
	out, err := try(t, uri, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// try is run for a program that may fail.
func try(t *testing.T, uri, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := command(ctx, uri, name, args...).CombinedOutput()
	return string(out), err
}

func TestExamples_Hello(t *testing.T) {
	uri := rabbittest.Shared(t).URL()
	run(t, uri, "hello", "send", "Hello, Warren")
	receiver := start(t, uri, "hello", "receive")
	receiver.Await(`received "Hello, Warren"`)
	receiver.Stop()
}

func TestExamples_Workqueue(t *testing.T) {
	uri := rabbittest.Shared(t).URL()
	run(t, uri, "workqueue", "task", "slow ......") // for as long as all that follows takes
	first := start(t, uri, "workqueue", "worker")
	first.Await("slow ......: 6s of work")
	second := start(t, uri, "workqueue", "worker")
	for _, task := range []string{"a", "b", "c"} {
		run(t, uri, "workqueue", "task", task)
	}
	second.Await("c: done")
	first.Stop()
	second.Stop()
	if out := first.Output(); !strings.Contains(out, "slow ......: done") {
		t.Errorf("the first worker did not finish its task: %q", out)
	}
}

func TestExamples_Pubsub(t *testing.T) {
	uri := rabbittest.Shared(t).URL()
	a, b := start(t, uri, "pubsub", "listen"), start(t, uri, "pubsub", "listen")
	a.Await("listening")
	b.Await("listening")
	run(t, uri, "pubsub", "announce", "Dinner is served")
	a.Await("Dinner is served")
	b.Await("Dinner is served")
}

func TestExamples_Routing(t *testing.T) {
	uri := rabbittest.Shared(t).URL()
	both, fire := start(t, uri, "routing", "watch", "fire", "flood"), start(t, uri, "routing", "watch", "fire")
	both.Await("watching")
	fire.Await("watching")
	run(t, uri, "routing", "alarm", "flood", "cellar")
	run(t, uri, "routing", "alarm", "fire", "kitchen")
	both.Await("flood: cellar\nfire: kitchen\n")
	fire.Await("watching\nfire: kitchen\n")
	out, err := try(t, uri, "routing", "alarm", "locusts", "everywhere")
	if err == nil || !strings.Contains(out, "nobody watches for that: locusts") {
		t.Errorf("an alarm that nobody watches for: %v, %q", err, out)
	}
}

func TestExamples_Topics(t *testing.T) {
	uri := rabbittest.Shared(t).URL()
	f := start(t, uri, "topics", "follow", "*.attic.*", "garden.#")
	f.Await("following")
	for _, topic := range []string{"house.attic.light", "house.cellar.light", "garden.pond.ph", "garden"} {
		run(t, uri, "topics", "report", topic, "1")
	}
	f.Await("following\nhouse.attic.light = 1\ngarden.pond.ph = 1\ngarden = 1\n")
}

func TestExamples_Confirms(t *testing.T) {
	out := run(t, rabbittest.Shared(t).URL(), "confirms")
	for _, want := range []string{"2000 confirmed one by one", "2000 confirmed as a stream", "one to nowhere: returned"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

func TestExamples_Reconnect(t *testing.T) {
	b := rabbittest.Shared(t)
	p := start(t, b.URL(), "reconnect")
	p.Await("handled order 2\n")
	b.CloseAllConnections(t, "seeded")
	p.Await("connection lost")
	p.Await("handled order 8\n")
	p.Stop()
	p.Await("shut down")
}

func TestExamples_TLS(t *testing.T) {
	b := rabbittest.Shared(t)
	files := b.Certs().Write(t)
	const want = "over TLS: \"for my eyes only\"\n"
	if got := run(t, b.TLSURL(), "tls", "-ca", files.CA); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// By certificate alone: the URI names no user.
	uri := strings.Replace(b.TLSURL(), "guest:guest@", "", 1)
	if got := run(t, uri, "tls", "-ca", files.CA, "-cert", files.ClientCert, "-key", files.ClientKey); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExamples_UnixSocket(t *testing.T) {
	b := rabbittest.Shared(t)
	path := rabbittest.UnixSocket(t, b.Addr())
	if got, want := run(t, "amqp+unix://"+path, "unixsocket"), "over a socket: \"from next door\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExamples_Readme(t *testing.T) {
	if got, want := run(t, rabbittest.Shared(t).URL(), "readme"), "hello\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExamples_RPC(t *testing.T) {
	uri := rabbittest.Shared(t).URL()
	server := start(t, uri, "rpc", "serve")
	server.Await("awaiting requests")
	if got, want := run(t, uri, "rpc", "call", "19"), "fib(19) = 4181\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	server.Stop()
}

func TestExamples_Engine(t *testing.T) {
	got := run(t, rabbittest.Shared(t).URL(), "engine")
	if want := "1000 published, confirmed and received\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExamples_Demo(t *testing.T) {
	out := run(t, rabbittest.Shared(t).URL(), "demo", "-n", "5000")
	for _, want := range []string{"connected   RabbitMQ", "published   5000", "consumed    5000", "returned    1 message"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
