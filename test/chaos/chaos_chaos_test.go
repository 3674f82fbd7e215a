//go:build chaos

package chaos

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/history"
)

// TestChaos does at least 200 bad things, and prints what came of it. The order
// of the lesser ones is ruled by CHAOS_SEED.
func TestChaos(t *testing.T) {
	r := newRig(t)
	seed, _ := strconv.ParseUint(os.Getenv("CHAOS_SEED"), 10, 64)
	t.Logf("to replay the order: CHAOS_SEED=%d make chaos", seed)
	var todo []func(*rig)
	add := func(n int, f func(*rig)) {
		for range times(n) {
			todo = append(todo, f)
		}
	}
	add(100, forcedClose)
	add(20, memoryAlarm)
	add(10, diskAlarm)
	add(25, reset)
	add(10, slicer)
	add(10, latency)
	add(10, bandwidth)
	add(5, slowClose)
	add(3, cutOneWay)
	add(3, cutBothWays)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	for _, f := range todo {
		f(r)
	}
	full := os.Getenv("CHAOS") != "short"
	for i := range r.cluster.Nodes {
		kill(r, i, "kill -9 of a node")
		if !full {
			break
		}
	}
	kill(r, r.leader(), "kill -9 of the leader")
	if full {
		for i, n := range r.cluster.Nodes {
			n.Restart(t)
			r.flows("rolling restart")
			n.StopApp(t)
			r.flows("stop_app")
			n.StartApp(t)
			r.cluster.AwaitMembers(t, 3)
			partition(r, i)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s, err := r.tr.Finish(ctx)
	faults, p99 := r.table()
	stats := r.c.Stats()
	t.Logf("%d faults: %d sent, %d confirmed, %d unknown, %d unsent, %d lost, %d duplicated (%d resends), %d stale acks, %d connections",
		faults, s.Sent, s.Outcomes[history.Confirmed], s.Outcomes[history.Unknown], s.Outcomes[history.Unsent], s.Lost, s.Duplicated, stats.Resent, s.Stale, stats.Opened)
	if err != nil {
		t.Error(err)
	}
	if full && faults < 200 {
		t.Errorf("%d faults are fewer than promised", faults)
	}
	if p99 > time.Second {
		t.Logf("p99 of recovery is over a second: %v", p99)
	}
}

func forcedClose(r *rig) {
	n := r.cluster.Nodes[rand.IntN(3)]
	n.CloseAllConnections(r.t, "chaos")
	r.flows("forced close")
}

func memoryAlarm(r *rig) {
	n := r.cluster.Nodes[rand.IntN(3)]
	n.Ctl(r.t, "set_vm_memory_high_watermark", "0.00000001")
	time.Sleep(200 * time.Millisecond)
	n.Ctl(r.t, "set_vm_memory_high_watermark", "0.6")
	r.flows("memory alarm")
}

func diskAlarm(r *rig) {
	n := r.cluster.Nodes[rand.IntN(3)]
	n.Ctl(r.t, "set_disk_free_limit", "mem_relative", "1000.0")
	time.Sleep(200 * time.Millisecond)
	n.Ctl(r.t, "set_disk_free_limit", "10MB")
	r.flows("disk alarm")
}

func toxics(r *rig, name, kind, stream, attributes string, during time.Duration) {
	undo := r.toxic(kind, stream, attributes)
	time.Sleep(during)
	undo()
	r.flows(name)
}

func reset(r *rig) {
	toxics(r, "reset", "reset_peer", "downstream", `"timeout":0`, 100*time.Millisecond)
}
func slicer(r *rig) {
	toxics(r, "slicing", "slicer", "downstream", `"average_size":3,"size_variation":2,"delay":10`, time.Second)
}
func latency(r *rig) {
	toxics(r, "latency", "latency", "upstream", `"latency":300,"jitter":200`, time.Second)
}
func bandwidth(r *rig) {
	toxics(r, "bandwidth", "bandwidth", "upstream", `"rate":20`, time.Second)
}
func slowClose(r *rig) {
	undo := r.toxic("slow_close", "downstream", `"delay":2000`)
	r.cluster.Nodes[rand.IntN(3)].CloseAllConnections(r.t, "chaos")
	r.flows("slow close")
	undo()
}

// cut drops traffic until the client has noticed, and says how long that took.
func cut(r *rig, name string, to, from bool, bound time.Duration) {
	undo := r.drop(to, from)
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Minute)
	defer cancel()
	if err := r.c.Await(ctx, amqp.Connecting); err != nil {
		r.t.Errorf("%s: not noticed: %v", name, err)
	}
	if d := time.Since(began); d > bound {
		r.t.Errorf("%s: noticed after %v, later than %v", name, d, bound)
	}
	undo()
	r.flows(name)
}

// RabbitMQ looks for heartbeats at intervals of its own, and what it says to
// that reaches us: hence the third interval.
func cutOneWay(r *rig)   { cut(r, "cut towards the broker", true, false, 3*heartbeat+2*time.Second) }
func cutBothWays(r *rig) { cut(r, "cut both ways", true, true, 2*heartbeat+2*time.Second) }

func kill(r *rig, i int, kind string) {
	n := r.cluster.Nodes[i]
	n.Kill(r.t)
	r.flows(kind)
	n.Boot(r.t)
	r.cluster.AwaitMembers(r.t, 3)
	r.flows("a node is back")
}

// partition takes a node off its network, and with it its clients.
func partition(r *rig, i int) {
	n := r.cluster.Nodes[i]
	network := run(r.t, "docker", "inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}", n.Name())
	run(r.t, "docker", "network", "disconnect", network, n.Name())
	r.flows("partition")
	run(r.t, "docker", "network", "connect", network, n.Name())
	r.cluster.AwaitMembers(r.t, 3)
	r.flows("partition healed")
}

// TestNeverGivenUpWhileBlocked: an alarm that outlasts several heartbeats ends
// no connection.
func TestNeverGivenUpWhileBlocked(t *testing.T) {
	r := newRig(t)
	before := r.c.Stats().Opened
	for _, n := range r.cluster.Nodes {
		n.Ctl(t, "set_vm_memory_high_watermark", "0.00000001")
	}
	if err := r.c.Await(r.ctx, amqp.Blocked); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * heartbeat)
	for _, n := range r.cluster.Nodes {
		n.Ctl(t, "set_vm_memory_high_watermark", "0.6")
	}
	r.flows("long alarm")
	if after := r.c.Stats().Opened; after != before {
		t.Errorf("%d connections were made", after-before)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := r.tr.Finish(ctx); err != nil {
		t.Error(err)
	}
}
