//go:build integration

package amqp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// mustTalk sends a message around and closes the connection in good order.
func mustTalk(t *testing.T, c *amqp.Conn) {
	t.Helper()
	ch := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "hello")
	if d := mustGet(t, ch, q); string(d.Body) != "hello" {
		t.Errorf("got %q", d.Body)
	}
	noError(t, c.Close())
	mustEnd(t, "Done after Close", c.Done())
	noError(t, c.Err())
}

func TestDial_TCP(t *testing.T) {
	b := rabbittest.Shared(t)
	c := mustDial(t, nil)
	p := c.ServerProperties()
	if p["product"] != "RabbitMQ" || p["version"] != b.Version() {
		t.Errorf("the broker is %v %v", p["product"], p["version"])
	}
	mustTalk(t, c)
}

func TestDial_TLS(t *testing.T) {
	b := rabbittest.Shared(t)
	mustTalk(t, mustDialURL(t, b.TLSURL(), &amqp.Config{TLS: b.ClientTLS(false)}))

	files := b.Certs().Write(t)
	mustTalk(t, mustDialURL(t, b.TLSURL()+"?cacertfile="+url.QueryEscape(files.CA), nil))
	mustTalk(t, mustDialURL(t, b.TLSURL(), &amqp.Config{TLSFiles: amqp.TLSFiles{CA: files.CA}}))

	var de *amqp.DialError
	_, err := amqp.Dial(patiently(t), b.TLSURL(), nil)
	if !errors.As(err, &de) {
		t.Errorf("an authority that nobody trusts: got %v", err)
	}
	_, err = amqp.Dial(patiently(t), b.TLSURL()+"?server_name_indication=example.org", &amqp.Config{TLS: b.ClientTLS(false)})
	if !errors.As(err, &de) || !strings.Contains(fmt.Sprint(err), "example.org") {
		t.Errorf("another server's name: got %v", err)
	}
	_, err = amqp.Dial(patiently(t), strings.Replace(b.URL(), "amqp:", "amqps:", 1), &amqp.Config{TLS: b.ClientTLS(false)})
	if err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("TLS to the plain port: got %v", err)
	}
}

func TestDial_MutualTLSAndExternal(t *testing.T) {
	b := rabbittest.Shared(t)
	var mechanism string
	trace := &amqp.Trace{Handshake: func(_ context.Context, h amqp.HandshakeInfo) { mechanism = h.Mechanism }}
	// The certificate says who it is; the URI's user is nobody.
	uri := "amqps://nobody:nothing@" + b.TLSAddr() + "/%2F"
	external := []amqp.SASL{amqp.SASLExternal()}
	mustTalk(t, mustDialURL(t, uri, &amqp.Config{TLS: b.ClientTLS(true), SASL: external, Trace: trace}))
	if mechanism != "EXTERNAL" {
		t.Errorf("mechanism %q", mechanism)
	}

	files := b.Certs().Write(t)
	q := url.Values{"auth_mechanism": {"external"}, "cacertfile": {files.CA}, "certfile": {files.ClientCert}, "keyfile": {files.ClientKey}}
	mustTalk(t, mustDialURL(t, uri+"?"+q.Encode(), nil))

	if _, err := amqp.Dial(patiently(t), uri, &amqp.Config{TLS: b.ClientTLS(false), SASL: external}); err == nil {
		t.Error("EXTERNAL without a certificate got in")
	}
	var se *amqp.SASLError
	if _, err := amqp.Dial(patiently(t), b.URL(), &amqp.Config{SASL: external}); !errors.As(err, &se) {
		t.Errorf("EXTERNAL without TLS: got %v", err)
	}
}

func TestDial_UnixSocket(t *testing.T) {
	b := rabbittest.Shared(t)
	path := rabbittest.UnixSocket(t, b.Addr())
	mustTalk(t, mustDialURL(t, "amqp+unix://guest:guest@"+path, nil))
	mustTalk(t, mustDialURL(t, "amqp+unix://guest:guest@"+path+"?vhost=%2F", nil))
}

func TestDial_IPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	noError(t, l.Close())
	p := rabbittest.NewProxy(t, "tcp", "[::1]:0", rabbittest.Shared(t).Addr())
	mustTalk(t, mustDialURL(t, "amqp://"+p.Addr(), nil))
}

func TestDial_SeveralHosts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	noError(t, l.Close())
	for range 4 { // it begins anywhere
		mustTalk(t, mustDialURL(t, "amqp://"+dead+","+rabbittest.Shared(t).Addr(), nil))
	}
}

