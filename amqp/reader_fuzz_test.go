package amqp

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"
)

// fuzzedReader is the runtime's reader on an engine midway, without a socket.
func fuzzedReader(t testing.TB) *reader {
	c := &Conn{e: midway(t, ClientRole, true), done: make(chan struct{})}
	c.e.r.lean = true
	c.e.in, c.e.buf, c.e.events = nil, nil, nil
	c.w.init()
	c.w.timer.Stop()
	c.reader.init(c)
	for _, st := range c.e.s.channels {
		if st != nil {
			ch := &Channel{c: c, st: st, id: st.num}
			st.ref = ch
			if st.num == 1 {
				for _, tag := range []string{"t", "borrowing"} {
					cons := &Consumer{ch: ch, tag: tag}
					cons.opts.Borrow = tag == "borrowing"
					ch.remember(cons)
				}
			}
		}
	}
	return &c.reader
}

// readAll has the reader parse p, the given number of octets at a time.
func (r *reader) readAll(p []byte, step int) error {
	for len(p) > 0 {
		n := min(step, len(p))
		for n > 0 {
			buf := r.buffer()
			k := copy(buf, p[:n])
			r.w += k
			n -= k
			p = p[k:]
			if err := r.parse(); err != nil {
				return err
			}
			r.handUp()
			r.makeRoom()
		}
	}
	return nil
}

// FuzzReader holds the runtime's reader, which takes deliveries and confirms
// past the engine, against the engine: neither panics, and both find a peer's
// violation, with the same reply code, however the input is cut.
func FuzzReader(f *testing.F) {
	seedEngine(f)
	for _, args := range []string{"", "\x00", "\xff", "\x01t", "\x01t\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00", "\x01t\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00"} {
		p := frame(FrameMethod, 1, "\x00\x3c\x00\x3c"+args) + contentHeader(1, 3, "\x00\x00") + frame(FrameBody, 1, "abc")
		f.Add(false, true, []byte(p))
	}
	past := []MethodID{MethodBasicDeliver, MethodBasicAck, MethodBasicNack}
	f.Fuzz(func(t *testing.T, _, _ bool, p []byte) {
		e := midway(t, ClientRole, true)
		var want *Error
		e.Feed(time.Unix(1000, 0), p)
		e.EOF(nil)
		for {
			ev, ok := e.Next()
			if !ok {
				break
			}
			if ev.Kind == EventClosed && ev.Err != nil && !errors.Is(ev.Err, io.EOF) {
				want = ev.Err
			}
		}
		for _, step := range []int{1 << 30, 1, 37} {
			if step == 1 && len(p) > 3000 {
				continue
			}
			r := fuzzedReader(t)
			err := r.readAll(p, step)
			var got *Error
			if err != nil && err != errOver && !errors.As(err, &got) {
				t.Fatalf("by %d: %v", step, err)
			}
			switch {
			case want == nil && got == nil:
			case want != nil && got != nil && slices.Contains(past, want.Method):
				// where two things are wrong, the reader sees the other first
			case want != nil && got == nil && r.r < r.w:
				// it waits for the rest of a body before it looks at the properties
			case want == nil || got == nil || want.Code != got.Code:
				t.Fatalf("by %d: the engine says %v, the reader %v", step, want, got)
			}
		}
	})
}
