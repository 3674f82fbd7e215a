package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/internal/history"
)

const (
	faultSeeds    = 100 // runs of make test; each
	faultsPerSeed = 105 // has so many faults
)

// TestClient_SeededFaults runs publishers and consumers against a broker that
// fails in every way that amqptest knows, and holds what they saw against the
// rules of package history. What a seed does is always the same, up to the
// scheduling of goroutines:
//
//	WARREN_SEED=17 go test ./amqp -run TestClient_SeededFaults -count=1
func TestClient_SeededFaults(t *testing.T) {
	first, seeds := uint64(1), faultSeeds
	if s := os.Getenv("WARREN_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = n, 1
	} else if testing.Short() || amqp.RaceEnabled {
		seeds = faultSeeds / 10
	}
	var total figures
	for seed := first; seed < first+uint64(seeds); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runFaultSeed(t, seed, &total) })
	}
	t.Logf("%d seeds, %d faults: %d sent, %d confirmed, %d nacked, %d returned, %d unknown, %d unsent, %d refused; %d lost, %d duplicated, %d stale acks",
		seeds, total.faults, total.Sent, total.outcomes[history.Confirmed], total.outcomes[history.Nacked], total.outcomes[history.Returned],
		total.outcomes[history.Unknown], total.outcomes[history.Unsent], total.outcomes[history.Refused], total.Lost, total.Duplicated, total.Stale)
	if seeds == faultSeeds && total.faults < 10_000 {
		t.Errorf("%d faults are fewer than promised", total.faults)
	}
}

func runFaultSeed(t *testing.T, seed uint64, total *figures) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaultRun(t, seed, amqptest.Config{Record: 1 << 20}, nil)
		f.round()
		f.shutdown()
		f.judge(total)
	})
	if t.Failed() {
		t.Logf("to replay: WARREN_SEED=%d go test ./amqp -run TestClient_SeededFaults -count=1", seed)
	}
}

type figures struct {
	history.Summary
	outcomes [8]int
	faults   int
}

type faultRun struct {
	t         *testing.T
	seed      uint64
	rand      *rand.Rand
	srv       *amqptest.Server
	c         *amqp.Client
	log       *history.Log
	rounds    int
	resent    uint64 // in earlier rounds
	consumers sync.WaitGroup
	over      atomic.Bool // publishers are to end
	stalls    []func()
}

// newFaultRun makes a broker, a client and its consumers. dial is nil for what
// the broker has in memory.
func newFaultRun(t *testing.T, seed uint64, broker amqptest.Config, dial func(context.Context, string, string) (net.Conn, error)) *faultRun {
	r := rand.New(rand.NewPCG(seed, 4))
	f := &faultRun{t: t, seed: seed, rand: r, log: history.New()}
	broker.Seed = seed
	f.srv = amqptest.NewServer(t, broker)
	queue := amqp.ClassicQueue("orders.all")
	if seed%3 == 0 {
		queue = amqp.QuorumQueue("orders.all")
		queue.DeliveryLimit = -1
	}
	budget := int64(1 << 20)
	if seed%4 == 1 {
		budget = 12 << 10 // less than what is prefetched now and then
	}
	f.c = newClient(t, f.srv, &amqp.ClientConfig{
		Config: amqp.Config{Name: "svc", Dial: dial, Trace: &amqp.Trace{ChannelClosed: f.channelClosed}, FailWhenBlocked: seed%7 == 0},
		Topology: &amqp.Topology{
			Exchanges: orders.Exchanges,
			Queues:    []amqp.Queue{queue, amqp.ClassicQueue("decoy")},
			Bindings:  orders.Bindings,
		},
		Resend: seed%2 == 0, ResendTries: 1000, OneConnection: seed%5 == 0,
		MaxBytes: budget,
	})
	for i := range 2 {
		r := rand.New(rand.NewPCG(f.seed, uint64(200+i)))
		if i == 1 && f.seed%4 < 2 {
			f.consumers.Go(func() { f.serve("orders.all", r) })
			continue
		}
		f.consumers.Go(func() { f.consume("orders.all", r) })
	}
	f.consumers.Go(func() { f.consume("decoy", rand.New(rand.NewPCG(f.seed, 300))) })
	return f
}

// channelClosed finds a stale tag that got on the wire: the broker closes the
// channel over it.
func (f *faultRun) channelClosed(_ context.Context, _ amqp.ConnInfo, _ uint16, err error) {
	var ex *amqp.Error
	if errors.As(err, &ex) && ex.Code == amqp.PreconditionFailed {
		f.log.Violation("the broker closed a channel: %v", err)
	}
}

