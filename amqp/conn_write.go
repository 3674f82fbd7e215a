package amqp

import (
	"sync"
	"time"
)

// outbox is how what the engine has to say gets on the wire. Conn.mu guards it.
//
// There are three ways. A lone message is written at once by the goroutine
// that made it, without waiting: no other goroutine has to wake up for it. Under
// a stream of messages that nobody waits for they gather, and the one that
// fills a batch writes it; what is left of a stream goes when the writer's
// timer fires, or as soon as anybody waits for anything of the connection.
// Whatever can't be written at once, and everything on streams without a file
// descriptor of their own, is left to the writer.
type outbox struct {
	busy      bool // somebody is in a write; nobody else may be
	queued    bool // rest is to be written before anything else
	rest      []byte
	back      []byte // the whole buffer of rest
	inFlight  int    // octets in the write that is under way
	written   uint64
	writes    uint64
	streaming bool
	quick     int // writes in a row that began right after the one before
	last      time.Time
	lingering bool // timer runs
	spareVec  [][]byte
	claims    int // publishers of large bodies that wait for the socket to be theirs
	broken    *Error

	signal chan struct{}
	timer  *time.Timer
}

const (
	// outBatch is the size from which gathered output is written.
	outBatch = 64 << 10
	// linger bounds how long output of a stream gathers.
	linger = time.Millisecond
	// quickGap and quickRuns say what a stream is: so many writes in a row that
	// each began within the gap of the end of the last. A system call takes
	// 1.5 us, the fastest answer over loopback some 15 us.
	quickGap  = 4 * time.Microsecond
	quickRuns = 8
	keepBuf   = 256 << 10 // larger buffers are not kept
)

var outBufs = sync.Pool{New: func() any { return new([]byte) }}

func takeBuf() []byte {
	p := outBufs.Get().(*[]byte)
	b := *p
	*p = nil
	outBufHeads.Put(p)
	if cap(b) == 0 {
		b = make([]byte, 0, 4<<10)
	}
	return b[:0]
}

var outBufHeads = sync.Pool{New: func() any { return new([]byte) }}

func giveBuf(b []byte) {
	if cap(b) == 0 || cap(b) > keepBuf {
		return
	}
	p := outBufHeads.Get().(*[]byte)
	*p = b
	outBufs.Put(p)
}

func (o *outbox) init() {
	o.signal = make(chan struct{}, 1)
	o.timer = time.NewTimer(time.Hour)
	o.timer.Stop()
}

func (o *outbox) wake() {
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

// flush says how soon output should go.
type flush uint8

const (
	flushSoon flush = iota // nobody waits for an answer to it
	flushWait              // whoever made it part of a stream now waits
	flushNow               // a lone message or call
)

// unlockFlush sees to it that what was appended gets written, and unlocks mu,
// which the caller holds.
func (c *Conn) unlockFlush(f flush) {
	o := &c.w
	if c.e.s.pending() == 0 && !o.queued || c.over || o.broken != nil {
		c.mu.Unlock()
		return
	}
	if o.busy {
		if f == flushNow {
			o.streaming = false
		}
		c.mu.Unlock()
		return
	}
	if f == flushNow {
		o.streaming, o.quick = false, 0
	} else if f == flushSoon && o.streaming && c.e.s.pending() < outBatch {
		c.armTimer()
		c.mu.Unlock()
		return
	}
	if c.raw == nil || o.queued {
		o.wake()
		c.mu.Unlock()
		return
	}
	c.writeInline(f)
	c.mu.Unlock()
}

func (c *Conn) armTimer() {
	if !c.w.lingering {
		c.w.lingering = true
		c.w.timer.Reset(linger)
	}
}

// writeInline writes what has gathered without waiting. mu is held, and
// released during the write.
func (c *Conn) writeInline(f flush) {
	o := &c.w
	for turn := 0; turn < 2; turn++ {
		if f == flushSoon && !o.streaming {
			o.noteGap()
			if o.streaming && c.e.s.pending() < outBatch {
				c.armTimer()
				return
			}
		}
		buf := c.takeOutput()
		o.busy, o.inFlight = true, len(buf)
		c.mu.Unlock()
		n, err := c.raw.tryWrite(buf)
		c.mu.Lock()
		o.busy, o.inFlight = false, 0
		o.written += uint64(n)
		o.writes++
		if err != nil {
			o.fail(c, err)
			return
		}
		if n < len(buf) {
			o.queued, o.rest, o.back = true, buf[n:], buf
			o.wake()
			return
		}
		giveBuf(buf)
		c.room()
		if f == flushSoon && !o.streaming {
			o.last = time.Now()
		}
		if c.e.s.pending() == 0 || o.streaming && c.e.s.pending() < outBatch {
			if c.e.s.pending() > 0 {
				c.armTimer()
			}
			return
		}
	}
	o.wake() // others keep this goroutine from its own work: leave it to the writer
}

// noteGap learns from the time since the last write whether this is a stream.
func (o *outbox) noteGap() {
	if now := time.Now(); now.Sub(o.last) > quickGap {
		o.quick = 0
		return
	}
	if o.quick++; o.quick >= quickRuns {
		o.streaming, o.quick = true, 0
	}
}

// fail ends writing. The reader ends the connection, at once or when it has
// read why the broker hung up. mu is held.
func (o *outbox) fail(c *Conn, err error) {
	if o.broken == nil {
		o.broken = &Error{Text: "connection lost", cause: err}
		c.nc.SetReadDeadline(time.Now().Add(lastWords))
		c.letReaderGo()
	}
	c.e.s.out, c.e.s.segs, c.e.s.segsLen = nil, nil, 0
	o.queued, o.rest, o.back = false, nil, nil
}

// lastWords is how long the reader may look for the reason of a broken write.
const lastWords = 200 * time.Millisecond

// writeError is what ended writing.
func (c *Conn) writeError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w.broken == nil {
		return nil
	}
	return c.w.broken
}

