//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
	"github.com/warrenmq/warren/internal/traffic"
)

// heartbeat is what the rig's client asks for: short, so that what is half-open
// is found soon. All else is left at its default, but for the tries: a message
// may well live through more than ten faults here.
const heartbeat = 3 * time.Second

// patience is how long messages may take to flow again, and a fault to be
// noticed, until the test is given up.
const patience = 3 * time.Minute

// rig is brokers behind proxies, and a client at work on them.
type rig struct {
	t       *testing.T
	ctx     context.Context
	nodes   []*rabbittest.Broker
	proxies []*toxiproxy.Proxy
	c       *amqp.Client
	tr      *traffic.Traffic
	rand    *rand.Rand
	table   table

	password atomic.Value // what the client believes it to be

	mu      sync.Mutex // guards what follows
	clock   *traffic.Clock
	begun   time.Time                // the fault
	open    map[string]amqp.ConnInfo // connections, by their local address
	lost    map[string]time.Time     // when those were found lost that this fault has cost, by local address and by name
	changed chan struct{}            // closed, and replaced, when lost grows
	events  []string                 // what happened since the fault
}

const user, firstPassword = "chaos", "first"

func newRig(t *testing.T, seed uint64, nodes []*rabbittest.Broker) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, nodes: nodes, rand: rand.New(rand.NewPCG(seed, 1)),
		open: map[string]amqp.ConnInfo{}, lost: map[string]time.Time{}, changed: make(chan struct{})}
	nodes[0].AddUser(t, user, firstPassword)
	nodes[0].SetPermissions(t, user, "/", ".*", ".*", ".*")
	r.password.Store(firstPassword)
	var addrs, hosts []string
	for _, n := range nodes {
		addrs = append(addrs, n.Addr())
	}
	r.proxies = newProxies(t, addrs...)
	for _, p := range r.proxies {
		hosts = append(hosts, p.Listen)
	}
	c, err := amqp.NewClient("amqp://chaos/%2F", &amqp.ClientConfig{
		Config: amqp.Config{Hosts: hosts, Heartbeat: heartbeat, Name: "chaos", Trace: r.trace(),
			Credentials: func(context.Context) (amqp.Credentials, error) {
				return amqp.Credentials{Username: user, Password: r.password.Load().(string)}, nil
			}},
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
	r.tr = traffic.Start(c, traffic.Options{Exchange: "events", Queue: "work", Pace: 20 * time.Millisecond, Seed: seed})
	bounded, done := context.WithTimeout(ctx, patience)
	defer done()
	if _, err := r.tr.Flowing(bounded); err != nil {
		t.Fatal(err)
	}
	return r
}

// fault does something bad, which has to be in force, or over, when do returns.
// The clock runs from its beginning, and anew once a connection is found lost
// (there are always hosts that accept another) and when r.over is called. It
// stops at the first message that was begun after that, confirmed and received.
func (r *rig) fault(kind string, do func()) { r.t.Helper(); r.timed(kind, nil, do) }

// outage is fault where the queue itself is away for a time: the clock runs from
// when a plain connection, made or used by then, has a message confirmed.
func (r *rig) outage(kind string, do func()) {
	r.t.Helper()
	var urls []string
	for _, n := range r.nodes {
		urls = append(urls, n.URL())
	}
	w := r.tr.Witness(urls)
	defer w.Stop()
	r.timed(kind, w, do)
}

func (r *rig) timed(kind string, w *traffic.Witness, do func()) {
	r.t.Helper()
	r.mu.Lock()
	r.clock, r.begun, r.events = r.tr.Clock(), time.Now(), nil
	clear(r.lost)
	r.mu.Unlock()
	do()
	var worst time.Duration
	for _, p := range r.flows() {
		from := p.From
		if w != nil {
			accepted, ok := w.Took(p.From)
			if !ok || accepted.After(p.Flowed) {
				continue // the client was first
			}
			from = accepted
		}
		worst = max(worst, p.Flowed.Sub(from))
	}
	r.table.add(kind, worst)
	if worst > 700*time.Millisecond {
		r.t.Logf("%s: messages flow after %v\n%s", kind, worst, r.story())
	}
}

// flows waits for messages to flow.
func (r *rig) flows() []traffic.Period {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	periods, err := r.clock.Wait(ctx)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.story())
	}
	return periods
}

func (r *rig) start(p *toxiproxy.Proxy) {
	r.t.Helper()
	if err := p.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// over starts the clock: what was wrong is so no more.
func (r *rig) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("over")
	r.clock.Restart()
}

