package amqp

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// chunk is a read buffer. Deliveries that are borrowed lie in it, so it is
// counted who uses it: one for the reader while it reads into it, one for each
// delivery that is out. Who takes the count to zero gives it back.
type chunk struct {
	buf  []byte
	refs atomic.Int32
}

const (
	hugeChunk  = 256 << 10 // where a read fills a big one, or a message does
	bigChunk   = 64 << 10
	smallChunk = 4 << 10
)

var (
	hugeChunks  = sync.Pool{New: func() any { return &chunk{buf: rawBytes(hugeChunk)} }}
	bigChunks   = sync.Pool{New: func() any { return &chunk{buf: rawBytes(bigChunk)} }}
	smallChunks = sync.Pool{New: func() any { return &chunk{buf: rawBytes(smallChunk)} }}
)

// poisonReleased makes memory that goes back to a pool unreadable first, so
// that tests find who still reads it.
var poisonReleased = false

const poison = 0xDB

func newChunk(n int) *chunk {
	var k *chunk
	switch {
	case n <= smallChunk:
		k = smallChunks.Get().(*chunk)
	case n <= bigChunk:
		k = bigChunks.Get().(*chunk)
	case n <= hugeChunk:
		k = hugeChunks.Get().(*chunk)
	default:
		k = &chunk{buf: make([]byte, n)}
	}
	k.refs.Store(1)
	return k
}

func (k *chunk) release(n int32) {
	if k.refs.Add(-n) != 0 {
		return
	}
	if poisonReleased {
		for i := range k.buf {
			k.buf[i] = poison
		}
	}
	switch len(k.buf) {
	case smallChunk:
		smallChunks.Put(k)
	case bigChunk:
		bigChunks.Put(k)
	case hugeChunk:
		hugeChunks.Put(k)
	}
}

// reader is what the goroutine that reads keeps. Nothing of it is shared but
// what is atomic.
type reader struct {
	c       *Conn
	k       *chunk
	r, w    int // k.buf[r:w] is read and not parsed yet
	size    int // of the next chunk
	ev      Event
	d       decoder
	last    time.Time
	frames  atomic.Uint64
	good    [64]byte // the last properties that were found well-formed
	goodLen int
	same    bool        // the message's are as good says
	lasting []byte      // and this a copy that receivers may keep, once one is needed
	touch   []*Consumer // that got deliveries since the last read
	inline  []*Consumer // that have to handle theirs here
	begun   bool
	trickle bool // little comes at a time, and soon more
	heads   bool // the next read should bring a message's head, and little of its body

	bufFn  func() []byte
	idleFn func()
}

func (r *reader) init(c *Conn) {
	r.c = c
	r.size = smallChunk
	r.bufFn, r.idleFn = r.buffer, r.idle
}

// readLoop is the reader: it takes in what comes until the stream ends. It
// waits for nobody but, where a consumer asked to hold the broker back, for that.
func (c *Conn) readLoop(heartbeat time.Duration) {
	r := &c.reader
	var err error
	if !r.begun {
		r.begun = true
		err = r.start()
	}
	if err == nil {
		err = r.run(heartbeat)
	}
	if err == errTakenOver {
		return // nothing of r is this goroutine's any more
	}
	defer c.running.Done()
	r.handUp()
	if r.k != nil {
		r.k.release(1)
		r.k = nil
	}
	r.finish(err)
}

// errTakenOver ends a reader whose place another goroutine has taken.
var errTakenOver = errors.New("taken over")

// errOver ends the reader where the connection has been closed in an orderly way.
var errOver = errors.New("over")

// finish makes the reason of the connection's end of what ended the reader.
func (r *reader) finish(err error) {
	c := r.c
	if err == errOver {
		return
	}
	var ex *Error
	if !errors.As(err, &ex) {
		c.mu.Lock()
		ex = c.e.explainEOF(err)
		c.mu.Unlock()
	} else if !ex.Remote {
		c.farewell(ex)
	}
	c.fail(ex)
}

// farewell tells the peer what it did wrong, if the stream takes it at once.
func (c *Conn) farewell(ex *Error) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	c.e.fail(ex)
	c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	c.unlockFlush(flushNow)
}

// start takes what came along with the end of the handshake.
func (r *reader) start() error {
	e := r.c.e
	for {
		r.c.mu.Lock() // Next may have to parse, and accept
		ev, ok := e.Next()
		r.c.mu.Unlock()
		if !ok {
			break
		}
		r.ev = ev
		if err := r.act(); err != nil {
			return err
		}
	}
	if e.err != nil {
		return e.err
	}
	if len(e.in) > 0 {
		r.k = newChunk(len(e.in))
		r.w = copy(r.k.buf, e.in)
	}
	e.in, e.buf, e.events = nil, nil, nil
	e.r.lean = true
	return nil
}

