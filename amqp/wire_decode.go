package amqp

import (
	"encoding/binary"
	"strconv"
	"time"
	"unsafe"
)

// decoder consumes a bounded slice: the arguments of a method or a list of
// properties. It never reads past p, allocates nothing that it has not found
// in p first, and never panics. Its error is sticky: after the first, every
// read gives zero and err says what was wrong: FrameError (501) where bytes
// run out or are left over, as RabbitMQ has it, SyntaxError (502) where they
// are whole but mean nothing.
type decoder struct {
	p   []byte
	off int
	err error

	// alias makes shortstr and longstr return views of p instead of copies:
	// they change when p does, so whoever sets it owns that.
	alias bool

	// lazyTables makes tableArg check a table without building it, and leave
	// it in table, length prefix included, as a view of p.
	lazyTables bool
	table      []byte

	budget int // bytes that the table being built may still take, see charge
}

// fail records the first error and makes every later read come out empty.
func (d *decoder) fail(err *Error) {
	if d.err == nil {
		d.err = err
	}
	d.off = len(d.p)
}

// truncated fails with what was to be read and how much of it is there.
func (d *decoder) truncated(what string, need uint64) {
	if d.err == nil {
		d.err = frameError(overrun(what, need, len(d.p)-d.off))
	}
	d.off = len(d.p)
}

// overrun words a length that lies, or an end that came too early.
func overrun(what string, need uint64, left int) string {
	return what + " of " + strconv.FormatUint(need, 10) + " bytes where " + strconv.Itoa(left) + " are left"
}

// missing fails for want of a number of size bytes. It stays out of the readers
// below to keep them small.
//
//go:noinline
func (d *decoder) missing(size int) {
	d.truncated([...]string{1: "octet", 2: "short", 4: "long", 8: "longlong"}[size], uint64(size))
}

func (d *decoder) octet() (v uint8) {
	if d.off >= len(d.p) {
		d.missing(1)
		return
	}
	v = d.p[d.off]
	d.off++
	return
}

func (d *decoder) short() (v uint16) {
	if len(d.p)-d.off < 2 {
		d.missing(2)
		return
	}
	v = binary.BigEndian.Uint16(d.p[d.off:])
	d.off += 2
	return
}

func (d *decoder) long() (v uint32) {
	if len(d.p)-d.off < 4 {
		d.missing(4)
		return
	}
	v = binary.BigEndian.Uint32(d.p[d.off:])
	d.off += 4
	return
}

func (d *decoder) longlong() (v uint64) {
	if len(d.p)-d.off < 8 {
		d.missing(8)
		return
	}
	v = binary.BigEndian.Uint64(d.p[d.off:])
	d.off += 8
	return
}

// shortstr reads a string of up to 255 bytes, whatever bytes they are.
func (d *decoder) shortstr() string {
	p, off := d.p, d.off
	if off >= len(p) {
		d.missing(1)
		return ""
	}
	n := int(p[off])
	off++
	if len(p)-off < n {
		d.off = off
		d.truncated("short string", uint64(n))
		return ""
	}
	d.off = off + n
	return d.text(p[off : off+n])
}

// longstr reads a string with a 32-bit length, whatever bytes they are.
func (d *decoder) longstr() string {
	n := uint64(d.long())
	if uint64(len(d.p)-d.off) < n {
		d.truncated("long string", n)
		return ""
	}
	d.off += int(n)
	return d.text(d.p[d.off-int(n) : d.off])
}

// text makes a string of bytes of p: a view in alias mode, else a copy.
func (d *decoder) text(b []byte) string {
	if d.alias {
		return unsafe.String(unsafe.SliceData(b), len(b))
	}
	return string(b)
}

// timestamp reads seconds since 1970. AMQP says that it is a POSIX time_t,
// which is signed, so a date before that year is one and not the far future.
func (d *decoder) timestamp() time.Time {
	v := d.longlong()
	if d.err != nil {
		return time.Time{}
	}
	return unixTime(v)
}

// tableArg reads a table. An empty one is nil; any other owns all its memory,
// in alias mode too, since tables are kept far longer than frames.
func (d *decoder) tableArg() Table {
	start := d.off
	n := uint64(d.long())
	if d.err != nil {
		return nil
	}
	if uint64(len(d.p)-d.off) < n {
		d.truncated("table", n)
		return nil
	}
	d.off += int(n)
	if d.lazyTables {
		d.table = d.p[start:d.off:d.off]
		d.checkFields(d.p[start+4:d.off], true, 1)
		return nil
	}
	if n == 0 {
		return nil
	}
	return d.buildTable(d.p[start+4 : d.off])
}

// skipTable checks and skips a table, and returns it whole as a view of p.
func (d *decoder) skipTable() []byte {
	lazy := d.lazyTables
	d.lazyTables = true
	d.tableArg()
	d.lazyTables = lazy
	if d.err != nil {
		return nil
	}
	return d.table
}

// finish gives the error, which bytes left over are one too.
func (d *decoder) finish() error {
	if d.err == nil && d.off != len(d.p) {
		d.fail(frameError(strconv.Itoa(len(d.p)-d.off) + " bytes left over after the last field"))
	}
	return d.err
}

func unixTime(v uint64) time.Time { return time.Unix(int64(v), 0).UTC() }

// appendTimestamp appends whole seconds since 1970; see decoder.timestamp.
func appendTimestamp(dst []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(t.Unix()))
}
