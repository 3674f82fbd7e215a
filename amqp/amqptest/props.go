package amqptest

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/warrenmq/warren/amqp"
)

// rawProps says where the properties that the broker cares about stand in a
// content header's property list. The broker hands properties on as it got
// them, so it reads them in place and never builds them.
type rawProps struct {
	ok           bool
	flags        uint16
	headers      int // offset of the headers table (its length field), 0: none
	headersEnd   int
	deliveryMode uint8
	priority     uint8
	replyTo      [2]int // offsets of the text, without its length octet
	expiration   [2]int
	userID       [2]int
}

// The property flags by bit, highest first, as the spec orders the fields.
const (
	flagContentType     = 1 << 15
	flagContentEncoding = 1 << 14
	flagHeaders         = 1 << 13
	flagDeliveryMode    = 1 << 12
	flagPriority        = 1 << 11
	flagCorrelationID   = 1 << 10
	flagReplyTo         = 1 << 9
	flagExpiration      = 1 << 8
	flagMessageID       = 1 << 7
	flagTimestamp       = 1 << 6
	flagType            = 1 << 5
	flagUserID          = 1 << 4
	flagAppID           = 1 << 3
	flagClusterID       = 1 << 2 // of AMQP 0-9: nothing looks at it
)

// scanProps walks a property list. ok is false when it is malformed; the
// engine checked it before, so callers may ignore that for received ones.
func scanProps(p []byte) (r rawProps) {
	if len(p) < 2 {
		return r
	}
	r.flags = binary.BigEndian.Uint16(p)
	if r.flags == 0 {
		r.ok = true
		return r
	}
	off := 2
	for bit := uint16(flagContentType); bit >= flagClusterID; bit >>= 1 {
		if r.flags&bit == 0 {
			continue
		}
		start, end := off, off
		switch bit {
		case flagHeaders:
			if off+4 > len(p) {
				return r
			}
			end = off + 4 + int(binary.BigEndian.Uint32(p[off:]))
			r.headers, r.headersEnd = off, end
		case flagDeliveryMode, flagPriority:
			end = off + 1
		case flagTimestamp:
			end = off + 8
		default:
			if off >= len(p) {
				return r
			}
			start, end = off+1, off+1+int(p[off])
		}
		if end > len(p) || end < off {
			r.headers, r.headersEnd = 0, 0
			return r
		}
		switch bit {
		case flagDeliveryMode:
			r.deliveryMode = p[off]
		case flagPriority:
			r.priority = p[off]
		case flagReplyTo:
			r.replyTo = [2]int{start, end}
		case flagExpiration:
			r.expiration = [2]int{start, end}
		case flagUserID:
			r.userID = [2]int{start, end}
		}
		off = end
	}
	r.ok = off == len(p)
	return r
}

// table gives the headers table with its length field, nil when there is none.
func (r rawProps) table(p []byte) []byte {
	if r.headers == 0 {
		return nil
	}
	return p[r.headers:r.headersEnd]
}

// replaceHeaders makes a copy of p with the given fields (names and values,
// without the table's length) as its headers, and drops the properties in
// clear (only flagExpiration is supported).
func replaceHeaders(p []byte, r rawProps, fields []byte, clear uint16) []byte {
	out := make([]byte, 2, len(p)+4+len(fields))
	binary.BigEndian.PutUint16(out, (r.flags|flagHeaders)&^clear)
	at, end := r.headers, r.headersEnd
	if at == 0 {
		at = r.afterEncoding(p)
		end = at
	}
	out = append(out, p[2:at]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(fields)))
	out = append(out, fields...)
	if clear&flagExpiration != 0 && r.flags&flagExpiration != 0 {
		out = append(out, p[end:r.expiration[0]-1]...)
		end = r.expiration[1]
	}
	return append(out, p[end:]...)
}

// afterEncoding is where the headers begin, or would.
func (r rawProps) afterEncoding(p []byte) int {
	at := 2
	for _, bit := range []uint16{flagContentType, flagContentEncoding} {
		if r.flags&bit != 0 {
			at += 1 + int(p[at])
		}
	}
	return at
}

