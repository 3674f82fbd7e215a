package amqptest

import (
	"time"

	"github.com/warrenmq/warren/amqp"
)

// message is one published message. It is never changed once it was routed:
// all queues share it, and its bytes are the one copy that was made when it
// was published.
type message struct {
	exchange string
	key      string
	props    []byte // flags and property list as they go out (BCC removed)
	body     []byte

	expiration time.Duration // the expiration property; negative when absent
	priority   int16         // -1 when absent
	persistent bool
	more       *rare // nil where the message has nothing of it
}

// rare is what few messages have.
type rare struct {
	cc         []string   // keys of the CC header, which stay visible
	bcc        []string   // keys of the BCC header, which the receiver never sees
	expiration string     // the expiration property's text
	deaths     []death    // newest first; the x-death header is made of them
	firstDeath *death     // what x-first-death-... tell about
	headers    amqp.Table // decoded when a headers exchange asked for it
	decoded    bool
}

// rest gives the rare parts of m for reading.
func (m *message) rest() rare {
	if m.more == nil {
		return rare{}
	}
	return *m.more
}

// with gives the rare parts of m for writing.
func (m *message) with() *rare {
	if m.more == nil {
		m.more = &rare{}
	}
	return m.more
}

// table gives the decoded headers, which a headers exchange routes by.
func (m *message) table() amqp.Table {
	more := m.with()
	if !more.decoded {
		more.decoded = true
		if raw := scanProps(m.props).table(m.props); len(raw) > 0 {
			more.headers, _ = amqp.DecodeTable(raw)
		}
	}
	return more.headers
}

// entry is a message's stay in one queue.
type entry struct {
	msg     *message
	seq     uint64 // its place: entries of a classic queue stay sorted by it
	expires int64  // unix nanoseconds; 0 means never

	acquired    uint32 // times it was given to a consumer of this queue before
	failed      uint32 // times of these that count against the delivery limit
	carried     uint32 // such times in the queues that dead-lettered it to here
	prio        uint8  // the level it waits at
	redelivered bool
}

// ring is a queue of entries that grows and shrinks, open at both ends.
type ring struct {
	buf  []entry
	head int
	n    int
}

func (r *ring) at(i int) *entry { return &r.buf[(r.head+i)&(len(r.buf)-1)] }

func (r *ring) resize(size int) {
	buf := make([]entry, size)
	for i := range r.n {
		buf[i] = *r.at(i)
	}
	r.buf, r.head = buf, 0
}

func (r *ring) grow() {
	if r.n == len(r.buf) {
		r.resize(max(8, 2*len(r.buf)))
	}
}

func (r *ring) pushBack(e entry) {
	r.grow()
	r.n++
	*r.at(r.n - 1) = e
}

func (r *ring) pushFront(e entry) {
	r.grow()
	r.head = (r.head - 1) & (len(r.buf) - 1)
	r.n++
	r.buf[r.head] = e
}

func (r *ring) popFront() entry {
	e := r.buf[r.head]
	r.buf[r.head] = entry{}
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	// The memory follows what is queued: a burst must not hold its room.
	if len(r.buf) > 1024 && r.n < len(r.buf)/8 {
		r.resize(len(r.buf) / 4)
	}
	return e
}

// insert puts e back where its seq belongs. A requeued message nearly always
// belongs at or near the front, so it is searched for from there.
func (r *ring) insert(e entry) {
	if r.n == 0 || e.seq < r.at(0).seq {
		r.pushFront(e)
		return
	}
	lo, hi := 0, r.n
	for lo < hi {
		mid := (lo + hi) / 2
		if r.at(mid).seq < e.seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	r.grow()
	if lo < r.n/2 {
		r.head = (r.head - 1) & (len(r.buf) - 1)
		r.n++
		for i := range lo {
			*r.at(i) = *r.at(i + 1)
		}
	} else {
		r.n++
		for i := r.n - 1; i > lo; i-- {
			*r.at(i) = *r.at(i - 1)
		}
	}
	*r.at(lo) = e
}

// removeAt takes out the i-th entry.
func (r *ring) removeAt(i int) entry {
	e := *r.at(i)
	for ; i > 0; i-- {
		*r.at(i) = *r.at(i - 1)
	}
	r.popFront()
	return e
}

func (r *ring) clear() { *r = ring{} }

// store keeps the ready entries of a classic or quorum queue: one ring per
// priority level, the highest first.
type store struct {
	levels []ring
	n      int
	bytes  int64
	top    int // no level above it has entries
	timed  int // entries that can expire

	withProps bool // the properties count as bytes too, as in a quorum queue
}

func newStore(levels int) store { return store{levels: make([]ring, levels)} }

func (s *store) size(m *message) int64 {
	if s.withProps {
		return int64(len(m.body) + len(m.props))
	}
	return int64(len(m.body))
}

func (s *store) pushBack(e entry) {
	s.added(&e)
	s.levels[e.prio].pushBack(e)
}

func (s *store) insert(e entry) {
	s.added(&e)
	s.levels[e.prio].insert(e)
}

func (s *store) added(e *entry) {
	s.n++
	s.bytes += s.size(e.msg)
	s.top = max(s.top, int(e.prio))
	if e.expires != 0 {
		s.timed++
	}
}

// front gives the entry that goes next; nil when there is none.
func (s *store) front() *entry {
	if s.n == 0 {
		return nil
	}
	for s.levels[s.top].n == 0 {
		s.top--
	}
	return s.levels[s.top].at(0)
}

func (s *store) pop() entry {
	s.front()
	return s.popLevel(s.top)
}

func (s *store) popLevel(level int) entry { return s.removeAt(level, 0) }

func (s *store) removeAt(level, i int) entry {
	e := s.levels[level].removeAt(i)
	s.n--
	s.bytes -= s.size(e.msg)
	if e.expires != 0 {
		s.timed--
	}
	return e
}

func (s *store) clear() int {
	n := s.n
	for i := range s.levels {
		s.levels[i].clear()
	}
	s.n, s.bytes, s.top, s.timed = 0, 0, 0, 0
	return n
}

// keep drops the entries that fail a test.
func (s *store) keep(test func(*entry) bool) {
	old := *s
	*s = newStore(len(old.levels))
	s.withProps = old.withProps
	for i := range old.levels {
		for j := range old.levels[i].n {
			if e := old.levels[i].at(j); test(e) {
				s.pushBack(*e)
			}
		}
	}
}
