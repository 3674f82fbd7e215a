package compare

import (
	"fmt"
	"math"
	"strings"
)

// Metric is what a goal looks at.
type Metric string

const (
	CPU        Metric = "CPU"
	Wall       Metric = "time"
	Rate       Metric = "rate"
	P99        Metric = "p99"
	Allocs     Metric = "allocs"
	IdleBytes  Metric = "bytes each"
	Goroutines Metric = "goroutines each"
)

// Goal is one figure to reach by Warren. One of three kinds: at least Min times better than a peer (Base); at
// most Max by itself; at most Max times its own figure in another case (Same).
type Goal struct {
	Case   string // Case.ID
	Metric Metric
	Base   string
	Same   string
	Min    float64
	Aim    float64 // where to go on to; 0: none
	Max    float64
	Broker bool // a goal for a real broker, not for the null server
}

const (
	base    = "amqp091-go"
	cBase   = "rabbitmq-c"
	subject = "warren"
)

// Goals is the project's table.
func Goals() []Goal {
	var g []Goal
	atLeast := func(id string, min, aim float64) {
		g = append(g, Goal{Case: id, Metric: CPU, Base: base, Min: min, Aim: aim})
	}
	atLeast("publish/16B", 30, 45)
	atLeast("publish/1KiB", 8, 11)
	atLeast("publish/64KiB", 1.2, 0)
	for _, id := range []string{"publish-8", "publish-8-shared"} {
		atLeast(id+"/16B", 20, 0)
		atLeast(id+"/1KiB", 7, 0)
	}
	atLeast("publish-headers/1KiB", 7, 0)
	atLeast("confirm-1000/16B", 20, 30)
	atLeast("confirm-1000/1KiB", 7, 0)
	atLeast("consume/16B", 18, 0)
	atLeast("consume/1KiB", 4, 0)
	atLeast("consume/64KiB", 1.7, 0)
	atLeast("consume-borrow/16B", 25, 40)
	atLeast("consume-borrow/1KiB", 12, 18)
	atLeast("consume-borrow/64KiB", 3, 0)
	atLeast("ack-each/16B", 30, 0)
	atLeast("ack-each/1KiB", 12, 0)
	atLeast("ack-each-now/16B", 12, 0)
	atLeast("ack-each-now/1KiB", 6, 0)
	atLeast("rpc-64/16B", 3, 0)
	g = append(g, Goal{Case: "rpc-64/16B", Metric: P99, Base: base, Min: 4})
	atLeast("rpc-64/1KiB", 3, 0)
	atLeast("confirm-1/16B", 1.5, 0)
	atLeast("rpc-1/16B", 1.5, 0)
	atLeast("connection", 1.6, 0)
	atLeast("channel", 1.5, 0)
	for _, id := range []string{"publish", "confirm-1000", "consume-borrow"} {
		for _, size := range []string{"/16B", "/1KiB"} {
			g = append(g, Goal{Case: id + size, Metric: Wall, Base: cBase, Min: 1})
		}
	}
	return append(append(g, absolute()...), broker()...)
}

// absolute are the goals that look at Warren alone.
func absolute() []Goal {
	return []Goal{
		{Case: "publish/16B", Metric: Allocs, Max: 0},
		{Case: "publish/1KiB", Metric: Allocs, Max: 0},
		{Case: "publish-headers/1KiB", Metric: Allocs, Max: 0},
		{Case: "confirm-1000/16B", Metric: Allocs, Max: 1},
		{Case: "consume/16B", Metric: Allocs, Max: 1},
		{Case: "consume-borrow/16B", Metric: Allocs, Max: 0},
		{Case: "idle-channels", Metric: IdleBytes, Max: 600},
		{Case: "idle-conns", Metric: IdleBytes, Max: 12 << 10},
		{Case: "idle-conns", Metric: Goroutines, Max: 2},
		{Case: "spread-1000/16B", Metric: CPU, Same: "spread-1/16B", Max: 1.2},
		{Case: "consume-1000/16B", Metric: CPU, Same: "consume/16B", Max: 1.2},
		{Case: "consume-1000-borrow/16B", Metric: CPU, Same: "consume-borrow/16B", Max: 1.2},
		{Case: "backlog/16B", Metric: CPU, Same: "consume/16B", Max: 1.2},
		{Case: "backlog-borrow/16B", Metric: CPU, Same: "consume-borrow/16B", Max: 1.2},
		{Case: "publish-64/16B", Metric: CPU, Same: "publish-8/16B", Max: 1.2},
		{Case: "publish-64-shared/16B", Metric: CPU, Same: "publish-8-shared/16B", Max: 1.2},
	}
}

// broker are the goals on RabbitMQ itself.
func broker() []Goal {
	var g []Goal
	add := func(id string, metric Metric, against string, min float64) {
		g = append(g, Goal{Case: id, Metric: metric, Base: against, Min: min, Broker: true})
	}
	add("publish/16B", CPU, base, 20)
	add("publish/1KiB", CPU, base, 4)
	for _, size := range []string{"/16B", "/1KiB"} {
		add("publish"+size, Rate, base, 1.4)
		for _, id := range []string{"consume-borrow", "consume-paced"} {
			add(id+size, CPU, base, 2.5)
			add(id+size, Rate, base, 1.25)
		}
		add("confirm-1000"+size, CPU, base, 2)
		add("confirm-1000"+size, Rate, base, 1.15)
	}
	add("publish/16B", CPU, cBase, 8)
	add("publish/1KiB", CPU, cBase, 3)
	for _, size := range []string{"/16B", "/1KiB"} {
		// At most 1.5 times its CPU: two thirds of it in the other direction.
		add("consume-borrow"+size, CPU, cBase, 1/1.5)
		add("consume-paced"+size, CPU, cBase, 1/1.5)
		add("confirm-1000"+size, CPU, cBase, 1/1.5)
	}
	return append(g, Goal{Case: "backlog/16B", Metric: CPU, Same: "consume/16B", Max: 1.2, Broker: true})
}

