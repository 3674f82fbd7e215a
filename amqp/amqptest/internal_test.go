package amqptest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/warrenmq/warren/amqp"
)

func TestRing_KeepsOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var r ring
	var out []entry // taken, to be put back
	var model []uint64
	next := uint64(0)
	for range 50_000 {
		switch rnd.IntN(3) {
		case 0:
			r.pushBack(entry{seq: next})
			model = append(model, next)
			next++
		case 1:
			if r.n > 0 {
				e := r.popFront()
				if e.seq != model[0] {
					t.Fatalf("popped %d; want %d", e.seq, model[0])
				}
				model = model[1:]
				out = append(out, e)
			}
		case 2:
			if len(out) > 0 {
				i := rnd.IntN(len(out))
				e := out[i]
				out = slices.Delete(out, i, i+1)
				r.insert(e)
				at, _ := slices.BinarySearch(model, e.seq)
				model = slices.Insert(model, at, e.seq)
			}
		}
		if r.n != len(model) {
			t.Fatalf("%d entries; want %d", r.n, len(model))
		}
		if len(model) > 0 {
			if i := rnd.IntN(len(model)); r.at(i).seq != model[i] {
				t.Fatalf("entry %d is %d; want %d", i, r.at(i).seq, model[i])
			}
		}
		if len(out) > 300 {
			out = out[:0]
		}
	}
}

func TestRing_GivesMemoryBack(t *testing.T) {
	var r ring
	for i := range 100_000 {
		r.pushBack(entry{seq: uint64(i)})
	}
	for r.n > 10 {
		r.popFront()
	}
	if len(r.buf) > 4096 {
		t.Errorf("%d places for 10 entries", len(r.buf))
	}
}

func TestUnackedList_AnyOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	var l unackedList
	live := map[uint64]bool{}
	for tag := uint64(1); tag <= 20_000; tag++ {
		l.add(unack{tag: tag})
		live[tag] = true
		for len(live) > 200 || rnd.IntN(3) == 0 && len(live) > 0 {
			pick := uint64(rnd.IntN(int(tag))) + 1
			u, ok := l.take(pick)
			if ok != live[pick] || ok && u.tag != pick {
				t.Fatalf("take(%d) = %d, %v; want %v", pick, u.tag, ok, live[pick])
			}
			delete(live, pick)
		}
		if l.live != len(live) {
			t.Fatalf("%d live; want %d", l.live, len(live))
		}
		if len(l.list) > 64+4*len(live)+200 {
			t.Fatalf("%d places for %d that live", len(l.list), len(live))
		}
	}
	n := len(live)
	if us := l.all(); len(us) != n || !slices.IsSortedFunc(us, func(a, b unack) int { return int(a.tag) - int(b.tag) }) {
		t.Errorf("all gave %d; want %d in order", len(us), n)
	}
}

// One delivery that is never settled must not keep the room of a million others.
func TestUnackedList_OneStraggler(t *testing.T) {
	var l unackedList
	l.add(unack{tag: 1})
	for tag := uint64(2); tag < 1_000_000; tag++ {
		l.add(unack{tag: tag})
		if _, ok := l.take(tag); !ok {
			t.Fatal(tag)
		}
	}
	if len(l.list) > 200 {
		t.Errorf("%d places for one", len(l.list))
	}
}

// With many # in a row a naive walk takes time exponential in their number.
func TestTopicRouter_ManyWildcards(t *testing.T) {
	r := newTopicRouter()
	b := &binding{key: strings.Repeat("#.", 60) + "end"}
	r.add(b)
	hits := 0
	start := time.Now()
	r.route(nil, strings.Repeat("a.", 120)+"end", func(*binding) { hits++ })
	r.route(nil, strings.Repeat("a.", 120)+"no", func(*binding) { hits++ })
	if hits != 1 {
		t.Errorf("%d hits; want 1", hits)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("took %s", d)
	}
	r.remove(b)
	if len(r.root.children) != 0 {
		t.Error("an empty trie has nodes")
	}
}

