// Package frames writes the few AMQP 0-9-1 frames that the null server, the floor and the queue loader need.
// It shares no code with Warren: a fault in the library must not hide in the tool that measures it.
package frames

import (
	"encoding/binary"
	"fmt"
)

// Frame types, and the octet that ends each frame.
const (
	TypeMethod    = 1
	TypeHeader    = 2
	TypeBody      = 3
	TypeHeartbeat = 8
	End           = 0xCE
	Overhead      = 8 // header of 7 octets and the end octet
)

// Header is what a client says first.
var Header = []byte("AMQP\x00\x00\x09\x01")

// ID joins a class and a method number, so that a switch has one value to look at.
func ID(class, method uint16) uint32 { return uint32(class)<<16 | uint32(method) }

// Buf collects frames. Open a frame, append its fields, close it.
type Buf struct {
	B     []byte
	start int
}

// Open begins a frame of the given type.
func (b *Buf) Open(typ byte, channel uint16) *Buf {
	b.start = len(b.B)
	b.B = append(b.B, typ, byte(channel>>8), byte(channel), 0, 0, 0, 0)
	return b
}

// Method begins a method frame.
func (b *Buf) Method(channel, class, method uint16) *Buf {
	return b.Open(TypeMethod, channel).Short(class).Short(method)
}

// Close fills in the frame's length and ends it.
func (b *Buf) Close() {
	binary.BigEndian.PutUint32(b.B[b.start+3:], uint32(len(b.B)-b.start-7))
	b.B = append(b.B, End)
}

func (b *Buf) Octet(v byte) *Buf   { b.B = append(b.B, v); return b }
func (b *Buf) Short(v uint16) *Buf { b.B = binary.BigEndian.AppendUint16(b.B, v); return b }
func (b *Buf) Long(v uint32) *Buf  { b.B = binary.BigEndian.AppendUint32(b.B, v); return b }
func (b *Buf) LongLong(v uint64) *Buf {
	b.B = binary.BigEndian.AppendUint64(b.B, v)
	return b
}

// ShortStr appends a short string; longer than 255 octets is a mistake of the tool's own.
func (b *Buf) ShortStr(s string) *Buf {
	if len(s) > 255 {
		panic(fmt.Sprintf("frames: short string of %d octets", len(s)))
	}
	b.B = append(append(b.B, byte(len(s))), s...)
	return b
}

// LongStr appends a long string.
func (b *Buf) LongStr(s string) *Buf {
	b.B = append(binary.BigEndian.AppendUint32(b.B, uint32(len(s))), s...)
	return b
}

// Table appends a field table whose entries are already encoded.
func (b *Buf) Table(entries []byte) *Buf { return b.LongStr(string(entries)) }

// Raw appends p as it is.
func (b *Buf) Raw(p []byte) *Buf { b.B = append(b.B, p...); return b }

// Entry appends one table entry (string, bool, int32 or int64) to entries.
func Entry(entries []byte, key string, value any) []byte {
	b := Buf{B: entries}
	b.ShortStr(key)
	switch v := value.(type) {
	case string:
		b.Octet('S').LongStr(v)
	case bool:
		o := byte(0)
		if v {
			o = 1
		}
		b.Octet('t').Octet(o)
	case int32:
		b.Octet('I').Long(uint32(v))
	case int64:
		b.Octet('l').LongLong(uint64(v))
	case []byte:
		b.Octet('F').Table(v)
	default:
		panic(fmt.Sprintf("frames: no encoding for %T", value))
	}
	return b.B
}

// SampleHeaders are the entries of the workloads with a headers table: what an application's message tends to
// carry. Peers build their own table types from it.
var SampleHeaders = []struct {
	Key   string
	Value any
}{
	{"tenant", "blue"},
	{"trace-id", "4bf92f3577b34da6a3ce929d0e0e4736"},
	{"attempt", int32(3)},
	{"sampled", true},
	{"bytes", int64(1024)},
}

// Content appends a content header (transient, with the first headers of SampleHeaders) and the body, split for
// frameMax, to b.
func (b *Buf) Content(channel uint16, headers int, body []byte, frameMax int) {
	const hasHeaders, hasDeliveryMode = 1 << 13, 1 << 12
	b.Open(TypeHeader, channel).Short(60).Short(0).LongLong(uint64(len(body)))
	if headers > 0 {
		var t []byte
		for _, h := range SampleHeaders[:min(headers, len(SampleHeaders))] {
			t = Entry(t, h.Key, h.Value)
		}
		b.Short(hasHeaders | hasDeliveryMode).Table(t).Octet(1)
	} else {
		b.Short(hasDeliveryMode).Octet(1)
	}
	b.Close()
	for len(body) > 0 {
		n := min(len(body), frameMax-Overhead)
		b.Open(TypeBody, channel).Raw(body[:n]).Close()
		body = body[n:]
	}
}

// Publish appends a whole basic.publish to the default exchange.
func (b *Buf) Publish(channel uint16, key string, headers int, body []byte, frameMax int) {
	b.Method(channel, 60, 40).Short(0).ShortStr("").ShortStr(key).Octet(0).Close()
	b.Content(channel, headers, body, frameMax)
}

// Reader walks the fields of one method's arguments. Past the end it gives zeros and sets Bad.
type Reader struct {
	P   []byte
	Bad bool
}

func (r *Reader) take(n int) []byte {
	if n > len(r.P) {
		r.Bad, r.P = true, nil
		return make([]byte, min(n, 8))
	}
	p := r.P[:n]
	r.P = r.P[n:]
	return p
}

func (r *Reader) Octet() byte      { return r.take(1)[0] }
func (r *Reader) Short() uint16    { return binary.BigEndian.Uint16(r.take(2)) }
func (r *Reader) Long() uint32     { return binary.BigEndian.Uint32(r.take(4)) }
func (r *Reader) LongLong() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *Reader) ShortStr() string { return string(r.take(int(r.Octet()))) }
func (r *Reader) LongStr() string {
	n := int(r.Long())
	if n > len(r.P) {
		r.Bad, r.P = true, nil
		return ""
	}
	return string(r.take(n))
}
