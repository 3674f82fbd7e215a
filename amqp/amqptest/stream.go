package amqptest

import (
	"slices"
	"sort"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// streamLog is what a stream holds: messages that consuming does not remove.
type streamLog struct {
	entries []streamEntry
	first   uint64 // the offset of entries[0]
	bytes   int64
}

type streamEntry struct {
	msg *message
	at  time.Time
}

// streamPos is where in a stream a consumer stands.
type streamPos struct {
	next   uint64
	filter map[string]struct{} // x-stream-filter; nil: all
	all    bool                // x-stream-match-unfiltered
}

func (l *streamLog) len() int    { return len(l.entries) }
func (l *streamLog) end() uint64 { return l.first + uint64(len(l.entries)) }
func (l *streamLog) drop(n int) {
	for _, e := range l.entries[:n] {
		l.bytes -= int64(len(e.msg.body))
	}
	clear(l.entries[:n])
	l.entries = l.entries[n:]
	l.first += uint64(n)
}

// append adds a message and drops what is over the stream's limits. RabbitMQ
// drops whole segments, of 500 MB by default; here a message is a segment.
func (l *streamLog) append(q *queue, m *message) {
	now := time.Now()
	l.entries = append(l.entries, streamEntry{m, now})
	l.bytes += int64(len(m.body))
	drop := 0
	for bytes := l.bytes; drop < len(l.entries)-1; drop++ {
		e := l.entries[drop]
		over := q.opts.maxBytes >= 0 && bytes > q.opts.maxBytes
		old := q.opts.maxAge > 0 && now.Sub(e.at) > q.opts.maxAge
		if !over && !old {
			break
		}
		bytes -= int64(len(e.msg.body))
	}
	l.drop(drop)
}

// streamed is the message as a stream hands it out. RabbitMQ keeps it in the
// form of AMQP 1.0, in which headers hold no tables and arrays, and a delivery
// mode is always there.
func (m *message) streamed() *message {
	c := *m
	c.more = nil
	r := scanProps(m.props)
	if fields := tableFields(r.table(m.props)); len(fields) > 0 {
		kept := slices.DeleteFunc(fields, func(f field) bool { return f.kind == 'F' || f.kind == 'A' })
		c.props = replaceHeaders(m.props, r, joinSorted(kept), 0)
		r = scanProps(c.props)
	}
	mode := byte(1)
	if m.persistent {
		mode = 2
	}
	if r.flags&flagDeliveryMode == 0 || r.deliveryMode != mode {
		c.props = setDeliveryMode(c.props, r, mode)
	}
	return &c
}

// startStream places a consumer of a stream.
func (c *consumer) startStream(m amqp.BasicConsume) error {
	q := c.q
	if c.noAck {
		return refusef(amqp.NotImplemented, "automatic acknowledgement not supported by stream queue '%s' in vhost '%s'", q.name, q.vh.name)
	}
	if c.prefetch == 0 {
		return refusef(amqp.PreconditionFailed, "consumer prefetch count is not set for stream queue '%s' in vhost '%s'", q.name, q.vh.name)
	}
	spec, given := m.Arguments["x-stream-offset"]
	if !given {
		spec = "next"
	}
	next, ok := q.log.offset(spec)
	if _, text := spec.(string); !ok && !text {
		return &refusal{code: amqp.InternalError, noMethod: true} // RabbitMQ's channel crashes on it
	}
	if !ok {
		return refusef(amqp.PreconditionFailed, "invalid arg 'x-stream-offset' for queue '%s' in vhost '%s': {invalid_stream_offset_arg,{%s,%s}}",
			q.name, q.vh.name, typeName(spec), erlangTerm(spec))
	}
	c.pos.next = next
	switch f := m.Arguments["x-stream-filter"].(type) {
	case string:
		c.pos.filter = map[string]struct{}{f: {}}
	case []any:
		c.pos.filter = map[string]struct{}{}
		for _, v := range f {
			if s, ok := v.(string); ok {
				c.pos.filter[s] = struct{}{}
			}
		}
	}
	c.pos.all, _ = m.Arguments["x-stream-match-unfiltered"].(bool)
	return nil
}

// offset resolves an x-stream-offset: first, last, next, a number, a
// timestamp, or an age such as "1h".
func (l *streamLog) offset(spec any) (uint64, bool) {
	if n, ok := intValue(spec); ok {
		return max(l.first, uint64(max(n, 0))), true
	}
	since := func(t time.Time) uint64 {
		return l.first + uint64(sort.Search(len(l.entries), func(i int) bool { return !l.entries[i].at.Before(t) }))
	}
	switch v := spec.(type) {
	case time.Time:
		return since(v), true
	case string:
		switch v {
		case "first":
			return l.first, true
		case "last":
			return max(l.first, l.end()-min(l.end(), 1)), true
		case "next":
			return l.end(), true
		}
		if age, ok := parseAge(v); ok {
			return since(time.Now().Add(-age)), true
		}
	}
	return 0, false
}

// dispatchStream gives every consumer what it has not seen and may have.
func (q *queue) dispatchStream() {
	for moved := true; moved; {
		moved = false
		for i := 0; i < len(q.active); i++ {
			c := q.active[i]
			if c.pos.next < q.log.first {
				c.pos.next = q.log.first // what it wanted is gone
			}
			if c.pos.next >= q.log.end() {
				continue
			}
			if c.blocked() {
				c.unlist()
				i--
				continue
			}
			m := q.log.entries[c.pos.next-q.log.first].msg
			if c.wants(m) {
				c.deliverOffset(m)
			}
			c.pos.next++
			moved = true
		}
	}
}

// wants applies x-stream-filter. RabbitMQ filters by chunk, so that clients
// must filter again; here it is exact.
func (c *consumer) wants(m *message) bool {
	if c.pos.filter == nil {
		return true
	}
	v, ok := m.table()["x-stream-filter-value"].(string)
	if !ok {
		return c.pos.all
	}
	_, ok = c.pos.filter[v]
	return ok
}

func (c *consumer) deliverOffset(m *message) {
	c.deliver(entry{msg: m, seq: c.pos.next})
	out := c.ch.s.out
	out[len(out)-1].offset = int64(c.pos.next)
	out[len(out)-1].hasOffset = true
}