// on are the client's connections on a node, by local address.
func (r *rig) on(i int) (conns []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for local, c := range r.open {
		if c.Remote == r.proxies[i].Listen {
			conns = append(conns, local)
		}
	}
	return conns
}

// all are the client's connections.
func (r *rig) all() (conns []string) {
	for i := range r.nodes {
		conns = append(conns, r.on(i)...)
	}
	return conns
}

// used is a node that the client is connected to.
func (r *rig) used() int {
	var used []int
	for i := range r.nodes {
		if len(r.on(i)) > 0 {
			used = append(used, i)
		}
	}
	if len(used) == 0 {
		return r.rand.IntN(len(r.nodes))
	}
	return used[r.rand.IntN(len(used))]
}

// hit does something to a node that costs the client its connections there, and
// waits until it has noticed.
func (r *rig) hit(i int, do func()) {
	r.t.Helper()
	conns := r.on(i)
	do()
	if len(conns) == 0 {
		r.over() // nobody lost anything, but the queue may have its leader
	}
	r.awaitLost(conns)
}

// awaitLost waits until the client has noticed that connections are gone, and
// returns how long after the fault's begin that was.
func (r *rig) awaitLost(conns []string) (after time.Duration) {
	r.t.Helper()
	giveUp := time.After(patience)
	for {
		r.mu.Lock()
		missing := 0
		for _, local := range conns {
			at, ok := r.lost[local]
			if !ok {
				missing++
			}
			after = max(after, at.Sub(r.begun))
		}
		changed := r.changed
		r.mu.Unlock()
		if missing == 0 {
			return after
		}
		select {
		case <-changed:
		case <-giveUp:
			r.t.Fatalf("of %q, %d are not found lost\n%s", conns, missing, r.story())
		}
	}
}

// openKey is where a dial's context has its *amqp.ConnInfo.
type openKey struct{}

// trace keeps the rig informed.
func (r *rig) trace() *amqp.Trace {
	lock := func() func() { r.mu.Lock(); return r.mu.Unlock }
	return &amqp.Trace{
		DialStart: func(ctx context.Context, d amqp.DialInfo) context.Context {
			defer lock()()
			r.note("dial %s", d.Addr)
			return context.WithValue(ctx, openKey{}, &amqp.ConnInfo{})
		},
		Handshake: func(ctx context.Context, h amqp.HandshakeInfo) {
			*ctx.Value(openKey{}).(*amqp.ConnInfo) = h.Conn
		},
		DialDone: func(ctx context.Context, d amqp.DialInfo, err error) {
			defer lock()()
			c := ctx.Value(openKey{}).(*amqp.ConnInfo)
			r.note("dialled %s %s: %v", d.Addr, c.Name, err)
			if err == nil {
				r.open[c.Local] = *c
			}
		},
		ConnClosed: func(_ context.Context, c amqp.ConnInfo, err error) {
			defer lock()()
			r.note("closed %s %s: %v", c.Name, c.Remote, err)
			delete(r.open, c.Local)
			now := time.Now()
			r.lost[c.Local] = now
			close(r.changed)
			r.changed = make(chan struct{})
			if err == nil || !r.lost[c.Name].IsZero() {
				return // one too many that the client closed, or lost again
			}
			r.lost[c.Name] = now
			if r.clock != nil {
				r.clock.Restart()
			}
		},
		Unblocked: func(_ context.Context, c amqp.ConnInfo) {
			defer lock()()
			r.note("unblocked %s", c.Name)
			if r.clock != nil {
				r.clock.Restart()
			}
		},
		Reconnect: func(_ context.Context, i amqp.ReconnectInfo) {
			defer lock()()
			r.note("attempt %d in %v: %v", i.Attempt, i.Delay, i.Err)
		},
		Topology: func(_ context.Context, err *amqp.TopologyError) {
			defer lock()()
			r.note("topology: %v", err)
		},
		ChannelClosed: func(_ context.Context, c amqp.ConnInfo, channel uint16, err error) {
			defer lock()()
			if err != nil {
				r.note("channel %d of %s closed: %v", channel, c.Name, err)
			}
		},
	}
}

// note writes down what happened. mu is held.
func (r *rig) note(format string, args ...any) {
	if len(r.events) < 200 {
		r.events = append(r.events, fmt.Sprintf("%8.3f ", time.Since(r.begun).Seconds())+fmt.Sprintf(format, args...))
	}
}

// story is what happened since the fault.
func (r *rig) story() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.events, "\n")
}
