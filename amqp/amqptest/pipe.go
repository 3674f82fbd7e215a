package amqptest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeSize is how much one direction of a connection in memory holds.
const pipeSize = 256 << 10

// pipeConn is one end of a connection in memory. Unlike net.Pipe it has a
// buffer, so that both ends may write first; and nobody waits in it with a
// lock held, so that the clock of a testing/synctest bubble goes on.
type pipeConn struct {
	in, out       *pipeHalf
	local, remote pipeAddr
	once          sync.Once
}

// pipeAddr is the address of an end.
type pipeAddr string

func (pipeAddr) Network() string  { return "memory" }
func (a pipeAddr) String() string { return string(a) }

// pipeHalf is one direction: a ring of bytes.
type pipeHalf struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	head, n int
	closed  bool       // by the writer: what is buffered can still be read
	broken  bool       // by the reader: writing is of no use any more
	split   func() int // the most that the next read gets; nil: no limit
	readers deadline
	writers deadline
}

// deadline is a deadline of one kind, with the timer that wakes those who wait.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// newPipe makes a connection in memory.
func newPipe() (client, server net.Conn) {
	a, b := newHalf(), newHalf()
	return &pipeConn{in: a, out: b, local: "client", remote: "amqptest"},
		&pipeConn{in: b, out: a, local: "amqptest", remote: "client"}
}

func newHalf() *pipeHalf {
	h := &pipeHalf{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *pipeHalf) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case h.readers.passed():
			return 0, os.ErrDeadlineExceeded
		case h.n > 0 || len(p) == 0:
			return h.take(p), nil
		case h.closed:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *pipeHalf) take(p []byte) int {
	if h.split != nil && len(p) > 0 {
		p = p[:min(len(p), max(1, h.split()))]
	}
	n := 0
	for n < len(p) && h.n > 0 {
		k := copy(p[n:], h.buf[h.head:min(h.head+h.n, len(h.buf))])
		n += k
		h.n -= k
		if h.head += k; h.head == len(h.buf) {
			h.head = 0
		}
	}
	if h.n == 0 {
		h.head = 0
	}
	h.changed.Broadcast()
	return n
}

func (h *pipeHalf) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	total := 0
	for {
		switch {
		case h.closed:
			return total, net.ErrClosed
		case h.broken:
			return total, io.ErrClosedPipe
		case h.writers.passed():
			return total, os.ErrDeadlineExceeded
		}
		k := h.put(p)
		total += k
		if p = p[k:]; len(p) == 0 {
			return total, nil
		}
		h.changed.Wait()
	}
}

func (h *pipeHalf) put(p []byte) int {
	if need := h.n + len(p); need > len(h.buf) && len(h.buf) < pipeSize {
		size := max(4096, len(h.buf))
		for size < need && size < pipeSize {
			size *= 2
		}
		buf := make([]byte, size)
		k := copy(buf, h.buf[h.head:min(h.head+h.n, len(h.buf))])
		copy(buf[k:], h.buf[:h.n-k])
		h.buf, h.head = buf, 0
	}
	n := 0
	for n < len(p) && h.n < len(h.buf) {
		tail := (h.head + h.n) % len(h.buf)
		end := len(h.buf)
		if tail < h.head {
			end = h.head
		}
		k := copy(h.buf[tail:end], p[n:])
		n += k
		h.n += k
	}
	if n > 0 {
		h.changed.Broadcast()
	}
	return n
}

func (h *pipeHalf) set(d *deadline, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.at = t; !t.IsZero() && !h.closed && !h.broken {
		d.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			h.changed.Broadcast()
			h.mu.Unlock()
		})
	}
	h.changed.Broadcast()
}

func (h *pipeHalf) end(reader bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reader {
		h.broken = true
		h.buf, h.head, h.n = nil, 0, 0
	} else {
		h.closed = true
	}
	for _, d := range []*deadline{&h.readers, &h.writers} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	h.changed.Broadcast()
}

// Read reads what has come. Errors: io.EOF when the peer closed.
func (c *pipeConn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.wrap("read", err)
}

// Write writes, and waits while the buffer is full.
func (c *pipeConn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.wrap("write", err)
}

func (c *pipeConn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "memory", Source: c.local, Addr: c.remote, Err: err}
}

// Close closes both directions; the peer can read what was written before.
func (c *pipeConn) Close() error {
	c.once.Do(func() {
		c.out.end(false)
		c.in.end(true)
	})
	return nil
}

// CloseWrite ends this end's writing; it can still read.
func (c *pipeConn) CloseWrite() error {
	c.out.end(false)
	return nil
}

func (c *pipeConn) LocalAddr() net.Addr  { return c.local }
func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *pipeConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds Read, also one that waits.
func (c *pipeConn) SetReadDeadline(t time.Time) error {
	c.in.set(&c.in.readers, t)
	return nil
}

// SetWriteDeadline bounds Write, also one that waits.
func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.out.set(&c.out.writers, t)
	return nil
}