// round publishes under faults, until everything has its outcome and was
// consumed.
func (f *faultRun) round() {
	var publishers sync.WaitGroup
	f.over.Store(false)
	for i := range 3 {
		r := rand.New(rand.NewPCG(f.seed, uint64(100+i)))
		publishers.Go(func() { f.publish(fmt.Sprintf("p%dr%d", i, f.rounds), i == 0, r) })
	}
	for range faultsPerSeed {
		time.Sleep(time.Duration(f.rand.IntN(300)) * time.Millisecond)
		f.fault()
	}
	f.over.Store(true)
	f.heal()
	time.Sleep(time.Second)
	f.srv.KillAll() // what waits for a confirm that was dropped hears of it
	publishers.Wait()
	time.Sleep(time.Second)
	f.awaitEmpty()
	f.rounds++
}

// shutdown ends the client, and with it the consumers.
func (f *faultRun) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.c.Shutdown(ctx); err != nil {
		f.t.Errorf("Shutdown: %v", err)
	}
	f.consumers.Wait()
}

// judge holds the round against the rules.
func (f *faultRun) judge(total *figures) {
	stats := f.c.Stats()
	var arrived []string
	for _, p := range f.srv.Published("orders") {
		id, _ := history.ID(p.Message.Body)
		arrived = append(arrived, id)
	}
	s, err := f.log.Check(history.Rules{Resent: int(stats.Resent - f.resent), Arrived: arrived})
	f.resent = stats.Resent
	if err != nil {
		f.t.Errorf("seed %d: %v", f.seed, err)
	}
	if stats.Held != 0 || stats.Buffered != 0 {
		f.t.Errorf("%d bytes are still held, %d buffered", stats.Held, stats.Buffered)
	}
	total.faults += faultsPerSeed
	total.Sent += s.Sent
	total.Lost += s.Lost
	total.Duplicated += s.Duplicated
	total.Stale += s.Stale
	for o, n := range s.Outcomes {
		total.outcomes[o] += n
	}
}

func (f *faultRun) resume() {
	for _, resume := range f.stalls {
		resume()
	}
	f.stalls = nil
}

func (f *faultRun) heal() {
	f.resume()
	f.srv.Heal()
}

// awaitEmpty waits until everything that the queue holds was consumed.
func (f *faultRun) awaitEmpty() {
	for range 600 {
		if q, ok := f.srv.Queue("orders.all"); ok && q.Ready+q.Unacked == 0 {
			return
		}
		time.Sleep(time.Second)
	}
	q, _ := f.srv.Queue("orders.all")
	f.t.Errorf("the queue was not emptied in ten minutes: %+v; client: %v", q, f.c.Err())
}

// fault does one bad thing.
func (f *faultRun) fault() {
	r, srv := f.rand, f.srv
	names := []string{"svc (publish)", "svc (consume)", "svc"}
	switch r.IntN(20) {
	case 0, 1:
		srv.KillConnection(names[r.IntN(3)])
	case 2:
		srv.KillAll()
	case 3:
		srv.CloseConnection(names[r.IntN(3)], 0, "")
	case 4:
		srv.CloseConnection(names[r.IntN(3)], amqp.InternalError, "seeded")
	case 5:
		srv.Block("low on memory")
	case 6:
		srv.Unblock()
	case 7:
		f.stalls = append(f.stalls, srv.Stall())
	case 8:
		srv.RefuseConnections(true)
	case 9:
		srv.RefuseQueueDeclare("decoy", amqp.ResourceLocked, "seeded")
	case 10:
		srv.NackNext(1 + r.IntN(3))
	case 11:
		srv.DropConfirms(1 + r.IntN(2))
	case 12:
		srv.DelayConfirms(time.Duration(r.IntN(200)) * time.Millisecond)
	case 13:
		srv.ReorderConfirms(2 + r.IntN(6))
	case 14:
		f.cancelConsumer()
	case 15:
		srv.DeleteQueue("", "decoy")
	case 16:
		f.resume() // Restart waits for what is stalled
		srv.Restart(true)
	case 17:
		srv.CutAfter(int64(r.IntN(4000)), amqptest.Direction(r.IntN(2)))
	case 18:
		srv.SplitWrites(1 + r.IntN(40))
		srv.Slow(time.Duration(r.IntN(3)) * time.Millisecond)
	case 19:
		srv.DeleteExchange("", "orders")
		time.Sleep(500 * time.Millisecond)
		srv.KillAll() // or nothing would be published for long
	}
	if r.IntN(4) == 0 {
		f.heal()
	}
}

func (f *faultRun) cancelConsumer() {
	if list := f.srv.Consumers(); len(list) > 0 {
		f.srv.CancelConsumer(list[f.rand.IntN(len(list))].Tag)
	}
}

