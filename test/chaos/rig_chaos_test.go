//go:build chaos

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
	"github.com/warrenmq/warren/internal/traffic"
)

// heartbeat is what the rig's client asks for: short, so that what is half-open
// is found soon.
const heartbeat = 3 * time.Second

// rig is a cluster behind proxies, and a client at work on it.
type rig struct {
	t       *testing.T
	ctx     context.Context
	cluster *rabbittest.Cluster
	proxies []*toxiproxy.Proxy
	c       *amqp.Client
	tr      *traffic.Traffic
	rows    map[string]*row
	order   []string
}

// row is a line of the table.
type row struct {
	faults int
	times  []time.Duration
}

func newRig(t *testing.T) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, cluster: rabbittest.StartCluster(t, 3, rabbittest.Options{}), rows: map[string]*row{}}
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics have loggers of their own
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	var hosts []string
	for i, n := range r.cluster.Nodes {
		p := toxiproxy.NewProxy(server, fmt.Sprintf("node%d", i), "127.0.0.1:0", n.Addr())
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		r.proxies = append(r.proxies, p)
		hosts = append(hosts, p.Listen)
	}
	c, err := amqp.NewClient("amqp://guest:guest@chaos/%2F", &amqp.ClientConfig{
		Config: amqp.Config{Hosts: hosts, Heartbeat: heartbeat, DialTimeout: 5 * time.Second, Name: "chaos"},
		Topology: &amqp.Topology{
			Exchanges: []amqp.Exchange{{Name: "events", Type: "topic"}},
			Queues:    []amqp.Queue{amqp.QuorumQueue("work")},
			Bindings:  []amqp.Binding{{Source: "events", Queue: "work", RoutingKey: "#"}},
		},
		Resend: true, ResendTries: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r.c = c
	r.tr = traffic.Start(c, traffic.Options{Exchange: "events", Queue: "work"})
	r.flows("start")
	return r
}

// flows waits for messages to flow, and notes how long that took.
func (r *rig) flows(kind string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 3*time.Minute)
	defer cancel()
	d, err := r.tr.Flowing(ctx)
	if err != nil {
		r.t.Fatalf("after %s: %v", kind, err)
	}
	w := r.rows[kind]
	if w == nil {
		w = &row{}
		r.rows[kind] = w
		r.order = append(r.order, kind)
	}
	w.faults++
	w.times = append(w.times, d)
}

// table prints what was done, and returns how much.
func (r *rig) table() (faults int, p99 time.Duration) {
	var b strings.Builder
	var all []time.Duration
	fmt.Fprintf(&b, "\n%-28s %7s %12s %12s\n", "fault", "times", "median", "worst")
	for _, kind := range r.order {
		w := r.rows[kind]
		slices.Sort(w.times)
		fmt.Fprintf(&b, "%-28s %7d %12v %12v\n", kind, w.faults, w.times[len(w.times)/2].Round(time.Millisecond), w.times[len(w.times)-1].Round(time.Millisecond))
		if kind == "start" {
			continue
		}
		faults += w.faults
		all = append(all, w.times...)
	}
	slices.Sort(all)
	p99 = all[len(all)*99/100]
	fmt.Fprintf(&b, "%-28s %7d %12v %12v   p99 %v\n", "all", faults, all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), p99.Round(time.Millisecond))
	r.t.Log(b.String())
	return faults, p99
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// leader is the number of the node that leads the queue.
func (r *rig) leader() int {
	for i, n := range r.cluster.Nodes {
		out, err := n.Run("rabbitmqctl", "-q", "list_queues", "--no-table-headers", "name", "leader")
		if err != nil {
			continue
		}
		for j, m := range r.cluster.Nodes {
			if strings.Contains(out, m.Name()) {
				return j
			}
		}
		return i
	}
	r.t.Fatal("no node knows the leader")
	return 0
}

// drop makes the kernel drop what goes to the proxies, what comes from them, or
// both, until the function that it returns is called.
func (r *rig) drop(to, from bool) (undo func()) {
	var rules [][]string
	for _, p := range r.proxies {
		port := p.Listen[strings.LastIndex(p.Listen, ":")+1:]
		if to {
			rules = append(rules, []string{"INPUT", "-i", "lo", "-p", "tcp", "--dport", port, "-j", "DROP"})
		}
		if from {
			rules = append(rules, []string{"INPUT", "-i", "lo", "-p", "tcp", "--sport", port, "-j", "DROP"})
		}
	}
	for _, rule := range rules {
		run(r.t, "iptables", append([]string{"-w", "-I"}, rule...)...)
	}
	done := false
	undo = func() {
		if done {
			return
		}
		done = true
		for _, rule := range rules {
			exec.Command("iptables", append([]string{"-w", "-D"}, rule...)...).Run()
		}
	}
	r.t.Cleanup(undo)
	return undo
}

// toxic puts a toxic on every proxy, until the function that it returns is called.
func (r *rig) toxic(kind, stream, attributes string) (undo func()) {
	for _, p := range r.proxies {
		js := fmt.Sprintf(`{"name":"x","type":%q,"stream":%q,"toxicity":1,"attributes":{%s}}`, kind, stream, attributes)
		if _, err := p.Toxics.AddToxicJson(bytes.NewBufferString(js)); err != nil {
			r.t.Fatal(err)
		}
	}
	return func() {
		for _, p := range r.proxies {
			p.Toxics.RemoveToxic(r.ctx, "x")
		}
	}
}

// times is n, or a few where only a part is to be run.
func times(n int) int {
	if os.Getenv("CHAOS") == "short" {
		return max(1, n/20)
	}
	return n
}