// setDeliveryMode makes a copy of p with a delivery mode.
func setDeliveryMode(p []byte, r rawProps, mode byte) []byte {
	at := r.afterEncoding(p)
	if r.headers != 0 {
		at = r.headersEnd
	}
	out := make([]byte, 2, len(p)+1)
	binary.BigEndian.PutUint16(out, r.flags|flagDeliveryMode)
	out = append(append(out, p[2:at]...), mode)
	if r.flags&flagDeliveryMode != 0 {
		at++
	}
	return append(out, p[at:]...)
}

// replaceReplyTo makes a copy of p with another reply-to.
func replaceReplyTo(p []byte, r rawProps, to string) []byte {
	out := make([]byte, 0, len(p)+len(to))
	out = append(out, p[:r.replyTo[0]-1]...)
	out = append(out, byte(len(to)))
	out = append(out, to...)
	return append(out, p[r.replyTo[1]:]...)
}

// field is one field of a raw table: its name, and the whole of it.
type field struct {
	name string
	kind byte
	raw  []byte // name, kind and value
	val  []byte
}

// tableFields splits a raw table (with its length field) into its fields,
// whose bytes are views.
func tableFields(t []byte) []field {
	var fs []field
	if len(t) < 4 {
		return nil
	}
	for p := t[4:]; len(p) > 0; {
		n := int(p[0])
		if len(p) < n+2 {
			return fs
		}
		size := fieldSize(p[n+1], p[n+2:])
		end := n + 2 + size
		if size < 0 || end > len(p) {
			return fs
		}
		fs = append(fs, field{string(p[1 : n+1]), p[n+1], p[:end], p[n+2 : end]})
		p = p[end:]
	}
	return fs
}

// fieldSize is how many octets a field value of a kind takes; -1: unknown.
func fieldSize(kind byte, p []byte) int {
	switch kind {
	case 't', 'b', 'B':
		return 1
	case 's', 'u':
		return 2
	case 'I', 'i', 'f':
		return 4
	case 'l', 'L', 'd', 'T':
		return 8
	case 'D':
		return 5
	case 'V':
		return 0
	case 'S', 'x', 'A', 'F':
		if len(p) < 4 {
			return -1
		}
		return 4 + int(binary.BigEndian.Uint32(p))
	}
	return -1
}

// signLongs turns every 'L' of a raw table or array into 'l' in place, as
// RabbitMQ does: a number above the largest int64 comes back negative. It
// reports false where the table is malformed.
func signLongs(p []byte, array bool) bool {
	if len(p) < 4 {
		return false
	}
	for p = p[4:]; len(p) > 0; {
		n := 0
		if !array {
			n = 1 + int(p[0])
		}
		if len(p) <= n {
			return false
		}
		size := fieldSize(p[n], p[n+1:])
		if size < 0 || n+1+size > len(p) {
			return false
		}
		val := p[n+1 : n+1+size]
		switch p[n] {
		case 'L':
			p[n] = 'l'
		case 'F':
			if !signLongs(val, false) {
				return false
			}
		case 'A':
			if !signLongs(val, true) {
				return false
			}
		}
		p = p[n+1+size:]
	}
	return true
}

// appendField appends one field of a table: its name, kind and value.
func appendField(dst []byte, name string, value any) []byte {
	at := len(dst)
	out, err := amqp.AppendTable(dst, amqp.Table{name: value})
	if err != nil {
		return dst
	}
	copy(out[at:], out[at+4:]) // without the table's own length
	return out[:len(out)-4]
}

// joinSorted makes the content of a table from fields, sorted by name: so
// RabbitMQ sends headers, whatever their order was.
func joinSorted(fs []field) []byte {
	slices.SortStableFunc(fs, byName)
	var out []byte
	for _, f := range fs {
		out = append(out, f.raw...)
	}
	return out
}

func byName(a, b field) int { return strings.Compare(a.name, b.name) }

// header is a header that the broker adds.
type header struct {
	name  string
	value int64
}

// withHeaders makes a copy of props with headers added or replaced.
func withHeaders(props []byte, add ...header) []byte {
	r := scanProps(props)
	fields := tableFields(r.table(props))
	for _, h := range add {
		fields = slices.DeleteFunc(fields, func(f field) bool { return f.name == h.name })
		fields = append(fields, field{name: h.name, raw: appendField(nil, h.name, h.value)})
	}
	return replaceHeaders(props, r, joinSorted(fields), 0)
}