// publish sends until the faults are over: each message waited for, or up to a
// number of them at once.
func (f *faultRun) publish(name string, async bool, r *rand.Rand) {
	window := make(chan struct{}, 20)
	var waiting sync.WaitGroup
	for seq := 1; !f.over.Load(); seq++ {
		time.Sleep(time.Duration(r.IntN(120)) * time.Millisecond)
		id, body := f.log.Send(name, seq, r.IntN(1500), r)
		m := amqp.BasicPublish{Exchange: "orders", RoutingKey: name, Mandatory: true}
		limit := time.Minute
		if r.IntN(10) == 0 {
			limit = time.Duration(r.IntN(50)) * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		if !async {
			f.done(id, f.c.Publish(ctx, m, amqp.Message{Body: body}))
			cancel()
			continue
		}
		cf, err := f.c.PublishAsync(ctx, m, amqp.Message{Body: body})
		clear(body) // it is ours again
		cancel()
		if err != nil {
			f.done(id, err)
			continue
		}
		window <- struct{}{}
		waiting.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
			defer cancel()
			f.done(id, cf.Wait(ctx))
			<-window
		})
	}
	waiting.Wait()
}

func (f *faultRun) done(id string, err error) {
	f.log.Done(id, outcomeOf(f.t, err), err)
}

func outcomeOf(t *testing.T, err error) history.Outcome {
	var ret *amqp.ReturnError
	var ex *amqp.Error
	switch {
	case err == nil:
		return history.Confirmed
	case errors.Is(err, amqp.ErrUnknownOutcome):
		return history.Unknown
	case err == amqp.ErrNacked:
		return history.Nacked
	case errors.As(err, &ret):
		return history.Returned
	case amqp.SafeToRetry(err):
		return history.Unsent
	case errors.As(err, &ex) && ex.Remote && ex.Channel != 0:
		return history.Refused
	}
	t.Errorf("no outcome: %v", err)
	return history.Unknown
}

// consume handles what comes, now and then badly, until the client shuts down.
func (f *faultRun) consume(queue string, r *rand.Rand) {
	opts := &amqp.ConsumeOptions{Resume: &amqp.Resume{GiveUp: -1}}
	opts.Prefetch = 1 + r.IntN(20)
	for {
		sub, err := f.c.Subscribe(context.Background(), amqp.BasicConsume{Queue: queue}, opts)
		if err != nil {
			if errors.Is(err, amqp.NotFound) || errors.Is(err, amqp.ResourceLocked) {
				time.Sleep(time.Second) // the broker may refuse the first consumer as well
				continue
			}
			if !errors.Is(err, amqp.ErrClosed) {
				f.t.Errorf("Subscribe: %v", err)
			}
			return
		}
		for d, err := range sub.All() {
			if err != nil {
				f.t.Errorf("subscription to %s ended: %v", queue, err)
				return
			}
			f.handle(d, r)
		}
		return
	}
}

// serve is consume by handlers, several at once.
func (f *faultRun) serve(queue string, r *rand.Rand) {
	var mu sync.Mutex // guards r
	opts := &amqp.ServeOptions{
		ConsumeOptions: amqp.ConsumeOptions{Resume: &amqp.Resume{GiveUp: -1}},
		Workers:        3, DrainTimeout: time.Second, Delay: 20 * time.Millisecond,
	}
	if f.seed%8 == 0 {
		opts.Retry = &amqp.Retry{Delays: []time.Duration{time.Second, 2 * time.Second}, Parking: queue}
	}
	err := f.c.Serve(context.Background(), amqp.BasicConsume{Queue: queue}, func(ctx context.Context, d *amqp.Delivery) error {
		mu.Lock()
		wait, fail := r.IntN(40), r.IntN(20) == 0
		mu.Unlock()
		id := f.log.Received(d.Body, d.Redelivered || isCopy(d))
		time.Sleep(time.Duration(wait) * time.Millisecond)
		if fail {
			return errors.New("seeded failure")
		}
		f.log.Settled(id, d.Ack() == nil)
		return nil
	}, opts)
	if err != nil {
		f.t.Errorf("Serve: %v", err)
	}
}

// isCopy reports whether Retry published the message again.
func isCopy(d *amqp.Delivery) bool {
	headers, _ := d.Headers()
	return headers["x-warren-failures"] != nil
}

func (f *faultRun) handle(d *amqp.Delivery, r *rand.Rand) {
	id := f.log.Received(d.Body, d.Redelivered || isCopy(d))
	if r.IntN(3) == 0 {
		time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
	}
	if r.IntN(20) == 0 {
		d.Retry()
		return
	}
	f.log.Settled(id, d.Ack() == nil)
	if err := d.Ack(); !errors.Is(err, amqp.ErrSettled) {
		f.t.Errorf("second ack: %v", err)
	}
}
