package amqp

import (
	"fmt"
	"strings"
)

// handshakeFacts is what this side knows of a handshake that failed.
type handshakeFacts struct {
	stage     handshakeStage // what was said last
	tls       bool
	user      string // "" where there were no credentials
	mechanism string // of SASL
	startOk   int    // octets of connection.start-ok's frame
	frameMax  uint32 // as sent in connection.tune-ok
	vhost     string
}

// explainRefused adds to the text of a broker's connection.close in the
// handshake what RabbitMQ leaves unsaid; "" where it said enough.
func explainRefused(f handshakeFacts, code ReplyCode) string {
	switch {
	case code == AccessRefused && f.user == "guest":
		return `RabbitMQ lets the user "guest" in from localhost only, unless it is configured otherwise`
	case code == NotAllowed && f.vhost == "":
		return `the vhost asked for is the one whose name is empty, as in the URI amqp://host/ ; ` +
			`the vhost "/" is written amqp://host or amqp://host/%2F`
	}
	return ""
}

// explainHangup says what it means that a broker ended the stream in the
// handshake without a connection.close. RabbitMQ (seen on 3.10 and 4.3) waits
// three seconds and does that for a mechanism it doesn't offer, a response it
// can't read, a start-ok that is too long and a frame_max it dislikes; for
// refused credentials only where the client doesn't declare
// authentication_failure_close.
func explainHangup(f handshakeFacts) string {
	const prefix = "the broker hung up in the handshake, "
	switch f.stage {
	case stageHeader:
		if f.tls {
			return prefix + "before it said anything: it may want a client certificate or refuse the one it got, or not be ready yet"
		}
		return prefix + "before it said anything: the port may be the one for TLS (amqps), " +
			"or belong to a proxy whose broker is down, or the broker may not be ready yet"
	case stageStartOk:
		return prefix + explainStartOk(f)
	}
	if f.frameMax < 8192 {
		return prefix + fmt.Sprintf("after connection.tune-ok: RabbitMQ 4.3 does that for a frame_max below 8192, and this one is %d", f.frameMax)
	}
	return prefix + fmt.Sprintf("after connection.tune-ok and open (frame_max %d, vhost %q): its log may say why", f.frameMax, f.vhost)
}

// explainStartOk puts the likeliest cause first. RabbitMQ cuts off a start-ok
// over 4 to 8 KB, by version: that is a large token or many client properties.
func explainStartOk(f handshakeFacts) string {
	refused := fmt.Sprintf("it refused the credentials or could not read the response of mechanism %s", f.mechanism)
	if f.user != "" && f.mechanism != "EXTERNAL" {
		refused = fmt.Sprintf("it refused the credentials of user %q or could not read the response of mechanism %s", f.user, f.mechanism)
	}
	causes := []string{refused}
	if f.startOk > 4000 {
		causes = []string{fmt.Sprintf("connection.start-ok is too long for it (%d octets; RabbitMQ takes some 4,000 or 8,000, "+
			"credentials and client properties together)", f.startOk), refused}
	}
	return "after connection.start-ok: " + strings.Join(causes, ", or ")
}
