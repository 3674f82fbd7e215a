package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/hist"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

// runRPC makes calls from Goroutines callers that share a client.
func runRPC(ctx context.Context, p peer.Peer, s *Spec, m *meter) error {
	c, err := p.Dial(ctx, s.URI)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.RPC(ctx)
	if err != nil {
		return err
	}
	workers := max(1, s.Goroutines)
	body := pattern(s.Body)
	hists := make([]*hist.Hist, workers)
	run := func(n int64) error {
		return parallel(workers, func(i int) error {
			h := new(hist.Hist)
			hists[i] = h
			for range share(n, i, workers) {
				begin := time.Now()
				got, err := r.Call(ctx, s.queue(), body)
				if err != nil {
					return err
				}
				if got != len(body) {
					return fmt.Errorf("a reply of %d octets to a request of %d", got, len(body))
				}
				h.Add(time.Since(begin))
			}
			return nil
		})
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
	m.res.Latency = new(hist.Hist)
	for _, h := range hists {
		m.res.Latency.Merge(h)
	}
	return err
}

// timed measures a step that is done one at a time.
func timed(s *Spec, m *meter, step func() error) error {
	lat := new(hist.Hist)
	run := func(n int64) error {
		for range n {
			begin := time.Now()
			if err := step(); err != nil {
				return err
			}
			lat.Add(time.Since(begin))
		}
		return nil
	}
	n, err := calibrate(s, run)
	if err != nil {
		return err
	}
	lat.Reset()
	if err := m.start(); err != nil {
		return err
	}
	err = run(n)
	m.stop(n)
	m.res.Latency = lat
	return err
}

// runConnections opens and closes connections.
func runConnections(ctx context.Context, p peer.Peer, s *Spec, m *meter) error {
	return timed(s, m, func() error {
		c, err := p.Dial(ctx, s.URI)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// runChannels opens and closes channels of one connection.
func runChannels(ctx context.Context, p peer.Peer, s *Spec, m *meter) error {
	c, err := p.Dial(ctx, s.URI)
	if err != nil {
		return err
	}
	defer c.Close()
	return timed(s, m, func() error {
		ch, err := c.Channel(ctx)
		if err != nil {
			return err
		}
		return ch.Close()
	})
}

// idle fills in what n idle things hold.
func (m *meter) idle(n int, before, after footprint) {
	k := float64(n)
	m.res.Messages = int64(n)
	m.res.IdleBytes = (after.bytes - before.bytes) / k
	m.res.IdleRSS = (after.rss - before.rss) / k
	m.res.IdleGoroutines = float64(after.goroutines-before.goroutines) / k
}

// runIdleChannels opens Channels channels of one connection and weighs them.
func runIdleChannels(ctx context.Context, p peer.Peer, s *Spec, m *meter) error {
	c, err := p.Dial(ctx, s.URI)
	if err != nil {
		return err
	}
	defer c.Close()
	first, err := c.Channel(ctx) // what a connection makes with its first channel is the connection's
	if err != nil {
		return err
	}
	before := settle()
	chs := make([]peer.Channel, s.Channels)
	for i := range chs {
		if chs[i], err = c.Channel(ctx); err != nil {
			return err
		}
	}
	m.idle(len(chs), before, settle())
	return first.Close()
}

// runIdleConns opens Channels connections and weighs them.
func runIdleConns(ctx context.Context, p peer.Peer, s *Spec, m *meter) error {
	warm, err := p.Dial(ctx, s.URI)
	if err != nil {
		return err
	}
	defer warm.Close()
	before := settle()
	conns := make([]peer.Conn, s.Channels)
	for i := range conns {
		if conns[i], err = p.Dial(ctx, s.URI); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	m.idle(len(conns), before, settle())
	return parallel(len(conns), func(i int) error { return conns[i].Close() })
}
