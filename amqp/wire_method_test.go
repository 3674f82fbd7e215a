package amqp

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// allMethods are the ids of every method that the generated code knows, found
// without believing any list of them.
func allMethods() []MethodID {
	var ids []MethodID
	for class := range MethodID(256) {
		for method := range MethodID(256) {
			if id := class<<16 | method; newMethod(id) != nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// randomize fills the struct that v points to with values of all sizes, the
// zero value and the largest among them.
func randomize(r *rand.Rand, v reflect.Value) {
	v = v.Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if r.IntN(5) == 0 {
			continue
		}
		switch f.Interface().(type) {
		case Table:
			f.Set(reflect.ValueOf(randomTable(r, 3)))
			continue
		case time.Time:
			f.Set(reflect.ValueOf(time.Unix(int64(r.Uint64()), 0).UTC()))
			continue
		case PropertyFlags:
			continue // what there is decides
		}
		switch f.Kind() {
		case reflect.Bool:
			f.SetBool(r.IntN(2) == 0)
		case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			n := r.Uint64()
			if r.IntN(4) == 0 {
				n = math.MaxUint64
			}
			f.SetUint(n & (1<<f.Type().Bits() - 1))
		case reflect.String:
			f.SetString(randomString(r, []int{0, 1, 20, 255}[r.IntN(4)]))
		default:
			panic("a field of an unknown kind: " + f.Type().String())
		}
	}
}

func randomString(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func randomTable(r *rand.Rand, depth int) Table {
	t := Table{}
	for range 1 + r.IntN(5) {
		t[randomString(r, r.IntN(10))] = randomValue(r, depth)
	}
	return t
}

func randomValue(r *rand.Rand, depth int) any {
	if depth > 0 && r.IntN(4) == 0 {
		if r.IntN(2) == 0 {
			return randomTable(r, depth-1)
		}
		a := []any{}
		for range r.IntN(4) {
			a = append(a, randomValue(r, depth-1))
		}
		return a
	}
	return []any{nil, true, int8(r.Int32()), uint8(r.Uint32()), int16(r.Int32()), uint16(r.Uint32()), r.Int32(), r.Uint32(),
		int64(r.Uint64()), r.Float32(), r.NormFloat64(), Decimal{uint8(r.Uint32()), int32(r.Uint32())}, randomString(r, r.IntN(300)),
		[]byte(randomString(r, r.IntN(30))), time.Unix(int64(r.Uint32()), 0).UTC()}[r.IntN(15)]
}

func TestMethod_AllRoundTrip(t *testing.T) {
	ids := allMethods()
	if len(ids) < 60 {
		t.Fatalf("only %d methods are known", len(ids))
	}
	t.Logf("%d methods", len(ids))
	r := rand.New(rand.NewPCG(1, 2))
	for _, id := range ids {
		for i := range 200 {
			m := newMethod(id)
			if i > 0 {
				randomize(r, reflect.ValueOf(m))
			}
			roundTrip(t, m, id)
		}
	}
}

func roundTrip(t *testing.T, m decodable, id MethodID) {
	t.Helper()
	if m.MethodID() != id {
		t.Fatalf("newMethod(%s) is %s", id, m.MethodID())
	}
	p, err := AppendMethod([]byte("before"), m)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	value := reflect.ValueOf(m).Elem().Interface().(Method)
	if q, err := AppendMethod([]byte("before"), value); err != nil || !bytes.Equal(p, q) {
		t.Fatalf("%s: by value it encodes as %q (%v), by pointer as %q", id, q, err, p)
	}
	p = p[len("before"):]
	for _, alias := range []bool{false, true} {
		back := newMethod(id)
		d := decoder{p: p[4:], alias: alias}
		back.decode(&d)
		if err := d.finish(); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if diff := cmp.Diff(m, back); diff != "" {
			t.Fatalf("%s, alias %v (-want +got):\n%s", id, alias, diff)
		}
	}
	got, err := DecodeMethod(p)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	clear(p)
	if diff := cmp.Diff(Method(m), got); diff != "" {
		t.Fatalf("%s changed with the buffer it was decoded from (-want +got):\n%s", id, diff)
	}
}

// A method that ends early or late is an error wherever it is cut.
func TestMethod_CutAnywhere(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, id := range allMethods() {
		for range 10 {
			m := newMethod(id)
			randomize(r, reflect.ValueOf(m))
			p, err := AppendMethod(nil, m)
			if err != nil {
				t.Fatal(err)
			}
			for n := range len(p) {
				_, err := DecodeMethod(p[:n])
				checkViolation(t, fmt.Sprintf("%s cut to %d of %d bytes", id, n, len(p)), err, FrameError)
			}
			_, err = DecodeMethod(append(p, 0))
			checkViolation(t, fmt.Sprintf("%s with a byte more", id), err, FrameError)
		}
	}
}

func checkViolation(t *testing.T, what string, err error, code ReplyCode) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || e.Text == "" || e.Remote {
		t.Errorf("%s: got %v, want an *Error with %v", what, err, code)
	}
}

func TestMethod_Malformed(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Error
	}{
		{"empty", "", Error{Code: FrameError, Text: "method frame of 0 bytes, too short for its class and method ids"}},
		{"half an id", "\x00\x32\x00", Error{Code: FrameError, Text: "method frame of 3 bytes, too short for its class and method ids"}},
		{"unknown class", "\x00\xc8\x00\x0a", Error{Code: CommandInvalid, Text: "unknown method: class 200, method 10"}},
		{"unknown method", "\x00\x32\x00\x63abc", Error{Code: CommandInvalid, Text: "unknown method: class 50, method 99"}},
		{"cut short", "\x00\x3c\x00\x50\x00\x00\x00",
			Error{Code: FrameError, Text: "longlong of 8 bytes where 3 are left", Method: MethodBasicAck}},
		{"string that lies", "\x00\x3c\x00\x15\xffctag",
			Error{Code: FrameError, Text: "short string of 255 bytes where 4 are left", Method: MethodBasicConsumeOk}},
		{"bytes left over", "\x00\x3c\x00\x50\x00\x00\x00\x00\x00\x00\x00\x01\x00zz",
			Error{Code: FrameError, Text: "2 bytes left over after the last field", Method: MethodBasicAck}},
		{"bad table", "\x00\x32\x00\x0a\x00\x00\x01q\x00" + long("\x01kZ"),
			Error{Code: SyntaxError, Text: `table field "k": unknown type 'Z' (octet 90)`, Method: MethodQueueDeclare}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := DecodeMethod([]byte(c.in))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, %v", m, err)
			}
			if diff := cmp.Diff(&c.want, e, cmp.AllowUnexported(Error{})); diff != "" || m != nil {
				t.Errorf("and %v (-want +got):\n%s", m, diff)
			}
		})
	}
}

