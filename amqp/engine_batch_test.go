package amqp

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

// Feed looks some dozens of events ahead; what lies behind them, an error or the
// end of the stream, comes when they have been taken, and in order.
func TestEngine_ErrorBehindManyEvents(t *testing.T) {
	const n = 5 * eventBatch
	now := time.Unix(1000, 0)
	calls := bytes.Repeat(frameOf(t, 1, &TxCommit{}), n)
	for _, c := range []struct {
		name  string
		after func(e *Engine) error // what comes behind the calls
		is    error
	}{
		{"a violation", func(e *Engine) error { return e.Feed(now, []byte(frame(9, 0, ""))) }, FrameError},
		{"the end", func(e *Engine) error { e.EOF(nil); return nil }, io.EOF},
		{"both", func(e *Engine) error { err := e.Feed(now, []byte(frame(9, 0, ""))); e.EOF(nil); return err }, FrameError},
	} {
		e := ready(t, ServerRole, 1)
		if err := e.Feed(now, calls); err != nil {
			t.Fatal(err)
		}
		if err := c.after(e); err != nil {
			t.Fatalf("%s: found at once: %v", c.name, err)
		}
		for i := range n {
			if ev, ok := e.Next(); !ok || ev.ID != MethodTxCommit {
				t.Fatalf("%s: event %d is %v %+v", c.name, i, ok, ev)
			}
		}
		ev, ok := e.Next()
		if !ok || ev.Kind != EventClosed || !errors.Is(ev.Err, c.is) {
			t.Fatalf("%s: got %v %+v", c.name, ok, ev)
		}
		if _, ok := e.Next(); ok {
			t.Errorf("%s: an event after the last", c.name)
		}
		if err := e.Feed(now, nil); err != error(ev.Err) {
			t.Errorf("%s: Feed: %v", c.name, err)
		}
	}
}

// What an event aliases stays as it is until it was taken and more is fed,
// however much comes before that.
func TestEngine_EventsKeepTheirBytes(t *testing.T) {
	now := time.Unix(1000, 0)
	e := ready(t, ServerRole, 1)
	for i := range 200 {
		p := frameOf(t, 1, &BasicPublish{RoutingKey: "q"})
		p = append(p, contentHeader(1, 8, "\x00\x00")...)
		p = append(p, frame(FrameBody, 1, string(bytes.Repeat([]byte{byte(i)}, 8)))...)
		for len(p) > 0 {
			k := min(len(p), 11)
			if err := e.Feed(now, p[:k]); err != nil {
				t.Fatal(err)
			}
			p = p[k:]
		}
	}
	for i := range 200 {
		ev, ok := e.Next()
		if !ok || !bytes.Equal(ev.Body, bytes.Repeat([]byte{byte(i)}, 8)) {
			t.Fatalf("event %d: %v, body %x", i, ok, ev.Body)
		}
	}
}
