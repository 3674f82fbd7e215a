package amqp

import (
	"errors"
	"strings"
	"testing"
)

// foreign are beginnings of other protocols and what errors call them.
var foreign = []struct{ in, name, advice string }{
	{"HTTP/1.1 400 Bad Request\r\n", "an HTTP response", "HTTP port (RabbitMQ's management is on 15672) or a proxy?"},
	{"GET / HTTP/1.1\r\n", "an HTTP request", "port of an AMQP broker?"},
	{"PRI * HTTP/2.0\r\n", "an HTTP request", "port of an AMQP broker?"},
	{"\x15\x03\x01\x00\x02\x02\x46", "a TLS alert", "speaks TLS, use amqps://"},
	{"\x16\x03\x01\x02\x00\x01\x00\x01", "a TLS handshake", "speaks TLS, use amqps://"},
	{"AMQP\x01\x01\x08\x00", "the protocol header of AMQP 0-8", "does not speak AMQP 0-9-1"},
	{"AMQP\x01\x01\x00\x09", "the protocol header of AMQP 0-9", "does not speak AMQP 0-9-1"},
	{"AMQP\x01\x01\x00\x0a", "the protocol header of AMQP 0-10", "does not speak AMQP 0-9-1"},
	{"AMQP\x00\x01\x00\x00", "the protocol header of AMQP 1.0", "does not speak AMQP 0-9-1"},
	{"AMQP\x02\x01\x00\x00", "the protocol header of AMQP 1.0 over TLS", "does not speak AMQP 0-9-1"},
	{"AMQP\x03\x01\x00\x00", "the protocol header of AMQP 1.0 with SASL", "does not speak AMQP 0-9-1"},
	{"AMQP\x07\x00\xff\x09", "the protocol header of an unknown AMQP version (7-0-255-9)", "does not speak AMQP 0-9-1"},
	{"SSH-2.0-OpenSSH_9.6\r\n", "an SSH banner", "port of an AMQP broker?"},
	{"\x20\x02\x00\x05\x00\x00\x00\x00", "an MQTT CONNACK", "port of an AMQP broker?"},
	{"-ERR unknown command\r\n", `the bytes "-ERR unk"`, "port of an AMQP broker?"},
	{"\x00\xff\xce\x00\x00\x00\x00\x00", `the bytes "\x00\xff\xce\x00\x00\x00\x00\x00"`, "port of an AMQP broker?"},
}

func TestHello_ClientNamesStrangers(t *testing.T) {
	for _, c := range foreign {
		ok, err := checkFirstFrame([]byte(c.in), true)
		want := "the server answered with " + c.name + " instead of connection.start"
		if ok || err == nil || !errors.Is(err, FrameError) ||
			!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), c.advice) {
			t.Errorf("%q: got %v, %v; want it to say %q and %q", c.in, ok, err, want, c.advice)
		}
	}
	_, err := checkFirstFrame([]byte(protocolHeader), false)
	if err == nil || !strings.Contains(err.Error(), "refused AMQP 0-9-1's own protocol header") {
		t.Errorf("its own header: %v", err)
	}
}

func TestHello_ServerNamesStrangers(t *testing.T) {
	for _, c := range foreign {
		ok, err := checkProtocolHeader([]byte(c.in + "\x00"))
		want := "the peer began with " + c.name + " instead of the protocol header of AMQP 0-9-1"
		if ok || err == nil || !errors.Is(err, FrameError) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v; want it to say %q", c.in, ok, err, want)
		}
	}
}

// Bytes that come one by one are judged no differently.
func TestHello_CutAnywhere(t *testing.T) {
	server := func(p []byte, _ bool) (bool, error) { return checkProtocolHeader(p) }
	for who, judge := range map[string]func(p []byte, final bool) (bool, error){"client": checkFirstFrame, "server": server} {
		for _, c := range foreign {
			p := []byte(c.in + "\x00")
			_, whole := judge(p, false)
			_, eight := judge(p[:8], false)
			if whole == nil || eight == nil || whole.Error() != eight.Error() {
				t.Errorf("%s: %q: %v, but its first eight bytes: %v", who, p, whole, eight)
			}
			for n := range 8 {
				if ok, err := judge(p[:n], false); ok || err != nil {
					t.Fatalf("%s: %q: judged %v, %v too early", who, p[:n], ok, err)
				}
			}
		}
	}
	for _, c := range foreign {
		for n := range 8 {
			if ok, err := checkFirstFrame([]byte(c.in)[:min(n, len(c.in))], true); ok || (err == nil) != (n == 0) {
				t.Fatalf("%q cut to %d, and no more to come: %v, %v", c.in, n, ok, err)
			}
		}
	}
	for n := range len(protocolHeader) + 3 {
		p := append(appendProtocolHeader(nil), "\x01\x00\x00"...)[:n]
		if ok, err := checkProtocolHeader(p); ok != (n >= 8) || err != nil {
			t.Errorf("%q: %v, %v", p, ok, err)
		}
	}
	if ok, err := checkFirstFrame([]byte{1}, false); !ok || err != nil {
		t.Errorf("a method frame: %v, %v", ok, err)
	}
}
