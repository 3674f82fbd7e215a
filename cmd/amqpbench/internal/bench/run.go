package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

// workload is one kind of work.
type workload func(ctx context.Context, p peer.Peer, s *Spec, m *meter) error

var workloads = map[string]workload{
	"publish":       runPublish,
	"spread":        runSpread,
	"consume":       runConsume,
	"rpc":           runRPC,
	"connection":    runConnections,
	"channel":       runChannels,
	"idle-channels": runIdleChannels,
	"idle-conns":    runIdleConns,
}

// Run runs the spec through the peer, in this process.
func Run(ctx context.Context, p peer.Peer, s *Spec) *Result {
	m := &meter{profile: s.Profile}
	m.res.Version = p.Version()
	w, ok := workloads[s.Workload]
	if !ok {
		m.res.Error = fmt.Sprintf("no workload %q", s.Workload)
		return &m.res
	}
	// The floor is one goroutine's; and what it holds when idle says nothing.
	if p.Name() == "floor" && (s.Goroutines > 1 || s.Channels > 1 && s.Workload != "spread") {
		m.res.Unfit = true
		m.res.Error = peer.ErrUnsupported.Error()
		return &m.res
	}
	err := w(ctx, p, s, m)
	if errors.Is(err, peer.ErrUnsupported) {
		m.res.Unfit = true
	}
	if err != nil {
		m.res.Error = err.Error()
	}
	return &m.res
}

// calibrate finds how many fit into the spec's duration: it runs ever more until that takes a fifth of it, which
// is the warm-up too.
func calibrate(s *Spec, run func(n int64) error) (int64, error) {
	if s.Count > 0 {
		if s.Warm > 0 {
			return s.Count, run(s.Warm)
		}
		return s.Count, nil
	}
	want := s.Duration
	if want <= 0 {
		want = 300 * time.Millisecond
	}
	n := int64(16)
	if s.Body > 1<<20 {
		n = 2
	}
	for {
		begin := time.Now()
		if err := run(n); err != nil {
			return 0, err
		}
		took := time.Since(begin)
		if took >= want/5 {
			// Once more: a hiccup of a busy machine must not pass for the cost of a few messages.
			begin = time.Now()
			if err := run(n); err != nil {
				return 0, err
			}
			took = min(took, time.Since(begin))
		}
		if took >= want/5 {
			return max(int64(float64(n)*float64(want)/float64(took)), 2), nil
		}
		// Toward the fifth, at most eightfold: the first runs are slow.
		grow := float64(want) / 4 / float64(max(took, time.Microsecond))
		n = int64(float64(n)*min(max(grow, 1.5), 8)) + 1
	}
}

// parallel runs f once for each index below n, each in a goroutine of its own where n > 1.
func parallel(n int, f func(i int) error) error {
	if n <= 1 {
		return f(0)
	}
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	var all error
	for range n {
		all = errors.Join(all, <-errs)
	}
	return all
}

// share is the part of n that worker i of k takes.
func share(n int64, i, k int) int64 {
	part := n / int64(k)
	if int64(i) < n%int64(k) {
		part++
	}
	return part
}

// open dials and opens the spec's channels.
func open(ctx context.Context, p peer.Peer, s *Spec) (peer.Conn, []peer.Channel, error) {
	c, err := p.Dial(ctx, s.URI)
	if err != nil {
		return nil, nil, err
	}
	chs := make([]peer.Channel, max(1, s.Channels))
	for i := range chs {
		if chs[i], err = c.Channel(ctx); err != nil {
			return nil, nil, errors.Join(err, c.Close())
		}
	}
	return c, chs, nil
}

