package amqptest_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
)

// The conformance suite has its own codec, so that a fault in package amqp's
// cannot hide the same fault in the broker, and so that it can send what
// package amqp refuses to. Table values keep the tag they have on the wire.

type tagged struct {
	tag byte
	v   any // bool, int64, uint64, float64, string, tableValue, []tagged, decimal, nil
}

type tableValue []tableField

type tableField struct {
	key string
	val tagged
}

type decimal struct {
	scale uint8
	value int32
}

func appendTableValue(dst []byte, t tableValue) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	for _, f := range t {
		dst = append(dst, byte(len(f.key)))
		dst = append(dst, f.key...)
		dst = appendTagged(dst, f.val)
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

func appendTagged(dst []byte, x tagged) []byte {
	dst = append(dst, x.tag)
	switch v := x.v.(type) {
	case nil:
	case bool:
		if v {
			return append(dst, 1)
		}
		return append(dst, 0)
	case int64:
		return appendInt(dst, x.tag, uint64(v))
	case float64:
		if x.tag == 'f' {
			return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(v)))
		}
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(v))
	case string:
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
		return append(dst, v...)
	case decimal:
		dst = append(dst, v.scale)
		return binary.BigEndian.AppendUint32(dst, uint32(v.value))
	case tableValue:
		return appendTableValue(dst, v)
	case []tagged:
		at := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		for _, e := range v {
			dst = appendTagged(dst, e)
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst
}

var intWidth = map[byte]int{'b': 1, 'B': 1, 's': 2, 'u': 2, 'I': 4, 'i': 4, 'l': 8, 'L': 8, 'T': 8}

func appendInt(dst []byte, tag byte, v uint64) []byte {
	switch intWidth[tag] {
	case 1:
		return append(dst, byte(v))
	case 2:
		return binary.BigEndian.AppendUint16(dst, uint16(v))
	case 4:
		return binary.BigEndian.AppendUint32(dst, uint32(v))
	}
	return binary.BigEndian.AppendUint64(dst, v)
}

// A reader takes values off a byte slice; the first shortage sticks.
type reader struct {
	p   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.p) || n < 0 {
		r.err = errors.New("short frame")
		return make([]byte, max(0, min(n, 8)))
	}
	b := r.p[:n]
	r.p = r.p[n:]
	return b
}

func (r *reader) uint(n int) uint64 {
	var v uint64
	for _, b := range r.take(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (r *reader) short() string { return string(r.take(int(r.uint(1)))) }
func (r *reader) long() string  { return string(r.take(int(r.uint(4)))) }

func (r *reader) table() tableValue {
	in := reader{p: r.take(int(r.uint(4))), err: r.err}
	t := tableValue{}
	for len(in.p) > 0 && in.err == nil {
		k := in.short()
		t = append(t, tableField{k, in.tagged()})
	}
	r.err = in.err
	return t
}

func (r *reader) tagged() tagged {
	x := tagged{tag: byte(r.uint(1))}
	switch x.tag {
	case 'V':
	case 't':
		x.v = r.uint(1) != 0
	case 'b':
		x.v = int64(int8(r.uint(1)))
	case 's':
		x.v = int64(int16(r.uint(2)))
	case 'I':
		x.v = int64(int32(r.uint(4)))
	case 'B', 'u', 'i', 'l', 'L', 'T':
		x.v = int64(r.uint(intWidth[x.tag]))
	case 'f':
		x.v = float64(math.Float32frombits(uint32(r.uint(4))))
	case 'd':
		x.v = math.Float64frombits(r.uint(8))
	case 'D':
		x.v = decimal{uint8(r.uint(1)), int32(r.uint(4))}
	case 'S', 'x':
		x.v = r.long()
	case 'F':
		x.v = r.table()
	case 'A':
		in := reader{p: r.take(int(r.uint(4))), err: r.err}
		list := []tagged{}
		for len(in.p) > 0 && in.err == nil {
			list = append(list, in.tagged())
		}
		r.err = in.err
		x.v = list
	default:
		r.err = fmt.Errorf("table tag %q", x.tag)
	}
	return x
}

// String forms: what stands in a script for a value. Keys are sorted, since
// the order of a table's fields means nothing.

func (t tableValue) String() string {
	fs := append(tableValue(nil), t...)
	sort.SliceStable(fs, func(i, j int) bool { return fs[i].key < fs[j].key })
	var b strings.Builder
	for i, f := range fs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(bare(f.key) + ":" + f.val.String())
	}
	return "{" + b.String() + "}"
}

func (x tagged) String() string {
	switch v := x.v.(type) {
	case nil:
		return "void"
	case bool:
		return strconv.FormatBool(v)
	case int64:
		switch {
		case x.tag == 'I':
			return strconv.FormatInt(v, 10)
		case x.tag == 'T':
			return "T(" + timeText(v) + ")"
		}
		return fmt.Sprintf("%c(%d)", x.tag, v)
	case float64:
		return fmt.Sprintf("%c(%v)", x.tag, v)
	case decimal:
		return fmt.Sprintf("D(%d,%d)", v.scale, v.value)
	case string:
		if x.tag == 'x' {
			return "x(" + strconv.Quote(v) + ")"
		}
		return strconv.Quote(v)
	case tableValue:
		return v.String()
	case []tagged:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = e.String()
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	return "?"
}

// timeText hides a time that the broker took from its clock.
func timeText(sec int64) string {
	if d := time.Since(time.Unix(sec, 0)); d.Abs() < 24*time.Hour {
		return "now"
	}
	return strconv.FormatInt(sec, 10)
}

// bare leaves a string that reads as one word alone, and quotes the others.
func bare(s string) string {
	if s == "" {
		return s
	}
	for _, r := range s {
		if r <= ' ' || r > '~' || strings.ContainsRune(`"{}[],=()`, r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// bodyText shortens the bodies that scripts write as repeat("x",n).
func bodyText(s string) string {
	if len(s) > 40 && strings.Count(s, s[:1]) == len(s) {
		return fmt.Sprintf("repeat(%q,%d)", s[:1], len(s))
	}
	return strconv.Quote(s)
}
