//go:build chaos

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// table is what was done, and how long it took until messages flowed again.
type table struct {
	kinds []string // in the order in which they came up
	times map[string][]time.Duration
	found map[string][]time.Duration // how long a connection was half-open
}

func (t *table) add(kind string, took time.Duration) {
	if t.times == nil {
		t.times = map[string][]time.Duration{}
	}
	if t.times[kind] == nil {
		t.kinds = append(t.kinds, kind)
	}
	t.times[kind] = append(t.times[kind], took)
}

func (t *table) addFound(kind string, took time.Duration) {
	if t.found == nil {
		t.found = map[string][]time.Duration{}
	}
	t.found[kind] = append(t.found[kind], took)
}

// all are the times of all faults, sorted.
func (t *table) all() (all []time.Duration) {
	for _, times := range t.times {
		all = append(all, times...)
	}
	slices.Sort(all)
	return all
}

func (t *table) String() string {
	var b strings.Builder
	line := func(kind string, times []time.Duration) {
		slices.Sort(times)
		fmt.Fprintf(&b, "%-36s %6d %9v %9v %9v\n", kind, len(times), ms(times[len(times)/2]), ms(p99(times)), ms(times[len(times)-1]))
	}
	fmt.Fprintf(&b, "\n%-36s %6s %9s %9s %9s\n", "until messages flow, after", "times", "median", "p99", "worst")
	for _, kind := range t.kinds {
		line(kind, t.times[kind])
	}
	line("all", t.all())
	for kind, times := range t.found {
		line("half-open until found: "+kind, times)
	}
	return b.String()
}

// p99 is of sorted times.
func p99(times []time.Duration) time.Duration { return times[(len(times)*99+99)/100-1] }

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
