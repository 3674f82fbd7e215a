package amqptest_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
)

// An answer is something that arrived: a method with its content, or the end
// of the stream (on channel 0).
type answer struct {
	channel uint16
	method  *specMethod // nil: text says it all
	args    args
	props   args
	body    string
	text    string
}

// String writes the answer as scripts have it, but for the normalised names.
func (a *answer) String() string {
	if a.method == nil {
		return a.text
	}
	s := formatMethod(a.method, a.args)
	if !a.method.Content {
		return s
	}
	var b strings.Builder
	formatFields(&b, spec().properties, a.props)
	return s + b.String() + " body=" + bodyText(a.body)
}

// A rawConn is a connection that speaks frames and knows no rules, so that a
// script can break them. What arrives is queued by channel until it is asked
// for; the only things it does of itself are to answer a close with close-ok
// and to spread a confirm with multiple set over the tags that it covers.
type rawConn struct {
	nc       net.Conn
	wake     chan struct{} // one token: something arrived; shared by a case
	frameMax int

	mu      sync.Mutex
	queues  map[uint16][]*answer
	open    map[uint16]bool
	unacked map[uint16][]int64 // published under confirm.select, not yet confirmed
	next    map[uint16]int64   // the next publish's tag; 0: not in confirm mode
	partial map[uint16]*answer
	left    map[uint16]int64 // octets of body still to come
	closing bool             // a connection.close went one way or the other
	ended   bool
	beats   int
	noReply bool // leave closes unanswered
}

func newRawConn(nc net.Conn, wake chan struct{}) *rawConn {
	c := &rawConn{
		nc: nc, wake: wake, frameMax: 131072,
		queues: map[uint16][]*answer{}, open: map[uint16]bool{}, unacked: map[uint16][]int64{},
		next: map[uint16]int64{}, partial: map[uint16]*answer{}, left: map[uint16]int64{},
	}
	go c.read()
	return c
}

func (c *rawConn) read() {
	in := bufio.NewReader(c.nc)
	for {
		var h [7]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			break
		}
		if string(h[:4]) == "AMQP" { // a server's refusal of our protocol header
			var v byte
			v, _ = in.ReadByte()
			c.queue(&answer{text: fmt.Sprintf("protocol-header %x", append(h[4:7:7], v))})
			continue
		}
		n := binary.BigEndian.Uint32(h[3:])
		if n > 1<<20 {
			c.queue(&answer{text: fmt.Sprintf("frame of %d octets", n)})
			break
		}
		p := make([]byte, n+1)
		if _, err := io.ReadFull(in, p); err != nil {
			break
		}
		c.frame(h[0], binary.BigEndian.Uint16(h[1:]), p[:n], p[n])
	}
	c.mu.Lock()
	c.ended = true
	silent := c.closing
	c.mu.Unlock()
	c.nc.Close()
	if !silent {
		c.queue(&answer{text: "closed"})
	}
	c.signal()
}

func (c *rawConn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *rawConn) queue(a *answer) {
	c.mu.Lock()
	c.queues[a.channel] = append(c.queues[a.channel], a)
	c.mu.Unlock()
	c.signal()
}

func (c *rawConn) frame(typ byte, ch uint16, p []byte, end byte) {
	switch {
	case end != 0xCE:
		c.queue(&answer{channel: ch, text: fmt.Sprintf("frame end %#x", end)})
	case typ == 1:
		c.method(ch, p)
	case typ == 2, typ == 3:
		c.content(typ, ch, p)
	case typ == 8:
		c.mu.Lock()
		c.beats++
		c.mu.Unlock()
		c.signal()
	default:
		c.queue(&answer{channel: ch, text: fmt.Sprintf("frame type %d", typ)})
	}
}

func (c *rawConn) method(ch uint16, p []byte) {
	r := &reader{p: p}
	class, id := uint16(r.uint(2)), uint16(r.uint(2))
	m := spec().byID[[2]uint16{class, id}]
	if m == nil {
		c.queue(&answer{channel: ch, text: fmt.Sprintf("method %d.%d", class, id)})
		return
	}
	a := &answer{channel: ch, method: m, args: m.readArguments(r)}
	if r.err != nil || len(r.p) > 0 {
		a.method, a.text = nil, fmt.Sprintf("%s undecodable: %v, %d octets left", m.Name, r.err, len(r.p))
	}
	if m.Content {
		c.partial[ch] = a
		return
	}
	c.track(a)
	if m.Name == "basic.ack" || m.Name == "basic.nack" {
		c.spread(a)
		return
	}
	c.queue(a)
}

