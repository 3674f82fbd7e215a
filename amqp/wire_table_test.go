package amqp

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fieldCases are all field types with their exact bytes.
var fieldCases = []struct {
	name  string
	value any
	wire  string
}{
	{"void", nil, "V"},
	{"true", true, "t\x01"},
	{"false", false, "t\x00"},
	{"int8", int8(-128), "b\x80"},
	{"uint8", uint8(200), "B\xc8"},
	{"int16", int16(-2), "s\xff\xfe"},
	{"uint16", uint16(0xfffe), "u\xff\xfe"},
	{"int32", int32(math.MinInt32), "I\x80\x00\x00\x00"},
	{"uint32", uint32(math.MaxUint32), "i\xff\xff\xff\xff"},
	{"int64 least", int64(math.MinInt64), "l\x80\x00\x00\x00\x00\x00\x00\x00"},
	{"int64 most", int64(math.MaxInt64), "l\x7f\xff\xff\xff\xff\xff\xff\xff"},
	{"float32", float32(-0.5), "f\xbf\x00\x00\x00"},
	{"float64", 1.5, "d\x3f\xf8\x00\x00\x00\x00\x00\x00"},
	{"decimal", Decimal{Scale: 2, Value: 12345}, "D\x02\x00\x00\x30\x39"},
	{"negative decimal", Decimal{Scale: 255, Value: -1}, "D\xff\xff\xff\xff\xff"},
	{"string", "héé", "S\x00\x00\x00\x05h\xc3\xa9\xc3\xa9"},
	{"string of any bytes", "\xff\x00\xce", "S\x00\x00\x00\x03\xff\x00\xce"},
	{"empty string", "", "S\x00\x00\x00\x00"},
	{"bytes", []byte{0, 0xff}, "x\x00\x00\x00\x02\x00\xff"},
	{"no bytes", []byte{}, "x\x00\x00\x00\x00"},
	{"timestamp", time.Unix(1<<32, 0).UTC(), "T\x00\x00\x00\x01\x00\x00\x00\x00"},
	{"timestamp before 1970", time.Unix(-1, 0).UTC(), "T\xff\xff\xff\xff\xff\xff\xff\xff"},
	{"zero time", time.Time{}, "T\xff\xff\xff\xf1\x88\x6e\x09\x00"},
	{"array", []any{nil, true, "a"}, "A\x00\x00\x00\x09Vt\x01S\x00\x00\x00\x01a"},
	{"empty array", []any{}, "A\x00\x00\x00\x00"},
	{"table", Table{"k": []any{Table{}}}, "F\x00\x00\x00\x0c\x01kA\x00\x00\x00\x05F\x00\x00\x00\x00"},
	{"empty table", Table{}, "F\x00\x00\x00\x00"},
}

// long puts a 32-bit length in front of s.
func long(s string) string {
	n := len(s)
	return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + s
}

