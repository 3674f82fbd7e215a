package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/rpc"
)

// serve runs rpc.Serve on a fresh queue until the test ends or stop is called,
// which waits for the drain.
func serve(t testing.TB, conn *amqp.Conn, queue string, h rpc.Handler, opts *rpc.ServerOptions) (stop func()) {
	t.Helper()
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: queue}); err != nil {
		t.Fatal(err)
	}
	if opts == nil {
		opts = &rpc.ServerOptions{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- rpc.Serve(ctx, ch, queue, h, opts) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func echoHandler(_ context.Context, req *rpc.Request) (*amqp.Message, error) {
	return &amqp.Message{Body: bytes.Clone(req.Body)}, nil
}

func TestServe_TenThousandInFlight(t *testing.T) {
	srv := amqptest.NewServer(t)
	var running atomic.Int32
	release := make(chan struct{})
	serve(t, dial(t, srv), "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
		running.Add(1)
		<-release
		return echoHandler(ctx, req)
	}, &rpc.ServerOptions{Workers: 4})
	c := newClient(t, dial(t, srv), nil)
	const n = 10_000
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			want := fmt.Sprint(i)
			got, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{Body: []byte(want)})
			if err != nil || string(got.Body) != want {
				t.Errorf("got %v, %v; want %s", got, err, want)
			}
		})
	}
	for c.Stats().Calls < n {
		time.Sleep(time.Millisecond)
	}
	if got := running.Load(); got > 4 {
		t.Errorf("%d handlers at once, want 4", got)
	}
	close(release)
	wg.Wait()
}

func TestServe_ErrorsReachTheCaller(t *testing.T) {
	var log bytes.Buffer
	srv := amqptest.NewServer(t)
	var mux rpc.Mux
	mux.Handle("remote", func(context.Context, *rpc.Request) (*amqp.Message, error) {
		return nil, fmt.Errorf("wrapped: %w", &rpc.RemoteError{Code: "teapot", Text: "short and stout", Details: []byte("{}"), ContentType: "application/json"})
	})
	mux.Handle("plain", func(context.Context, *rpc.Request) (*amqp.Message, error) { return nil, errors.New("oops") })
	mux.Handle("panic", func(context.Context, *rpc.Request) (*amqp.Message, error) { panic("secret of the server") })
	mux.Handle("typed", rpc.Typed(func(_ context.Context, n int) (int, error) { return n + 1, nil }))
	mux.Handle("large", func(context.Context, *rpc.Request) (*amqp.Message, error) {
		return &amqp.Message{Body: make([]byte, 17<<20)}, nil
	})
	serve(t, dial(t, srv), "q", mux.Serve, &rpc.ServerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	c := newClient(t, dial(t, srv), nil)
	call := func(typ, contentType, body string) (*amqp.Message, error) {
		return c.Call(t.Context(), rpc.Queue("q"), amqp.Message{Properties: amqp.Properties{Type: typ, ContentType: contentType}, Body: []byte(body)})
	}
	for _, tt := range []struct{ typ, contentType, body, code, text string }{
		{"remote", "", "", "teapot", "short and stout"},
		{"plain", "", "", rpc.CodeInternal, "oops"},
		{"panic", "", "", rpc.CodeInternal, "the handler panicked"},
		{"none", "", "", rpc.CodeNotFound, "none"},
		{"typed", "text/html", "1", rpc.CodeUnsupported, `wanted application/json or application/octet-stream`},
		{"typed", "application/json", "{", rpc.CodeBadRequest, "can't be decoded"},
		{"large", "", "", rpc.CodeTooLarge, "MaxBody"},
	} {
		_, err := call(tt.typ, tt.contentType, tt.body)
		var remote *rpc.RemoteError
		if !errors.As(err, &remote) || remote.Code != tt.code || !strings.Contains(remote.Text, tt.text) {
			t.Errorf("%s: got %v, want %s: %s", tt.typ, err, tt.code, tt.text)
		}
		if remote != nil && tt.typ == "remote" && string(remote.Details) != "{}" {
			t.Errorf("details: got %q", remote.Details)
		}
	}
	if got, err := call("typed", "application/json; charset=utf-8", "41"); err != nil || string(got.Body) != "42" {
		t.Errorf("typed: got %v, %v", got, err)
	}
	if !strings.Contains(log.String(), "secret of the server") || !strings.Contains(log.String(), "server_test.go") {
		t.Errorf("the log has no panic with its stack:\n%s", log.String())
	}
}

func TestServe_CastsAreHandledAndNotAnswered(t *testing.T) {
	srv := amqptest.NewServer(t)
	got := make(chan bool, 1)
	serve(t, dial(t, srv), "q", func(_ context.Context, req *rpc.Request) (*amqp.Message, error) {
		got <- req.WantsReply()
		return nil, errors.New("for nobody")
	}, nil)
	c := newClient(t, dial(t, srv), nil)
	if err := c.Cast(t.Context(), rpc.Queue("q"), amqp.Message{}); err != nil {
		t.Fatal(err)
	}
	if <-got {
		t.Error("a cast wants a reply")
	}
}

func TestServe_StreamsReplies(t *testing.T) {
	srv := amqptest.NewServer(t)
	stopped := make(chan error, 1)
	serve(t, dial(t, srv), "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
		for i := range 5 {
			if err := req.Send(ctx, amqp.Message{Body: fmt.Append(nil, i)}); err != nil {
				stopped <- err
				return nil, err
			}
		}
		if string(req.Body) == "wait" {
			<-ctx.Done()
			stopped <- ctx.Err()
		}
		return &amqp.Message{Body: []byte("end")}, nil
	}, nil)
	c := newClient(t, dial(t, srv), nil)
	var all []string
	for msg, err := range c.Stream(t.Context(), rpc.Queue("q"), amqp.Message{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(msg.Body))
	}
	if got := strings.Join(all, " "); got != "0 1 2 3 4 end" {
		t.Errorf("got %s", got)
	}
	for range c.Stream(t.Context(), rpc.Queue("q"), amqp.Message{Body: []byte("wait")}) {
		break // tells the server
	}
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler's context: %v", err)
	}
	if _, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{}); !errors.As(err, new(*rpc.RemoteError)) {
		t.Errorf("a stream to a caller of one: got %v", err)
	}
}

