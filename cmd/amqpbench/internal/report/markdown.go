package report

import (
	"fmt"
	"strings"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/compare"
)

// Markdown is the report for a page of documentation.
func Markdown(r *compare.Report) string {
	var b strings.Builder
	m := &r.Meta
	fmt.Fprintf(&b, "%s, on %s, %s, %s, %d x %s. %d rounds of %s, medians.\n\n", m.When, m.Target, m.Go, m.System, m.CPUs, m.CPU, m.Rounds, m.Duration)
	if m.Commit != "" {
		fmt.Fprintf(&b, "Commit %s. ", m.Commit)
	}
	fmt.Fprintf(&b, "Peers: %s.\n\n    %s\n\n", strings.Join(versions(r), "; "), m.Command)
	for _, n := range m.Notes {
		fmt.Fprintf(&b, "%s\n\n", n)
	}
	b.WriteString("| workload | peer | CPU ns/msg | ± | CPU vs 091 | ns/msg | msg/s | allocs | B/msg | p50 | p99 | p99.9 |\n")
	b.WriteString("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for i := range r.Entries {
		e := &r.Entries[i]
		name := title(e) + pinned(e)
		for _, s := range shown(e) {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", name, s.Peer, strings.Join(cells(e, s), " | "))
			name = ""
		}
	}
	vs := compare.Judge(r)
	if len(vs) == 0 {
		return b.String()
	}
	b.WriteString("\n| workload | goal | measured | |\n|---|---|--:|---|\n")
	for i := range vs {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", vs[i].Goal.Case, vs[i].Describe(), vs[i].Result(), vs[i].Say())
	}
	return b.String()
}