// track notes what a method does to the connection's state and answers a
// close.
func (c *rawConn) track(a *answer) {
	c.mu.Lock()
	ch, reply := a.channel, ""
	switch a.method.Name {
	case "channel.close":
		c.open[ch], c.next[ch], c.unacked[ch] = c.noReply, 0, nil
		reply = "channel.close-ok"
	case "channel.close-ok":
		c.open[ch], c.next[ch], c.unacked[ch] = false, 0, nil
	case "connection.close":
		c.closing = true
		reply = "connection.close-ok"
	case "connection.close-ok":
		c.closing = true
		defer c.nc.Close() // RabbitMQ leaves this to the client
	}
	if c.noReply {
		reply = ""
	}
	c.mu.Unlock()
	if reply != "" {
		c.write(frameBytes(1, ch, spec().byName[reply].appendArguments(nil, nil)))
	}
}

// spread turns a confirm of several publishes into one answer for each, for
// how RabbitMQ groups them is a matter of timing.
func (c *rawConn) spread(a *answer) {
	tag, _ := a.args["delivery-tag"].(int64)
	multiple, _ := a.args["multiple"].(bool)
	c.mu.Lock()
	var rest []int64
	for _, t := range c.unacked[a.channel] {
		if t == tag || multiple && (t < tag || tag == 0) {
			one := &answer{channel: a.channel, method: a.method, args: args{"delivery-tag": t}}
			c.queues[a.channel] = append(c.queues[a.channel], one)
		} else {
			rest = append(rest, t)
		}
	}
	known := len(rest) < len(c.unacked[a.channel])
	c.unacked[a.channel] = rest
	c.mu.Unlock()
	if !known {
		c.queue(a)
		return
	}
	c.signal()
}

func (c *rawConn) content(typ byte, ch uint16, p []byte) {
	a := c.partial[ch]
	if a == nil {
		c.queue(&answer{channel: ch, text: "content without a method"})
		return
	}
	if typ == 2 {
		r := &reader{p: p}
		r.uint(4)
		c.left[ch] = int64(r.uint(8))
		a.props = r.properties()
	} else {
		a.body += string(p)
		c.left[ch] -= int64(len(p))
	}
	if c.left[ch] <= 0 {
		delete(c.partial, ch)
		c.queue(a)
	}
}

func frameBytes(typ byte, ch uint16, p []byte) []byte {
	b := []byte{typ}
	b = binary.BigEndian.AppendUint16(b, ch)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
	return append(append(b, p...), 0xCE)
}

func (c *rawConn) write(b []byte) { c.nc.Write(b) } // a failure shows as the stream's end

// headerBytes is the content header frame's payload.
func headerBytes(class uint16, size int64, props args) []byte {
	b := binary.BigEndian.AppendUint16(nil, class)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	return appendProperties(b, props)
}

// send writes a method, and the content after it where it carries one.
func (c *rawConn) send(ch uint16, m *specMethod, a, props args, body string, content bool) {
	c.mu.Lock()
	switch m.Name {
	case "channel.open":
		c.open[ch] = true
	case "confirm.select":
		if c.next[ch] == 0 {
			c.next[ch] = 1
		}
	case "basic.publish":
		if c.next[ch] > 0 && content {
			c.unacked[ch] = append(c.unacked[ch], c.next[ch])
			c.next[ch]++
		}
	case "channel.close-ok":
		c.open[ch] = false
	case "connection.close":
		c.closing = true
	}
	c.mu.Unlock()
	out := frameBytes(1, ch, m.appendArguments(nil, a))
	if content {
		out = append(out, frameBytes(2, ch, headerBytes(60, int64(len(body)), props))...)
		for limit := c.frameMax - 8; len(body) > 0; {
			n := min(limit, len(body))
			out = append(out, frameBytes(3, ch, []byte(body[:n]))...)
			body = body[n:]
		}
	}
	c.write(out)
}

// pop takes the next answer of a channel, nil when there is none yet.
func (c *rawConn) pop(ch uint16) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[ch]
	if len(q) == 0 {
		return nil
	}
	c.queues[ch] = q[1:]
	return q[0]
}

// front is the next answer of a channel, left where it is.
func (c *rawConn) front(ch uint16) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q := c.queues[ch]; len(q) > 0 {
		return q[0]
	}
	return nil
}

// waiting lists the channels on which answers wait, lowest first.
func (c *rawConn) waiting() []uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var chs []uint16
	for ch, q := range c.queues {
		if len(q) > 0 {
			chs = append(chs, ch)
		}
	}
	slices.Sort(chs)
	return chs
}
