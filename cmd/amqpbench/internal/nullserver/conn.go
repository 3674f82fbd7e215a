package nullserver

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/frames"
)

// conn is one connection: a goroutine that reads and answers, and, once there is an auto-ack consumer, one that
// blasts.
type conn struct {
	srv   *Server
	rw    net.Conn
	opt   Options
	beats atomic.Bool // the client asked for heartbeats

	// Reader's own.
	out   frames.Buf // answers to what was read, written when the read is used up
	chans map[uint16]*channel
	last  *channel // of the frame before
	dirty []*channel
	skip  int // octets of a cut-off body frame that are still to come
	skipN int // that frame's payload

	wmu     sync.Mutex // guards writes to rw, and everything below
	wake    *sync.Cond
	blasted []*consumer
	changed bool // blasted is not what chunk was made for
	ended   bool
	blaster bool
}

// channel is the state of one channel.
type channel struct {
	id       uint16
	confirm  bool
	dirty    bool
	seen     uint64 // publishes whose content is complete
	acked    uint64 // of those, confirmed
	rem      uint64 // octets missing of the body that is arriving
	reply    *consumer
	tag      uint64 // last delivery tag
	prefetch int
	window   window
	cons     map[string]*consumer
}

func (s *Server) serve(nc net.Conn) {
	c := &conn{srv: s, rw: nc, chans: map[uint16]*channel{}}
	c.wake = sync.NewCond(&c.wmu)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.read()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.rw.Close()
	c.wmu.Lock()
	c.ended = true
	c.wake.Broadcast()
	c.wmu.Unlock()
}

// read is the connection's life.
func (c *conn) read() {
	hello := make([]byte, len(frames.Header))
	if _, err := io.ReadFull(c.rw, hello); err != nil {
		return
	}
	if !bytes.Equal(hello, frames.Header) {
		c.rw.Write(frames.Header)
		return
	}
	c.start()
	if !c.flush() {
		return
	}
	buf := make([]byte, 16<<10)
	have := 0
	for {
		n, err := c.rw.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		used, ok := c.walk(buf[:have])
		have = copy(buf, buf[used:have])
		c.confirms()
		if !c.flush() || !ok {
			return
		}
		if n > 8<<10 && len(buf) < 256<<10 {
			// Idle connections stay small, busy ones read much at a time.
			buf = append(make([]byte, 0, 256<<10), buf[:have]...)[:256<<10]
		} else if have == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// flush writes the answers gathered.
func (c *conn) flush() bool {
	if len(c.out.B) == 0 {
		return true
	}
	c.wmu.Lock()
	_, err := c.rw.Write(c.out.B)
	c.wmu.Unlock()
	c.out.B = c.out.B[:0]
	return err == nil
}

// walk handles the whole frames in p and says how much of p they took; ok is false when the connection is over.
func (c *conn) walk(p []byte) (used int, ok bool) {
	total := len(p)
	if c.skip > 0 {
		n := min(c.skip, len(p))
		c.skip -= n
		p = p[n:]
		if c.skip > 0 {
			return total, true
		}
		c.bodyFrame(c.last, c.skipN)
	}
	for len(p) >= 7 {
		size := int(binary.BigEndian.Uint32(p[3:]))
		id := uint16(p[1])<<8 | uint16(p[2])
		ch := c.last
		if ch == nil || ch.id != id {
			ch = c.channel(id)
		}
		whole := size + frames.Overhead
		if len(p) < whole {
			if p[0] == frames.TypeBody && ch.reply == nil {
				c.skip, c.skipN = whole-len(p), size
				return total, true
			}
			break
		}
		if p[whole-1] != frames.End {
			return total - len(p), false
		}
		payload := p[7 : 7+size]
		switch p[0] {
		case frames.TypeBody:
			c.bodyFrame(ch, size)
		case frames.TypeHeader:
			if len(payload) < 12 {
				return total - len(p), false
			}
			if ch.rem = binary.BigEndian.Uint64(payload[4:]); ch.rem == 0 {
				c.complete(ch)
			}
		case frames.TypeMethod:
			if len(payload) < 4 || !c.method(ch, payload) {
				return total - len(p), false
			}
		}
		if ch.reply != nil && p[0] != frames.TypeMethod {
			c.out.Raw(p[:whole])
		}
		p = p[whole:]
	}
	return total - len(p), true
}

// channel finds or makes the state of a channel.
func (c *conn) channel(id uint16) *channel {
	ch := c.chans[id]
	if ch == nil {
		ch = &channel{id: id}
		c.chans[id] = ch
	}
	c.last = ch
	return ch
}

func (c *conn) bodyFrame(ch *channel, size int) {
	if ch.rem -= min(ch.rem, uint64(size)); ch.rem == 0 {
		c.complete(ch)
	}
}

// complete counts a publish whose content has arrived.
func (c *conn) complete(ch *channel) {
	ch.seen++
	if !ch.dirty {
		ch.dirty = true
		c.dirty = append(c.dirty, ch)
	}
}

// confirms acks what was published since the last time, and delivers into windows that acks have opened.
func (c *conn) confirms() {
	for _, ch := range c.dirty {
		ch.dirty = false
		c.srv.published.Add(ch.seen - ch.acked)
		if ch.confirm && ch.seen > ch.acked {
			if c.opt.ConfirmEach {
				for tag := ch.acked + 1; tag <= ch.seen; tag++ {
					c.out.Method(ch.id, 60, 80).LongLong(tag).Octet(0).Close()
				}
			} else {
				multiple := byte(0)
				if ch.seen-ch.acked > 1 {
					multiple = 1
				}
				c.out.Method(ch.id, 60, 80).LongLong(ch.seen).Octet(multiple).Close()
			}
		}
		ch.acked = ch.seen
		if ch.prefetch > 0 && len(ch.cons) > 0 {
			c.refill(ch)
		}
	}
	c.dirty = c.dirty[:0]
}
