package amqp

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// DecodeTable decodes a table in wire form, its 32-bit length included. p must
// be all of it and no more. The table keeps nothing of p; its strings share
// one copy of p among them, so keeping one string keeps that copy. An empty
// table is nil.
//
// A table may take 8 times its size in memory and 32 KiB more. Only absurd
// ones need that (thousands of void array elements, hundreds of nested tables
// of one field); they are refused before they are built.
//
// Errors: *Error with FrameError where a length lies, SyntaxError for a type
// that does not exist and for more than 32 levels, ResourceError where the
// table would take too much memory.
// Source: AMQP 0-9-1 §4.2.5.5 (field tables).
func DecodeTable(p []byte) (Table, error) {
	d := decoder{p: p}
	t := d.tableArg()
	if err := d.finish(); err != nil {
		return nil, err
	}
	return t, nil
}

// Memory that a decoded table may take: tableFactor times its bytes, and
// tableSlack for the fixed cost of small maps.
const (
	tableFactor = 8
	tableSlack  = 32 << 10
)

// buildTable builds a table of the fields in p. They are copied once, and
// every key and string of the table is a view of that copy.
func (d *decoder) buildTable(p []byte) Table {
	own := decoder{p: append([]byte(nil), p...), alias: true}
	own.budget = tableFactor*len(p) + tableSlack - len(p)
	t := own.buildFields(own.p, 1)
	if own.err != nil {
		d.fail(own.err.(*Error))
		return nil
	}
	return t
}

// buildFields builds a table of the fields in p. They are counted first, so
// that nothing has to grow and the cost is known before it is paid.
func (d *decoder) buildFields(p []byte, depth int) Table {
	n := d.checkFields(p, true, 0)
	if n < 0 {
		return nil
	}
	size, cost := mapSize(n)
	if !d.charge(cost) {
		return nil
	}
	t := make(Table, size)
	for off := 0; off < len(p); {
		f := d.scanField(p, off, true)
		v := d.buildValue(&f, depth)
		if d.err != nil {
			return nil
		}
		off = f.next
		key := d.text(f.key)
		if _, twice := t[key]; !twice {
			t[key] = v
		}
	}
	return t
}

func (d *decoder) buildArray(p []byte, depth int) []any {
	n := d.checkFields(p, false, 0)
	if n < 0 || !d.charge(24+rounded(16*n)) {
		return nil
	}
	a := make([]any, 0, n)
	for off := 0; off < len(p); {
		f := d.scanField(p, off, false)
		v := d.buildValue(&f, depth)
		if d.err != nil {
			return nil
		}
		a = append(a, v)
		off = f.next
	}
	return a
}

// buildValue boxes the value of a field of a table or array at depth.
func (d *decoder) buildValue(f *field, depth int) any {
	be := binary.BigEndian
	v := f.value
	switch f.typ {
	case 'S':
		d.charge(16)
		return d.text(v)
	case 'V':
		return nil
	case 't':
		return v[0] != 0
	case 'b':
		return int8(v[0])
	case 'B':
		return v[0]
	case 'F', 'A':
		if depth == maxDepth {
			d.fail(nestedTooDeep())
			return nil
		}
		if f.typ == 'F' {
			return d.buildFields(v, depth+1)
		}
		return d.buildArray(v, depth+1)
	case 'x':
		if !d.charge(24 + rounded(len(v))) {
			return nil
		}
		return append(make([]byte, 0, len(v)), v...)
	case 'T':
		d.charge(24)
		return unixTime(be.Uint64(v))
	}
	d.charge(8)
	switch f.typ {
	case 's':
		return int16(be.Uint16(v))
	case 'u':
		return be.Uint16(v)
	case 'I':
		return int32(be.Uint32(v))
	case 'i':
		return be.Uint32(v)
	case 'l', 'L': // RabbitMQ reads both as signed, and writes 'l'
		return int64(be.Uint64(v))
	case 'f':
		return math.Float32frombits(be.Uint32(v))
	case 'd':
		return math.Float64frombits(be.Uint64(v))
	default: // 'D': scanField lets nothing else through
		return Decimal{Scale: v[0], Value: int32(be.Uint32(v[1:]))}
	}
}

// charge takes n bytes from the budget before they are allocated.
func (d *decoder) charge(n int) bool {
	d.budget -= n
	if d.budget < 0 {
		d.fail(tableTooCostly(len(d.p)))
		return false
	}
	return true
}