func TestMethod_EncodeErrors(t *testing.T) {
	tooLong := strings.Repeat("x", 256)
	for _, c := range []struct {
		m    Method
		want EncodeError
	}{
		{QueueDeclare{Queue: tooLong}, EncodeError{"queue.declare", "queue", "short string of 256 bytes, at most 255 fit"}},
		{BasicPublish{Exchange: "x", RoutingKey: tooLong}, EncodeError{"basic.publish", "routing-key", "short string of 256 bytes, at most 255 fit"}},
		{QueueDeclare{Arguments: Table{"x": []any{1, make(chan int)}}},
			EncodeError{"queue.declare", `arguments["x"][1]`, "Go type chan int has no field type"}},
	} {
		dst := append(make([]byte, 0, 1024), "before"...)
		got, err := AppendMethod(dst, c.m)
		var e *EncodeError
		if !errors.As(err, &e) || !errors.Is(err, ErrEncode) {
			t.Fatalf("%s: got %v", c.m.MethodID(), err)
		}
		if diff := cmp.Diff(&c.want, e); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if string(got) != "before" {
			t.Errorf("dst came back as %q", got)
		}
		if got, err := c.m.AppendTo(dst); err == nil || string(got) != "before" {
			t.Errorf("AppendTo: dst came back as %q with %v", got, err)
		}
	}
}

func TestMethod_HotOnesDoNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 4096)
	publish := &BasicPublish{Exchange: "orders", RoutingKey: "eu.new", Mandatory: true}
	deliver, err := BasicDeliver{ConsumerTag: "ctag", DeliveryTag: 7, Exchange: "orders", RoutingKey: "eu.new"}.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"publish": func() { dst, _ = publish.AppendTo(dst[:0]) },
		"append":  func() { dst, _ = AppendMethod(dst[:0], publish) },
		"ack":     func() { dst, _ = BasicAck{DeliveryTag: 7, Multiple: true}.AppendTo(dst[:0]) },
		"deliver": func() {
			var m BasicDeliver
			d := decoder{p: deliver, alias: true}
			if m.decode(&d); d.finish() != nil || m.RoutingKey != "eu.new" {
				t.Fatal("wrong")
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkMethod_AppendPublish(b *testing.B) {
	dst := make([]byte, 0, 4096)
	m := BasicPublish{Exchange: "orders", RoutingKey: "eu.new"}
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = m.AppendTo(dst[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMethod_AppendAck(b *testing.B) {
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = BasicAck{DeliveryTag: 7}.AppendTo(dst[:0])
	}
}

func BenchmarkMethod_DecodeDeliver(b *testing.B) {
	p, err := BasicDeliver{ConsumerTag: "ctag", DeliveryTag: 7, Exchange: "orders", RoutingKey: "eu.new"}.AppendTo(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, alias := range []bool{true, false} {
		b.Run(fmt.Sprintf("alias=%v", alias), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var m BasicDeliver
				d := decoder{p: p, alias: alias}
				if m.decode(&d); d.finish() != nil {
					b.Fatal(d.err)
				}
			}
		})
	}
}
