// Package load drives a broker: any number of producers and consumers, at any rate, with live figures. It is to
// a Go user what PerfTest is to a Java user.
package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/hist"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

// Options are a load. Counts and rates are per producer and per consumer.
type Options struct {
	Peer         peer.Peer
	URIs         []string // taken in turn
	Producers    int
	Consumers    int
	Channels     int // per connection
	Queue        string
	Queues       int // more than 1: Queue is a prefix, and producers and consumers take them in turn
	QueueType    string
	Durable      bool
	Keep         bool // leave the queues behind
	Exchange     string
	Size         int
	Headers      int
	Persistent   bool
	Rate         float64 // messages a second; 0: as fast as it goes
	Count        int64   // messages for each producer; 0: no limit
	Time         time.Duration
	Confirm      int
	Prefetch     int
	AutoAck      bool
	AckEvery     int
	Borrow       bool
	Interval     time.Duration // between lines
	ConsumeDelay time.Duration // what handling a message takes
	Line         func(Sample)
}

// Sample is an interval, or the whole run.
type Sample struct {
	At        time.Duration // since the start
	Took      time.Duration
	Sent      int64
	Confirmed int64
	Received  int64
	CPU       time.Duration
	EndToEnd  *hist.Hist // from publish to delivery
	Confirms  *hist.Hist // from publish to confirm
}

// load is a run's state.
type load struct {
	o                         Options
	sent, confirmed, received atomic.Int64
	endToEnd, confirms        peer.Latencies
	stopProducers             chan struct{}
	stopConsumers             chan struct{}
	conns                     []peer.Conn
	made                      []string // queues to delete
	errs                      chan error
}

// Run runs the load until its time or count is over or ctx ends, and returns the whole run's figures.
func Run(ctx context.Context, o Options) (Sample, error) {
	if o.Producers+o.Consumers == 0 {
		return Sample{}, errors.New("neither producers nor consumers")
	}
	l := &load{o: o, stopProducers: make(chan struct{}), stopConsumers: make(chan struct{}),
		errs: make(chan error, o.Producers+o.Consumers)}
	defer l.close()
	if err := l.declare(ctx); err != nil {
		return Sample{}, err
	}
	// The work goes on under a context of its own: what is under way ends in good order when ctx ends.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var consumers, producers sync.WaitGroup
	ready := make(chan struct{}, o.Consumers)
	if err := l.start(work, o.Consumers, &consumers, func(ch peer.Channel, i int) error { return l.consume(work, ch, i, ready) }); err != nil {
		return Sample{}, err
	}
	for range o.Consumers {
		select {
		case <-ready:
		case err := <-l.errs:
			return Sample{}, err
		case <-time.After(30 * time.Second):
			return Sample{}, errors.New("a consumer did not start within 30 s")
		}
	}
	begin, beginCPU := time.Now(), processCPU()
	if err := l.start(work, o.Producers, &producers, func(ch peer.Channel, i int) error { return l.produce(work, ch, i) }); err != nil {
		return Sample{}, err
	}
	produced := make(chan struct{})
	go func() { producers.Wait(); close(produced) }()
	total, err := l.watch(ctx, begin, beginCPU, produced)
	close(l.stopProducers)
	l.join(produced, cancel)
	l.drain(ctx, err)
	close(l.stopConsumers)
	consumed := make(chan struct{})
	go func() { consumers.Wait(); close(consumed) }()
	l.join(consumed, cancel)
	l.finish(&total, begin, beginCPU)
	select {
	case e := <-l.errs:
		err = errors.Join(err, e)
	default:
	}
	return total, err
}

