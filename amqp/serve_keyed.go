package amqp

import (
	"runtime/debug"
)

// keyed is how Serve keeps the order per key. One worker at a time takes from
// the consumer. What it takes it handles itself, unless another is at that key:
// then the delivery joins the key's lane, which that other works off before it
// takes again. So no worker ever waits for a key.
type keyed struct {
	s    *serving
	turn chan struct{} // holds one token while a worker takes
	room chan struct{} // lanes got shorter
	t    *taker        // of who has the turn

	// serving.mu guards what follows.
	lanes  map[string]*lane // of the keys that are being worked at
	spare  []*lane          // as many as there are workers at most
	queued int              // in all lanes
}

// lane is what waits behind a delivery of the same key.
type lane struct {
	key  string // buf, which stays as it is as long as the lane has it
	buf  []byte
	list []*Delivery
	head int
}

func (k *keyed) init(s *serving) {
	k.s = s
	k.turn, k.room = make(chan struct{}, 1), make(chan struct{}, 1)
	k.t = s.cons.taker(false)
	k.lanes = map[string]*lane{}
}

func (k *keyed) work() {
	s := k.s
	defer s.leave()
	for {
		d, l, ok := k.take()
		if !ok {
			return
		}
		for d != nil {
			d = k.handle(d, l)
		}
	}
}

// handle has d handled and gives what follows it in its lane, which ends where
// there is nothing.
func (k *keyed) handle(d *Delivery, l *lane) (next *Delivery) {
	done := false
	defer func() {
		if !done { // the handler ended the goroutine: nobody is at this lane any more
			k.abandon(l)
		}
	}()
	if !k.s.handle(d) {
		k.s.cons.putBack(d)
	}
	done = true
	return k.next(l)
}

// take gives a delivery that this worker is to handle, with its lane. Both are
// nil where it was another's. ok is false where nothing more is to be begun.
func (k *keyed) take() (d *Delivery, l *lane, ok bool) {
	s := k.s
	select {
	case k.turn <- struct{}{}:
	case <-s.stop:
		return nil, nil, false
	}
	defer func() { <-k.turn }()
	if !k.waitRoom() {
		return nil, nil, false
	}
	d, err := k.t.pull(s.stop)
	if d == nil {
		s.end(err)
		return nil, nil, false
	}
	key, err := k.keyOf(d)
	if err != nil {
		if !s.failed(d, err) {
			s.cons.putBack(d)
		}
		return nil, nil, true
	}
	l, mine := k.join(key, d)
	if !mine {
		return nil, nil, true
	}
	return d, l, true
}

// join gives a key's lane, in which d waits where it is not the caller's.
func (k *keyed) join(key string, d *Delivery) (l *lane, mine bool) {
	s := k.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		s.rest = append(s.rest, d)
		return nil, false
	}
	if l = k.lanes[key]; l != nil {
		l.add(d)
		k.queued++
		s.cons.keep(s.cons.sizeOf(d))
		return l, false
	}
	if n := len(k.spare); n > 0 {
		l, k.spare = k.spare[n-1], k.spare[:n-1]
	} else {
		l = new(lane)
	}
	l.buf = append(l.buf[:0], key...) // it may lie in what is lent
	l.key = alias(l.buf)
	k.lanes[l.key] = l
	return l, true
}

func (l *lane) add(d *Delivery) {
	if len(l.list) == cap(l.list) && l.head > len(l.list)/2 {
		n := copy(l.list, l.list[l.head:])
		clear(l.list[n:])
		l.list, l.head = l.list[:n], 0
	}
	l.list = append(l.list, d)
}

// waitRoom waits while the lanes hold as much as the consumer may buffer, if
// that is limited by nothing else.
func (k *keyed) waitRoom() bool {
	s := k.s
	for {
		s.mu.Lock()
		full := s.limit() > 0 && k.queued >= s.limit()
		s.mu.Unlock()
		if !full {
			return !s.stopped()
		}
		select {
		case <-k.room:
		case <-s.stop:
			return false
		}
	}
}

// keyOf calls the user's function. A panic becomes an error.
func (k *keyed) keyOf(d *Delivery) (key string, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return k.s.opts.Key(d), nil
}

// next gives what is to be handled after a delivery of the lane is done.
func (k *keyed) next(l *lane) *Delivery {
	s := k.s
	if s.stopped() {
		k.abandon(l)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.head == len(l.list) {
		k.close(l)
		return nil
	}
	d := l.list[l.head]
	l.list[l.head] = nil
	if l.head++; l.head == len(l.list) {
		l.list, l.head = l.list[:0], 0
	}
	k.shrunk(d)
	return d
}

// abandon leaves what is in a lane to be requeued.
func (k *keyed) abandon(l *lane) {
	s := k.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, k.empty(l)...)
	k.close(l)
}

// empty takes what waits in a lane. s.mu is held.
func (k *keyed) empty(l *lane) []*Delivery {
	rest := l.list[l.head:]
	l.list, l.head = nil, 0
	k.shrunk(rest...)
	return rest
}

// close ends a lane. s.mu is held.
func (k *keyed) close(l *lane) {
	delete(k.lanes, l.key)
	clear(l.list)
	l.key, l.list, l.head = "", l.list[:0], 0
	k.spare = append(k.spare, l)
}

// shrunk counts deliveries that left a lane. s.mu is held.
func (k *keyed) shrunk(left ...*Delivery) {
	k.queued -= len(left)
	k.s.cons.unkeep(k.s.cons.sizeOf(left...))
	if k.s.limit() > 0 {
		select {
		case k.room <- struct{}{}:
		default:
		}
	}
}

// putBack ends the loan of a delivery.
func (cons *Consumer) putBack(d *Delivery) {
	if !cons.opts.Borrow {
		return
	}
	reusable := d.state.Load() != unsettled
	d.Release()
	if reusable { // of another a late Ack must still find its own tag
		cons.mu.Lock()
		cons.free = append(cons.free, d)
		cons.mu.Unlock()
	}
}
