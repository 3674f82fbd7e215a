package amqptest

import (
	"slices"
	"time"
)

// Why a message was dead-lettered, as x-death says it.
const (
	deadRejected      = "rejected"
	deadExpired       = "expired"
	deadMaxLength     = "maxlen"
	deadDeliveryLimit = "delivery_limit"
)

// death is one entry of x-death: a queue and a reason, counted.
type death struct {
	queue    string
	reason   string
	count    int64
	exchange string
	keys     []string
	time     time.Time // of the first time
	expires  string    // the expiration property that was taken off
}

// deadJob is a message on its way to a dead-letter exchange. Such messages
// are routed one after the other and not inside one another: a chain of
// queues would otherwise nest as deep as it is long.
type deadJob struct {
	q      *queue
	entry  entry
	reason string
}

// maxDeadJobs bounds the dead-lettering that one operation sets off. Queues
// that reject to each other would go on for ever; RabbitMQ lets them.
const maxDeadJobs = 10_000

// deadLetter ends e's stay in q: to the dead-letter exchange, or nowhere.
func (q *queue) deadLetter(e entry, reason string) {
	if q.opts.hasDLX {
		q.vh.srv.dead = append(q.vh.srv.dead, deadJob{q, e, reason})
	}
}

// routeDead routes the dead-lettered messages that have gathered.
func (srv *Server) routeDead() {
	for i := 0; i < len(srv.dead) && i < maxDeadJobs; i++ {
		srv.dead[i].route()
		srv.dead[i] = deadJob{}
	}
	srv.dead = srv.dead[:0]
}

func (j *deadJob) route() {
	q, vh := j.q, j.q.vh
	x := vh.exchanges[q.opts.dlx]
	if x == nil {
		return
	}
	m := j.message()
	for _, dest := range slices.Clone(vh.route(x, m)) {
		if !m.cycles(dest.name) {
			dest.publish(m, &j.entry)
		}
	}
}

// cycles reports whether a message that comes back to a queue goes round in
// circles by itself: it was there before, and nobody rejected it since.
func (m *message) cycles(queue string) bool {
	for _, d := range m.rest().deaths {
		if d.reason == deadRejected {
			return false
		}
		if d.queue == queue {
			return true
		}
	}
	return false
}

// message makes the message that goes to the dead-letter exchange.
func (j *deadJob) message() *message {
	old := j.entry.msg
	was := old.rest()
	more := &rare{cc: was.cc, bcc: was.bcc, firstDeath: was.firstDeath}
	m := &message{
		exchange: j.q.opts.dlx, key: old.key, body: old.body,
		expiration: -1, priority: old.priority, persistent: old.persistent, more: more,
	}
	if j.q.opts.hasDLKey {
		m.key, more.cc, more.bcc = j.q.opts.dlKey, nil, nil
	}
	d := death{
		queue: j.q.name, reason: j.reason, count: 1, exchange: old.exchange,
		keys: append([]string{old.key}, was.cc...), time: time.Now(), expires: was.expiration,
	}
	more.deaths = make([]death, 1, len(was.deaths)+1)
	for _, before := range was.deaths {
		if before.queue == d.queue && before.reason == d.reason {
			before.count++
			d = before
			continue
		}
		more.deaths = append(more.deaths, before)
	}
	more.deaths[0] = d
	if more.firstDeath == nil {
		more.firstDeath = &d
	}
	r := scanProps(old.props)
	m.props = replaceHeaders(old.props, r, more.deathHeaders(tableFields(r.table(old.props))), flagExpiration)
	return m
}

// deathHeaders is the fields of a dead-lettered message's headers, sorted by
// name as RabbitMQ sends them. What the client itself called x-death is lost.
func (m *rare) deathHeaders(fields []field) []byte {
	kept := fields[:0]
	for _, f := range fields {
		if !isDeathHeader(f.name) {
			kept = append(kept, f)
		}
	}
	add := func(name string, value any) {
		kept = append(kept, field{name: name, raw: appendField(nil, name, value)})
	}
	var deaths []byte
	for i := range m.deaths {
		deaths = append(deaths, m.deaths[i].field()...)
	}
	kept = append(kept, field{name: "x-death", raw: rawField("x-death", 'A', deaths)})
	first, last := m.firstDeath, &m.deaths[0]
	add("x-first-death-exchange", first.exchange)
	add("x-first-death-queue", first.queue)
	add("x-first-death-reason", first.reason)
	add("x-last-death-exchange", last.exchange)
	add("x-last-death-queue", last.queue)
	add("x-last-death-reason", last.reason)
	return joinSorted(kept)
}

func isDeathHeader(name string) bool {
	switch name {
	case "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
		"x-last-death-exchange", "x-last-death-queue", "x-last-death-reason":
		return true
	}
	return false
}

// field is one table of the x-death array, its fields in RabbitMQ's order.
func (d *death) field() []byte {
	var f []byte
	if d.expires != "" {
		f = appendField(f, "original-expiration", d.expires)
	}
	f = appendField(f, "count", d.count)
	f = appendField(f, "reason", d.reason)
	f = appendField(f, "queue", d.queue)
	f = appendField(f, "time", d.time)
	f = appendField(f, "exchange", d.exchange)
	keys := make([]any, len(d.keys))
	for i, k := range d.keys {
		keys[i] = k
	}
	f = appendField(f, "routing-keys", keys)
	return rawField("", 'F', f)[1:]
}

// rawField makes a field of a kind whose value is a length and octets.
func rawField(name string, kind byte, value []byte) []byte {
	f := append([]byte{byte(len(name))}, name...)
	f = append(f, kind, byte(len(value)>>24), byte(len(value)>>16), byte(len(value)>>8), byte(len(value)))
	return append(f, value...)
}
