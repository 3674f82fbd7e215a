package report

import (
	"fmt"
	"html/template"
	"os"
	"regexp"
	"strings"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/compare"
)

// Write writes base.html, base.svg (of the cases that rows matches; nil: all) and base.md.
func Write(r *compare.Report, base string, rows *regexp.Regexp) error {
	var page strings.Builder
	if err := HTML(&page, r); err != nil {
		return err
	}
	for ending, text := range map[string]string{".html": page.String(), ".svg": SVG(r, rows), ".md": Markdown(r)} {
		if err := os.WriteFile(base+ending, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

type section struct {
	Name  string
	Cards []template.HTML
}

type verdict struct {
	Case, Goal, Result, Say string
	Class                   string
}

type headline struct{ Figure, What string }

type page struct {
	Style     template.CSS
	Meta      compare.Meta
	On        string
	Headlines []headline
	Sections  []section
	Goals     []verdict
	Met       string
	Header    []string
	Rows      [][]string
	Versions  []string
}

// HTML writes a page that needs nothing else: no script, no font, no other file.
func HTML(w *strings.Builder, r *compare.Report) error {
	p := page{Style: template.CSS(style), Meta: r.Meta, On: targetName(r), Headlines: headlines(r), Versions: versions(r)}
	p.Header = append([]string{"workload"}, header...)
	p.Header[3] = "±"
	at := map[string]int{}
	for i := range r.Entries {
		e := &r.Entries[i]
		if len(shown(e)) == 0 {
			continue
		}
		k, ok := at[e.Case.Group]
		if !ok {
			k = len(p.Sections)
			at[e.Case.Group] = k
			p.Sections = append(p.Sections, section{Name: e.Case.Group})
		}
		s := &p.Sections[k]
		s.Cards = append(s.Cards, template.HTML(card(bars(e), barsHeight(e))))
		if hasLatency(e) {
			s.Cards = append(s.Cards, template.HTML(card(curves(e), curvesHeight())))
		}
		for _, sum := range shown(e) {
			p.Rows = append(p.Rows, append([]string{title(e), sum.Peer}, cells(e, sum)...))
		}
	}
	met, known := 0, 0
	for _, v := range compare.Judge(r) {
		d := verdict{Case: v.Goal.Case, Goal: v.Describe(), Result: v.Result(), Say: v.Say(), Class: "none"}
		if v.Known {
			known++
			d.Class = "missed"
			if v.Met {
				met++
				d.Class = "met"
			}
		}
		p.Goals = append(p.Goals, d)
	}
	p.Met = fmt.Sprintf("%d of %d measured goals met", met, known)
	return pageTemplate.Execute(w, &p)
}

// headlines are the few figures to see first.
func headlines(r *compare.Report) []headline {
	var out []headline
	for _, h := range []struct{ id, what string }{
		{"publish/16B", "less CPU per publish of 16 B"},
		{"confirm-1000/16B", "less CPU per confirmed publish"},
		{"consume-borrow/16B", "less CPU per delivery, borrowed"},
		{"consume/16B", "less CPU per delivery, copied"},
	} {
		for i := range r.Entries {
			e := &r.Entries[i]
			if e.Case.ID != h.id {
				continue
			}
			if s := e.Find("warren"); s.Usable() {
				if x := ratio(e, s); x != "" {
					out = append(out, headline{strings.Replace(x, "x", "×", 1), h.what + " than amqp091-go"})
				}
			}
		}
	}
	return out
}

// versions are the peers' versions.
func versions(r *compare.Report) []string {
	seen := map[string]bool{}
	var out []string
	for _, e := range r.Entries {
		for _, s := range e.Peers {
			if s.Version != "" && !seen[s.Peer] {
				seen[s.Peer] = true
				out = append(out, s.Peer+" "+s.Version)
			}
		}
	}
	return out
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>amqpbench: what a client costs</title>
<style>{{.Style}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1140px;margin:0 auto;padding:40px 24px 80px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.02em}
h2{font-size:19px;margin:44px 0 14px;letter-spacing:-.01em}
p.meta{color:var(--soft);margin:2px 0;font-size:13px}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace}
.heads{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:14px;margin:26px 0 4px}
.head{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--warren);border-radius:10px;padding:14px 18px}
.head b{display:block;font-size:32px;line-height:1.1;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.head span{color:var(--soft);font-size:13px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(480px,100%),1fr));gap:16px;align-items:start}
.cards svg{width:100%;height:auto;display:block;background:var(--card);border:1px solid var(--line);border-radius:10px}
.keys{color:var(--soft);font-size:13px;margin:10px 0 0}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
th{color:var(--soft);font-weight:600}
th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}
.goals td,.goals th{text-align:left}
.goals td:nth-child(3){text-align:right}
.pill{display:inline-block;padding:1px 9px;border-radius:99px;font-weight:600;font-size:12px}
.met{color:var(--good);border:1px solid currentColor}.missed{color:var(--bad);border:1px solid currentColor}.none{color:var(--soft)}
</style></head><body><main>
<h1>What a client costs</h1>
<p class="meta">{{.Meta.When}} · on {{.On}} · {{.Meta.Go}}, {{.Meta.System}}, {{.Meta.CPUs}} × {{.Meta.CPU}}{{with .Meta.Commit}} · commit {{.}}{{end}}</p>
<p class="meta">{{range $i, $v := .Versions}}{{if $i}} · {{end}}{{$v}}{{end}}</p>
<p class="meta"><code>{{.Meta.Command}}</code></p>
{{range .Meta.Notes}}<p class="meta">{{.}}</p>{{end}}
{{with .Headlines}}<div class="heads">{{range .}}<div class="head"><b>{{.Figure}}</b><span>{{.What}}</span></div>{{end}}</div>{{end}}
<p class="keys">Bars: CPU time of the client's process for each message, dark for system and light for user time; whiskers from the best
round to the worst of {{.Meta.Rounds}}, bars at the median. On the right: how many times less than amqp091-go.</p>
{{range .Sections}}<h2>{{.Name}}</h2><div class="cards">{{range .Cards}}{{.}}{{end}}</div>{{end}}
{{with .Goals}}<h2>Goals: {{$.Met}}</h2><div class="wide"><table class="goals"><tr><th>workload</th><th>goal</th><th>measured</th><th></th></tr>
{{range .}}<tr><td>{{.Case}}</td><td>{{.Goal}}</td><td>{{.Result}}</td><td><span class="pill {{.Class}}">{{.Say}}</span></td></tr>{{end}}
</table></div>{{end}}
<h2>All figures</h2><div class="wide"><table><tr>{{range .Header}}<th>{{.}}</th>{{end}}</tr>
{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>{{end}}</table></div>
</main></body></html>
`))
