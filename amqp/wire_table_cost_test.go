package amqp

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// memoryLimit is what decoding n bytes may allocate at the most. The race
// detector pads every number in an interface to 16 bytes.
func memoryLimit(n int) uint64 {
	if raceEnabled {
		return uint64(12*n + 64<<10)
	}
	return uint64(8*n + 64<<10)
}

// worstTables are tables that take much memory for their bytes, n of the unit
// that each is made of.
func worstTables(n int) map[string]string {
	rep := strings.Repeat
	keys := func(value string, width int) string {
		var b strings.Builder
		for i := range n {
			k := strconv.Itoa(i)
			k = rep("0", max(0, width-len(k))) + k
			b.WriteString(string(byte(len(k))) + k + value)
		}
		return b.String()
	}
	var pairs strings.Builder // keys of two bytes, each once
	for i := range min(n, 1<<16) {
		pairs.Write([]byte{2, byte(i >> 8), byte(i), 'V'})
	}
	spine := "V"
	for range 30 {
		spine = "F" + long("\x00A"+long(spine))
		if len(spine) > n {
			break
		}
	}
	return map[string]string{
		"voids":           "\x00A" + long(rep("V", n)),
		"bools":           "\x00A" + long(rep("t\x01", n)),
		"octets":          "\x00A" + long(rep("B\xff", n)),
		"shorts":          "\x00A" + long(rep("s\xff\xff", n)),
		"longs":           "\x00A" + long(rep("I\xff\xff\xff\xff", n)),
		"doubles":         "\x00A" + long(rep("d\x3f\xff\xff\xff\xff\xff\xff\xff", n)),
		"decimals":        "\x00A" + long(rep("D\xff\xff\xff\xff\xff", n)),
		"times":           "\x00A" + long(rep("T\xff\xff\xff\xff\xff\xff\xff\xff", n)),
		"empty strings":   "\x00A" + long(rep("S\x00\x00\x00\x00", n)),
		"strings":         "\x00A" + long(rep("S\x00\x00\x00\x01a", n)),
		"empty bytes":     "\x00A" + long(rep("x\x00\x00\x00\x00", n)),
		"bytes":           "\x00A" + long(rep("x\x00\x00\x00\x01a", n)),
		"bytes of 33":     "\x00A" + long(rep("x"+long(rep("a", 33)), n)),
		"one byte string": "\x00x" + long(rep("a", n)),
		"empty arrays":    "\x00A" + long(rep("A\x00\x00\x00\x00", n)),
		"arrays of one":   "\x00A" + long(rep("A\x00\x00\x00\x01V", n)),
		"empty tables":    "\x00A" + long(rep("F\x00\x00\x00\x00", n)),
		"tables of one":   "\x00A" + long(rep("F\x00\x00\x00\x02\x00V", n)),
		"tables of nine":  "\x00A" + long(rep("F"+long("\x01aV\x01bV\x01cV\x01dV\x01eV\x01fV\x01gV\x01hV\x01iV"), n)),
		"same key":        rep("\x00V", n),
		"numbered voids":  keys("V", 1),
		"numbered bools":  keys("t\x01", 1),
		"numbered longs":  keys("I\x7f\xff\xff\xff", 6),
		"pairs":           pairs.String(),
		"spines":          "\x00A" + long(rep(spine, n/len(spine)+1)),
	}
}

func TestTable_MemoryIsBoundedByTheInput(t *testing.T) {
	var worst float64
	for _, n := range []int{1, 8, 9, 30, 100, 200, 500, 896, 897, 1000, 1793, 3584, 3585, 7000, 7169, 14336, 20000, 50000, 100000} {
		for name, fields := range worstTables(n) {
			p := []byte(long(fields))
			var table Table
			var err error
			got := allocated(func() { table, err = DecodeTable(p) })
			limit := memoryLimit(len(p))
			if got > limit {
				t.Errorf("%d %s: %d bytes of input allocate %d, limit %d", n, name, len(p), got, limit)
			}
			worst = max(worst, float64(got)/float64(limit))
			if err == nil && len(table) == 0 {
				t.Errorf("%d %s: nothing decoded", n, name)
			}
		}
	}
	t.Logf("the worst takes %.0f%% of its limit", 100*worst)
}