func TestServe_DeadlinesAndCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := dial(t, srv)
		type end struct {
			err  error
			took time.Duration
		}
		ends := make(chan end, 10)
		var begun atomic.Int32
		stop := serve(t, conn, "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
			begun.Add(1)
			start := time.Now()
			<-ctx.Done()
			ends <- end{ctx.Err(), time.Since(start)}
			return nil, ctx.Err()
		}, &rpc.ServerOptions{Workers: 1, Prefetch: 10})
		c := rpc.NewClient(conn, nil)

		// The first takes its whole time, and the handler's context ends with it.
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, err := c.Call(ctx, rpc.Queue("q"), amqp.Message{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
		if e := <-ends; e.took < 1900*time.Millisecond || e.took > 2*time.Second {
			t.Errorf("the handler had %v", e.took)
		}

		// Callers give up: those whose turn has not come are not begun, and the
		// handler of one that runs hears of it at once.
		var wg sync.WaitGroup
		call := func() context.CancelFunc {
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				if _, err := c.Call(ctx, rpc.Queue("q"), amqp.Message{}); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
			time.Sleep(time.Second)
			return cancel
		}
		running, waiting1, waiting2 := call(), call(), call()
		waiting1()
		waiting2()
		time.Sleep(time.Second)
		running()
		wg.Wait()
		if e := <-ends; !errors.Is(e.err, context.Canceled) {
			t.Errorf("the handler's context: %v", e.err)
		}
		time.Sleep(time.Second)
		if n := begun.Load(); n != 2 {
			t.Errorf("%d requests were begun, want 2", n)
		}
		if s := c.Stats(); s.Pending != 0 {
			t.Errorf("stats: %+v", s)
		}
		stop()
		c.Close(t.Context())
		conn.Close()
	})
}

func TestServe_CallerGoneIsNoError(t *testing.T) {
	srv := amqptest.NewServer(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	stop := serve(t, dial(t, srv), "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
		begun <- struct{}{}
		<-goOn
		return echoHandler(ctx, req)
	}, &rpc.ServerOptions{ConfirmReplies: true})
	conn := dial(t, srv)
	c := newClient(t, conn, nil)
	go c.Call(context.Background(), rpc.Queue("q"), amqp.Message{})
	<-begun
	conn.Close()
	close(goOn)
	// The server lives, and the request is not handled again.
	c2 := newClient(t, dial(t, srv), nil)
	go func() { <-begun }()
	if _, err := c2.Call(t.Context(), rpc.Queue("q"), amqp.Message{}); err != nil {
		t.Fatal(err)
	}
	stop()
}

func TestServe_DrainsOnShutdown(t *testing.T) {
	srv := amqptest.NewServer(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	stop := serve(t, dial(t, srv), "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
		close(begun)
		<-goOn
		return echoHandler(ctx, req)
	}, nil)
	c := newClient(t, dial(t, srv), nil)
	got := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{})
		got <- err
	}()
	<-begun
	go func() {
		time.Sleep(10 * time.Millisecond)
		close(goOn)
	}()
	stop()
	if err := <-got; err != nil {
		t.Errorf("a call that was being handled: %v", err)
	}
}
