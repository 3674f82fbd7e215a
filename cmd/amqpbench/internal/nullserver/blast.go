package nullserver

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/frames"
)

// consumer is one consumer. Its fields are guarded by the connection's wmu where it blasts, and are the
// reader's own where it waits for acks.
type consumer struct {
	ch    *channel
	tag   string
	left  uint64 // deliveries still to send
	chunk chunk  // of a consumer with acks
	acks  bool
}

// chunk is a run of encoded deliveries and where their delivery tags are.
type chunk struct {
	p    []byte
	tags []int // offset of the tag of delivery i
	ends []int // offset after delivery i
}

// consume starts a consumer.
func (c *conn) consume(ch *channel, r *frames.Reader) {
	r.Short()
	queue, tag, bits := r.ShortStr(), r.ShortStr(), r.Octet()
	if tag == "" {
		tag = fmt.Sprintf("ctag-%d-%d", ch.id, len(ch.cons)+1)
	}
	if bits&8 == 0 {
		c.out.Method(ch.id, 60, 21).ShortStr(tag).Close()
	}
	cons := &consumer{ch: ch, tag: tag, left: math.MaxUint64, acks: bits&2 == 0}
	if _, n, ok := strings.Cut(queue, "blast."); ok {
		if left, err := strconv.ParseUint(n, 10, 64); err == nil {
			cons.left = left
		}
	}
	ch.cons[tag] = cons
	if queue == "amq.rabbitmq.reply-to" {
		ch.reply = cons
		return
	}
	if cons.acks && ch.prefetch > 0 {
		c.refill(ch)
		return
	}
	c.flush() // consume-ok goes before the first delivery
	c.wmu.Lock()
	c.blasted = append(c.blasted, cons)
	c.changed = true
	if !c.blaster {
		c.blaster = true
		go c.blast()
	}
	c.wake.Signal()
	c.wmu.Unlock()
}

// remove ends a consumer: nothing is delivered to it after this returns.
func (c *conn) remove(cons *consumer) {
	delete(cons.ch.cons, cons.tag)
	if cons.ch.reply == cons {
		cons.ch.reply = nil
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for i, b := range c.blasted {
		if b == cons {
			c.blasted = append(c.blasted[:i], c.blasted[i+1:]...)
			c.changed = true
			return
		}
	}
}

// encode makes deliveries for the consumers in turn, rounds times.
func (c *conn) encode(consumers []*consumer, rounds int) chunk {
	var b frames.Buf
	var k chunk
	body := make([]byte, c.opt.Body)
	for i := range body {
		body[i] = byte('a' + i%26)
	}
	for range rounds {
		for _, cons := range consumers {
			b.Method(cons.ch.id, 60, 60).ShortStr(cons.tag)
			k.tags = append(k.tags, len(b.B))
			b.LongLong(0).Octet(0).ShortStr("").ShortStr("blast").Close()
			b.Content(cons.ch.id, c.opt.Headers, body, frameMax)
			k.ends = append(k.ends, len(b.B))
		}
	}
	k.p = b.B
	return k
}

// rounds is how often n consumers' deliveries fit into a write.
func (c *conn) rounds(n int) int {
	return max(1, c.opt.Chunk/(n*(c.opt.Body+c.opt.Headers*24+80)))
}

// blast writes deliveries to all consumers without acks until the connection ends.
func (c *conn) blast() {
	var k chunk
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for {
		for len(c.blasted) == 0 && !c.ended {
			c.wake.Wait()
		}
		if c.ended {
			return
		}
		n := len(c.blasted)
		left := uint64(math.MaxUint64)
		for _, cons := range c.blasted {
			left = min(left, cons.left)
		}
		if rounds := uint64(len(k.ends) / n); c.changed || left < rounds {
			k = c.encode(c.blasted, int(min(uint64(c.rounds(n)), max(left, 1))))
			c.changed = false
		}
		for i, at := range k.tags {
			cons := c.blasted[i%n]
			cons.ch.tag++
			binary.BigEndian.PutUint64(k.p[at:], cons.ch.tag)
		}
		if left > 0 {
			if _, err := c.rw.Write(k.p); err != nil {
				return
			}
		}
		keep := c.blasted[:0]
		for _, cons := range c.blasted {
			if cons.left -= min(cons.left, uint64(len(k.ends)/n)); cons.left > 0 {
				keep = append(keep, cons)
			}
		}
		c.changed = c.changed || len(keep) != n
		c.blasted = keep
		// The lock is let go so that answers get their turn.
		c.wmu.Unlock()
		c.wmu.Lock()
	}
}

// deliverMethod appends the method of an rpc's reply; its content follows as it came.
func (c *conn) deliverMethod(cons *consumer) {
	cons.ch.tag++
	c.out.Method(cons.ch.id, 60, 60).ShortStr(cons.tag).LongLong(cons.ch.tag).Octet(0).ShortStr("").ShortStr(cons.tag).Close()
}

// settle counts acks.
func (c *conn) settle(ch *channel, tag uint64, multiple bool) {
	if multiple && tag == 0 {
		tag = ch.tag
	}
	ch.window.settle(tag, multiple)
	// What that makes room for is sent when the read is used up, all at once.
	if !ch.dirty {
		ch.dirty = true
		c.dirty = append(c.dirty, ch)
	}
}

// refill delivers to a channel's consumers with acks until prefetch deliveries are out.
func (c *conn) refill(ch *channel) {
	for _, cons := range ch.cons {
		if !cons.acks || cons.left == 0 {
			continue
		}
		free := uint64(max(0, ch.prefetch-int(ch.tag-ch.window.settled)))
		free = min(free, cons.left)
		if free == 0 {
			continue
		}
		if cons.chunk.p == nil {
			cons.chunk = c.encode([]*consumer{cons}, min(c.rounds(1), ch.prefetch))
		}
		for k := cons.chunk; free > 0; {
			n := min(int(free), len(k.ends))
			for i := range n {
				ch.tag++
				binary.BigEndian.PutUint64(k.p[k.tags[i]:], ch.tag)
			}
			c.out.Raw(k.p[:k.ends[n-1]])
			if len(c.out.B) > 256<<10 {
				c.flush()
			}
			free -= uint64(n)
			cons.left -= uint64(n)
		}
	}
}

// window knows which delivery tags are settled: all up to prefix, and single ones after it.
type window struct {
	prefix  uint64
	settled uint64 // in all
	bits    [1024]uint64
}

const windowSize = 1024 * 64

// settle marks a tag, or all up to it. A tag is marked once however often it is settled; one more than 65,536
// ahead of the prefix is taken to settle all before it.
func (w *window) settle(tag uint64, multiple bool) {
	if tag <= w.prefix {
		return
	}
	if !multiple && tag < w.prefix+windowSize {
		at, bit := tag%windowSize/64, uint64(1)<<(tag%64)
		if w.bits[at]&bit != 0 {
			return
		}
		w.bits[at] |= bit
		w.settled++
	} else {
		for t := w.prefix + 1; t <= tag; t++ {
			if w.take(t) {
				continue
			}
			w.settled++
		}
		w.prefix = tag
	}
	for w.take(w.prefix + 1) {
		w.prefix++
	}
}

// take clears a tag's mark and says whether it was there.
func (w *window) take(tag uint64) bool {
	at, bit := tag%windowSize/64, uint64(1)<<(tag%64)
	had := w.bits[at]&bit != 0
	w.bits[at] &^= bit
	return had
}