// takeOutput takes what has gathered, in one buffer.
func (c *Conn) takeOutput() []byte {
	s := &c.e.s
	buf := s.out
	s.out = takeBuf()
	return buf
}

// room lets publishers go on that wait for room. mu is held.
func (c *Conn) room() {
	if c.waiting.n > 0 && !c.blocked && c.e.s.pending()+c.w.inFlight < c.cfg.MaxOutbox {
		c.waiting.wakeAll()
	}
}

// writeLoop is the writer: it writes what could not be written at once, what
// is left of a stream, and heartbeats.
func (c *Conn) writeLoop(heartbeat time.Duration) {
	defer c.running.Done()
	o := &c.w
	var beat <-chan time.Time
	if heartbeat > 0 {
		t := time.NewTicker(heartbeat / 4)
		defer t.Stop()
		beat = t.C
	}
	defer o.timer.Stop()
	var silence silence
	for {
		select {
		case <-o.signal:
		case <-o.timer.C:
			c.lingered()
		case <-beat:
			silence.tick(c)
		}
		if !c.writeAll() {
			return
		}
	}
}

// silence watches, four times per heartbeat interval, for half an interval in
// which nothing was written.
type silence struct {
	writes uint64 // at the last tick
	ticks  int
}

func (s *silence) tick(c *Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.w
	if s.ticks++; o.writes != s.writes {
		s.writes, s.ticks = o.writes, 0
	}
	if s.ticks < 2 || o.busy || o.queued || c.over || c.closing {
		return
	}
	c.e.s.out = append(c.e.s.heartbeat(nil), c.e.s.out...)
	s.writes, s.ticks = o.writes+1, 0 // its own write does not count
}

// lingered takes what waited for company on its way.
func (c *Conn) lingered() {
	c.mu.Lock()
	c.w.lingering = false
	c.mu.Unlock()
	c.flushDirty()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.e.s.pending() < outBatch/8 {
		c.w.streaming = false
	}
}

// writeAll writes until nothing is left, waiting where it must. It reports
// whether the connection goes on.
func (c *Conn) writeAll() bool {
	o := &c.w
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.over || o.broken != nil {
			return false
		}
		if o.busy || c.e.s.pending() == 0 && !o.queued {
			return true
		}
		buf, whole := o.rest, o.back
		if !o.queued {
			buf = c.takeOutput()
			whole = buf
		}
		o.queued, o.rest, o.back = false, nil, nil
		o.busy, o.inFlight = true, len(buf)
		c.mu.Unlock()
		n, err := c.nc.Write(buf)
		c.mu.Lock()
		o.busy, o.inFlight = false, 0
		o.written += uint64(n)
		o.writes++
		if err != nil {
			o.fail(c, err)
			return false
		}
		giveBuf(whole)
		c.room()
	}
}
