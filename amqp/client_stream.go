package amqp

import "sync"

// streamTrack remembers which offsets of a stream were handled, so that a
// consumer can go on behind them: a stream forgets nothing, and remembers
// nothing of its readers. It is told of deliveries by the reader, in order, and
// of settlements by whoever settles.
type streamTrack struct {
	mu    sync.Mutex // guards what follows; a leaf
	ch    *Channel
	under map[uint64]int64 // offsets that came on ch and were not handled, by tag
	done  map[int64]bool   // handled, and above the lowest that was not
	top   int64            // the highest that came
	floor int64            // everything below was handled before ch
	began bool
}

// arguments are those of basic.consume, with the offset to go on from.
func (t *streamTrack) arguments(args Table) Table {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.began {
		return args
	}
	t.floor = t.lowest()
	t.ch, t.under = nil, nil
	return args.with("x-stream-offset", t.floor)
}

// lowest is the lowest offset that was not handled. mu is held.
func (t *streamTrack) lowest() int64 {
	low := t.top + 1
	for _, offset := range t.under {
		low = min(low, offset)
	}
	return low
}

// came notes a delivery.
func (t *streamTrack) came(d *Delivery) {
	headers, err := d.Headers()
	offset, ok := headers["x-stream-offset"].(int64)
	if err != nil || !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.cons.ch != t.ch {
		t.ch, t.under = d.cons.ch, map[uint64]int64{}
	}
	if !t.began {
		t.began, t.floor, t.top, t.done = true, offset, offset, map[int64]bool{}
	}
	t.under[d.DeliveryTag] = offset
	t.top = max(t.top, offset)
}

// skips reports whether d was handled before, on an earlier channel. It is
// acked then, and not to be handed on. t may be nil, for what is no stream.
func (t *streamTrack) skips(d *Delivery) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	offset, ok := t.under[d.DeliveryTag]
	skip := ok && d.cons.ch == t.ch && (offset < t.floor || t.done[offset])
	t.mu.Unlock()
	if skip {
		d.Ack()
	}
	return skip
}

// handled notes that a delivery was settled for good.
func (t *streamTrack) handled(d *Delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	offset, ok := t.under[d.DeliveryTag]
	if !ok || d.cons.ch != t.ch {
		return
	}
	delete(t.under, d.DeliveryTag)
	t.done[offset] = true
	if len(t.done) < 1024+2*len(t.under) {
		return
	}
	low := t.lowest()
	for offset := range t.done {
		if offset < low {
			delete(t.done, offset)
		}
	}
}