// runPublish publishes from Goroutines goroutines over Channels channels, with or without confirms. The clock
// stops when every channel has had an answer to a question asked after its last message.
func runPublish(ctx context.Context, p peer.Peer, s *Spec, m *meter) error {
	c, chs, err := open(ctx, p, s)
	if err != nil {
		return err
	}
	defer c.Close()
	if !s.Null {
		if err := chs[0].Declare(ctx, peer.Queue{Name: s.queue(), Durable: true}); err != nil {
			return err
		}
		defer chs[0].Delete(ctx, s.queue())
	}
	if s.Window > 0 {
		for _, ch := range chs {
			if err := ch.Confirm(ctx); err != nil {
				return err
			}
		}
	}
	workers := max(1, s.Goroutines)
	var lat *peer.Latencies
	body := pattern(s.Body)
	run := func(n int64) error {
		err := parallel(workers, func(i int) error {
			job := &peer.PublishJob{Queue: s.queue(), Body: body, Headers: s.Headers, N: share(n, i, workers), Window: s.Window}
			job.Latency = lat
			if job.N == 0 {
				return nil
			}
			return chs[i%len(chs)].Publish(ctx, job)
		})
		if err != nil {
			return err
		}
		return parallel(len(chs), func(i int) error { return chs[i].Sync(ctx, s.queue()) })
	}
	n, err := calibrate(s, run)
	if err != nil {
		return err
	}
	if !s.Null {
		if err := chs[0].Purge(ctx, s.queue()); err != nil {
			return err
		}
	}
	if s.Window == 1 && p.Name() != "floor" {
		lat = new(peer.Latencies)
	}
	if err := m.start(); err != nil {
		return err
	}
	err = run(n)
	m.stop(n)
	if lat != nil {
		m.res.Latency = lat.Take()
	}
	return err
}

// runSpread publishes from one goroutine over Channels channels in turn.
func runSpread(ctx context.Context, p peer.Peer, s *Spec, m *meter) error {
	c, chs, err := open(ctx, p, s)
	if err != nil {
		return err
	}
	defer c.Close()
	job := &peer.PublishJob{Queue: s.queue(), Body: pattern(s.Body), Headers: s.Headers, N: 1}
	run := func(n int64) error {
		for i := range n {
			if err := chs[int(i)%len(chs)].Publish(ctx, job); err != nil {
				return err
			}
		}
		// One connection's frames are read in order, so one answer stands for all channels.
		return chs[0].Sync(ctx, s.queue())
	}
	n, err := calibrate(s, run)
	if err != nil {
		return err
	}
	if err := m.start(); err != nil {
		return err
	}
	err = run(n)
	m.stop(n)
	return err
}

// runConsume consumes on Channels channels, a consumer and a goroutine each. The clock starts before the
// consumers do and stops when their channels are closed, by when every ack has been read by the server.
func runConsume(ctx context.Context, p peer.Peer, s *Spec, m *meter) error {
	c, err := p.Dial(ctx, s.URI)
	if err != nil {
		return err
	}
	defer c.Close()
	k := max(1, s.Channels)
	run := func(n int64, warm bool) error {
		chs := make([]peer.Channel, k)
		for i := range chs {
			if chs[i], err = c.Channel(ctx); err != nil {
				return err
			}
		}
		if !warm {
			if err := m.start(); err != nil {
				return err
			}
		}
		return parallel(k, func(i int) error {
			job := &peer.ConsumeJob{N: share(n, i, k), NoAck: s.NoAck, AckEvery: s.AckEvery, Prefetch: s.Prefetch,
				Borrow: s.Borrow, Loop: s.Loop, Coalesce: s.Coalesce}
			job.Queue = s.source(job.N, warm)
			if job.N == 0 {
				return chs[i].Close()
			}
			if err := chs[i].Consume(ctx, job); err != nil {
				return err
			}
			return chs[i].Close()
		})
	}
	var n int64
	if p.Name() == "floor" && s.Count == 0 {
		// The floor's connection may be out of step after a consumer: it gets a new one for each.
		n, err = calibrate(s, func(n int64) error {
			c.Close()
			if c, err = p.Dial(ctx, s.URI); err != nil {
				return err
			}
			return run(n, true)
		})
		c.Close()
		if err == nil {
			c, err = p.Dial(ctx, s.URI)
		}
	} else {
		n, err = calibrate(s, func(n int64) error { return run(n, true) })
	}
	if err != nil {
		return err
	}
	err = run(n, false)
	m.stop(n)
	return err
}
