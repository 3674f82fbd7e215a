// Package hist counts latencies in buckets of at most 1.6 % width, so that millions of them cost 30 KiB and
// percentiles of several rounds can be merged.
package hist

import (
	"encoding/json"
	"math/bits"
	"time"
)

const (
	sub     = 64 // buckets per power of two
	subBits = 6
	size    = sub * (64 - subBits)
)

// Hist is a histogram of durations. The zero value is empty and ready. It is not safe for concurrent use: give
// each goroutine its own and Merge them.
type Hist struct {
	n      uint64
	sum    uint64
	counts []uint64
}

func index(v uint64) int {
	if v < sub {
		return int(v)
	}
	exp := bits.Len64(v) - subBits - 1
	return (exp+1)*sub + int(v>>uint(exp))&(sub-1)
}

// value is the middle of bucket i.
func value(i int) uint64 {
	if i < sub {
		return uint64(i)
	}
	exp := uint(i/sub - 1)
	low := (uint64(sub) + uint64(i%sub)) << exp
	return low + (uint64(1)<<exp)/2
}

// Add counts one duration; a negative one counts as 0.
func (h *Hist) Add(d time.Duration) {
	if h.counts == nil {
		h.counts = make([]uint64, size)
	}
	v := uint64(max(d, 0))
	h.counts[min(index(v), size-1)]++
	h.n++
	h.sum += v
}

// Merge adds o's counts to h. A nil o adds nothing.
func (h *Hist) Merge(o *Hist) {
	if o == nil || o.n == 0 {
		return
	}
	if h.counts == nil {
		h.counts = make([]uint64, size)
	}
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.sum += o.sum
}

// Reset empties h and keeps its memory.
func (h *Hist) Reset() { clear(h.counts); h.n, h.sum = 0, 0 }

// Count is the number of durations added.
func (h *Hist) Count() uint64 {
	if h == nil {
		return 0
	}
	return h.n
}

// Mean is the arithmetic mean, 0 when empty.
func (h *Hist) Mean() time.Duration {
	if h.Count() == 0 {
		return 0
	}
	return time.Duration(h.sum / h.n)
}

// Quantile is the duration below which the fraction q (0..1) of those added lies; 0 when empty.
func (h *Hist) Quantile(q float64) time.Duration {
	if h.Count() == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.n)), h.n-1)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen > rank {
			return time.Duration(value(i))
		}
	}
	return 0
}

// MarshalJSON writes the buckets that hold something, as [index, count] pairs.
func (h *Hist) MarshalJSON() ([]byte, error) {
	pairs := [][2]uint64{}
	for i, c := range h.counts {
		if c > 0 {
			pairs = append(pairs, [2]uint64{uint64(i), c})
		}
	}
	return json.Marshal(struct {
		Sum     uint64      `json:"sum"`
		Buckets [][2]uint64 `json:"buckets"`
	}{h.sum, pairs})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Hist) UnmarshalJSON(p []byte) error {
	var v struct {
		Sum     uint64      `json:"sum"`
		Buckets [][2]uint64 `json:"buckets"`
	}
	if err := json.Unmarshal(p, &v); err != nil {
		return err
	}
	*h = Hist{sum: v.Sum, counts: make([]uint64, size)}
	for _, b := range v.Buckets {
		if b[0] < size {
			h.counts[b[0]] += b[1]
			h.n += b[1]
		}
	}
	return nil
}
