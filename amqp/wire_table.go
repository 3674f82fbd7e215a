package amqp

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Table is AMQP's field table: message headers, arguments of a declaration,
// properties of a peer. Keys are strings of up to 255 bytes, values one of:
//
//	Go type                     wire  meaning
//	nil                         V     no value
//	bool                        t
//	int8, uint8                 b, B  8 bits, signed and not
//	int16, uint16               s, u  16 bits
//	int32, uint32               I, i  32 bits
//	int64                       l     64 bits, signed ('L' is read as the same)
//	float32, float64            f, d  finite ones only
//	Decimal                     D
//	string                      S     any bytes; they need not be UTF-8
//	[]byte                      x
//	time.Time                   T     whole seconds; the rest of a second is not sent
//	Table                       F
//	[]any                       A     of any of these
//
// Decoding yields these types and no others, so that a value that is decoded
// and encoded again keeps its value and its type. Encoding also takes int,
// uint and uint64 as 'l' (over the largest int64 they are an error: AMQP has
// no wider field that RabbitMQ reads as unsigned), map[string]any as 'F', and
// []string and []Table as 'A'. Anything else is an *EncodeError.
//
// Tables nest up to 32 levels deep. They are encoded in the order of their
// keys, so equal tables make equal bytes. Of a key that is there twice, which
// the spec forbids, decoding keeps the first value, as RabbitMQ does.
//
// The zero value is an empty table. A Table is not safe for concurrent use
// while it is changed.
//
// Source: AMQP 0-9-1 §4.2.5.5 (field tables), and for what the letters mean
// https://www.rabbitmq.com/docs/amqp-0-9-1-errata#section_3, which differs.
type Table map[string]any

// Decimal is Value divided by ten to the power of Scale.
//
// The spec calls the value unsigned in its grammar and signed in its text;
// RabbitMQ hands the 32 bits through as they are.
type Decimal struct {
	Scale uint8
	Value int32
}

// maxDepth is how deep tables and arrays may nest, the outermost counting 1.
const maxDepth = 32

// maxLong is the largest length that 32 bits can say.
const maxLong = 1<<32 - 1

// AppendTable appends t in wire form, a 32-bit length and the fields, to dst.
//
// Errors: *EncodeError, and then dst is returned as it was given.
// Source: AMQP 0-9-1 §4.2.5.5 (field tables).
func AppendTable(dst []byte, t Table) ([]byte, error) { return appendTable(dst, t) }

// Validate reports whether t can be encoded, without sending it anywhere. It
// costs as much memory as the encoded table.
//
// Errors: *EncodeError that names the first field that can't.
func (t Table) Validate() error {
	_, err := appendTable(nil, t)
	return err
}

func appendTable(dst []byte, t Table) ([]byte, error) {
	n := len(dst)
	dst, err := appendFields(dst, t, 1)
	if err != nil {
		return dst[:n], err
	}
	return dst, nil
}

// entry is a field on its way out.
type entry struct {
	key   string
	value any
}

// appendFields appends a table's length and fields. The usual handful of
// entries is sorted on the stack.
func appendFields(dst []byte, t map[string]any, depth int) ([]byte, error) {
	switch {
	case len(t) == 0 && depth <= maxDepth:
		return append(dst, 0, 0, 0, 0), nil
	case depth > maxDepth:
		return dst, tooDeep()
	case len(t) == 1:
		var few [1]entry
		return appendEntries(dst, few[:0], t, depth)
	case len(t) <= 8:
		var few [8]entry
		return appendEntries(dst, few[:0], t, depth)
	case len(t) <= 64:
		return appendManyFields(dst, t, depth)
	}
	return appendEntries(dst, make([]entry, 0, len(t)), t, depth)
}

// appendManyFields has a stack frame of its own, not to be paid for by all.
//
//go:noinline
func appendManyFields(dst []byte, t map[string]any, depth int) ([]byte, error) {
	var many [64]entry
	return appendEntries(dst, many[:0], t, depth)
}

func appendEntries(dst []byte, entries []entry, t map[string]any, depth int) ([]byte, error) {
	for k, v := range t {
		entries = append(entries, entry{k, v})
	}
	sortEntries(entries)
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var err error
	for i := range entries {
		e := &entries[i]
		if len(e.key) > math.MaxUint8 {
			return dst, &EncodeError{Field: keyPath(e.key), Reason: "key of " +
				strconv.Itoa(len(e.key)) + " bytes, at most 255 fit"}
		}
		dst = append(dst, byte(len(e.key)))
		dst = append(dst, e.key...)
		if dst, err = appendValue(dst, e.value, depth); err != nil {
			return dst, within(err, keyPath(e.key))
		}
	}
	return endLength(dst, start)
}