// deaths is an x-death header with n entries, as RabbitMQ writes them, and
// what comes with it.
func deaths(n int) Table {
	var list []any
	for i := range n {
		list = append(list, Table{
			"count":        int64(1000 + i),
			"reason":       "expired",
			"queue":        "orders.retry." + strconv.Itoa(i),
			"time":         time.Unix(1700000000, 0).UTC(),
			"exchange":     "",
			"routing-keys": []any{"orders.retry." + strconv.Itoa(i)},
		})
	}
	return Table{"x-death": list, "x-first-death-exchange": "", "x-first-death-queue": "orders.retry.0",
		"x-first-death-reason": "expired", "x-delivery-count": int64(5)}
}

// What people send is far from the limits.
func TestTable_MemoryLimitSparesOrdinaryTables(t *testing.T) {
	many := func(n int, v any) Table {
		t := Table{}
		for i := range n {
			t["field-"+strconv.Itoa(i)] = v
		}
		return t
	}
	for name, table := range map[string]Table{
		"x-death":               deaths(1),
		"x-death of 100 queues": deaths(100),
		"5000 strings":          many(5000, "value"),
		"100000 longs":          many(100000, int32(1)),
		"200 bools":             many(200, true),
		"10000 in an array":     {"a": make([]bool, 0), "b": manyOf(10000, int64(1))},
		"100 small tables":      {"list": manyOf(100, Table{"id": int64(1), "name": "x"})},
		"1000 booleans":         {"list": manyOf(1000, true)},
	} {
		delete(table, "a")
		p, err := AppendTable(nil, table)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := DecodeTable(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func manyOf(n int, v any) []any {
	a := make([]any, n)
	for i := range a {
		a[i] = v
	}
	return a
}

// A frame's worth of nested lengths is walked once, not once per level.
func TestTable_DeepTablesAreWalkedOnce(t *testing.T) {
	fields := strings.Repeat("\x00V", 1<<19)
	for range 31 {
		fields = "\x00F" + long(fields)
	}
	p := []byte(long(fields))
	start := time.Now()
	d := decoder{p: p, lazyTables: true}
	d.tableArg()
	if err := d.finish(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("skipping 1 MiB took %v", took)
	}
}

var benchHeaders = Table{
	"tenant":      "acme",
	"attempt":     int32(3),
	"trace":       "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	"compressed":  false,
	"enqueued-at": time.Unix(1700000000, 0),
}

func TestTable_EncodingDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 4096)
	for name, table := range map[string]Table{
		"none": nil, "one": {"a": 1}, "five": benchHeaders, "x-death": deaths(3),
		"strings": {"cc": []string{"a", "b"}, "tables": []Table{{"a": 1}}},
	} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := appendTable(dst, table); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestTable_SkippingDoesNotAllocate(t *testing.T) {
	p, err := AppendTable(nil, deaths(3))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		d := decoder{p: p, lazyTables: true}
		d.tableArg()
		if d.finish() != nil || len(d.table) != len(p) {
			t.Fatal("not skipped")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTable_Append(b *testing.B) {
	for _, c := range []struct {
		name  string
		table Table
	}{{"0", nil}, {"1", Table{"attempt": int32(1)}}, {"5", benchHeaders}, {"x-death", deaths(1)}} {
		b.Run(c.name, func(b *testing.B) {
			dst := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := appendTable(dst, c.table); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTable_Decode(b *testing.B) {
	for _, c := range []struct {
		name  string
		table Table
	}{{"1", Table{"attempt": int32(1)}}, {"5", benchHeaders}, {"x-death", deaths(1)}} {
		p, err := AppendTable(nil, c.table)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeTable(p); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/skip", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d := decoder{p: p, lazyTables: true}
				if d.tableArg(); d.err != nil {
					b.Fatal(d.err)
				}
			}
		})
	}
}
