package report

import (
	"fmt"
	"html"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/compare"
)

// Sizes of the pictures, in pixels.
const (
	cardWidth  = 520
	labelWidth = 96
	valueWidth = 150
	rowHeight  = 28
	headHeight = 52
	curveTop   = 76
	curveH     = 190
)

// style is shared by the pictures and the page, which has both a light and a dark face.
const style = `
:root{--bg:#fbfaf8;--card:#fff;--ink:#1c2330;--soft:#69748a;--line:#e4e2dd;--track:#f1efeb;
--warren:#d9531e;--warren2:#f0a37f;--amqp091-go:#51607d;--amqp091-go2:#98a5bf;--rabbitmq-c:#2f8f83;--rabbitmq-c2:#8cc9c1;
--floor:#a9a49a;--floor2:#d3cfc7;--good:#1a7f4b;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--bg:#14171d;--card:#1c2129;--ink:#e8eaf0;--soft:#96a1b5;--line:#2d3440;--track:#252b35;
--warren:#ff7a45;--warren2:#a54f2d;--amqp091-go:#8fa2c8;--amqp091-go2:#566380;--rabbitmq-c:#4fbfb1;--rabbitmq-c2:#2f756d;
--floor:#8d887f;--floor2:#57534d;--good:#4cc38a;--bad:#ff8a80}}
svg{font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.t{font-size:14px;font-weight:650;fill:var(--ink)}.s{font-size:11px;fill:var(--soft)}.l{font-size:12px;fill:var(--ink)}
.me{font-weight:700}.v{font-size:12px;fill:var(--ink);font-variant-numeric:tabular-nums}.k{fill:var(--soft)}
.track{fill:var(--track)}.grid{stroke:var(--line);stroke-width:1}.whisk{stroke:var(--ink);stroke-width:1;opacity:.55}
.card{fill:var(--card);stroke:var(--line)}.curve{fill:none;stroke-width:2;stroke-linejoin:round}
`

// colours are the custom properties of a peer: system time, then user time.
func colours(peer string) (system, user string) {
	switch peer {
	case "warren", "amqp091-go", "rabbitmq-c", "floor":
		return "var(--" + peer + ")", "var(--" + peer + "2)"
	}
	return "var(--soft)", "var(--line)"
}

type picture struct{ strings.Builder }

func (p *picture) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(s))
}