// join waits, and gives up after a while by ending the work's context.
func (l *load) join(done <-chan struct{}, cancel func()) {
	select {
	case <-done:
		return
	case <-time.After(10 * time.Second):
		cancel()
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
}

// drain lets the consumers finish what was sent, as long as something still comes.
func (l *load) drain(ctx context.Context, err error) {
	if l.o.Consumers == 0 || l.o.Producers == 0 || err != nil {
		return
	}
	last := int64(-1)
	for ctx.Err() == nil && l.received.Load() < l.sent.Load() && l.received.Load() != last {
		last = l.received.Load()
		time.Sleep(200 * time.Millisecond)
	}
}

func (l *load) queue(i int) string {
	if l.o.Queues <= 1 {
		return l.o.Queue
	}
	return fmt.Sprintf("%s-%d", l.o.Queue, i%l.o.Queues)
}

func (l *load) declare(ctx context.Context) error {
	c, err := l.o.Peer.Dial(ctx, l.o.URIs[0])
	if err != nil {
		return err
	}
	defer c.Close()
	ch, err := c.Channel(ctx)
	if err != nil {
		return err
	}
	for i := range max(1, l.o.Queues) {
		q := peer.Queue{Name: l.queue(i), Type: l.o.QueueType, Durable: l.o.Durable || l.o.QueueType == "quorum" || l.o.QueueType == "stream"}
		if err := ch.Declare(ctx, q); err != nil {
			return fmt.Errorf("declare %s: %w", q.Name, err)
		}
		if !l.o.Keep {
			l.made = append(l.made, q.Name)
		}
	}
	return nil
}

// close ends the connections and deletes the queues.
func (l *load) close() {
	for _, c := range l.conns {
		c.Close()
	}
	if len(l.made) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := l.o.Peer.Dial(ctx, l.o.URIs[0])
	if err != nil {
		return
	}
	defer c.Close()
	if ch, err := c.Channel(ctx); err == nil {
		for _, name := range l.made {
			ch.Delete(ctx, name)
		}
	}
}

// start opens a channel for each of n workers, Channels of them to a connection, and runs them. Producers and
// consumers have connections of their own, as RabbitMQ advises.
func (l *load) start(ctx context.Context, n int, wg *sync.WaitGroup, run func(peer.Channel, int) error) error {
	var c peer.Conn
	var err error
	for i := range n {
		if i%max(1, l.o.Channels) == 0 {
			if c, err = l.o.Peer.Dial(ctx, l.o.URIs[len(l.conns)%len(l.o.URIs)]); err != nil {
				return err
			}
			l.conns = append(l.conns, c)
		}
		ch, err := c.Channel(ctx)
		if err != nil {
			return err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := run(ch, i); err != nil && ctx.Err() == nil {
				l.errs <- err
			}
		}()
	}
	return nil
}

func (l *load) produce(ctx context.Context, ch peer.Channel, i int) error {
	o := &l.o
	if o.Confirm > 0 {
		if err := ch.Confirm(ctx); err != nil {
			return err
		}
	}
	job := &peer.PublishJob{Exchange: o.Exchange, Queue: l.queue(i), Body: make([]byte, max(o.Size, 8)), Headers: o.Headers,
		Persistent: o.Persistent, N: o.Count, Window: o.Confirm}
	job.Live = peer.Live{Stop: l.stopProducers, Count: &l.sent, Stamp: true}
	if o.Confirm > 0 {
		job.Settled, job.Latency = &l.confirmed, &l.confirms
	}
	if o.Rate > 0 {
		job.Pace = pacer(o.Rate, l.stopProducers)
	}
	return ch.Publish(ctx, job)
}

// pacer spaces calls evenly. Who falls behind catches up, for at most a tenth of a second's worth.
func pacer(rate float64, stop <-chan struct{}) func(context.Context) error {
	gap := time.Duration(float64(time.Second) / rate)
	next := time.Now()
	timer := time.NewTimer(time.Hour)
	return func(ctx context.Context) error {
		now := time.Now()
		if behind := now.Sub(next); behind > 100*time.Millisecond {
			next = now.Add(-100 * time.Millisecond)
		}
		wait := next.Sub(now)
		next = next.Add(gap)
		if wait < 100*time.Microsecond { // shorter than a timer is good for
			return nil
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
			return nil
		case <-stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *load) consume(ctx context.Context, ch peer.Channel, i int, ready chan<- struct{}) error {
	o := &l.o
	job := &peer.ConsumeJob{Queue: l.queue(i), NoAck: o.AutoAck, AckEvery: max(1, o.AckEvery), Prefetch: o.Prefetch,
		Borrow: o.Borrow, Coalesce: o.AckEvery <= 1, Stream: o.QueueType == "stream"}
	job.Ready = func() { ready <- struct{}{} }
	job.Live = peer.Live{Stop: l.stopConsumers, Count: &l.received, Stamp: true, Latency: &l.endToEnd, Delay: o.ConsumeDelay}
	return ch.Consume(ctx, job)
}
