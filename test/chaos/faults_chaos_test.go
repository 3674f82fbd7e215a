//go:build chaos

package chaos

import (
	"fmt"
	"strings"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

func forcedClose(r *rig) {
	r.fault("forced close", func() {
		i := r.used()
		r.hit(i, func() { r.nodes[i].CloseAllConnections(r.t, "chaos") })
	})
}

func memoryAlarm(r *rig) {
	alarm(r, "memory alarm", "set_vm_memory_high_watermark 0.00000001", "set_vm_memory_high_watermark 0.6")
}

func diskAlarm(r *rig) {
	alarm(r, "disk alarm", "set_disk_free_limit mem_relative 1000.0", "set_disk_free_limit 10MB")
}

// alarm raises one on any node, which blocks the publishers of all. The clock
// starts when the client is told that it is over.
func alarm(r *rig, kind, on, off string) {
	r.fault(kind, func() {
		n := r.nodes[r.rand.IntN(len(r.nodes))]
		n.Ctl(r.t, strings.Fields(on)...)
		if err := r.c.Await(r.ctx, amqp.Blocked); err != nil {
			r.t.Errorf("%s: %v", kind, err)
		}
		n.Ctl(r.t, strings.Fields(off)...)
		if err := r.c.Await(r.ctx, amqp.Connected); err != nil {
			r.t.Errorf("%s: %v", kind, err)
		}
	})
}

func toxics(r *rig, kind, toxic, stream, attributes string, during time.Duration) {
	r.fault(kind, func() {
		undo := r.toxic(toxic, stream, attributes)
		time.Sleep(during)
		undo()
		r.over()
	})
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
	r.fault("slow close", func() {
		defer r.toxic("slow_close", "downstream", `"delay":2000`)()
		i := r.used()
		r.hit(i, func() { r.nodes[i].CloseAllConnections(r.t, "chaos") })
	})
}

// refused has a firewall answer all packets with a reset.
func refused(r *rig) {
	r.fault("reset by a firewall", func() {
		names := r.all()
		undo := filter(r.t, r.proxies, true, true, refuse)
		r.awaitLost(names)
		time.Sleep(time.Duration(r.rand.IntN(1000)) * time.Millisecond)
		undo()
		r.over()
	})
}

// unreachable is that no host accepts anything for a time, and then any one does.
func unreachable(r *rig) {
	r.fault("no host accepts, until one does", func() {
		for _, p := range r.proxies {
			p.Stop()
		}
		time.Sleep(time.Duration(r.rand.IntN(5000)) * time.Millisecond)
		first := r.rand.IntN(len(r.proxies))
		defer func() {
			for i, p := range r.proxies {
				if i != first {
					r.start(p)
				}
			}
		}()
		r.start(r.proxies[first])
		r.over()
		r.flows()
	})
}

// passwordChange has the client learn of its new password a second late.
func passwordChange(r *rig) {
	r.fault("password change", func() {
		password := fmt.Sprintf("%%@/:%d", r.rand.Int64())
		r.nodes[0].ChangePassword(r.t, user, password)
		i := r.used()
		r.hit(i, func() { r.nodes[i].CloseAllConnections(r.t, "chaos") })
		time.Sleep(time.Second)
		r.password.Store(password)
		r.over()
	})
}

// cut drops traffic until the client has found out about all its connections.
func cut(r *rig, kind string, to, from bool, bound time.Duration) {
	r.fault(kind, func() {
		names := r.all()
		undo := filter(r.t, r.proxies, to, from, drop)
		after := r.awaitLost(names)
		r.table.addFound(kind, after)
		if after > bound {
			r.t.Errorf("%s: found after %v, later than %v", kind, after, bound)
		}
		undo()
		r.over()
	})
}

// slack is for a machine that is busy.
const slack = 2 * time.Second

// What goes towards the broker is missed there, where heartbeats are looked for
// at fixed intervals: a silence is up to three of them long until it is found.
func cutTowards(r *rig)  { cut(r, "cut towards the broker", true, false, 3*heartbeat+slack) }
func cutFrom(r *rig)     { cut(r, "cut from the broker", false, true, 2*heartbeat+slack) }
func cutBothWays(r *rig) { cut(r, "cut both ways", true, true, 2*heartbeat+slack) }

func kill(r *rig, cluster *rabbittest.Cluster, i int, kind string) {
	n := r.nodes[i]
	r.outage(kind, func() { r.hit(i, func() { n.Kill(r.t) }) })
	n.Boot(r.t)
	cluster.AwaitMembers(r.t, len(r.nodes))
}

// partition takes a node off its network, and with it its clients.
func partition(r *rig, cluster *rabbittest.Cluster, i int) {
	n := r.nodes[i]
	network := run(r.t, "docker", "inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}", n.Name())
	r.outage("partition", func() {
		r.hit(i, func() { run(r.t, "docker", "network", "disconnect", network, n.Name()) })
	})
	r.outage("partition healed", func() {
		run(r.t, "docker", "network", "connect", network, n.Name())
		cluster.AwaitMembers(r.t, len(r.nodes))
	})
}

// leader is the number of the node that leads the queue.
func leader(r *rig) int {
	for _, n := range r.nodes {
		out, err := n.Run("rabbitmqctl", "-q", "list_queues", "--no-table-headers", "leader")
		if err != nil {
			continue
		}
		for i, m := range r.nodes {
			if strings.Contains(out, m.Name()) {
				return i
			}
		}
	}
	r.t.Fatal("no node knows the leader")
	return 0
}
