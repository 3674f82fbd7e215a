package amqp

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// dialFirst does what Dial does up to the AMQP handshake, with the URI's first
// host.
func dialFirst(ctx context.Context, uri string, cfg *Config) (net.Conn, bool, error) {
	p, err := resolveDial(uri, cfg)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := p.config.attempt(ctx)
	defer cancel()
	if _, err := p.config.resolveCredentials(ctx, p.targets[0]); err != nil {
		return nil, false, err
	}
	return dialTransport(ctx, &p.config, p.targets[0])
}

// echo accepts connections and sends back what they say, until the test ends.
func echo(t *testing.T, l net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				io.Copy(nc, nc)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// checkEcho says something over nc and hears it back.
func checkEcho(t *testing.T, nc net.Conn) {
	t.Helper()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := nc.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(nc, b); err != nil || string(b) != "hello" {
		t.Fatalf("heard %q, %v", b, err)
	}
}

func TestDialTransport_TCP(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	echo(t, l)
	for _, cfg := range []*Config{nil, {TCPKeepAlive: -1}, {TCPKeepAlive: time.Minute, TCPUserTimeout: 5 * time.Second}} {
		nc, secure, err := dialFirst(t.Context(), "amqp://"+l.Addr().String(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if secure {
			t.Error("TCP is said to be encrypted")
		}
		checkEcho(t, nc)
		nc.Close()
	}
}

func TestDialTransport_Unix(t *testing.T) {
	dir, err := os.MkdirTemp("", "warren") // t.TempDir is too long for a socket's path on some systems
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "a b@c.sock")
	echo(t, listen(t, "unix", path))
	u := URI{Scheme: SchemeUnix, Path: path}
	nc, secure, err := dialFirst(t.Context(), u.Encode(), &Config{TCPUserTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if secure {
		t.Error("a unix socket is said to be encrypted")
	}
	checkEcho(t, nc)
}

func TestDialTransport_CustomDialer(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	echo(t, l)
	var asked []string
	nc, _, err := dialFirst(t.Context(), "amqp://broker.invalid:77", &Config{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			asked = append(asked, network, addr)
			return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got := strings.Join(asked, " "); got != "tcp broker.invalid:77" {
		t.Errorf("the dialer was asked for %q", got)
	}
	checkEcho(t, nc)
	_, _, err = dialFirst(t.Context(), "amqp://h", &Config{
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, nil }})
	if err == nil {
		t.Error("a dialer that returns nothing passed")
	}
}

func TestDialTransport_Refused(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	_, _, err := dialFirst(t.Context(), "amqp://"+addr, nil)
	var e *DialError
	if !errors.As(err, &e) || e.Op != "connect" || e.Addr != addr || e.Timeout() {
		t.Fatalf("got %#v", err)
	}
}

// stuck is a dialer that returns when its context ends.
func stuck(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, errors.New("gave up")
}

func TestDialTransport_DialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			cfg  Config
			want time.Duration
		}{
			{Config{Dial: stuck}, DefaultDialTimeout},
			{Config{Dial: stuck, DialTimeout: 3 * time.Second}, 3 * time.Second},
			{Config{DialTimeout: 3 * time.Second, Credentials: func(ctx context.Context) (Credentials, error) {
				<-ctx.Done()
				return Credentials{}, ctx.Err()
			}}, 3 * time.Second},
		} {
			start := time.Now()
			_, _, err := dialFirst(t.Context(), "amqp://h", &tt.cfg)
			var e *DialError
			if !errors.As(err, &e) || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Config.DialTimeout") {
				t.Errorf("got %v", err)
			}
			if got := time.Since(start); got != tt.want {
				t.Errorf("took %v, want %v", got, tt.want)
			}
		}
	})
}

func TestDialTransport_ContextBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := &Config{Dial: stuck, DialTimeout: -1}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, _, err := dialFirst(ctx, "amqp://h", cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if _, _, err := dialFirst(ctx, "amqp://h", cfg); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		why := errors.New("shutting down")
		ctx, cancelCause := context.WithCancelCause(t.Context())
		cancelCause(why)
		if _, _, err := dialFirst(ctx, "amqp://h", cfg); !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDialTransport_CredentialsProviderFails(t *testing.T) {
	refused := errors.New("vault is sealed")
	_, _, err := dialFirst(t.Context(), "amqp://h", &Config{
		Credentials: func(context.Context) (Credentials, error) { return Credentials{}, refused },
		Dial: func(context.Context, string, string) (net.Conn, error) {
			t.Error("dialled without credentials")
			return nil, refused
		}})
	if !errors.Is(err, refused) || err.Error() != "amqp: dial h:5672: credentials: vault is sealed" {
		t.Errorf("got %v", err)
	}
}

// Failures of DNS, TCP, TLS and certificates, with a password in the URI.
func TestDialTransport_ErrorsHideThePassword(t *testing.T) {
	password, leaks := secret(t)
	garbage := listen(t, "tcp", "127.0.0.1:0")
	echo(t, garbage)
	closed := listen(t, "tcp", "127.0.0.1:0")
	closed.Close()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, rest := range []string{
		"broker.invalid/v", closed.Addr().String(), "127.0.0.1:1,127.0.0.1:2/v?heartbeat=x", "h/v/w", "h?verify=verify_none",
	} {
		_, _, err := dialFirst(t.Context(), "amqp://user:"+escape(password)+"@"+rest, nil)
		noLeak(t, err, leaks)
	}
	for _, query := range []string{"", "?cacertfile=" + escape(missing), "?certfile=" + escape(missing), "?verify=verify_none"} {
		_, _, err := dialFirst(t.Context(), "amqps://user:"+escape(password)+"@"+garbage.Addr().String()+query, nil)
		noLeak(t, err, leaks)
	}
	_, _, err := dialFirst(t.Context(), "amqp://user:"+escape(password)+"@h", &Config{FrameMax: 1})
	noLeak(t, err, leaks)
	p, err := resolveDial("amqp://user:"+escape(password)+"@h", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(printAll(p), printAll(*p)...) {
		if form := leaks(s); form != "" {
			t.Errorf("%q shows %q", s, form)
		}
	}
}

func noLeak(t *testing.T, err error, leaks func(string) string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
	}
	for _, s := range printAll(err) {
		if form := leaks(s); form != "" {
			t.Errorf("%q shows %q", s, form)
		}
	}
}
