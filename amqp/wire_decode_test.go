package amqp

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDecoder_ReadsInOrder(t *testing.T) {
	d := decoder{p: []byte("\x01\x00\x02\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04" +
		"\x03abc\x00\x00\x00\x02\xff\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x03\x01kV")}
	got := []any{d.octet(), d.short(), d.long(), d.longlong(), d.shortstr(), d.longstr(), d.timestamp(), d.tableArg()}
	want := []any{uint8(1), uint16(2), uint32(3), uint64(4), "abc", "\xff\x00", time.Unix(5, 0).UTC(), Table{"k": nil}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := d.finish(); err != nil {
		t.Error(err)
	}
}

func TestDecoder_SaysWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		read           func(d *decoder)
	}{
		{"octet", "", "octet of 1 bytes where 0 are left", func(d *decoder) { d.octet() }},
		{"short", "a", "short of 2 bytes where 1 are left", func(d *decoder) { d.short() }},
		{"long", "abc", "long of 4 bytes where 3 are left", func(d *decoder) { d.long() }},
		{"longlong", "abcdefg", "longlong of 8 bytes where 7 are left", func(d *decoder) { d.longlong() }},
		{"timestamp", "abc", "longlong of 8 bytes where 3 are left", func(d *decoder) { d.timestamp() }},
		{"short string", "\x05abcd", "short string of 5 bytes where 4 are left", func(d *decoder) { d.shortstr() }},
		{"long string", "\xff\xff\xff\xffabcd", "long string of 4294967295 bytes where 4 are left", func(d *decoder) { d.longstr() }},
		{"table", "\x00\x00\x00\x05\x01kV", "table of 5 bytes where 3 are left", func(d *decoder) { d.tableArg() }},
		{"left over", "abc", "2 bytes left over after the last field", func(d *decoder) { d.octet() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decoder{p: []byte(c.in)}
			c.read(&d)
			var e *Error
			if err := d.finish(); !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Code != FrameError || e.Text != c.want {
				t.Errorf("got %d %q, want %d %q", e.Code, e.Text, FrameError, c.want)
			}
			if d.octet() != 0 || d.short() != 0 || d.long() != 0 || d.longlong() != 0 || d.shortstr() != "" ||
				d.longstr() != "" || !d.timestamp().IsZero() || d.tableArg() != nil || d.skipTable() != nil {
				t.Error("reads something after an error")
			}
			if d.finish() != error(e) {
				t.Errorf("the first error did not stick: %v", d.err)
			}
		})
	}
}

func TestDecoder_AliasGivesViews(t *testing.T) {
	for _, alias := range []bool{false, true} {
		p := []byte("\x03abc\x00\x00\x00\x03def")
		d := decoder{p: p, alias: alias}
		short, long := d.shortstr(), d.longstr()
		copy(p, "\x03xyz\x00\x00\x00\x03xyz")
		want := "abcdef"
		if alias {
			want = "xyzxyz"
		}
		if got := short + long; got != want {
			t.Errorf("alias %v: got %q after the buffer changed, want %q", alias, got, want)
		}
	}
	p := []byte("\x03abc\x00\x00\x00\x03def\x00\x00\x00\x00\x00")
	if n := testing.AllocsPerRun(100, func() {
		d := decoder{p: p, alias: true}
		if d.shortstr() != "abc" || d.longstr() != "def" || d.shortstr() != "" || d.longstr() != "" || d.finish() != nil {
			t.Fatal("wrong")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDecoder_LazyTables(t *testing.T) {
	p := []byte("\x07\x00\x00\x00\x03\x01kV\x08")
	d := decoder{p: p, lazyTables: true}
	d.octet()
	if got := d.tableArg(); got != nil {
		t.Errorf("built %v", got)
	}
	if d.octet() != 8 || d.finish() != nil {
		t.Errorf("not at the end of the table: %v", d.err)
	}
	if string(d.table) != string(p[1:8]) || &d.table[0] != &p[1] || cap(d.table) != 7 {
		t.Errorf("table is %q with room for %d, not a bounded view of the input", d.table, cap(d.table))
	}
	d = decoder{p: p}
	d.octet()
	if got := d.skipTable(); string(got) != string(p[1:8]) || d.lazyTables {
		t.Errorf("skipTable gave %q", got)
	}
	d = decoder{p: []byte("\x00\x00\x00\x03\x01kZ"), lazyTables: true}
	d.tableArg()
	if !errors.Is(d.finish(), SyntaxError) {
		t.Errorf("malformed: %v", d.err)
	}
}

func TestEncodeError_Texts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{shortstrError("queue.declare", "queue", 256),
			"amqp: cannot encode queue.declare queue: short string of 256 bytes, at most 255 fit"},
		{longstrError("connection.secure", "challenge", 1<<30),
			"amqp: cannot encode connection.secure challenge: long string of 1073741824 bytes, at most 4294967295 fit"},
		{&EncodeError{Reason: "no"}, "amqp: cannot encode table: no"},
		{inField(&EncodeError{Field: `["x"]`, Reason: "no"}, "basic.publish", "headers"),
			`amqp: cannot encode basic.publish headers["x"]: no`},
	} {
		if c.err.Error() != c.want || !errors.Is(c.err, ErrEncode) {
			t.Errorf("got %q, want %q", c.err, c.want)
		}
	}
	other := errors.New("other")
	if inField(other, "m", "f") != other || within(other, "p") != other {
		t.Error("an error of another kind was changed")
	}
	if p := keyPath(strings.Repeat("é", 200)); len(p) > 300 {
		t.Errorf("path of %d bytes", len(p))
	}
}