// TestNewConn_AnyStream speaks AMQP over streams that this library did not make
// and that have no file descriptor of their own.
func TestNewConn_AnyStream(t *testing.T) {
	b := rabbittest.Shared(t)
	streams := map[string]func(t *testing.T) net.Conn{
		"pipe": func(t *testing.T) net.Conn {
			near, far := net.Pipe()
			broker := dialRaw(t, "tcp", b.Addr())
			go func() { _, _ = io.Copy(broker, far); broker.Close() }()
			go func() { _, _ = io.Copy(far, broker); far.Close() }()
			return near
		},
		"tls": func(t *testing.T) net.Conn {
			conf := b.ClientTLS(false)
			conf.ServerName = "localhost"
			return tls.Client(dialRaw(t, "tcp", b.TLSAddr()), conf)
		},
		"unix": func(t *testing.T) net.Conn { return dialRaw(t, "unix", rabbittest.UnixSocket(t, b.Addr())) },
		"tcp":  func(t *testing.T) net.Conn { return dialRaw(t, "tcp", b.Addr()) },
	}
	for name, stream := range streams {
		t.Run(name, func(t *testing.T) {
			c, err := amqp.NewConn(patiently(t), stream(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ch := mustOpen(t, c)
			q := exclusiveQueue(t, ch, nil)
			big := strings.Repeat("0123456789", 30_000) // some frames long
			mustPut(t, ch, q, big)
			if d := mustGet(t, ch, q); string(d.Body) != big {
				t.Errorf("%d octets came back, or others", len(d.Body))
			}
			mustTalk(t, c)
		})
	}
}

func dialRaw(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func TestDial_VHosts(t *testing.T) {
	b := rabbittest.Shared(t)
	base := "amqp://guest:guest@" + b.Addr()
	other := b.NewVHost(t)
	odd := b.AddVHost(t, unique("a/b é%"))
	for _, uri := range []string{base, base + "/%2F", base + "/%2f", other, odd} {
		mustTalk(t, mustDialURL(t, uri, nil))
	}
	mustTalk(t, mustDialURL(t, base+"/nowhere", &amqp.Config{VHost: "/"})) // set fields win over the URI

	_, err := amqp.Dial(patiently(t), base+"/", nil)
	wantCode(t, err, amqp.NotAllowed)
	if !strings.Contains(err.Error(), "%2F") {
		t.Errorf("the error does not say how \"/\" is written: %v", err)
	}
	_, err = amqp.Dial(patiently(t), base+"/nowhere", nil)
	if ex := wantCode(t, err, amqp.NotAllowed); !strings.Contains(ex.Text, "nowhere") {
		t.Errorf("text %q", ex.Text)
	}
}

// TestDial_WhatIsNegotiated looks at both ends of the same connections.
func TestDial_WhatIsNegotiated(t *testing.T) {
	b := rabbittest.Shared(t)
	var got amqp.HandshakeInfo
	trace := &amqp.Trace{Handshake: func(_ context.Context, h amqp.HandshakeInfo) { got = h }}
	name := unique("negotiated")
	mustDialURL(t, b.URL()+"?heartbeat=7&frame_max=16384&channel_max=33", &amqp.Config{Name: name, Trace: trace})
	if got.Heartbeat != 7*time.Second || got.FrameMax != 16384 || got.ChannelMax != 33 || got.Mechanism != "PLAIN" {
		t.Errorf("URI: %+v", got)
	}
	mustDialURL(t, b.URL()+"?heartbeat=0", &amqp.Config{Name: name + "-off", Trace: trace})
	if got.Heartbeat != 0 {
		t.Errorf("heartbeat %v, wanted none", got.Heartbeat)
	}
	mustDialURL(t, b.URL()+"?heartbeat=7&frame_max=16384&channel_max=33&auth_mechanism=amqplain", &amqp.Config{
		Name: name + "-cfg", Trace: trace, Heartbeat: 5 * time.Second, FrameMax: 32768, ChannelMax: 44,
	})
	if got.Heartbeat != 5*time.Second || got.FrameMax != 32768 || got.ChannelMax != 44 || got.Mechanism != "AMQPLAIN" {
		t.Errorf("Config over URI: %+v", got)
	}

	seen := make(map[string]string)
	out := b.Ctl(t, "list_connections", "--no-table-headers", "user", "vhost", "auth_mechanism", "timeout", "frame_max", "channel_max", "client_properties")
	called := regexp.MustCompile(`^(.*)\t[^\t]*"connection_name","` + name + `(.*?)"`)
	for line := range strings.Lines(out) {
		if m := called.FindStringSubmatch(line); m != nil {
			seen[m[2]] = m[1]
		}
	}
	want := map[string]string{
		"":     "guest\t/\tPLAIN\t7\t16384\t33",
		"-off": "guest\t/\tPLAIN\t0\t131072\t2047",
		"-cfg": "guest\t/\tAMQPLAIN\t5\t32768\t44",
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("what the broker lists (-want +got):\n%s", diff)
	}
}

func TestDial_ChannelMax(t *testing.T) {
	c := mustDialURL(t, rabbittest.Shared(t).URL()+"?channel_max=3", nil)
	chs := []*amqp.Channel{mustOpen(t, c), mustOpen(t, c), mustOpen(t, c)}
	_, err := c.Channel(patiently(t))
	wantErr(t, err, amqp.NotAllowed)
	noError(t, chs[1].Close(patiently(t)))
	if ch := mustOpen(t, c); ch.Number() != 2 {
		t.Errorf("channel %d, where 2 was free", ch.Number())
	}
	if n := c.Stats().Channels; n != 3 {
		t.Errorf("%d channels open", n)
	}
}

// TestDial_FrameMaxTooSmall: below 8192 RabbitMQ 4.3 hangs up without a word, and 4.0 does not mind.
func TestDial_FrameMaxTooSmall(t *testing.T) {
	b := rabbittest.Shared(t)
	c, err := amqp.Dial(patiently(t), b.URL(), &amqp.Config{FrameMax: 4096})
	if b.AtLeast(4, 3) {
		if err == nil || !strings.Contains(err.Error(), "frame_max") || !strings.Contains(err.Error(), "8192") {
			t.Errorf("the error does not name the cause: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	mustTalk(t, c)
}

func TestDial_Refusals(t *testing.T) {
	b := rabbittest.Shared(t)
	for _, mechanism := range []string{"plain", "amqplain"} {
		_, err := amqp.Dial(patiently(t), "amqp://nobody:s3cret@"+b.Addr()+"?auth_mechanism="+mechanism, nil)
		wantCode(t, err, amqp.AccessRefused)
		if strings.Contains(fmt.Sprintf("%+v %#v", err, err), "s3cret") {
			t.Errorf("the error tells the password: %+v", err)
		}
	}

	user := unique("rabbit")
	b.AddUser(t, user, "p@ss/w:rd é")
	uri := b.URLFor(user, "p@ss/w:rd é", "/")
	_, err := amqp.Dial(patiently(t), uri, nil)
	if ex := wantCode(t, err, amqp.NotAllowed); !strings.Contains(ex.Text, user) {
		t.Errorf("text %q", ex.Text)
	}

	b.SetPermissions(t, user, "/", "^own", "^own", "^own")
	c := mustDialURL(t, uri, nil)
	_, err = mustOpen(t, c).QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: "others", Exclusive: true})
	wantCode(t, err, amqp.AccessRefused)
	ch := mustOpen(t, c)
	_, err = ch.QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: "own", Exclusive: true})
	noError(t, err)
	err = ch.Publish(patiently(t), amqp.BasicPublish{Exchange: "amq.fanout"}, amqp.Message{})
	wantCode(t, err, amqp.AccessRefused)
	_, err = mustOpen(t, c).QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: "own2", Exclusive: true})
	noError(t, err)
}

func TestDial_CredentialsAreAskedForAfresh(t *testing.T) {
	b := rabbittest.Shared(t)
	asked := 0
	cfg := &amqp.Config{Credentials: func(context.Context) (amqp.Credentials, error) {
		asked++
		return amqp.Credentials{Username: "guest", Password: "guest"}, nil
	}}
	for range 2 {
		mustTalk(t, mustDialURL(t, "amqp://nobody:nothing@"+b.Addr(), cfg))
	}
	if asked != 2 {
		t.Errorf("asked %d times for 2 connections", asked)
	}
}

func TestConn_UpdateSecret(t *testing.T) {
	c := mustDial(t, nil)
	noError(t, c.UpdateSecret(patiently(t), "guest", "renewed"))
	mustLive(t, c)
}

func TestDial_ContextEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = amqp.Dial(briefly(t), "amqp://"+l.Addr().String(), nil)
	wantErr(t, err, context.DeadlineExceeded)
	_, err = amqp.Dial(patiently(t), "amqp://"+l.Addr().String(), &amqp.Config{DialTimeout: 200 * time.Millisecond})
	wantErr(t, err, context.DeadlineExceeded)
}
