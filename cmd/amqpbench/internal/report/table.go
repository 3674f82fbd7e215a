// Package report shows a comparison: as a table on the terminal, as Markdown, as an HTML page, as an SVG.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/compare"
)

// number writes a figure with as many digits as it deserves.
func number(v float64) string {
	switch {
	case v >= 100:
		return group(fmt.Sprintf("%.0f", v))
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v == 0:
		return "0"
	case v < 0.005:
		return "~0"
	}
	return fmt.Sprintf("%.2f", v)
}

// group puts commas between thousands.
func group(s string) string {
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// ratio is how many times better than the baseline a peer's CPU is; "" for the baseline itself.
func ratio(e *compare.Entry, s *compare.Summary) string {
	b := e.Find("amqp091-go")
	if !b.Usable() || s == b {
		return ""
	}
	if s.CPU.Median > 0 {
		return fmt.Sprintf("%.1fx", b.CPU.Median/s.CPU.Median)
	}
	if s.IdleBytes.Median > 0 {
		return fmt.Sprintf("%.1fx", b.IdleBytes.Median/s.IdleBytes.Median)
	}
	return ""
}

func duration(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.2fµs", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0fµs", float64(d)/1e3)
	}
	return fmt.Sprintf("%.1fms", float64(d)/1e6)
}

// cells are a summary's columns after the peer's name.
func cells(e *compare.Entry, s *compare.Summary) []string {
	if !s.Usable() {
		why := "failed: " + firstLine(s.Error)
		if s.Unfit || s.Error == "" {
			why = "n/a"
		}
		return []string{why, "", "", "", "", "", "", "", "", ""}
	}
	if s.IdleBytes.Median != 0 {
		return []string{number(s.IdleBytes.Median) + " B each", spread(s.IdleBytes), ratio(e, s), "",
			"", "", "", "", "", fmt.Sprintf("%.2f goroutines each, RSS %s B each", s.IdleGoroutines.Median, number(s.IdleRSS.Median))}
	}
	allocs, bytes := number(s.Allocs.Median), number(s.Bytes.Median)
	if s.NoAllocs {
		allocs, bytes = "?", "?"
	}
	c := []string{number(s.CPU.Median), spread(s.CPU), ratio(e, s), number(s.Wall.Median), number(s.Rate.Median), allocs, bytes, "", "", ""}
	if s.Latency.Count() > 0 {
		for i, q := range []float64{0.5, 0.99, 0.999} {
			c[7+i] = duration(s.Latency.Quantile(q))
		}
	}
	return c
}

func spread(s compare.Stat) string { return fmt.Sprintf("±%.0f%%", 50*s.Spread()) }

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return s
}

var header = []string{"peer", "CPU ns/msg", "", "CPU vs 091", "ns/msg", "msg/s", "allocs", "B/msg", "p50", "p99", "p99.9"}

// Table writes the report for a terminal.
func Table(w io.Writer, r *compare.Report) {
	m := &r.Meta
	fmt.Fprintf(w, "%s  target: %s  %s  %s  %d x %s\n%d rounds of %s, medians; ± is half the distance from best to worst\n",
		m.When, m.Target, m.Go, m.System, m.CPUs, m.CPU, m.Rounds, m.Duration)
	for _, n := range m.Notes {
		fmt.Fprintln(w, n)
	}
	tw := tabwriter.NewWriter(w, 2, 0, 2, ' ', tabwriter.AlignRight)
	for i := range r.Entries {
		e := &r.Entries[i]
		if len(e.Peers) == 0 {
			continue
		}
		tw.Flush()
		fmt.Fprintf(w, "\n%s%s\n", title(e), pinned(e))
		if e.Peers[0].IdleBytes.Median == 0 {
			fmt.Fprintln(tw, strings.Join(header, "\t")+"\t")
		}
		for _, s := range append(shown(e), failed(e)...) {
			fmt.Fprintln(tw, s.Peer+"\t"+strings.Join(cells(e, s), "\t")+"\t")
		}
	}
	tw.Flush()
	goals(w, r)
}

// failed are the peers that should have had figures.
func failed(e *compare.Entry) []*compare.Summary {
	var out []*compare.Summary
	for _, s := range e.Peers {
		if !s.Usable() && !s.Unfit && s.Error != "" {
			out = append(out, s)
		}
	}
	return out
}

func title(e *compare.Entry) string {
	if e.Case.Spec.Body == 0 {
		return e.Case.Title
	}
	return e.Case.Title + ", " + compare.SizeName(e.Case.Spec.Body)
}

func pinned(e *compare.Entry) string {
	if e.Case.Pinned {
		return " (client and server on one CPU)"
	}
	return ""
}

// goals writes the verdicts.
func goals(w io.Writer, r *compare.Report) {
	vs := compare.Judge(r)
	if len(vs) == 0 {
		return
	}
	fmt.Fprintf(w, "\nGoals\n")
	tw := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	met, known := 0, 0
	for i := range vs {
		v := &vs[i]
		if v.Known {
			known++
		}
		if v.Known && v.Met {
			met++
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", v.Goal.Case, v.Describe(), v.Result(), v.Say())
	}
	tw.Flush()
	fmt.Fprintf(w, "%d of %d measured goals met\n", met, known)
}
