package amqptest

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// publish is basic.publish. exchange and key are views that end with the call,
// as is the event: here is the one place where a message is copied.
func (ch *channel) publish(exchange, key []byte, mandatory bool, ev *amqp.Event) error {
	vh := ch.s.vh
	x := vh.exchanges[string(exchange)]
	if err := ch.mayPublish(x, exchange, key); err != nil {
		return err
	}
	m := &message{exchange: x.name, key: ch.intern(key), expiration: -1, priority: -1}
	m.props, m.body = ev.Own()
	if err := ch.readProps(m); err != nil {
		return err
	}
	srv := vh.srv
	srv.replied = false
	queues := vh.route(x, m)
	srv.record(vh, m, len(queues))
	unroutable := mandatory && len(queues) == 0 && !srv.replied
	if ch.tx != nil {
		ch.tx.publishes = append(ch.tx.publishes, txPublish{m, slices.Clone(queues), unroutable})
		return nil
	}
	ch.send(m, queues, unroutable)
	return nil
}

// intern spares the copy of a routing key that is the same as the last one.
func (ch *channel) intern(key []byte) string {
	if string(key) != ch.lastKey {
		ch.lastKey = string(key)
	}
	return ch.lastKey
}

func (ch *channel) mayPublish(x *exchange, exchange, key []byte) error {
	s := ch.s
	if s.user != nil && s.user.perms != nil {
		if err := s.may(write, "exchange", string(exchange)); err != nil {
			return err
		}
	}
	if x == nil {
		return s.vh.noExchange(string(exchange))
	}
	if x.internal {
		return refusef(amqp.AccessRefused, "cannot publish to internal exchange '%s' in vhost '%s'", x.name, s.vh.name)
	}
	if x.kind == "topic" {
		return s.mayTopic(write, x, string(key))
	}
	return nil
}

// readProps reads, checks and, where the broker changes them, rewrites the
// properties of a message that was published.
func (ch *channel) readProps(m *message) error {
	r := scanProps(m.props)
	if !r.ok {
		return malformed()
	}
	if r.flags&flagUserID != 0 {
		if id := string(m.props[r.userID[0]:r.userID[1]]); ch.s.user != nil && id != ch.s.user.Name && !ch.s.user.Impersonator {
			return refusef(amqp.PreconditionFailed, "user_id property set to '%s' but authenticated user was '%s'", id, ch.s.user.Name)
		}
	}
	m.persistent = r.deliveryMode == 2
	if r.flags&flagPriority != 0 {
		m.priority = int16(r.priority)
	}
	if r.flags&flagExpiration != 0 {
		text := string(m.props[r.expiration[0]:r.expiration[1]])
		ms, bad := parseExpiration(text)
		if bad != "" {
			return refusef(amqp.PreconditionFailed, "invalid expiration '%s': %s", text, bad)
		}
		m.expiration = time.Duration(ms) * time.Millisecond
		m.with().expiration = text
	}
	if r.flags&flagReplyTo != 0 && string(m.props[r.replyTo[0]:r.replyTo[1]]) == replyTo {
		if ch.reply == nil {
			return refusef(amqp.PreconditionFailed, "fast reply consumer does not exist")
		}
		m.props = replaceReplyTo(m.props, r, ch.replyKey)
		r = scanProps(m.props)
	}
	if r.headers != 0 {
		return m.readHeaders(r)
	}
	return nil
}

// malformed is what properties get that can't be decoded.
func malformed() error { return &refusal{code: amqp.InternalError, noMethod: true} }

// parseExpiration reads the expiration property as RabbitMQ does.
func parseExpiration(s string) (int64, string) {
	n := len(s) - len(strings.TrimLeft(strings.TrimLeft(s, "+-"), "0123456789"))
	ms, err := strconv.ParseInt(s[:n], 10, 64)
	switch {
	case err != nil && n > 18:
		return 0, "{value_too_large," + s[:n] + "}"
	case err != nil:
		return 0, "no_integer"
	case n < len(s):
		return 0, "{leftover_string," + strconv.Quote(s[n:]) + "}"
	case ms < 0:
		return 0, "{value_negative," + s + "}"
	case ms > maxTimer:
		return 0, "{value_too_large," + strconv.FormatInt(ms, 10) + "}"
	}
	return ms, ""
}

// readHeaders finds the CC and BCC headers, and takes BCC off.
func (m *message) readHeaders(r rawProps) error {
	raw := r.table(m.props)
	if !signLongs(raw, false) {
		return malformed()
	}
	if len(raw) == 4 {
		return nil
	}
	fields := tableFields(raw)
	kept := make([]field, 0, len(fields))
	for _, f := range fields {
		switch f.name {
		case "CC", "BCC":
			keys, ok := stringArray(f)
			if !ok {
				return refusef(amqp.PreconditionFailed, `invalid message: {unacceptable_type_in_header,"%s",%s}`, f.name, rawTypeName(f.kind))
			}
			if f.name == "BCC" {
				m.with().bcc = keys
				continue
			}
			m.with().cc = keys
		}
		kept = append(kept, f)
	}
	if len(kept) != len(fields) || !slices.IsSortedFunc(kept, byName) {
		m.props = replaceHeaders(m.props, r, joinSorted(kept), 0)
	}
	return nil
}

// stringArray reads the strings of an array field and passes over the rest.
func stringArray(f field) ([]string, bool) {
	if f.kind != 'A' {
		return nil, false
	}
	var out []string
	for p := f.val[4:]; len(p) > 0; {
		size := fieldSize(p[0], p[1:])
		if size < 0 || size+1 > len(p) {
			break
		}
		if p[0] == 'S' {
			out = append(out, string(p[5:1+size]))
		}
		p = p[1+size:]
	}
	return out, true
}

func rawTypeName(kind byte) string {
	names := map[byte]string{
		't': "bool", 'b': "byte", 'B': "unsignedbyte", 's': "short", 'u': "unsignedshort", 'I': "signedint",
		'i': "unsignedint", 'l': "long", 'L': "long", 'f': "float", 'd': "double", 'D': "decimal",
		'S': "longstr", 'x': "binary", 'A': "array", 'T': "timestamp", 'F': "table", 'V': "void",
	}
	return names[kind]
}

// send puts a message into the queues that it was routed to, and answers its
// publisher. It reports false where a classic queue refused it; of a quorum
// queue's refusal RabbitMQ's transactions do not hear.
func (ch *channel) send(m *message, queues []*queue, unroutable bool) bool {
	if unroutable {
		ch.s.push(outItem{kind: outReturn, ch: ch, msg: m})
	}
	nack, refused := false, false
	for _, q := range queues {
		if !q.publish(m, nil) {
			nack, refused = true, refused || q.opts.kind == classic
		}
	}
	if ch.confirming {
		ch.published++
		ch.confirm(ch.published, nack)
	}
	return !refused
}
