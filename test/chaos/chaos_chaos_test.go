//go:build chaos

package chaos

import (
	"cmp"
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/warrenmq/warren/internal/history"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// short says that only a part is to be run, on a machine that may be busy.
var short = os.Getenv("CHAOS") == "short"

// bound is how long messages may take to flow, at p99, from when a node accepts
// again.
func bound() time.Duration {
	if short {
		return 10 * time.Second
	}
	return time.Second
}

// TestChaos does some 250 bad things, and prints what came of it. Their order,
// and where they are done, is ruled by CHAOS_SEED.
func TestChaos(t *testing.T) {
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("CHAOS_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatalf("CHAOS_SEED: %v", err)
	}
	cluster := rabbittest.StartCluster(t, 3, rabbittest.Options{})
	r := newRig(t, seed, cluster.Nodes)
	t.Logf("to replay the order: CHAOS_SEED=%d make chaos", seed)
	var todo []func(*rig)
	add := func(full, part int, f func(*rig)) {
		for range map[bool]int{false: full, true: part}[short] {
			todo = append(todo, f)
		}
	}
	add(100, 4, forcedClose)
	add(20, 1, memoryAlarm)
	add(20, 1, diskAlarm)
	add(20, 1, reset)
	add(10, 1, refused)
	add(10, 1, slicer)
	add(10, 1, latency)
	add(10, 1, bandwidth)
	add(5, 1, slowClose)
	add(20, 1, unreachable)
	add(5, 0, passwordChange)
	add(3, 0, cutTowards)
	add(3, 0, cutFrom)
	add(3, 1, cutBothWays)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	for _, f := range todo {
		f(r)
	}
	kill(r, cluster, leader(r), "kill -9 of the leader")
	if !short {
		nodes(r, cluster)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s, err := r.tr.Finish(ctx)
	all := r.table.all()
	t.Log(&r.table)
	stats := r.c.Stats()
	t.Logf("%d faults: %d sent, %d confirmed, %d unknown, %d unsent, %d lost, %d duplicated (%d resends), %d stale acks, %d connections",
		len(all), s.Sent, s.Outcomes[history.Confirmed], s.Outcomes[history.Unknown], s.Outcomes[history.Unsent], s.Lost, s.Duplicated, stats.Resent, s.Stale, stats.Opened)
	if err != nil {
		t.Error(err)
	}
	if !short && len(all) < 200 {
		t.Errorf("%d faults are fewer than promised", len(all))
	}
	if p := p99(all); p > bound() {
		t.Errorf("messages flow after %v at p99, and not after %v", p, bound())
	}
}

// nodes does to each node what can be done to one, and to all at once.
func nodes(r *rig, cluster *rabbittest.Cluster) {
	for i, n := range r.nodes {
		kill(r, cluster, i, "kill -9 of a node")
		r.outage("rolling restart", func() { r.hit(i, func() { n.Stop(r.t) }) })
		n.Boot(r.t)
		cluster.AwaitMembers(r.t, len(r.nodes))
		r.outage("stop_app", func() { r.hit(i, func() { n.StopApp(r.t) }) })
		n.StartApp(r.t)
		cluster.AwaitMembers(r.t, len(r.nodes))
		partition(r, cluster, i)
	}
	r.outage("kill -9 of all nodes", func() {
		for _, n := range r.nodes {
			n.Kill(r.t)
		}
		r.over()
		cluster.Boot(r.t)
	})
	cluster.AwaitMembers(r.t, len(r.nodes))
}
