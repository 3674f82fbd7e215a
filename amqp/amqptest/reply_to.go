package amqptest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/warrenmq/warren/amqp"
)

// Direct reply-to: a client consumes from the pseudo-queue replyTo and
// publishes requests with it as their reply-to, which the broker replaces by
// a name of the channel's own. Replies to that name go straight to it.
const (
	replyTo       = "amq.rabbitmq.reply-to"
	replyToPrefix = replyTo + "."
)

// consumeReplies is basic.consume on replyTo.
func (ch *channel) consumeReplies(m amqp.BasicConsume) error {
	if ch.reply != nil {
		return refusef(amqp.PreconditionFailed, "reply consumer already set")
	}
	if !m.NoAck {
		return refusef(amqp.PreconditionFailed, "reply consumer cannot acknowledge")
	}
	srv := ch.s.srv
	ch.replyKey = srv.newReplyName()
	ch.reply = &consumer{tag: m.ConsumerTag, ch: ch, noAck: true}
	ch.consumers[m.ConsumerTag] = ch.reply
	srv.replies[ch.replyKey] = ch
	return nil
}

func (ch *channel) dropReplyKey() {
	if ch.reply != nil {
		delete(ch.s.srv.replies, ch.replyKey)
		ch.reply, ch.replyKey = nil, ""
	}
}

// deliverReply delivers a message to the channel that a reply name is for. A
// reply to a caller that is gone is lost, and counts as routed all the same.
func (srv *Server) deliverReply(vh *vhost, key string, m *message) {
	ch := srv.replies[key]
	if ch == nil && !srv.isReplyName(key) {
		return
	}
	srv.replied = true
	if ch == nil || ch.dead.Load() || ch.s.vh != vh {
		return
	}
	ch.nextTag++
	ch.s.push(outItem{kind: outDeliver, ch: ch, c: ch.reply, msg: m, tag: ch.nextTag})
}

// declareReply answers a queue.declare of replyTo, or of a channel's name.
func (vh *vhost) declareReply(name string) error {
	if name == replyTo || vh.srv.replies[name] != nil {
		return nil
	}
	if !vh.srv.isReplyName(name) {
		return &refusal{code: amqp.InternalError, noMethod: true} // RabbitMQ's channel crashes on it
	}
	return vh.noQueue(name)
}

func refuseVolatileBind() error {
	return refusef(amqp.AccessRefused, "cannot bind or unbind to a volatile (direct reply-to) queue")
}

// newReplyName makes a name for replies: 33 random octets and a check sum, so
// that names this server gave out are told from made-up ones, which RabbitMQ
// treats differently.
func (srv *Server) newReplyName() string {
	var b [40]byte
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], srv.rand.Uint64())
	}
	body := base64.StdEncoding.EncodeToString(b[:33])
	return replyToPrefix + body + "." + srv.replySum(body)
}

func (srv *Server) replySum(body string) string {
	sum := sha256.Sum256(append(srv.secret[:], body...))
	return base64.StdEncoding.EncodeToString(sum[:16])
}

// isReplyName reports whether this server gave the name out.
func (srv *Server) isReplyName(name string) bool {
	body, sum, ok := strings.Cut(strings.TrimPrefix(name, replyToPrefix), ".")
	return ok && sum == srv.replySum(body)
}

// isReplyName reports whether a name is a channel's name for replies, of the
// kind that RabbitMQ calls a volatile queue.
func isReplyName(name string) bool { return strings.HasPrefix(name, replyToPrefix) }

// refuseVolatile answers what can't be done with a volatile queue.
func (vh *vhost) refuseVolatile(method, name string) error {
	if vh.srv.replies[name] == nil {
		return vh.noQueue(name)
	}
	if method == "basic.consume" {
		return refusef(amqp.PreconditionFailed, "only creator channel may consume from queue '%s' in vhost '%s'", name, vh.name)
	}
	return refusef(amqp.NotImplemented, "%s not supported by volatile queue '%s' in vhost '%s'", method, name, vh.name)
}