// sortEntries sorts by key: by insertion as long as that is the faster way.
func sortEntries(entries []entry) {
	if len(entries) > 16 {
		slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
		return
	}
	for i := 1; i < len(entries); i++ {
		for j := i; j > 0 && entries[j].key < entries[j-1].key; j-- {
			entries[j], entries[j-1] = entries[j-1], entries[j]
		}
	}
}

// endLength patches the 32-bit length at start with what follows it.
func endLength(dst []byte, start int) ([]byte, error) {
	n := len(dst) - start - 4
	if uint64(n) > maxLong {
		return dst, tooLong("table or array", n)
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(n))
	return dst, nil
}

// appendValue appends a field's type and value, of a table or array at depth.
func appendValue(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return appendString(dst, v)
	case nil:
		return append(dst, 'V'), nil
	case bool:
		if v {
			return append(dst, 't', 1), nil
		}
		return append(dst, 't', 0), nil
	case []byte:
		dst, err := appendSize(dst, 'x', len(v))
		if err != nil {
			return dst, err
		}
		return append(dst, v...), nil
	case time.Time:
		return appendTimestamp(append(dst, 'T'), v), nil
	case Table:
		return appendFields(append(dst, 'F'), v, depth+1)
	case map[string]any:
		return appendFields(append(dst, 'F'), v, depth+1)
	case []any:
		return appendArray(dst, v, depth+1)
	case []string:
		return appendStrings(dst, v, depth+1)
	case []Table:
		return appendArray(dst, v, depth+1)
	}
	return appendNumber(dst, v)
}

// appendArray appends an array of E, which is any or has the shape of a
// pointer: to make an any of it costs nothing.
func appendArray[E any](dst []byte, a []E, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, tooDeep()
	}
	dst = append(dst, 'A', 0, 0, 0, 0)
	start := len(dst) - 4
	var err error
	for i := range a {
		if dst, err = appendValue(dst, a[i], depth); err != nil {
			return dst, within(err, "["+strconv.Itoa(i)+"]")
		}
	}
	return endLength(dst, start)
}

// appendStrings appends an array of strings, without boxing them.
func appendStrings(dst []byte, a []string, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, tooDeep()
	}
	dst = append(dst, 'A', 0, 0, 0, 0)
	start := len(dst) - 4
	var err error
	for i, s := range a {
		if dst, err = appendString(dst, s); err != nil {
			return dst, within(err, "["+strconv.Itoa(i)+"]")
		}
	}
	return endLength(dst, start)
}

func appendString(dst []byte, s string) ([]byte, error) {
	dst, err := appendSize(dst, 'S', len(s))
	if err != nil {
		return dst, err
	}
	return append(dst, s...), nil
}

// appendSize appends a type and the 32-bit length of its n bytes.
func appendSize(dst []byte, typ byte, n int) ([]byte, error) {
	if uint64(n) > maxLong {
		return dst, tooLong(fieldName(typ), n)
	}
	return append(dst, typ, byte(n>>24), byte(n>>16), byte(n>>8), byte(n)), nil
}

func appendNumber(dst []byte, v any) ([]byte, error) {
	be := binary.BigEndian
	switch v := v.(type) {
	case int:
		return be.AppendUint64(append(dst, 'l'), uint64(v)), nil
	case int64:
		return be.AppendUint64(append(dst, 'l'), uint64(v)), nil
	case int32:
		return be.AppendUint32(append(dst, 'I'), uint32(v)), nil
	case int16:
		return be.AppendUint16(append(dst, 's'), uint16(v)), nil
	case int8:
		return append(dst, 'b', byte(v)), nil
	case uint:
		return appendUnsigned(dst, uint64(v))
	case uint64:
		return appendUnsigned(dst, v)
	case uint32:
		return be.AppendUint32(append(dst, 'i'), v), nil
	case uint16:
		return be.AppendUint16(append(dst, 'u'), v), nil
	case uint8:
		return append(dst, 'B', v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return dst, notFinite(v)
		}
		return be.AppendUint64(append(dst, 'd'), math.Float64bits(v)), nil
	case float32:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return dst, notFinite(float64(v))
		}
		return be.AppendUint32(append(dst, 'f'), math.Float32bits(v)), nil
	case Decimal:
		return be.AppendUint32(append(dst, 'D', v.Scale), uint32(v.Value)), nil
	}
	return dst, noWireForm(v)
}

func appendUnsigned(dst []byte, v uint64) ([]byte, error) {
	if v > math.MaxInt64 {
		return dst, &EncodeError{Reason: strconv.FormatUint(v, 10) +
			" is over the largest signed 64-bit number, and AMQP has no wider field"}
	}
	return binary.BigEndian.AppendUint64(append(dst, 'l'), v), nil
}
