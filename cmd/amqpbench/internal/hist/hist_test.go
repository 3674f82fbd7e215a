package hist

import (
	"encoding/json"
	"testing"
	"time"
)

func TestHist_Quantiles(t *testing.T) {
	var h Hist
	for i := 1; i <= 100_000; i++ {
		h.Add(time.Duration(i) * time.Microsecond)
	}
	for _, tc := range []struct {
		q    float64
		want time.Duration
	}{{0.5, 50 * time.Millisecond}, {0.99, 99 * time.Millisecond}, {0.999, 99900 * time.Microsecond}, {1, 100 * time.Millisecond}} {
		got := h.Quantile(tc.q)
		if off := (got - tc.want).Abs(); off > tc.want/50 {
			t.Errorf("Quantile(%v) = %v, want %v within 2 %%", tc.q, got, tc.want)
		}
	}
}

func TestHist_JSONAndMerge(t *testing.T) {
	var a, b Hist
	a.Add(5 * time.Nanosecond)
	a.Add(70 * time.Microsecond)
	p, err := json.Marshal(&a)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(p, &b); err != nil {
		t.Fatal(err)
	}
	b.Merge(&a)
	if b.Count() != 4 || b.Mean() != a.Mean() || b.Quantile(0) != a.Quantile(0) {
		t.Errorf("after JSON and merge: count %d mean %v min %v", b.Count(), b.Mean(), b.Quantile(0))
	}
}

func TestHist_IndexAndValueAgree(t *testing.T) {
	for v := uint64(0); v < 1<<40; v += v/7 + 1 {
		if got := index(value(index(v))); got != index(v) {
			t.Fatalf("value(%d) of v=%d falls into bucket %d", index(v), v, got)
		}
	}
}