func (p *picture) rect(x, y, w, h float64, fill string) {
	fmt.Fprintf(p, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" fill="%s"/>`, x, y, w, h, fill)
}

func (p *picture) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

// shown are the peers with figures: the project's own first, the floor last.
func shown(e *compare.Entry) []*compare.Summary {
	var first, out, last []*compare.Summary
	for _, s := range e.Peers {
		switch {
		case !s.Usable():
		case s.Peer == "warren":
			first = append(first, s)
		case s.Peer == "floor":
			last = append(last, s)
		default:
			out = append(out, s)
		}
	}
	return append(append(first, out...), last...)
}

// amount is what a bar shows: CPU per message, or octets of an idle thing.
func amount(s *compare.Summary) (st compare.Stat, unit string) {
	if s.IdleBytes.Median != 0 {
		return s.IdleBytes, "B"
	}
	return s.CPU, "ns"
}

func quantity(v float64, unit string) string {
	switch {
	case unit == "B" && v >= 10<<10:
		return fmt.Sprintf("%.1f KiB", v/1024)
	case unit == "B":
		return fmt.Sprintf("%.0f B", v)
	case v >= 1e6:
		return fmt.Sprintf("%.2f ms", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1f µs", v/1e3)
	}
	return number(v) + " ns"
}

func barsHeight(e *compare.Entry) int { return headHeight + rowHeight*len(shown(e)) + 10 }

// bars draws one case: a bar for each peer, system time dark and user time light, with a whisker from the best
// round to the worst.
func bars(e *compare.Entry) string {
	var p picture
	rows := shown(e)
	top := 0.0
	for _, s := range rows {
		st, _ := amount(s)
		top = math.Max(top, st.Max)
	}
	if top <= 0 {
		top = 1
	}
	width := float64(cardWidth - labelWidth - valueWidth - 16)
	p.text(16, 24, "t", "start", title(e))
	p.text(16, 41, "s", "start", subtitle(e))
	for i, s := range rows {
		y := float64(headHeight + i*rowHeight)
		st, unit := amount(s)
		class := "l"
		if s.Peer == "warren" {
			class = "l me"
		}
		p.text(labelWidth, y+17, class, "end", s.Peer)
		x := float64(labelWidth + 10)
		fmt.Fprintf(&p, `<rect x="%.1f" y="%.1f" width="%.1f" height="16" rx="2" class="track"/>`, x, y+5, width)
		sys, user := colours(s.Peer)
		whole := math.Max(st.Median/top*width, 1.5)
		if unit == "ns" && st.Median > 0 {
			part := whole * s.System.Median / st.Median
			p.rect(x, y+5, whole, 16, user)
			p.rect(x, y+5, math.Min(part, whole), 16, sys)
		} else {
			p.rect(x, y+5, whole, 16, sys)
		}
		if st.Max > st.Min {
			a, b := x+math.Max(st.Min, 0)/top*width, x+st.Max/top*width
			p.line(a, y+13, b, y+13, "whisk")
			p.line(b, y+10, b, y+16, "whisk")
			p.line(a, y+10, a, y+16, "whisk")
		}
		at := x + width + 10
		p.text(at, y+17, "v", "start", quantity(st.Median, unit))
		if r := ratio(e, s); r != "" {
			p.text(cardWidth-14, y+17, "v k", "end", r)
		}
	}
	return p.String()
}

func subtitle(e *compare.Entry) string {
	if idle := e.Peers; len(idle) > 0 && idle[0].IdleBytes.Median != 0 {
		return "heap and stacks for each"
	}
	s := "client CPU per message"
	switch e.Case.Spec.Workload {
	case "connection", "channel":
		s = "client CPU for each"
	case "rpc":
		s = "client CPU per call"
	}
	if e.Case.Pinned {
		s += "; client and server share one CPU"
	}
	return s
}

func hasLatency(e *compare.Entry) bool {
	for _, s := range shown(e) {
		if s.Latency.Count() > 0 {
			return true
		}
	}
	return false
}

func curvesHeight() int { return curveTop + curveH + 46 }

// curves draws latency over the percentile, both in steps of ten.
func curves(e *compare.Entry) string {
	var p picture
	p.text(16, 24, "t", "start", "Latency: "+title(e))
	x0, x1 := 62.0, float64(cardWidth-18)
	y0, y1 := float64(curveTop+curveH), float64(curveTop)
	lo, hi, n := math.Inf(1), 0.0, uint64(0)
	for _, s := range shown(e) {
		if s.Latency.Count() == 0 {
			continue
		}
		n = max(n, s.Latency.Count())
	}
	decades := math.Min(math.Max(math.Floor(math.Log10(float64(n)))-1, 2), 5)
	for _, s := range shown(e) {
		if s.Latency.Count() > 0 {
			lo = math.Min(lo, float64(s.Latency.Quantile(0)))
			hi = math.Max(hi, float64(s.Latency.Quantile(1-math.Pow(10, -decades))))
		}
	}
	lo, hi = math.Log10(math.Max(lo, 1)), math.Log10(math.Max(hi, 2))
	xOf := func(d float64) float64 { return x0 + d/decades*(x1-x0) }
	yOf := func(ns float64) float64 {
		return y0 - (math.Log10(math.Max(ns, 1))-lo)/math.Max(hi-lo, 0.01)*(y0-y1)
	}
	for d := 0.0; d <= decades; d++ {
		p.line(xOf(d), y0, xOf(d), y1, "grid")
		name := "min"
		if d > 0 {
			name = strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.4f", 100*(1-math.Pow(10, -d))), "0"), ".") + " %"
		}
		p.text(xOf(d), y0+16, "s", "middle", name)
	}
	for exp := math.Floor(lo); exp <= hi; exp++ {
		for _, m := range []float64{1, 2, 5} {
			ns := m * math.Pow(10, exp)
			if l := math.Log10(ns); l < lo || l > hi {
				continue
			}
			p.line(x0, yOf(ns), x1, yOf(ns), "grid")
			p.text(x0-6, yOf(ns)+4, "s", "end", strings.Replace(time.Duration(ns).String(), "µs", " µs", 1))
		}
	}
	key := 0
	for _, s := range shown(e) {
		if s.Latency.Count() == 0 {
			continue
		}
		colour, _ := colours(s.Peer)
		var pts []string
		for d := 0.0; d <= decades+1e-9; d += decades / 120 {
			v := float64(s.Latency.Quantile(1 - math.Pow(10, -d)))
			pts = append(pts, fmt.Sprintf("%.1f,%.1f", xOf(d), yOf(v)))
		}
		fmt.Fprintf(&p, `<polyline class="curve" stroke="%s" points="%s"/>`, colour, strings.Join(pts, " "))
		name := fmt.Sprintf("%s  p99 %s", s.Peer, duration(s.Latency.Quantile(0.99)))
		kx, ky := 16+float64(key%2)*230, 34+float64(key/2)*16
		p.rect(kx, ky, 10, 10, colour)
		p.text(kx+15, ky+9, "s", "start", name)
		key++
	}
	p.text((x0+x1)/2, y0+34, "s", "middle", "percentile")
	return p.String()
}

// card wraps a drawing for the page.
func card(body string, height int) string {
	return fmt.Sprintf(`<svg viewBox="0 0 %d %d" role="img">%s</svg>`, cardWidth, height, body)
}

// SVG is one picture of the cases that rows matches (nil: all of them), for a README.
func SVG(r *compare.Report, rows *regexp.Regexp) string {
	type drawn struct {
		body   string
		height int
	}
	var cards []drawn
	for i := range r.Entries {
		e := &r.Entries[i]
		if len(shown(e)) < 2 || rows != nil && !rows.MatchString(e.Case.ID) {
			continue
		}
		cards = append(cards, drawn{bars(e), barsHeight(e)})
		if hasLatency(e) {
			cards = append(cards, drawn{curves(e), curvesHeight()})
		}
	}
	const gap, head = 16, 70
	var p picture
	heights := [2]int{head, head}
	for _, c := range cards {
		col := 0
		if heights[1] < heights[0] {
			col = 1
		}
		fmt.Fprintf(&p, `<g transform="translate(%d,%d)"><rect class="card" x="0.5" y="0.5" width="%d" height="%d" rx="10"/>%s</g>`,
			gap+col*(cardWidth+gap), heights[col], cardWidth-1, c.height-1, c.body)
		heights[col] += c.height + gap
	}
	w, h := 2*cardWidth+3*gap, max(heights[0], heights[1])
	var out picture
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d"><style>%s</style>`, w, h, w, h, style)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" style="fill:var(--bg)"/>`, w, h)
	out.text(gap+4, 30, "t", "start", "What a client costs, on "+targetName(r))
	out.text(gap+4, 50, "s", "start", fmt.Sprintf("%s · dark: system time, light: user time, whisker: best to worst of %d rounds · right: CPU compared with amqp091-go",
		r.Meta.When, r.Meta.Rounds))
	out.WriteString(p.String() + "</svg>\n")
	return out.String()
}

func targetName(r *compare.Report) string {
	switch {
	case !r.Meta.Broker:
		return "a server that costs nothing"
	case strings.HasPrefix(r.Meta.Target, "amqptest"):
		return "amqptest"
	}
	return "a RabbitMQ broker"
}