func TestTable_FieldTypes(t *testing.T) {
	for _, c := range fieldCases {
		t.Run(c.name, func(t *testing.T) {
			want := long("\x01k" + c.wire)
			got, err := AppendTable(nil, Table{"k": c.value})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
			back, err := DecodeTable([]byte(want))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Table{"k": c.value}, back); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// What encodes as another type's bytes, and so comes back as that type.
func TestTable_Conversions(t *testing.T) {
	east := time.FixedZone("east", 3600)
	for _, c := range []struct {
		name     string
		in, want any
	}{
		{"int", -7, int64(-7)},
		{"uint", uint(7), int64(7)},
		{"uint64", uint64(math.MaxInt64), int64(math.MaxInt64)},
		{"map", map[string]any{"a": 1}, Table{"a": int64(1)}},
		{"nil map", map[string]any(nil), Table{}},
		{"nil table", Table(nil), Table{}},
		{"nil array", []any(nil), []any{}},
		{"nil bytes", []byte(nil), []byte{}},
		{"strings", []string{"a", ""}, []any{"a", ""}},
		{"tables", []Table{{"a": nil}, nil}, []any{Table{"a": nil}, Table{}}},
		{"time with a zone and a fraction", time.Unix(5, 999).In(east), time.Unix(5, 0).UTC()},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := AppendTable(nil, Table{"k": c.in})
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeTable(p)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Table{"k": c.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTable_Order(t *testing.T) {
	for _, n := range []int{0, 1, 2, 5, 8, 9, 16, 17, 64, 65, 300} {
		in := Table{}
		for i := range n {
			in[strings.Repeat("k", i%7)+string(rune('a'+i%26))+string(rune('a'+i/26))] = int16(i)
		}
		first, err := AppendTable(nil, in)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeTable(first)
		if err != nil {
			t.Fatal(err)
		}
		if len(back) != len(in) {
			t.Fatalf("%d fields: got %d back", len(in), len(back))
		}
		again, err := AppendTable([]byte("before"), back)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff("before"+string(first), string(again)); diff != "" {
			t.Errorf("%d fields: not the same bytes again (-want +got):\n%s", n, diff)
		}
		last := ""
		for off := 4; off < len(first); off += 3 + 1 + len(last) {
			key := string(first[off+1 : off+1+int(first[off])])
			if key < last {
				t.Fatalf("%d fields: key %q after %q", n, key, last)
			}
			last = key
		}
	}
}

func TestTable_ReadsWhatRabbitMQReads(t *testing.T) {
	for _, c := range []struct {
		name, wire string
		want       Table
	}{
		{"L is signed, as l", "\x01kL\xff\xff\xff\xff\xff\xff\xff\xfe", Table{"k": int64(-2)}},
		{"any bool but 0 is true", "\x01kt\x05", Table{"k": true}},
		{"empty key", "\x00t\x01", Table{"": true}},
		{"first of two equal keys", "\x01kt\x01\x01kt\x00", Table{"k": true}},
		{"key of any bytes", "\x02\xff\x00V", Table{"\xff\x00": nil}},
		{"empty", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := DecodeTable([]byte(long(c.wire)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// nested puts v into depth levels of tables, of arrays, or of both by turns.
func nested(depth int, kind string, v any) any {
	for i := range depth {
		if kind == "array" || kind == "both" && i%2 == 0 {
			v = []any{v}
		} else {
			v = Table{"k": v}
		}
	}
	return v
}

type myString string

// What 32-bit machines don't have. Lengths are refused by number: nobody has
// to make such a string.
func TestTable_Over32Bits(t *testing.T) {
	over := uint64(1) << 32
	if strconv.IntSize == 32 {
		t.Skip("nothing is that long on a 32-bit machine")
	}
	if err := (Table{"n": ^uint(0)}).Validate(); err == nil || !strings.Contains(err.Error(),
		`["n"]: 18446744073709551615 is over the largest signed 64-bit number`) {
		t.Errorf("uint: %v", err)
	}
	for typ, name := range map[byte]string{'S': "string", 'x': "byte array"} {
		want := "amqp: cannot encode table: " + name + " of 4294967296 bytes, at most 4294967295 fit"
		if dst, err := appendSize(nil, typ, int(over)); len(dst) != 0 || err == nil || err.Error() != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

func TestTable_EncodeErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		in   Table
		want string
	}{
		{"long key", Table{strings.Repeat("k", 256): 1},
			`["` + strings.Repeat("k", 64) + `"...]: key of 256 bytes, at most 255 fit`},
		{"uint64", Table{"n": uint64(math.MaxInt64) + 1},
			`["n"]: 9223372036854775808 is over the largest signed 64-bit number, and AMQP has no wider field`},
		{"NaN", Table{"n": math.NaN()}, `["n"]: NaN is not a finite number`},
		{"float32 infinity", Table{"n": float32(math.Inf(-1))}, `["n"]: -Inf is not a finite number`},
		{"named type", Table{"s": myString("x")}, `["s"]: Go type amqp.myString has no field type`},
		{"pointer", Table{"s": new(int)}, `["s"]: Go type *int has no field type`},
		{"duration", Table{"a": Table{"b": []any{1, time.Second}}},
			`["a"]["b"][1]: Go type time.Duration has no field type`},
		{"depth of tables", Table{"k": nested(32, "table", true)}, "tables and arrays nest more than 32 deep"},
		{"depth of arrays", Table{"k": nested(32, "array", true)}, "tables and arrays nest more than 32 deep"},
		{"depth of string arrays", Table{"k": nested(31, "both", []string{"s"})}, "tables and arrays nest more than 32 deep"},
		{"in the middle", Table{"a": 1, "b": struct{}{}, "c": 2}, `["b"]: Go type struct {} has no field type`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dst := append(make([]byte, 0, 64), "before"...)
			got, err := AppendTable(dst, c.in)
			var ee *EncodeError
			if !errors.As(err, &ee) || !errors.Is(err, ErrEncode) {
				t.Fatalf("got %v, want an *EncodeError", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want it to say %q", err, c.want)
			}
			if string(got) != "before" {
				t.Errorf("dst came back as %q", got)
			}
			if c.in.Validate() == nil {
				t.Error("Validate found nothing")
			}
		})
	}
	if err := inField(Table{"a": struct{}{}}.Validate(), "queue.declare", "arguments"); err == nil ||
		err.Error() != `amqp: cannot encode queue.declare arguments["a"]: Go type struct {} has no field type` {
		t.Errorf("with method and field: %v", err)
	}
	if err := (Table{"k": nested(31, "both", true)}).Validate(); err != nil {
		t.Errorf("32 levels: %v", err)
	}
}

func TestTable_Malformed(t *testing.T) {
	bomb := func(depth int) string {
		s := ""
		for range depth {
			s = "A" + long(s)
		}
		return s
	}
	for _, c := range []struct {
		name, wire string
		code       ReplyCode
		text       string
	}{
		{"no length", "\x00\x00\x00", FrameError, "long of 4 bytes where 3 are left"},
		{"length lies", "\x00\x00\x00\x05\x01kV", FrameError, "table of 5 bytes where 3 are left"},
		{"length of all ones", "\xff\xff\xff\xff", FrameError, "table of 4294967295 bytes where 0 are left"},
		{"bytes after it", long("\x01kV") + "x", FrameError, "1 bytes left over after the last field"},
		{"key lies", long("\x05kV"), FrameError, "table: key of 5 bytes where 2 are left"},
		{"no type", long("\x01k"), FrameError, `table field "k": no type where the table ends`},
		{"unknown type", long("\x01kZ"), SyntaxError, `table field "k": unknown type 'Z' (octet 90)`},
		{"type that is no letter", long("\x01k\x00"), SyntaxError, `table field "k": unknown type '\x00' (octet 0)`},
		{"short number", long("\x01kI\x00\x00\x00"), FrameError, `table field "k": value of type 'I' of 4 bytes where 3 are left`},
		{"short decimal", long("\x01kD\x00"), FrameError, `table field "k": value of type 'D' of 5 bytes where 1 are left`},
		{"string without length", long("\x01kS\x00"), FrameError, `table field "k": string of 4 bytes where 1 are left`},
		{"string lies", long("\x01kS\x00\x00\x00\x02a"), FrameError, `table field "k": string of 2 bytes where 1 are left`},
		{"bytes of all ones", long("\x01kx\xff\xff\xff\xff"), FrameError, `table field "k": byte array of 4294967295 bytes where 0 are left`},
		{"table past its parent", long("\x01kF\x00\x00\x00\x09\x01kV"), FrameError, `table field "k": table of 9 bytes where 3 are left`},
		{"array past its parent", long("\x01kA\x00\x00\x00\x02V"), FrameError, `table field "k": array of 2 bytes where 1 are left`},
		{"string past its array", long("\x01kA" + long("S\x00\x00\x00\x01") + "\x01aV"), FrameError, "array element: string of 1 bytes where 0 are left"},
		{"unknown type in an array", long("\x01kA" + long("VZ")), SyntaxError, "array element: unknown type 'Z' (octet 90)"},
		{"inner table malformed", long("\x01kF" + long("\x01jZ")), SyntaxError, `table field "j": unknown type 'Z' (octet 90)`},
		{"33 deep", long("\x01k" + bomb(32)), SyntaxError, "tables and arrays nest more than 32 deep"},
		{"a thousand deep", long("\x01k" + bomb(1000)), SyntaxError, "tables and arrays nest more than 32 deep"},
		{"voids without end", long("\x01kA" + long(strings.Repeat("V", 1e5))), ResourceError,
			"table of 100007 bytes would take more than 8 times that in memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := DecodeTable([]byte(c.wire))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v and error %v, want an *Error", got, err)
			}
			if diff := cmp.Diff(&Error{Code: c.code, Text: c.text}, e, cmp.AllowUnexported(Error{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got != nil {
				t.Errorf("got %v with the error", got)
			}
			d := decoder{p: []byte(c.wire), lazyTables: true}
			d.tableArg()
			if err := d.finish(); c.code != ResourceError && (err == nil || err.Error() != e.Error()) {
				t.Errorf("skipping it: %v", err)
			}
		})
	}
	if _, err := DecodeTable([]byte(long("\x01k" + bomb(31)))); err != nil {
		t.Errorf("32 deep: %v", err)
	}
}

func TestTable_OwnsItsMemory(t *testing.T) {
	p, err := AppendTable(nil, Table{"key": "value", "b": []byte("bytes")})
	if err != nil {
		t.Fatal(err)
	}
	d := decoder{p: p, alias: true}
	got := d.tableArg()
	for i := range p {
		p[i] = 0xdb
	}
	if diff := cmp.Diff(Table{"key": "value", "b": []byte("bytes")}, got); diff != "" {
		t.Errorf("changed with the buffer it was decoded from (-want +got):\n%s", diff)
	}
	_ = append(got["b"].([]byte), 'x')
	if got["key"] != "value" {
		t.Error("appending to bytes reached a string")
	}
}
