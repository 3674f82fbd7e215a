package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/bench"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/compare"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/load"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/nullserver"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/report"
)

func startNull(t *testing.T) *nullserver.Server {
	t.Helper()
	s, err := nullserver.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// Every case runs through every peer that offers it, with few messages: nothing hangs, nothing is lost.
func TestCases_RunThroughAllPeers(t *testing.T) {
	s := startNull(t)
	for _, c := range compare.Cases() {
		if c.Spec.Body > 1<<20 && testing.Short() {
			continue
		}
		for _, p := range goPeers() {
			t.Run(c.ID+"/"+p.Name(), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				spec := c.Spec
				spec.Null, spec.Count, spec.Warm = true, 200, 20
				if spec.Body > 1<<20 {
					spec.Count, spec.Warm = 3, 1
				}
				if strings.HasPrefix(spec.Workload, "idle") {
					spec.Channels = 20
				}
				vhost := nullserver.Options{Body: spec.Body, Headers: spec.Headers}.VHost()
				spec.URI = "amqp://guest:guest@" + s.Addr() + "/" + strings.NewReplacer("=", "%3D", "&", "%26").Replace(vhost)
				before := s.Published()
				r := bench.Run(ctx, p, &spec)
				if r.Unfit {
					t.Skip(r.Error)
				}
				if r.Error != "" || r.Messages == 0 {
					t.Fatalf("%d messages, error %q", r.Messages, r.Error)
				}
				if got := s.Published() - before; (spec.Workload == "publish" || spec.Workload == "spread") && got != uint64(spec.Count+spec.Warm) {
					t.Errorf("the server got %d messages of %d", got, spec.Count+spec.Warm)
				}
			})
		}
	}
}

func TestLoad_AgainstNullServer(t *testing.T) {
	s := startNull(t)
	for _, p := range goPeers()[:2] {
		t.Run(p.Name(), func(t *testing.T) {
			lines := 0
			total, err := load.Run(t.Context(), load.Options{Peer: p, URIs: []string{"amqp://" + s.Addr()}, Producers: 2, Consumers: 1,
				Queue: "blast.500", Size: 32, Confirm: 10, Rate: 2000, Count: 200, Prefetch: 50, Interval: 50 * time.Millisecond,
				Line: func(load.Sample) { lines++ }})
			if err != nil {
				t.Fatal(err)
			}
			if total.Sent != 400 || total.Confirmed != 400 || total.Received == 0 || total.Confirms.Count() != 400 || lines == 0 {
				t.Errorf("sent %d confirmed %d received %d, %d confirm latencies, %d lines",
					total.Sent, total.Confirmed, total.Received, total.Confirms.Count(), lines)
			}
		})
	}
}

// A goal that no case measures would never be missed.
func TestGoals_NameCases(t *testing.T) {
	known := map[string]compare.Case{}
	for _, c := range compare.Cases() {
		known[c.ID] = c
	}
	for _, g := range compare.Goals() {
		c, ok := known[g.Case]
		if !ok {
			t.Errorf("a goal for %q, which is no case", g.Case)
		}
		if g.Broker && !c.Broker {
			t.Errorf("a goal on a broker for %q, which does not run there", g.Case)
		}
		if g.Same != "" {
			if _, ok := known[g.Same]; !ok {
				t.Errorf("the goal for %q compares with %q, which is no case", g.Case, g.Same)
			}
		}
	}
}

func TestReport_HoldsWhatWasMeasured(t *testing.T) {
	sum := func(peer string, cpu float64) *compare.Summary {
		return &compare.Summary{Peer: peer, Rounds: 3, CPU: compare.Stat{Median: cpu, Min: cpu, Max: cpu}, System: compare.Stat{Median: cpu / 2},
			Rate: compare.Stat{Median: 1e9 / cpu}, Wall: compare.Stat{Median: cpu}}
	}
	r := &compare.Report{}
	for _, c := range compare.Cases() {
		if c.ID == "publish/16B" {
			r.Entries = append(r.Entries, compare.Entry{Case: c, Peers: []*compare.Summary{sum("warren", 100), sum("amqp091-go", 4000)}})
		}
	}
	var page, table strings.Builder
	if err := report.HTML(&page, r); err != nil {
		t.Fatal(err)
	}
	report.Table(&table, r)
	for _, out := range []string{page.String(), table.String(), report.Markdown(r)} {
		for _, want := range []string{"publish, 1 goroutine, 16 B", "40.0x", "met"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in %.300s", want, out)
			}
		}
	}
	for _, v := range compare.Judge(r) {
		if v.Goal.Case == "publish/16B" && v.Goal.Base == "amqp091-go" && (!v.Met || v.Measured != 40 || v.Aimed) {
			t.Errorf("verdict %+v", v)
		}
	}
}
