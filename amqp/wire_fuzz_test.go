package amqp

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// violation fails unless err is one that a decoder may make.
func violation(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Text == "" {
		t.Fatalf("got %v, want an *Error that says what is wrong", err)
	}
	switch e.Code {
	case FrameError, SyntaxError, CommandInvalid, ResourceError:
	default:
		t.Fatalf("got %v with an unexpected code", err)
	}
}

// FuzzTable decodes anything within the memory that its size allows, and
// whatever decodes is the same after it is encoded and decoded again.
func FuzzTable(f *testing.F) {
	for _, c := range fieldCases {
		f.Add([]byte(long("\x01k" + c.wire)))
	}
	for _, fields := range worstTables(100) {
		f.Add([]byte(long(fields)))
	}
	deaths, err := AppendTable(nil, deaths(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(deaths)
	f.Fuzz(func(t *testing.T, p []byte) {
		table, err := DecodeTable(p)
		if len(p) > 512 { // less can't use up the 64 KiB, and measuring is slow
			if got := allocated(func() { DecodeTable(p) }); got > memoryLimit(len(p)) {
				t.Errorf("%d bytes allocate %d", len(p), got)
			}
		}
		d := decoder{p: p, lazyTables: true}
		d.tableArg()
		if skipErr := d.finish(); skipErr != nil && err == nil || skipErr == nil && err != nil && !errors.Is(err, ResourceError) {
			t.Fatalf("decoding says %v, skipping says %v", err, skipErr)
		}
		if err != nil {
			violation(t, err)
			return
		}
		first, err := AppendTable(nil, table)
		if err != nil {
			if !errors.Is(err, ErrEncode) || !bytes.Contains([]byte(err.Error()), []byte("finite")) {
				t.Fatal(err)
			}
			return
		}
		back, err := DecodeTable(first)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table, back); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		again, err := AppendTable(nil, back)
		if err != nil || !bytes.Equal(first, again) {
			t.Fatalf("encodes as %q, then as %q (%v)", first, again, err)
		}
	})
}

// FuzzMethod decodes the payload of any method frame.
func FuzzMethod(f *testing.F) {
	for _, id := range allMethods() {
		p, err := AppendMethod(nil, newMethod(id))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	for _, m := range []Method{
		QueueDeclare{Queue: "q", Durable: true, Arguments: Table{"x-queue-type": "quorum"}},
		BasicDeliver{ConsumerTag: "c", DeliveryTag: 1 << 40, Exchange: "x", RoutingKey: "k"},
		ConnectionClose{ReplyCode: NotFound, ReplyText: "gone", FailedClass: 50, FailedMethod: 10},
	} {
		p, err := AppendMethod(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := DecodeMethod(p)
		if err != nil {
			violation(t, err)
			return
		}
		first, err := AppendMethod(nil, m)
		if err != nil {
			if !errors.Is(err, ErrEncode) || !bytes.Contains([]byte(err.Error()), []byte("finite")) {
				t.Fatal(err)
			}
			return
		}
		back, err := DecodeMethod(first)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, back); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// FuzzProperties decodes any list of properties, eagerly and lazily alike.
func FuzzProperties(f *testing.F) {
	for _, p := range []Properties{{}, fullProperties, {Present: everyFlag}, {DeliveryMode: 2, MessageID: "m"}} {
		b, err := p.AppendTo(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var props, lazy, back Properties
		err := props.DecodeFrom(p)
		d := decoder{p: p, alias: true, lazyTables: true}
		lazy.decode(&d)
		if lazyErr := d.finish(); (err == nil) != (lazyErr == nil) && !errors.Is(err, ResourceError) {
			t.Fatalf("decoding says %v, lazily %v", err, lazyErr)
		}
		if err != nil {
			violation(t, err)
			return
		}
		lazy.Headers = props.Headers
		first, err := props.AppendTo(nil)
		if err != nil {
			if !errors.Is(err, ErrEncode) || !bytes.Contains([]byte(err.Error()), []byte("finite")) {
				t.Fatal(err)
			}
			return
		}
		if diff := cmp.Diff(props, lazy); diff != "" {
			t.Fatalf("eager and lazy (-want +got):\n%s", diff)
		}
		if err := back.DecodeFrom(first); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(props, back); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// FuzzFrameHeader judges the first bytes of a stream as both sides do, and
// takes them for a frame header.
func FuzzFrameHeader(f *testing.F) {
	for _, c := range foreign {
		f.Add([]byte(c.in))
	}
	f.Add([]byte(protocolHeader))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\xce"))
	f.Add([]byte("\x08\x00\x00\x00\x00\x00\x00\xce"))
	f.Fuzz(func(t *testing.T, p []byte) {
		isFrame, err := checkFirstFrame(p, true)
		if err != nil {
			violation(t, err)
		}
		if isFrame != (len(p) > 0 && p[0] == 1) || isFrame && err != nil || !isFrame && err == nil && len(p) > 0 {
			t.Fatalf("%q: %v, %v", p, isFrame, err)
		}
		isHeader, err := checkProtocolHeader(p)
		if err != nil {
			violation(t, err)
		}
		if isHeader != bytes.HasPrefix(p, []byte(protocolHeader)) || len(p) >= 8 && isHeader == (err != nil) {
			t.Fatalf("%q: %v, %v", p, isHeader, err)
		}
		if len(p) < frameHeaderSize {
			return
		}
		h := parseFrameHeader(p)
		if got := appendFrameHeader(nil, h.typ, h.channel, h.size); !bytes.Equal(got, p[:frameHeaderSize]) {
			t.Fatalf("%q became %+v and that %q", p, h, got)
		}
		frames, each := splitBody(uint64(len(p)), h.size)
		if frames > 0 && ((frames-1)*uint64(each) >= uint64(len(p)) || frames*uint64(each) < uint64(len(p))) {
			t.Fatalf("a body of %d makes %d frames of %d", len(p), frames, each)
		}
	})
}
