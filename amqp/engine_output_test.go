package amqp

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"
)

// liesIn reports whether seg is part of the memory of p.
func liesIn(seg, p []byte) bool {
	a, b := uintptr(unsafe.Pointer(unsafe.SliceData(seg))), uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return len(seg) > 0 && a >= b && a < b+uintptr(len(p))
}

// A large body goes out as it is, between small messages, however little of it
// is written at a time.
func TestEngine_LargeBodiesAreNotCopied(t *testing.T) {
	large := make([]byte, 300<<10+17)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range large {
		large[i] = byte(r.Uint32())
	}
	bodies := [][]byte{[]byte("first"), large, []byte("between"), large[:128<<10], large[:128<<10-1], nil, []byte("last")}
	for _, step := range []int{1 << 30, 1, 7, 4096, 131072, 131071, 100003} {
		e, peer := ready(t, ServerRole, 1), ready(t, ClientRole, 1)
		for i, body := range bodies {
			m := &BasicDeliver{ConsumerTag: "t", DeliveryTag: uint64(i + 1), RoutingKey: "q"}
			if err := e.SendContent(1, m, &Message{Body: body}); err != nil {
				t.Fatal(err)
			}
		}
		var aliased, total int
		for _, seg := range e.Output() {
			total += len(seg)
			if liesIn(seg, large) {
				aliased += len(seg)
			}
		}
		if aliased != len(large)+128<<10 || total != e.s.pending() {
			t.Errorf("%d octets of bodies go out as they are; %d in all, where %d are pending", aliased, total, e.s.pending())
		}
		var got [][]byte
		written := 0
		for {
			segs := e.Output()
			if len(segs) == 0 {
				break
			}
			seg := segs[0][:min(step, len(segs[0]))]
			if step == 1<<30 { // all at once, vectored
				seg = bytes.Join(segs, nil)
			}
			if err := peer.Feed(time.Unix(1000, 0), seg); err != nil {
				t.Fatal(err)
			}
			for {
				ev, ok := peer.Next()
				if !ok {
					break
				}
				got = append(got, bytes.Clone(ev.Body))
			}
			e.Wrote(len(seg))
			written += len(seg)
			if step < 10 && written > 20000 { // the rest faster
				step = 50021
			}
		}
		if written != total || len(got) != len(bodies) {
			t.Fatalf("%d of %d octets, %d of %d messages", written, total, len(got), len(bodies))
		}
		for i := range bodies {
			if !bytes.Equal(got[i], bodies[i]) {
				t.Errorf("by %d: body %d of %d octets came as %d others", step, i, len(bodies[i]), len(got[i]))
			}
		}
	}
}

// Wrote may cut anywhere, and more may be sent at any time.
func TestEngine_WritesInOddPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	e, peer := ready(t, ServerRole, 1), ready(t, ClientRole, 1)
	body := make([]byte, 200<<10)
	sent, got := 0, 0
	for sent < 300 || e.s.pending() > 0 {
		if sent < 300 && r.IntN(2) == 0 {
			sent++
			m := &BasicDeliver{DeliveryTag: uint64(sent)}
			if err := e.SendContent(1, m, &Message{Body: body[:r.IntN(20)*r.IntN(10000)]}); err != nil {
				t.Fatal(err)
			}
		}
		n := r.IntN(1 + e.s.pending())
		if r.IntN(3) == 0 {
			n = e.s.pending()
		}
		left := n
		for _, seg := range e.Output() {
			k := min(left, len(seg))
			if err := peer.Feed(time.Unix(1000, 0), seg[:k]); err != nil {
				t.Fatal(err)
			}
			left -= k
		}
		e.Wrote(n)
		got += discard(peer)
	}
	if got != sent {
		t.Errorf("%d of %d arrived", got, sent)
	}
}

// Detach hands over what Output would show, and goes on elsewhere.
func TestEngine_Detach(t *testing.T) {
	e, peer := ready(t, ServerRole, 1), ready(t, ClientRole, 1)
	spare := make([]byte, 0, 64)
	if segs := e.Detach(spare); segs != nil || liesIn(e.s.out[:cap(e.s.out)], spare[:cap(spare)]) {
		t.Errorf("nothing to write, and the spare buffer was taken: %q", segs)
	}
	large := make([]byte, 140<<10)
	tag := uint64(0)
	send := func(body []byte) {
		tag++
		if err := e.SendContent(1, &BasicDeliver{DeliveryTag: tag}, &Message{Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	send([]byte("a"))
	send(large)
	first := e.Detach(spare)
	send([]byte("b"))
	if second := e.Detach(nil); len(second) != 1 || !liesIn(second[0], spare[:cap(spare)]) {
		t.Errorf("the spare buffer was not used")
	} else {
		first = append(first, second...)
	}
	if e.s.pending() != 0 || len(e.Output()) != 0 {
		t.Errorf("%d octets are still pending", e.s.pending())
	}
	if err := peer.Feed(time.Unix(1000, 0), bytes.Join(first, nil)); err != nil {
		t.Fatal(err)
	}
	if n := discard(peer); n != 3 {
		t.Errorf("%d of 3 arrived", n)
	}
}

// Driven by hand, an engine allocates nothing for messages and acks.
func TestEngine_HotPathDoesNotAllocate(t *testing.T) {
	now := time.Unix(1000, 0)
	check := func(name string, f func()) {
		t.Helper()
		f()
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	body := bytes.Repeat([]byte("x"), 1000)

	e := ready(t, ClientRole, 1)
	must(e.Send(1, &ConfirmSelect{NoWait: true}))
	publish := &BasicPublish{Exchange: "orders", RoutingKey: "eu.new"}
	msg := &Message{Properties: Properties{MessageID: "m1", DeliveryMode: 2, Headers: Table{"a": "b"}}, Body: body}
	check("publish", func() { must(e.SendContent(1, publish, msg)); discard(e) })
	deliver := &BasicDeliver{ConsumerTag: "t", Exchange: "orders", RoutingKey: "eu.new"}
	ack := &BasicAck{}
	template := frameOf(t, 1, deliver)
	template = append(template, contentHeader(1, 1000, "\x20\x80"+long("\x01kS"+long("v"))+"\x02m1")...)
	template = append(template, frame(FrameBody, 1, string(body))...)
	check("deliver and ack", func() {
		deliver.DeliveryTag++
		binary := template[frameHeaderSize+4+2:] // behind the consumer tag
		for i := range 8 {
			binary[i] = byte(deliver.DeliveryTag >> (56 - 8*i))
		}
		must(e.Feed(now, template))
		if _, ok := e.Next(); !ok {
			t.Fatal("no event")
		}
		ack.DeliveryTag = deliver.DeliveryTag
		must(e.Send(1, ack))
		discard(e)
	})
	confirm := frameOf(t, 1, &BasicAck{DeliveryTag: 1})
	check("confirm", func() { must(e.Feed(now, confirm)); discard(e) })

	s := ready(t, ServerRole, 1)
	published := frameOf(t, 1, publish)
	published = append(published, contentHeader(1, 1000, "\x00\x80\x02m1")...)
	published = append(published, frame(FrameBody, 1, string(body))...)
	check("published", func() { must(s.Feed(now, published)); discard(s) })
	ok := &BasicAck{DeliveryTag: 1}
	check("confirming", func() { must(s.Send(1, ok)); discard(s) })
	check("delivering", func() { must(s.SendContent(1, deliver, msg)); discard(s) })
	raw := []byte("\x00\x80\x02m1")
	check("forwarding", func() { must(s.Forward(1, deliver, raw, body)); discard(s) })
}