func (r *reader) run(heartbeat time.Duration) error {
	c := r.c
	r.last = time.Now()
	for {
		if heartbeat > 0 {
			c.nc.SetReadDeadline(r.last.Add(2 * heartbeat))
		}
		err := r.readOn()
		if err == nil {
			continue
		}
		if err == errTakenOver {
			return err
		}
		if werr := c.writeError(); werr != nil {
			return werr
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || heartbeat == 0 {
			return err
		}
		if time.Since(r.last) >= 2*heartbeat {
			return heartbeatError(heartbeat)
		}
	}
}

// readOn reads and parses until something goes wrong.
func (r *reader) readOn() error {
	rc := &r.c.e.r
	for {
		if space := rc.space(); space != nil && r.r == r.w {
			n, err := r.readDirect(space)
			if err != nil {
				return err
			}
			rc.spaceFilled(n)
			continue
		}
		if err := r.parse(); err != nil {
			return err
		}
		r.handUp()
		if len(r.inline) > 0 && !r.runInline() {
			return errTakenOver
		}
		if b := r.c.cfg.budget; b != nil && b.full() {
			r.holdBack()
		}
		r.makeRoom()
		n, err := r.read()
		if n == 0 {
			return err
		}
		r.w += n
		r.note(n)
	}
}

// note counts n octets that came.
func (r *reader) note(n int) {
	now := time.Now()
	if d := r.c.cfg.ReadPause; d > 0 {
		r.trickle = n < trickle && now.Sub(r.last) < time.Millisecond+2*d
	}
	r.last, r.heads = now, false
	r.c.readsIn.Add(int64(n))
	switch {
	case n >= r.size && r.size == smallChunk:
		r.size = bigChunk
	case n >= r.size && r.size == bigChunk:
		r.size = hugeChunk
	case n < smallChunk/2 && r.c.raw == nil:
		r.size = smallChunk
	}
}

// trickle is what a read brings at most that Config.ReadPause follows.
const trickle = 16 << 10

func (r *reader) read() (int, error) {
	if r.trickle {
		pause(r.c.cfg.ReadPause)
	}
	if r.c.raw != nil {
		return r.c.raw.readInto(r.bufFn, r.idleFn)
	}
	return r.c.nc.Read(r.buffer())
}

func (r *reader) readDirect(p []byte) (int, error) {
	n, err := r.c.nc.Read(p)
	if n > 0 {
		r.last = time.Now()
		r.c.readsIn.Add(int64(n))
		return n, nil
	}
	return 0, err
}

// buffer is where the next octets go.
func (r *reader) buffer() []byte {
	if r.k == nil {
		r.k, r.r, r.w = newChunk(r.size), 0, 0
	}
	p := r.k.buf[r.w:]
	if r.heads {
		p = p[:min(len(p), smallChunk)]
	}
	return p
}

// idle gives an empty buffer back before a wait, so that an idle connection
// holds none.
func (r *reader) idle() {
	if r.k != nil && r.r == r.w {
		r.k.release(1)
		r.k = nil
	}
}

// makeRoom sees to it that what is still missing of a frame fits after what is
// there of it.
func (r *reader) makeRoom() {
	if r.k == nil {
		return
	}
	if r.r == r.w && r.k.refs.Load() == 1 {
		r.r, r.w = 0, 0 // the same memory again is in the processor's cache
	}
	rest := r.k.buf[r.r:r.w]
	need := max(r.c.e.r.need, len(rest)+1)
	if r.r+need <= len(r.k.buf) && len(r.k.buf)-r.w >= min(len(r.k.buf)/4, bigChunk/4) {
		return
	}
	if r.k.refs.Load() == 1 && need <= len(r.k.buf) && len(r.k.buf) >= r.size {
		r.w = copy(r.k.buf, rest)
		r.r = 0
		return
	}
	next := newChunk(max(need, r.size))
	n := copy(next.buf, rest)
	r.k.release(1)
	r.k, r.r, r.w = next, 0, n
}

// parse takes in what was read.
func (r *reader) parse() error {
	if r.k == nil {
		return nil
	}
	rc := &r.c.e.r
	for {
		r.ev = Event{}
		if more, err := r.deliveries(); more || err != nil {
			return err
		}
		n, err := rc.next(r.k.buf[r.r:r.w], &r.ev)
		r.r += n
		if err != nil {
			return err
		}
		if r.ev.Kind == eventNone {
			r.frames.Store(rc.frames)
			return nil
		}
		if r.ev.ID == MethodBasicDeliver {
			err = r.deliver()
		} else {
			err = r.handle()
		}
		if err != nil {
			return err
		}
	}
}

// deliveries takes the ordinary deliveries that come next. more says that the
// rest of one is worth waiting for.
func (r *reader) deliveries() (more bool, err error) {
	for {
		n, err := r.quickDeliver(r.k.buf[r.r:r.w])
		if err != nil || n <= 0 {
			r.frames.Store(r.c.e.r.frames)
			return n < 0, err
		}
		r.r += n
	}
}

// handUp gives consumers what has come for them since the last time.
func (r *reader) handUp() {
	for i, cons := range r.touch {
		cons.handUp()
		r.touch[i] = nil
	}
	r.touch = r.touch[:0]
}
