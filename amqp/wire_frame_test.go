package amqp

import (
	"math"
	"testing"
)

func TestFrame_BeginEnd(t *testing.T) {
	b := append([]byte(nil), "before"...)
	start := len(b)
	b = beginFrame(b, 3, 0x1234)
	b = append(b, "payload"...)
	if n := payloadSize(b, start); n != 7 {
		t.Errorf("payload size %d", n)
	}
	b = endFrame(b, start)
	want := "before\x03\x12\x34\x00\x00\x00\x07payload\xce"
	if string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
	whole := append(appendFrameHeader([]byte("before"), 3, 0x1234, 7), "payload\xce"...)
	if string(whole) != want {
		t.Errorf("got %q, want %q", whole, want)
	}
	if h := parseFrameHeader(b[start:]); h != (frameHeader{3, 0x1234, 7}) {
		t.Errorf("parsed %+v", h)
	}
}

func TestFrame_HeaderRoundTrip(t *testing.T) {
	for _, h := range []frameHeader{{}, {8, 0, 0}, {255, 65535, math.MaxUint32}, {1, 256, 1 << 24}} {
		p := appendFrameHeader(nil, h.typ, h.channel, h.size)
		if len(p) != frameHeaderSize || parseFrameHeader(p) != h {
			t.Errorf("%+v became %q", h, p)
		}
	}
}

func TestFrame_SplitBody(t *testing.T) {
	for _, c := range []struct {
		n        uint64
		frameMax uint32
		frames   uint64
		each     uint32
	}{
		{0, 4096, 0, 4088},
		{1, 4096, 1, 4088},
		{4088, 4096, 1, 4088},
		{4089, 4096, 2, 4088},
		{8176, 4096, 2, 4088},
		{8177, 4096, 3, 4088},
		{131072, 131072, 2, 131064},
		{1 << 40, 0, 257, math.MaxUint32},
		{math.MaxUint64, 9, math.MaxUint64, 1},
		{0, 0, 0, math.MaxUint32},
	} {
		if frames, each := splitBody(c.n, c.frameMax); frames != c.frames || each != c.each {
			t.Errorf("splitBody(%d, %d) = %d, %d; want %d, %d", c.n, c.frameMax, frames, each, c.frames, c.each)
		}
	}
}

func TestFrame_HelpersDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		b := endFrame(append(beginFrame(buf, 1, 1), 1, 2, 3), 0)
		if h := parseFrameHeader(b); h.size != 3 {
			t.Fatal("wrong size")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFrame_BeginEnd(b *testing.B) {
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		buf = endFrame(append(beginFrame(buf[:0], 1, 1), 1, 2, 3), 0)
	}
}
