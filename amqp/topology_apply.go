package amqp

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Apply declares t on a connection: exchanges, queues, bindings, in this order.
// One that the broker refuses does not keep the rest from being declared.
// Exclusive queues, and bindings to them, are among them: they belong to conn.
//
// Errors: *TopologyError, joined where there are several; *Error where the
// connection is lost; errors that wrap ctx's own.
func (t *Topology) Apply(ctx context.Context, conn *Conn) error {
	if err := t.Validate(); err != nil {
		return err
	}
	failed, err := declare(ctx, conn, t.steps(true))
	if err != nil {
		return err
	}
	return joinTopology(failed)
}

// step is one entity to declare.
type step struct {
	kind, name string
	do         func(ctx context.Context, ch *Channel) error
	err        *TopologyError // of the last attempt
}

// steps are the topology's entities in order. Exclusive queues belong to one
// connection, and are left out on others.
func (t *Topology) steps(exclusive bool) []*step {
	if t == nil {
		return nil
	}
	var steps []*step
	for _, x := range t.Exchanges {
		m := x.method()
		steps = append(steps, &step{kind: "exchange", name: x.Name, do: func(ctx context.Context, ch *Channel) error {
			return ch.ExchangeDeclare(ctx, m)
		}})
	}
	left := map[string]bool{}
	for _, q := range t.Queues {
		if q.Exclusive && !exclusive {
			left[q.Name] = true
			continue
		}
		m := q.method()
		steps = append(steps, &step{kind: "queue", name: q.Name, do: func(ctx context.Context, ch *Channel) error {
			_, err := ch.QueueDeclare(ctx, m)
			return err
		}})
	}
	for _, b := range t.Bindings {
		if b.Queue == "" || !left[b.Queue] {
			steps = append(steps, b.step())
		}
	}
	return steps
}

func (b Binding) step() *step {
	return &step{kind: "binding", name: b.name(), do: func(ctx context.Context, ch *Channel) error {
		if b.Queue != "" {
			return ch.QueueBind(ctx, QueueBind{
				Queue: b.Queue, Exchange: b.Source, RoutingKey: b.RoutingKey, Arguments: b.Arguments,
			})
		}
		return ch.ExchangeBind(ctx, ExchangeBind{
			Destination: b.Exchange, Source: b.Source, RoutingKey: b.RoutingKey, Arguments: b.Arguments,
		})
	}}
}

// declare takes the steps in turn and returns those that the broker refused.
// An error means that the connection or ctx is over.
func declare(ctx context.Context, conn *Conn, steps []*step) (failed []*step, err error) {
	var ch *Channel
	for _, s := range steps {
		if ch == nil || ch.gone.Load() {
			if ch, err = conn.Channel(ctx); err != nil {
				return failed, err
			}
		}
		err := s.do(ctx, ch)
		if err == nil {
			continue
		}
		if ctx.Err() != nil || lost(conn) {
			return failed, err
		}
		s.err = &TopologyError{Kind: s.kind, Name: s.name, Err: err}
		failed = append(failed, s)
	}
	if ch != nil {
		err = ch.Close(ctx)
		if lost(conn) {
			return failed, err
		}
	}
	return failed, nil
}

func joinTopology(failed []*step) error {
	var errs []error
	for _, s := range failed {
		errs = append(errs, s.err)
	}
	return errors.Join(errs...)
}

// setUp declares the topology on a new connection and runs Setup. It returns
// what could not be declared; an error means that the connection is of no use.
func (l *link) setUp(ctx context.Context, conn *Conn) ([]*step, error) {
	cfg := &l.c.cfg
	bounded, cancel := l.plan.config.attempt(ctx)
	defer cancel()
	failed, err := declare(bounded, conn, cfg.Topology.steps(l == l.c.con))
	if err != nil {
		return nil, err
	}
	for _, s := range failed {
		l.c.tellTopology(s.err)
	}
	if cfg.Setup == nil {
		return failed, nil
	}
	ch, err := conn.Channel(bounded)
	if err != nil {
		return nil, err
	}
	if err := cfg.Setup(bounded, ch); err != nil {
		return nil, &setupError{err}
	}
	ch.Close(bounded)
	return failed, nil
}

// setupError is what ClientConfig.Setup returned.
type setupError struct{ cause error }

func (e *setupError) Error() string { return "amqp: ClientConfig.Setup: " + e.cause.Error() }
func (e *setupError) Unwrap() error { return e.cause }

const (
	declareTries   = 50 // 6 to 12 minutes: a half-open connection's lock may last three of 60 s
	declareFirst   = 500 * time.Millisecond
	declareLongest = 15 * time.Second
)

// declareLater tries again to declare what was refused, where waiting helps:
// something that is missing may be made by somebody else, and the exclusive
// queue of a connection that died goes when the broker finds out. Arguments
// that differ and permissions are not tried again before the next connection.
func (l *link) declareLater(ctx context.Context, conn *Conn, missing []*step) {
	pause := declareFirst
	for range declareTries {
		var again, given []*step
		for _, s := range missing {
			if waitingHelps(s.err) {
				again = append(again, s)
			} else {
				given = append(given, s)
			}
		}
		if len(again) == 0 || !pauseOn(ctx, conn, pause/2+rand.N(pause/2)) {
			return
		}
		pause = min(2*pause, declareLongest)
		failed, err := declare(ctx, conn, again)
		if err != nil {
			return // the next connection starts over
		}
		missing = append(given, failed...)
		l.c.mu.Lock()
		if l.conn == conn {
			l.topology = joinTopology(missing)
			l.c.broadcast()
		}
		l.c.mu.Unlock()
	}
}

func waitingHelps(err error) bool {
	return errors.Is(err, NotFound) || errors.Is(err, ResourceLocked) || errors.Is(err, InternalError) ||
		errors.Is(err, ResourceError)
}

// pauseOn waits; false: ctx or the connection ended first.
func pauseOn(ctx context.Context, conn *Conn, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-conn.done:
	case <-ctx.Done():
	}
	return false
}

// TopologyErr says what of the Topology is not there since the broker refused
// it: *TopologyErrors, joined. It is nil where all is well, and while there is
// no connection to know it by.
func (c *Client) TopologyErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, l := range c.links() {
		if l.conn != nil && l.topology != nil {
			errs = append(errs, l.topology)
		}
	}
	return errors.Join(errs...)
}

func (c *Client) tellTopology(err *TopologyError) {
	if c.cfg.Logger != nil {
		c.cfg.Logger.Warn("amqp: topology", "kind", err.Kind, "name", err.Name, "error", err.Err)
	}
	if c.trace != nil {
		c.hooking.run(func() { c.trace.topology(context.Background(), err) })
	}
}
