//go:build integration

package rpc_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/internal/rabbittest"
	"github.com/warrenmq/warren/rpc"
)

// python is an interpreter that has pika. Under CI it must be there.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(name, "-c", "import pika").Run() == nil {
			return name
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("python3-pika is not installed")
	}
	t.Skip("python3-pika is not installed")
	return ""
}

// brokers are the URLs that the tests with pika run on.
func brokers(t *testing.T) map[string]string {
	return map[string]string{"amqptest": amqptest.NewServer(t).URI(), "RabbitMQ": rabbittest.URL(t)}
}

// patiently is a context for what has to end well, on however slow a machine.
func patiently(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, url string) *amqp.Conn {
	t.Helper()
	conn, err := amqp.Dial(patiently(t), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestPika_CallsOurServer(t *testing.T) {
	py := python(t)
	for name, url := range brokers(t) {
		t.Run(name, func(t *testing.T) {
			serve(t, open(t, url), "doubler", rpc.Typed(func(ctx context.Context, n int) (int, error) {
				if _, ok := ctx.Deadline(); !ok {
					return 0, errors.New("the time left did not arrive")
				}
				return 2 * n, nil
			}), nil)
			for _, tt := range []struct{ body, contentType, want string }{
				{"21", "", "ok  42"},
				{"21", "application/json", "ok  42"},
				{"x", "", rpc.CodeBadRequest},
				{"21", "text/html", rpc.CodeUnsupported},
			} {
				var out, complaints bytes.Buffer
				cmd := exec.CommandContext(patiently(t), py, "testdata/call.py", strings.TrimSuffix(url, "/")+"/%2F", "doubler", tt.body, tt.contentType)
				cmd.Stdout, cmd.Stderr = &out, &complaints
				if err := cmd.Run(); err != nil || !strings.HasPrefix(out.String(), tt.want) {
					t.Errorf("%s as %q: got %q, %v, want %s\n%s", tt.body, tt.contentType, out.String(), err, tt.want, complaints.String())
				}
			}
		})
	}
}

func TestPika_ServesOurClient(t *testing.T) {
	py := python(t)
	for name, url := range brokers(t) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, py, "testdata/serve.py", strings.TrimSuffix(url, "/")+"/%2F", "pika")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cmd.Process.Kill()
				cmd.Wait()
			}()
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatalf("serve.py said %q, %v", line, err)
			}
			c := newClient(t, open(t, url), nil)
			if n, err := rpc.Call[int](ctx, c, rpc.Queue("pika"), 21); err != nil || n != 42 {
				t.Errorf("got %d, %v", n, err)
			}
			reply, err := c.Call(ctx, rpc.Queue("pika"), amqp.Message{Body: []byte("1")})
			if err != nil || reply.Headers["saw-timeout"] != true {
				t.Errorf("got %v, %v", reply, err)
			}
			if _, err := rpc.Call[int](ctx, c, rpc.Queue("pika"), "x"); !errors.Is(err, &rpc.RemoteError{Code: "bad-request"}) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRPC_SmokeOnRabbitMQ(t *testing.T) {
	url := rabbittest.URL(t)
	for name, q := range map[string]rpc.ReplyQueue{
		"direct": {}, "exclusive": {Exclusive: true}, "durable": {Name: "rpc-replies", Expires: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := patiently(t)
			queue := "rpc-smoke-" + name
			var mux rpc.Mux
			mux.Handle("echo", echoHandler)
			mux.Handle("panic", func(context.Context, *rpc.Request) (*amqp.Message, error) { panic("x") })
			mux.Handle("stream", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
				for i := range 3 {
					if err := req.Send(ctx, amqp.Message{Body: fmt.Append(nil, i)}); err != nil {
						return nil, err
					}
				}
				return &amqp.Message{Body: []byte("end")}, nil
			})
			stopped := make(chan error, 10)
			given, cancel := context.WithCancel(ctx)
			mux.Handle("hang", func(ctx context.Context, _ *rpc.Request) (*amqp.Message, error) {
				cancel() // the call's: it is here
				<-ctx.Done()
				stopped <- ctx.Err()
				return nil, ctx.Err()
			})
			serve(t, open(t, url), queue, mux.Serve, &rpc.ServerOptions{ConfirmReplies: true})
			c := newClient(t, open(t, url), &rpc.ClientOptions{ReplyQueue: q})
			call := func(ctx context.Context, typ, body string) (*amqp.Message, error) {
				return c.Call(ctx, rpc.Queue(queue), amqp.Message{Properties: amqp.Properties{Type: typ}, Body: []byte(body)})
			}
			var wg sync.WaitGroup
			for g := range 16 {
				wg.Go(func() {
					for i := range 20 {
						want := fmt.Sprintf("%d/%d", g, i)
						if got, err := call(ctx, "echo", want); err != nil || string(got.Body) != want {
							t.Errorf("got %v, %v; want %s", got, err, want)
							return
						}
					}
				})
			}
			wg.Wait()
			if _, err := call(ctx, "panic", ""); !errors.Is(err, &rpc.RemoteError{Code: rpc.CodeInternal}) {
				t.Errorf("panic: got %v", err)
			}
			var parts []string
			for msg, err := range c.Stream(ctx, rpc.Queue(queue), amqp.Message{Properties: amqp.Properties{Type: "stream"}}) {
				if err != nil {
					t.Fatal(err)
				}
				parts = append(parts, string(msg.Body))
			}
			if got := strings.Join(parts, " "); got != "0 1 2 end" {
				t.Errorf("stream: got %s", got)
			}
			if _, err := call(given, "hang", ""); !errors.Is(err, context.Canceled) {
				t.Errorf("hang: got %v", err)
			}
			select {
			case err := <-stopped:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("the handler's context: %v", err)
				}
			case <-ctx.Done():
				t.Error("the handler's context goes on")
			}
			if _, err := c.Call(ctx, rpc.Queue("nobody-serves-this"), amqp.Message{}); !errors.Is(err, rpc.ErrNoServer) {
				t.Errorf("no server: got %v", err)
			}
		})
	}
}

// A node restarts under a client and a server that go on over lost
// connections: calls of before end with the truth, and calls of after work.
func TestRPC_ThroughANodeRestart(t *testing.T) {
	b := rabbittest.Start(t, rabbittest.Options{})
	newAMQP := func() *amqp.Client {
		c, err := amqp.NewClient(b.URL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	serving, calling := newAMQP(), newAMQP()
	ch, err := serving.Channel(patiently(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: "q", Durable: true}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- rpc.Serve(ctx, serving, "q", echoHandler, &rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	}()
	c := rpc.NewClient(calling, nil)
	defer c.Close(context.Background())
	call := func(body string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got, err := c.Call(ctx, rpc.To{RoutingKey: "q", Idempotent: true}, amqp.Message{Body: []byte(body)})
		if err == nil && string(got.Body) != body {
			err = fmt.Errorf("got %q, want %q", got.Body, body)
		}
		return err
	}
	if err := call("before"); err != nil {
		t.Fatal(err)
	}
	b.Restart(t)
	var last error
	for try := range 60 {
		if last = call(fmt.Sprint("after ", try)); last == nil {
			break
		}
		time.Sleep(time.Second)
	}
	if last != nil {
		t.Errorf("after the restart: %v", last)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
