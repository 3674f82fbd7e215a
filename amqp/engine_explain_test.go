package amqp

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// handshake feeds a client engine what a broker says, until the broker hangs
// up, and returns what the engine makes of it.
func handshake(t *testing.T, cfg EngineConfig, says ...Method) error {
	t.Helper()
	e := NewEngine(cfg)
	for _, m := range says {
		b, err := m.AppendTo([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
		if err != nil {
			t.Fatal(err)
		}
		n, id := len(b)-7, m.MethodID()
		b[5], b[6] = byte(n>>8), byte(n)
		b[7], b[8], b[9], b[10] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		if err := e.Feed(time.Unix(1, 0), append(b, FrameEnd)); err != nil {
			return err
		}
		for {
			ev, ok := e.Next()
			if !ok {
				break
			}
			if ev.Kind == EventClosed {
				return ev.Err
			}
		}
		drain(e)
	}
	e.EOF(io.EOF)
	for {
		ev, ok := e.Next()
		if !ok {
			t.Fatal("the engine took the end of the stream for granted")
		}
		if ev.Kind == EventClosed {
			return ev.Err
		}
	}
}

func TestEngine_ExplainsRefusedHandshakes(t *testing.T) {
	password, leaks := secret(t)
	start := &ConnectionStart{VersionMinor: 9, Mechanisms: "PLAIN", Locales: "en_US"}
	tune := &ConnectionTune{ChannelMax: 2047, FrameMax: 131072, Heartbeat: 60}
	user := func(name string) SASLInfo {
		return SASLInfo{Credentials: &Credentials{Username: name, Password: password}}
	}
	refused := &ConnectionClose{ReplyCode: AccessRefused, ReplyText: "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."}
	noVHost := func(v string) *ConnectionClose {
		return &ConnectionClose{ReplyCode: NotAllowed, ReplyText: "NOT_ALLOWED - vhost " + v + " not found", FailedClass: 10, FailedMethod: 40}
	}
	for _, tt := range []struct {
		name string
		cfg  EngineConfig
		says []Method
		is   error
		want string // part of the text
		not  string
	}{
		{"nothing said", EngineConfig{SASLInfo: user("u")}, nil, io.EOF, "before it said anything: the port may be the one for TLS", ""},
		{"nothing said over TLS", EngineConfig{SASLInfo: SASLInfo{TLS: true}}, nil, io.EOF, "client certificate", "amqps"},
		{"no mechanism", EngineConfig{SASL: []SASL{SASLAMQPlain()}, SASLInfo: user("u")}, []Method{start}, nil, `the broker offers ["PLAIN"]`, ""},
		{"refused", EngineConfig{SASLInfo: user("u")}, []Method{start, refused}, AccessRefused, "403 ACCESS_REFUSED - Login was refused", "localhost"},
		{"guest refused", EngineConfig{SASLInfo: user("guest")}, []Method{start, refused}, AccessRefused, `"guest" in from localhost only`, ""},
		{"refused in silence", EngineConfig{SASLInfo: user("u")}, []Method{start}, io.EOF, `refused the credentials of user "u"`, "octets"},
		{"start-ok too long", EngineConfig{SASLInfo: user("u"), Name: "n", Properties: Table{"x": strings.Repeat("y", 5000)}}, []Method{start}, io.EOF, "connection.start-ok is too long", ""},
		{"frame_max", EngineConfig{VHost: "/", FrameMax: 4096, SASLInfo: user("u")}, []Method{start, tune}, io.EOF, "RabbitMQ 4.3 does that for a frame_max below 8192, and this one is 4096", ""},
		{"after open", EngineConfig{VHost: "v", SASLInfo: user("u")}, []Method{start, tune}, io.EOF, `vhost "v"`, "8192"},
		{"no such vhost", EngineConfig{VHost: "nope", SASLInfo: user("u")}, []Method{start, tune, noVHost("nope")}, NotAllowed, "530 NOT_ALLOWED - vhost nope not found", "amqp://host/"},
		{"the vhost without a name", EngineConfig{VHost: "", SASLInfo: user("u")}, []Method{start, tune, noVHost("")}, NotAllowed, "amqp://host/ ", ""},
	} {
		err := handshake(t, tt.cfg, tt.says...)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) ||
			tt.not != "" && strings.Contains(err.Error(), tt.not) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		for _, s := range printAll(err) {
			if form := leaks(s); form != "" {
				t.Errorf("%s: %q shows %q", tt.name, s, form)
			}
		}
	}
}
