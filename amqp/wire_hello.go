package amqp

import (
	"strconv"
	"strings"
)

// protocolHeader is what a client says first: AMQP 0-9-1.
// Source: AMQP 0-9-1 §4.2.2 (protocol header).
const protocolHeader = "AMQP\x00\x00\x09\x01"

// appendProtocolHeader appends the client's first eight bytes.
func appendProtocolHeader(dst []byte) []byte { return append(dst, protocolHeader...) }

// Both sides judge a stranger by its first eight bytes, as many as AMQP's own
// header has, so that it makes no difference how they are cut.

// checkProtocolHeader judges the first bytes that a server is sent. ok means
// that they are AMQP 0-9-1's header; neither ok nor an error, that more are
// needed to tell. After an error a server sends its own header, which says
// what it would have understood, and hangs up.
func checkProtocolHeader(p []byte) (ok bool, err error) {
	if len(p) < len(protocolHeader) {
		return false, nil
	}
	if p = p[:len(protocolHeader)]; string(p) == protocolHeader {
		return true, nil
	}
	return false, frameError("the peer began with " + describeStranger(string(p)) +
		" instead of the protocol header of AMQP 0-9-1")
}

// checkFirstFrame judges the first bytes that a client is answered, which
// should be the method frame of connection.start. ok means that they may be;
// neither ok nor an error, that more are needed to name what they are. final
// says that no more will come.
func checkFirstFrame(p []byte, final bool) (ok bool, err error) {
	switch {
	case len(p) > 0 && p[0] == 1:
		return true, nil
	case len(p) < len(protocolHeader) && (!final || len(p) == 0):
		return false, nil
	}
	s := string(p[:min(len(p), len(protocolHeader))])
	if s == protocolHeader {
		return false, frameError("the server refused AMQP 0-9-1's own protocol header with the same one: " +
			"something between mirrors or garbles what is sent")
	}
	return false, frameError("the server answered with " + describeStranger(s) +
		" instead of connection.start" + adviceFor(s))
}

// describeStranger names the protocol that begins with s.
func describeStranger(s string) string {
	switch {
	case strings.HasPrefix(s, "HTTP/"):
		return "an HTTP response"
	case looksLikeRequest(s):
		return "an HTTP request"
	case len(s) >= 2 && s[0] == 0x15 && s[1] == 0x03:
		return "a TLS alert"
	case len(s) >= 2 && s[0] == 0x16 && s[1] == 0x03:
		return "a TLS handshake"
	case len(s) >= 8 && s[:4] == "AMQP":
		return "the protocol header of " + amqpVersion(s[4:8])
	case strings.HasPrefix(s, "SSH-"):
		return "an SSH banner"
	case len(s) >= 4 && s[0] == 0x20 && s[1] == 0x02:
		return "an MQTT CONNACK"
	}
	return "the bytes " + strconv.QuoteToASCII(s)
}

// adviceFor says what a client that was answered with s should look at.
func adviceFor(s string) string {
	switch {
	case strings.HasPrefix(s, "HTTP/"):
		return ": is this an HTTP port (RabbitMQ's management is on 15672) or a proxy?"
	case len(s) >= 2 && (s[0] == 0x15 || s[0] == 0x16) && s[1] == 0x03:
		return ": this port speaks TLS, use amqps:// (5671) or the port without TLS (5672)"
	case len(s) >= 8 && s[:4] == "AMQP":
		return ": it does not speak AMQP 0-9-1 here"
	}
	return ": is this the port of an AMQP broker?"
}

func looksLikeRequest(s string) bool {
	for _, verb := range [...]string{"GET ", "POST ", "PUT ", "HEAD ", "PRI ", "OPTIONS ", "CONNECT ", "DELETE "} {
		if strings.HasPrefix(s, verb) {
			return true
		}
	}
	return false
}

// amqpVersion words the four octets that follow "AMQP". The versions before
// 0-9-1 began with 1, 1; AMQP 1.0 puts a protocol id first.
func amqpVersion(v string) string {
	switch v {
	case "\x00\x00\x09\x01", "\x01\x01\x09\x01":
		return "AMQP 0-9-1"
	case "\x01\x01\x08\x00", "\x00\x00\x08\x00":
		return "AMQP 0-8"
	case "\x01\x01\x00\x09", "\x01\x01\x09\x00", "\x00\x00\x09\x00":
		return "AMQP 0-9"
	case "\x01\x01\x00\x0a":
		return "AMQP 0-10"
	case "\x00\x01\x00\x00":
		return "AMQP 1.0"
	case "\x02\x01\x00\x00":
		return "AMQP 1.0 over TLS"
	case "\x03\x01\x00\x00":
		return "AMQP 1.0 with SASL"
	}
	b := make([]byte, 0, 32)
	b = append(b, "an unknown AMQP version ("...)
	for i := range len(v) {
		if i > 0 {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, uint64(v[i]), 10)
	}
	return string(append(b, ')'))
}
