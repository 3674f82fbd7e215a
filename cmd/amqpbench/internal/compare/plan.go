// Package compare runs the workloads through all peers, round after round, and holds the results against the
// project's goals.
package compare

import (
	"fmt"
	"strings"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/bench"
)

// Case is one row: a workload with its sizes.
type Case struct {
	ID     string     `json:"id"` // workload/size
	Group  string     `json:"group"`
	Title  string     `json:"title"`
	Pinned bool       `json:"pinned,omitempty"` // client and server on one CPU
	Spec   bench.Spec `json:"spec"`
	Broker bool       `json:"-"` // part of the run on a real broker
	Quick  bool       `json:"-"` // part of the short run
}

// SizeName is 16 B, 1 KiB, 64 KiB, 16 MiB.
func SizeName(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// Body sizes of the table.
const (
	size16  = 16
	size1K  = 1 << 10
	size64K = 64 << 10
	size16M = 16 << 20
)

// row is a workload at several sizes.
type row struct {
	id, group, title string
	pinned           bool
	spec             bench.Spec
	sizes            []int // none: the workload has no body
	broker           []int // sizes that run on a real broker too
	quick            []int // sizes of the short run
}

func rows() []row {
	s := func(n ...int) []int { return n }
	consume := bench.Spec{Workload: "consume", NoAck: true}
	borrow := bench.Spec{Workload: "consume", NoAck: true, Borrow: true}
	acks := func(every int, coalesce bool) bench.Spec {
		return bench.Spec{Workload: "consume", AckEvery: every, Prefetch: 1000, Borrow: true, Coalesce: coalesce}
	}
	publish := func(goroutines, channels int) bench.Spec {
		return bench.Spec{Workload: "publish", Goroutines: goroutines, Channels: channels}
	}
	confirm := func(window int) bench.Spec { return bench.Spec{Workload: "publish", Window: window} }
	return []row{
		{id: "publish", group: "Publish", title: "publish, 1 goroutine", spec: publish(1, 1),
			sizes: s(size16, size1K, size64K, size16M), broker: s(size16, size1K), quick: s(size16, size1K, size64K)},
		{id: "publish-8", group: "Publish", title: "publish, 8 goroutines, own channels", spec: publish(8, 8),
			sizes: s(size16, size1K), quick: s(size16, size1K)},
		{id: "publish-8-shared", group: "Publish", title: "publish, 8 goroutines, one channel", spec: publish(8, 1),
			sizes: s(size16, size1K), quick: s(size16, size1K)},
		{id: "publish-64-shared", group: "Scale", title: "publish, 64 goroutines, one channel", spec: publish(64, 1), sizes: s(size16)},
		{id: "publish-64", group: "Scale", title: "publish, 64 goroutines, own channels", spec: publish(64, 64), sizes: s(size16)},
		{id: "publish-headers", group: "Publish", title: "publish, 5 headers", spec: bench.Spec{Workload: "publish", Headers: 5},
			sizes: s(size16, size1K), quick: s(size1K)},
		{id: "confirm-1000", group: "Publish", title: "publish, 1,000 confirms outstanding", spec: confirm(1000),
			sizes: s(size16, size1K, size64K), broker: s(size16, size1K), quick: s(size16, size1K)},
		{id: "confirm-1", group: "One at a time (one CPU)", title: "publish, one confirm at a time", spec: confirm(1), pinned: true,
			sizes: s(size16, size1K), broker: s(size16), quick: s(size16)},
		{id: "consume", group: "Consume", title: "consume, auto-ack, bytes copied", spec: consume,
			sizes: s(size16, size1K, size64K, size16M), broker: s(size16, size1K), quick: s(size16, size1K, size64K)},
		{id: "consume-borrow", group: "Consume", title: "consume, auto-ack, borrowed", spec: borrow,
			sizes: s(size16, size1K, size64K), broker: s(size16, size1K), quick: s(size16, size1K, size64K)},
		{id: "consume-paced", group: "Consume", title: "consume, auto-ack, borrowed, reads 100 µs apart",
			spec:  bench.Spec{Workload: "consume", NoAck: true, Borrow: true, ReadPause: 100 * time.Microsecond},
			sizes: s(size16, size1K), broker: s(size16, size1K)},
		{id: "consume-borrow-loop", group: "Consume", title: "consume, auto-ack, borrowed, in a loop",
			spec: bench.Spec{Workload: "consume", NoAck: true, Borrow: true, Loop: true}, sizes: s(size16, size1K)},
		{id: "consume-headers", group: "Consume", title: "consume, auto-ack, 5 headers",
			spec: bench.Spec{Workload: "consume", NoAck: true, Headers: 5}, sizes: s(size16, size1K)},
		{id: "ack-each", group: "Consume", title: "consume, ack each, coalesced", spec: acks(1, true),
			sizes: s(size16, size1K), broker: s(size16, size1K), quick: s(size16, size1K)},
		{id: "ack-each-now", group: "Consume", title: "consume, ack each, not coalesced", spec: acks(1, false),
			sizes: s(size16, size1K), quick: s(size16, size1K)},
		{id: "ack-100", group: "Consume", title: "consume, ack every 100", spec: acks(100, false), sizes: s(size16, size1K)},
		{id: "rpc-64", group: "RPC", title: "rpc, 64 callers", spec: bench.Spec{Workload: "rpc", Goroutines: 64},
			sizes: s(size16, size1K), broker: s(size16), quick: s(size16, size1K)},
		{id: "rpc-1", group: "One at a time (one CPU)", title: "rpc, one at a time", spec: bench.Spec{Workload: "rpc"}, pinned: true,
			sizes: s(size16), broker: s(size16), quick: s(size16)},
		{id: "connection", group: "One at a time (one CPU)", title: "connection open and close",
			spec: bench.Spec{Workload: "connection"}, pinned: true, quick: s(0), broker: s(0)},
		{id: "channel", group: "One at a time (one CPU)", title: "channel open and close",
			spec: bench.Spec{Workload: "channel"}, pinned: true, quick: s(0), broker: s(0)},
		{id: "idle-channels", group: "Idle", title: "1,000 idle channels", spec: bench.Spec{Workload: "idle-channels", Channels: 1000}, quick: s(0)},
		{id: "idle-conns", group: "Idle", title: "1,000 idle connections", spec: bench.Spec{Workload: "idle-conns", Channels: 1000}, quick: s(0)},
		{id: "spread-1", group: "Scale", title: "publish in turn over 1 channel",
			spec: bench.Spec{Workload: "spread", Channels: 1}, sizes: s(size16)},
		{id: "spread-1000", group: "Scale", title: "publish in turn over 1,000 channels",
			spec: bench.Spec{Workload: "spread", Channels: 1000}, sizes: s(size16)},
		{id: "consume-1000", group: "Scale", title: "consume on 1,000 channels, auto-ack, copied",
			spec: bench.Spec{Workload: "consume", NoAck: true, Channels: 1000, Count: 2_000_000}, sizes: s(size16)},
		{id: "consume-1000-borrow", group: "Scale", title: "consume on 1,000 channels, auto-ack, borrowed",
			spec: bench.Spec{Workload: "consume", NoAck: true, Borrow: true, Channels: 1000, Count: 2_000_000}, sizes: s(size16)},
		{id: "backlog", group: "Scale", title: "consume a backlog of 1,000,000, copied",
			spec: bench.Spec{Workload: "consume", NoAck: true, Count: 1_000_000}, sizes: s(size16), broker: s(size16)},
		{id: "backlog-borrow", group: "Scale", title: "consume a backlog of 1,000,000, borrowed",
			spec: bench.Spec{Workload: "consume", NoAck: true, Borrow: true, Count: 1_000_000}, sizes: s(size16)},
	}
}

func contains(list []int, n int) bool {
	for _, v := range list {
		if v == n {
			return true
		}
	}
	return false
}

// Cases are all rows, in the table's order.
func Cases() []Case {
	var out []Case
	for _, r := range rows() {
		sizes := r.sizes
		if sizes == nil {
			sizes = []int{0}
		}
		for _, n := range sizes {
			c := Case{ID: r.id, Group: r.group, Title: r.title, Pinned: r.pinned, Spec: r.spec,
				Broker: contains(r.broker, n), Quick: contains(r.quick, n)}
			if n > 0 {
				c.ID = fmt.Sprintf("%s/%s", r.id, strings.ReplaceAll(SizeName(n), " ", ""))
				c.Spec.Body = n
			}
			out = append(out, c)
		}
	}
	return out
}
