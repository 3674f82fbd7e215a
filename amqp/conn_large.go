package amqp

import (
	"context"
	"errors"
	"os"
	"time"
)

// directBody is the size from which Publish writes a body from the caller's own
// memory, in one vectored write, where the stream has such a thing. Smaller ones
// gather with others.
const directBody = byRefBody

// direct reports whether a body is written from where it is.
func (c *Conn) direct(body []byte) bool { return c.raw != nil && len(body) >= directBody }

// idle reports that nobody is in a write, and that nothing has to be written
// before what has gathered.
func (o *outbox) idle() bool { return !o.busy && !o.queued }

// writeDirect writes what has gathered, bodies by reference, and waits for the
// socket within ctx. What is unwritten when ctx ends is copied, and left to the
// writer: so the callers' bytes are theirs again in any case. mu is held, and
// released during the write; nobody else is in one.
func (c *Conn) writeDirect(ctx context.Context) {
	o, s := &c.w, &c.e.s
	vec, total := append(s.segs, s.out), s.pending()
	s.segs, s.segsLen, s.out = o.spareVec[:0], 0, takeBuf()
	o.busy, o.inFlight = true, total
	c.mu.Unlock()
	n, err := c.writeVec(ctx, vec)
	c.mu.Lock()
	o.busy, o.inFlight = false, 0
	o.written += uint64(n)
	o.writes++
	switch {
	case err != nil:
		o.fail(c, err)
	case n < total:
		rest := unwritten(vec, n, total)
		o.queued, o.rest, o.back = true, rest, rest
		o.wake()
	default:
		giveBuf(vec[0][:0])
		c.room()
	}
	clear(vec)
	o.spareVec = vec[:0]
}

// writeVec writes all of vec, and less than that without an error where ctx
// ended first.
func (c *Conn) writeVec(ctx context.Context, vec [][]byte) (int, error) {
	if ctx.Done() == nil {
		return c.raw.writeAll(vec)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.nc.SetWriteDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	n, err := c.raw.writeAll(vec)
	if !stop() {
		<-interrupted
		c.nc.SetWriteDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	return n, err
}

// unwritten is a copy of what follows the first n of total octets.
func unwritten(vec [][]byte, n, total int) []byte {
	rest := make([]byte, 0, total-n)
	for _, p := range vec {
		k := min(n, len(p))
		rest = append(rest, p[k:]...)
		n -= k
	}
	return rest
}
