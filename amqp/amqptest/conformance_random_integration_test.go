//go:build integration

package amqptest_test

import (
	"flag"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	randomRuns = flag.Int("random", 500, "conformance: how many random sequences to play on both brokers")
	shrinkRuns = flag.Int("shrink", 30, "conformance: how often to play a random sequence that differs, to shrink it")
	randomSeed = flag.Uint64("seed", 1, "conformance: the first sequence's seed")
)

const randomLength = 25

// TestConformance_RandomSequences plays the same random sequences on amqptest
// and on RabbitMQ, and wants the same answers. A sequence that differs is shrunk.
func TestConformance_RandomSequences(t *testing.T) {
	addr := conformanceBroker(t)
	tg := target{
		dial:    func() (net.Conn, error) { return net.Dial("tcp", addr) },
		timeout: 10 * time.Second,
		settle:  60 * time.Millisecond,
		record:  true,
		brisk:   true,
	}
	tg.lag = watchLag(t, tg)
	var n atomic.Int64
	run := fmt.Sprintf("z%x", time.Now().UnixMilli()&0xffffff)
	onRabbit := func(c *scriptCase, settle time.Duration) string {
		mine := tg
		mine.settle = settle
		mine.prefix = fmt.Sprintf("%s.%06d.", run, n.Add(1))
		got, err := mine.run(c)
		if err != nil {
			return err.Error()
		}
		return answers(c, got)
	}
	var cases []*scriptCase
	for i := range *randomRuns {
		cases = append(cases, randomSequence(*randomSeed+uint64(i), randomLength))
	}
	memory, rabbit := make([]string, len(cases)), make([]string, len(cases))
	for i, c := range cases {
		memory[i] = answersInMemory(t, c)
	}
	playUntilAlike(t, tg, cases, memory, rabbit, onRabbit)
	reported := 0
	for i, c := range cases {
		if memory[i] == rabbit[i] {
			continue
		}
		if reported++; reported > 5 {
			t.Errorf("%s differs too", c.name)
			continue
		}
		small := shrink(c, *shrinkRuns, func(c *scriptCase) bool {
			return answersInMemory(t, c) != onRabbit(c, 80*time.Millisecond)
		})
		t.Errorf("%s differs; shrunk to %d steps (-RabbitMQ +amqptest):\n%s", c.name, len(small.steps),
			firstDifference(onRabbit(small, 5*tg.settle), answersInMemory(t, small)))
	}
	t.Logf("%d random sequences of %d operations and more, %d differ", len(cases), randomLength, reported)
}

// playUntilAlike plays the sequences on RabbitMQ. A busy machine makes the pauses
// too short for some: what differs is played again, with fewer at a time and
// longer pauses.
func playUntilAlike(t *testing.T, tg target, cases []*scriptCase, memory, rabbit []string, play func(*scriptCase, time.Duration) string) {
	t.Helper()
	for _, pass := range []struct {
		width  int
		settle time.Duration
	}{{40, tg.settle}, {12, 5 * tg.settle}, {4, 15 * tg.settle}} {
		var wg sync.WaitGroup
		slots := make(chan struct{}, pass.width)
		again := 0
		for i, c := range cases {
			if memory[i] == rabbit[i] {
				continue
			}
			again++
			slots <- struct{}{}
			wg.Go(func() {
				rabbit[i] = play(c, pass.settle)
				<-slots
			})
		}
		wg.Wait()
		t.Logf("played %d sequences with pauses of %s, the broker lagging %s", again, pass.settle, tg.lag())
	}
}

// watchLag keeps a message going round through the broker, and tells how long
// the slowest of its last rounds took: pauses must grow with it on a busy machine.
func watchLag(t *testing.T, tg target) func() time.Duration {
	t.Helper()
	tg.prefix, tg.record = fmt.Sprintf("lag%x.", time.Now().UnixNano()), false
	r := &caseRun{target: tg, conns: map[string]*rawConn{}, wake: make(chan struct{}, 1)}
	steps := func(lines ...string) {
		for _, l := range lines {
			r.step(&scanner{r.expand(l)})
		}
	}
	steps("> c1 queue.declare queue=$q exclusive", "> c1 basic.consume queue=$q consumer-tag=t no-ack", "> c2 confirm.select")
	c := r.conns["A"]
	var recent [20]atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			began := time.Now()
			steps("> c2 basic.publish routing-key=$q body=x")
			r.await(func() bool {
				for a := c.pop(1); a != nil; a = c.pop(1) {
					if a.method != nil && a.method.Name == "basic.deliver" {
						return true
					}
				}
				return false
			})
			recent[i%len(recent)].Store(int64(time.Since(began)))
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		r.closeGently(c)
	})
	return func() (worst time.Duration) {
		for i := range recent {
			worst = max(worst, time.Duration(recent[i].Load()))
		}
		return worst
	}
}