// mapSize is the size to ask of a map for n fields, and about what it then
// takes. A map has groups of 8 slots of 32 bytes and 8 control octets, a power
// of two of them and at most 7/8 full. From 1024 slots on it is several such
// tables, which fill unevenly: at most 3/4 keeps them from splitting, which
// would cost thrice.
func mapSize(n int) (size, cost int) {
	switch {
	case n == 0:
		return 0, 48
	case n <= 8:
		return n, 48 + 288
	case n <= 896:
		slots := 1 << bits.Len(uint(n*8/7))
		return n, 256 + rounded(slots*33)
	}
	slots := 1 << bits.Len(uint(n/3*4+3))
	return slots / 8 * 7, 256 + slots*41 // 1024 of them take 5 pages
}

// rounded is an upper bound of what the allocator makes of n bytes.
func rounded(n int) int { return n + min(n/4+16, 8192) }

// field is where a field of a table or array is.
type field struct {
	key, value []byte // value without the length of a string, table or array
	next       int    // offset of the field after it
	typ        byte
}

// checkFields checks that p is a sequence of well-formed fields, keyed for a
// table and not for an array, and counts them; -1 after an error. With a depth
// that is not 0 it also checks what they nest. Every delivery's headers come
// through here: it only follows the lengths, and leaves it to scanField to
// say what is wrong with a field.
func (d *decoder) checkFields(p []byte, keyed bool, depth int) int {
	n := 0
	for off := 0; off < len(p); n++ {
		start := off
		if keyed {
			off += 1 + int(p[off])
		}
		if off >= len(p) {
			d.scanField(p, start, keyed)
			return -1
		}
		typ := p[off]
		size, prefixed := fieldSize(typ)
		off += 1 + size
		if size < 0 || off > len(p) {
			d.scanField(p, start, keyed)
			return -1
		}
		if !prefixed {
			continue
		}
		size = int(binary.BigEndian.Uint32(p[off-4:]))
		if size < 0 || size > len(p)-off { // less than 0 on a 32-bit machine
			d.scanField(p, start, keyed)
			return -1
		}
		off += size
		if depth > 0 && (typ == 'F' || typ == 'A') && !d.checkNested(p[off-size:off], typ, depth) {
			return -1
		}
	}
	return n
}

func (d *decoder) checkNested(p []byte, typ byte, depth int) bool {
	if depth == maxDepth {
		d.fail(nestedTooDeep())
		return false
	}
	return d.checkFields(p, typ == 'F', depth+1) >= 0
}

// scanField finds the field at p[off:], which is not empty. After an error its
// type is 0 and its next at the end.
func (d *decoder) scanField(p []byte, off int, keyed bool) field {
	f := field{next: len(p)}
	if keyed {
		n := int(p[off])
		off++
		if len(p)-off < n {
			d.fail(frameError("table: " + overrun("key", uint64(n), len(p)-off)))
			return f
		}
		f.key = p[off : off+n]
		off += n
	}
	if off == len(p) {
		d.fail(frameError(fieldPath(f.key, keyed) + "no type where the table ends"))
		return f
	}
	typ := p[off]
	off++
	n, prefixed := fieldSize(typ)
	switch {
	case n < 0:
		d.fail(syntaxError(fieldPath(f.key, keyed) + unknownFieldType(typ)))
		return f
	case prefixed && len(p)-off >= 4:
		size := uint64(binary.BigEndian.Uint32(p[off:]))
		off += 4
		if size > uint64(len(p)-off) {
			d.fail(frameError(fieldPath(f.key, keyed) + overrun(fieldName(typ), size, len(p)-off)))
			return f
		}
		n = int(size)
	case len(p)-off < n:
		d.fail(frameError(fieldPath(f.key, keyed) + overrun(fieldName(typ), uint64(n), len(p)-off)))
		return f
	}
	f.typ, f.value, f.next = typ, p[off:off+n], off+n
	return f
}

// fieldSize is the number of bytes of a type's value, or of the length in
// front of it where it has one; -1 for no type.
func fieldSize(typ byte) (n int, prefixed bool) {
	switch typ {
	case 'S', 'F', 'A', 'x':
		return 4, true
	case 't', 'b', 'B':
		return 1, false
	case 's', 'u':
		return 2, false
	case 'I', 'i', 'f':
		return 4, false
	case 'D':
		return 5, false
	case 'l', 'L', 'd', 'T':
		return 8, false
	case 'V':
		return 0, false
	}
	return -1, false
}

// fieldName is what errors call a type.
func fieldName(typ byte) string {
	switch typ {
	case 'S':
		return "string"
	case 'F':
		return "table"
	case 'A':
		return "array"
	case 'x':
		return "byte array"
	}
	return "value of type '" + string(rune(typ)) + "'"
}