// Verdict is a goal and what was measured.
type Verdict struct {
	Goal     Goal
	Measured float64 // the ratio, or the figure where the goal is absolute
	Known    bool    // there are figures
	Met      bool
	Aimed    bool    // the aim is met too
	By       float64 // how far, as a fraction of the goal: positive is better than asked for
}

// Describe is the goal in words.
func (v *Verdict) Describe() string {
	g := v.Goal
	switch {
	case g.Base != "" && g.Min < 1:
		return fmt.Sprintf("%s at most %.1fx of %s", g.Metric, 1/g.Min, g.Base)
	case g.Base != "":
		s := fmt.Sprintf("%s %gx better than %s", g.Metric, g.Min, g.Base)
		if g.Metric == Wall && g.Min == 1 {
			s = "not slower than " + g.Base
		}
		if g.Aim > 0 {
			s += fmt.Sprintf(", aim %gx", g.Aim)
		}
		return s
	case g.Same != "":
		return fmt.Sprintf("%s at most %gx of %s", g.Metric, g.Max, g.Same)
	}
	return fmt.Sprintf("%s at most %g", g.Metric, g.Max)
}

// Result is the measured figure in words.
func (v *Verdict) Result() string {
	if !v.Known {
		return "not measured"
	}
	if v.Goal.Base != "" || v.Goal.Same != "" {
		return fmt.Sprintf("%.2fx", v.Measured)
	}
	if v.Goal.Metric == Allocs {
		return fmt.Sprintf("%.4f", v.Measured)
	}
	return fmt.Sprintf("%.1f", v.Measured)
}

// Say is the verdict in words.
func (v *Verdict) Say() string {
	switch {
	case !v.Known:
		return ""
	case v.Goal.Max == 0 && v.Goal.Min == 0: // none allowed: a fraction of nothing says nothing
		if v.Met {
			return "met"
		}
		return "MISSED"
	case !v.Met:
		return fmt.Sprintf("MISSED by %.0f %%", -100*v.By)
	case v.Goal.Aim > 0 && v.Aimed:
		return fmt.Sprintf("met, aim too (+%.0f %%)", 100*v.By)
	}
	return fmt.Sprintf("met (+%.0f %%)", 100*v.By)
}

// figure is a metric's value for a peer in a case; higher is worse except for Rate.
func figure(s *Summary, m Metric) float64 {
	switch m {
	case CPU:
		return s.CPU.Median
	case Wall:
		return s.Wall.Median
	case Rate:
		return s.Rate.Median
	case P99:
		return float64(s.Latency.Quantile(0.99))
	case Allocs:
		return s.Allocs.Median
	case IdleBytes:
		return s.IdleBytes.Median
	case Goroutines:
		return s.IdleGoroutines.Median
	}
	return math.NaN()
}

// Judge holds a report against the goals that fit its target.
func Judge(r *Report) []Verdict {
	var out []Verdict
	if strings.HasPrefix(r.Meta.Target, "amqptest") {
		return nil // the goals are about other servers
	}
	for _, g := range Goals() {
		if g.Broker != r.Meta.Broker {
			continue
		}
		v := Verdict{Goal: g}
		mine := r.find(g.Case, subject)
		var other *Summary
		switch {
		case g.Base != "":
			other = r.find(g.Case, g.Base)
		case g.Same != "":
			other = r.find(g.Same, subject)
		default:
			other = mine
		}
		if mine != nil && other != nil {
			v.judge(figure(mine, g.Metric), figure(other, g.Metric))
		}
		if r.find(g.Case, "") != nil || v.Known {
			out = append(out, v)
		}
	}
	return out
}

func (v *Verdict) judge(mine, other float64) {
	g := v.Goal
	v.Known = true
	switch {
	case g.Base != "" && g.Metric == Rate:
		v.Measured = mine / other
	case g.Base != "":
		v.Measured = other / mine
	case g.Same != "":
		v.Measured = mine / other
	default:
		v.Measured = mine
	}
	if math.IsNaN(v.Measured) || math.IsInf(v.Measured, 0) {
		v.Known = false
		return
	}
	if g.Base != "" {
		v.By = v.Measured/g.Min - 1
		v.Met = v.Measured >= g.Min
		v.Aimed = v.Measured >= g.Aim
		return
	}
	v.By = 1 - v.Measured/g.Max
	v.Met = v.Measured <= g.Max
	if g.Metric == Allocs && g.Max == math.Trunc(g.Max) {
		// A run has a few allocations of its own (timers, the goroutine that reads): per message they round away.
		v.Met = v.Measured < g.Max+0.01
	}
	if g.Max == 0 {
		v.By = 0
	}
}
