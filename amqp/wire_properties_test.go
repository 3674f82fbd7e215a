package amqp

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// everyFlag is all the properties that there are.
const everyFlag = HasContentType | HasContentEncoding | HasHeaders | HasDeliveryMode | HasPriority | HasCorrelationID |
	HasReplyTo | HasExpiration | HasMessageID | HasTimestamp | HasType | HasUserID | HasAppID

var fullProperties = Properties{
	ContentType: "text/plain", ContentEncoding: "gzip", Headers: Table{"k": true}, DeliveryMode: 2, Priority: 9,
	CorrelationID: "c", ReplyTo: "r", Expiration: "60000", MessageID: "m", Timestamp: time.Unix(1, 0).UTC(),
	Type: "t", UserID: "u", AppID: "a",
}

func TestProperties_ExactBytes(t *testing.T) {
	const full = "\xff\xf8\x0atext/plain\x04gzip\x00\x00\x00\x04\x01kt\x01\x02\x09\x01c\x01r\x0560000\x01m" +
		"\x00\x00\x00\x00\x00\x00\x00\x01\x01t\x01u\x01a"
	for _, c := range []struct {
		name string
		p    Properties
		want string
	}{
		{"none", Properties{}, "\x00\x00"},
		{"all", fullProperties, full},
		{"persistent", Properties{DeliveryMode: 2}, "\x10\x00\x02"},
		{"a priority of 0 that is there", Properties{Present: HasPriority}, "\x08\x00\x00"},
		{"a timestamp of 1970", Properties{Timestamp: time.Unix(0, 0)}, "\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"empty headers that are there", Properties{Present: HasHeaders}, "\x20\x00\x00\x00\x00\x00"},
		{"message id only", Properties{MessageID: "\xff"}, "\x00\x80\x01\xff"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.p.AppendTo([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("before"+c.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Absent and zero stay apart, for each property and both ways.
func TestProperties_AbsentIsNotZero(t *testing.T) {
	for bit := HasContentType; bit >= HasAppID; bit >>= 1 {
		p, err := (&Properties{Present: bit}).AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := PropertyFlags(uint16(p[0])<<8 | uint16(p[1])); got != bit || len(p) < 3 {
			t.Errorf("%#x zero and present: sent as %q", bit, p)
		}
		var back Properties
		if err := back.DecodeFrom(p); err != nil || back.Present != bit {
			t.Errorf("%#x: came back with Present %#x, %v", bit, back.Present, err)
		}
	}
	back := Properties{Priority: 3, Present: everyFlag}
	if err := back.DecodeFrom([]byte{0, 0}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Properties{}, back); diff != "" {
		t.Errorf("decoding left something of before (-want +got):\n%s", diff)
	}
}

func TestProperties_RoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		var in, back Properties
		randomize(r, reflect.ValueOf(&in))
		in.Present = PropertyFlags(r.Uint32()) & everyFlag
		p, err := in.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := back.DecodeFrom(p); err != nil {
			t.Fatal(err)
		}
		again, err := back.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(p), string(again)); diff != "" {
			t.Fatalf("not the same bytes again (-want +got):\n%s", diff)
		}
		in.Present = back.Present
		if back.Timestamp.IsZero() {
			in.Timestamp = back.Timestamp
		}
		if diff := cmp.Diff(in, back); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

func TestProperties_Malformed(t *testing.T) {
	full, err := fullProperties.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	var p Properties
	for n := range len(full) {
		checkViolation(t, "properties cut short", p.DecodeFrom(full[:n]), FrameError)
	}
	checkViolation(t, "properties with a byte more", p.DecodeFrom(append(full, 0)), FrameError)
	checkViolation(t, "more flags to follow", p.DecodeFrom([]byte{0, 1, 0, 0}), SyntaxError)
	checkViolation(t, "a flag that is none", p.DecodeFrom([]byte{0, 2}), SyntaxError)
	checkViolation(t, "headers of an unknown type", p.DecodeFrom([]byte("\x20\x00"+long("\x01kZ"))), SyntaxError)
}

func TestProperties_EncodeErrors(t *testing.T) {
	for _, p := range []Properties{
		{ReplyTo: strings.Repeat("r", 256)},
		{Headers: Table{"k": struct{}{}}},
		{MessageID: "m", Headers: Table{strings.Repeat("k", 256): nil}},
	} {
		got, err := p.AppendTo([]byte("before"))
		var e *EncodeError
		if !errors.As(err, &e) || string(got) != "before" {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestProperties_LazyHeaders(t *testing.T) {
	p, err := fullProperties.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	var props Properties
	if n := testing.AllocsPerRun(100, func() {
		d := decoder{p: p, alias: true, lazyTables: true}
		if props.decode(&d); d.finish() != nil || props.AppID != "a" || props.Headers != nil {
			t.Fatalf("%+v, %v", props, d.err)
		}
		if string(d.table) != "\x00\x00\x00\x04\x01kt\x01" {
			t.Fatalf("table is %q", d.table)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	dst := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { dst, _ = fullProperties.AppendTo(dst[:0]) }); n != 0 {
		t.Errorf("encoding: %v allocations", n)
	}
}

func BenchmarkProperties_Append(b *testing.B) {
	p := Properties{ContentType: "application/json", DeliveryMode: 2, MessageID: "0123456789abcdef"}
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = p.AppendTo(dst[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProperties_DecodeLazy(b *testing.B) {
	p, err := fullProperties.AppendTo(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var props Properties
		d := decoder{p: p, alias: true, lazyTables: true}
		if props.decode(&d); d.finish() != nil {
			b.Fatal(d.err)
		}
	}
}