func TestProps_Rewrite(t *testing.T) {
	full := amqp.Properties{
		ContentType: "text/plain", ContentEncoding: "utf-8", Headers: amqp.Table{"b": int32(1), "x-death": "old"}, DeliveryMode: 2,
		Priority: 3, CorrelationID: "c", ReplyTo: "amq.rabbitmq.reply-to", Expiration: "100", MessageID: "m",
		Timestamp: time.Unix(1000, 0).UTC(), Type: "t", UserID: "guest", AppID: "app",
	}
	for _, in := range []amqp.Properties{full, {}, {Headers: amqp.Table{"b": int32(1)}}, {Expiration: "5"}, {ContentType: "a", ReplyTo: "x"}} {
		raw, err := in.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		same := func(what string, got []byte, change func(*amqp.Properties)) {
			t.Helper()
			var p amqp.Properties
			if err := p.DecodeFrom(got); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			var want amqp.Properties
			if err := want.DecodeFrom(raw); err != nil {
				t.Fatal(err)
			}
			change(&want)
			p.Present, want.Present = 0, 0
			if diff := cmp.Diff(want, p); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		r := scanProps(raw)
		if !r.ok {
			t.Fatalf("scanProps(%x)", raw)
		}
		same("headers", withHeaders(raw, header{"a", 7}), func(p *amqp.Properties) {
			h := amqp.Table{"a": int64(7)}
			for k, v := range p.Headers {
				h[k] = v
			}
			p.Headers = h
		})
		same("no expiration", replaceHeaders(raw, r, nil, flagExpiration), func(p *amqp.Properties) {
			p.Expiration, p.Headers = "", nil
		})
		same("delivery mode", setDeliveryMode(raw, r, 1), func(p *amqp.Properties) { p.DeliveryMode = 1 })
		if in.ReplyTo != "" {
			same("reply-to", replaceReplyTo(raw, r, "other"), func(p *amqp.Properties) { p.ReplyTo = "other" })
		}
	}
}

// What the engine has not checked must not make the rewriting panic.
func FuzzProps(f *testing.F) {
	p := amqp.Properties{ContentType: "a", Headers: amqp.Table{"CC": []any{"x"}, "BCC": []any{"y"}, "n": int64(1)}, Expiration: "1"}
	raw, err := p.AppendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := scanProps(raw)
		if !r.ok {
			return
		}
		m := &message{props: bytes.Clone(raw)}
		if r.headers != 0 {
			m.readHeaders(scanProps(m.props))
		}
		m.table()
		withHeaders(m.props, header{"a", 1})
		setDeliveryMode(m.props, scanProps(m.props), 2)
		m.streamed()
	})
}

func TestPipe_Deadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe()
		buf := make([]byte, 10)
		start := time.Now()
		a.SetReadDeadline(start.Add(time.Minute))
		if _, err := a.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("Read: %v after %s", err, time.Since(start))
		}
		a.SetReadDeadline(time.Time{})
		a.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := a.Write(make([]byte, 2*pipeSize)); !errors.Is(err, os.ErrDeadlineExceeded) || n != pipeSize {
			t.Errorf("Write: %d, %v", n, err)
		}
		go func() {
			time.Sleep(time.Second)
			b.SetReadDeadline(time.Now()) // wakes one that waits
		}()
		if n, err := io.ReadFull(b, make([]byte, pipeSize)); err != nil || n != pipeSize {
			t.Errorf("ReadFull: %d, %v", n, err)
		}
		if _, err := b.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		a.Close()
		b.Close()
	})
}

func TestPipe_Close(t *testing.T) {
	a, b := newPipe()
	if _, err := a.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	a.Close()
	got, err := io.ReadAll(b)
	if err != nil || string(got) != "last words" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := b.Write([]byte("x")); err == nil {
		t.Error("wrote to a closed pipe")
	}
	if _, err := a.Read(make([]byte, 1)); err == nil {
		t.Error("read from an end that was closed")
	}
	a.Close()
	b.Close()
}

func TestPipe_Stream(t *testing.T) {
	a, b := newPipe()
	rnd := rand.New(rand.NewPCG(3, 3))
	data := make([]byte, 3*pipeSize)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	go func() {
		for p := data; len(p) > 0; {
			n := min(len(p), 1+rnd.IntN(40_000))
			a.Write(p[:n])
			p = p[n:]
		}
		a.Close()
	}()
	var got bytes.Buffer
	if _, err := io.CopyBuffer(&got, struct{ io.Reader }{b}, make([]byte, 777)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("the octets differ")
	}
	b.Close()
}
