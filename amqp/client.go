package amqp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Client is what a service holds: it stays up when connections don't. All its
// methods are safe for concurrent use.
//
// It keeps two connections, one for publishing and one for consuming, so that
// an alarm, which stops the first, never stops the acks. Each is opened when it
// is first needed, and looked after by a goroutine of its own from then on:
// that one dials the hosts in turn, asks for credentials afresh, declares the
// Topology, runs Setup, hands the connection out, waits for its end, and starts
// over after a pause (Backoff). It goes on for ever unless Fatal says otherwise;
// State, Err and Trace.Reconnect say how it is doing, and nobody has to look.
//
// Nothing is remembered behind the user's back. What must exist is the
// Topology; what is consumed is what Subscribe and Serve were given.
//
// Publishing. There is a channel for each exchange (a lane), so that one that
// is missing or closed to us harms nobody else. The first message on a new
// channel goes alone, with a question behind it whose answer proves that the
// broker took the message: an exchange that isn't there is so found out by one
// publish, which fails with the broker's words, before others follow. A message
// that RabbitMQ judges by its content (a user id, CC or BCC headers, a body of
// 64 KiB or more that is the largest so far) goes alone, on a channel of its own,
// for the same reason. After that a lane runs free, and
// what was in flight when its channel or connection is lost has an unknown
// outcome; it is told so at once, or, with Resend, is sent again in its order.
//
// Consuming. Each subscription has a channel on the consuming connection, and
// opens another when that is lost. Deliveries belong to the channel that
// brought them, and say ErrStale after its end.
//
// Waiting. What waits for a connection waits within its context, and then
// returns an error that wraps both the context's and the reason why there is no
// connection.
type Client struct {
	cfg      ClientConfig
	trace    *Trace
	pub, con *link // the same one with OneConnection
	budget   budget

	// spawnLocked runs f on a goroutine that Close waits for, within the client's
	// life, unless that is over. mu is held.
	spawnLocked func(f func(ctx context.Context)) bool
	cancel      context.CancelFunc

	lanes atomic.Pointer[map[string]*pubLane] // by exchange; replaced under mu
	solo  *pubLane                            // for messages that go alone

	secrets  secrets
	hooking  hooking // functions of Trace
	handling hooking // workers of Serve, and loops
	counts   clientCounts

	// mu guards what follows, and the links. It is a leaf but for lane.mu and
	// Conn.mu, which may be taken before it.
	mu        sync.Mutex
	changed   chan struct{} // closed, and replaced, when a state changes
	err       error         // why the client is over
	stopping  chan struct{} // closed by Shutdown and Close: consumers end
	consuming int           // Serves and loops that run
	running   sync.WaitGroup
}

// ClientConfig says how a client connects and what it keeps up. Nil and the
// zero value mean sensible defaults.
type ClientConfig struct {
	Config

	// Topology is what is declared at every connection; nil: nothing. NewClient
	// validates it. An entity that the broker refuses is reported by
	// TopologyErr and Trace, and does not keep the rest from working.
	Topology *Topology

	// Setup runs after the Topology, at every connection, on a channel of its
	// own that is closed afterwards. Where it fails the connection is given up
	// and made again after a pause.
	Setup func(ctx context.Context, ch *Channel) error

	// Backoff is how long to wait once every host has failed attempt times in a
	// row; 0: an open connection was just lost, or the next host of several is to
	// be tried. Nil: 0 to 50 ms at first, doubling to 375 to 750 ms; to 10 s where
	// the broker refused the credentials.
	Backoff func(attempt int) time.Duration

	// Fatal says which errors of connecting end the client for good. Nil: none;
	// see Terminal for a policy that is not so patient.
	Fatal func(error) bool

	// Resend makes the client send unconfirmed messages again after a reconnect,
	// in their order, before newer ones, and under the same message id (one is
	// made up where there is none): at least once. It then copies what it is
	// given, and an outcome may come from a later attempt.
	Resend bool

	// ResendTries is how often a message is sent at most. 0: 10.
	ResendTries int

	// ResendMessages is how many messages may wait for their outcome per
	// exchange; publishing waits for room. 0: 65,536.
	ResendMessages int

	// MaxBytes bounds what the client holds of messages, roughly. Half of it is
	// for sending: what is not written yet (MaxOutbox, which is a quarter at most)
	// and, with Resend, what has no outcome yet. Publishing waits for room,
	// within its context; a message that is larger goes when there is no other.
	//
	// The other half is for what came: deliveries count until they are given to a
	// handler or a loop. While there are more, the consuming connection is not
	// read, and TCP holds the broker back, as with HoldBack; but never while a
	// call or a Confirm waits for the broker's answer on it, and for 5 s at a time,
	// after which it reads on for a moment. A subscription that nobody loops over
	// holds nothing back: its prefetch is the bound. 0: 64 MiB.
	MaxBytes int64

	// OneConnection publishes and consumes on the same connection. An alarm
	// then stops acks as well, once a publish has run into it.
	OneConnection bool
}

const (
	defaultResendTries    = 10
	defaultResendMessages = 64 << 10
	defaultMaxBytes       = 64 << 20
)

// NewClient makes a client for the broker that uri names. cfg may be nil. It
// does not connect: the first use does, or Await. Close it when done.
//
// Errors: *URIError, *ConfigError, *TopologyError.
func NewClient(uri string, cfg *ClientConfig) (*Client, error) {
	var conf ClientConfig
	if cfg != nil {
		conf = *cfg
	}
	if err := conf.check(); err != nil {
		return nil, err
	}
	def(&conf.ResendTries, defaultResendTries)
	def(&conf.ResendMessages, defaultResendMessages)
	def(&conf.MaxBytes, defaultMaxBytes)
	plan, err := resolveDial(uri, &conf.Config)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(plan.targets), func(i, j int) {
		plan.targets[i], plan.targets[j] = plan.targets[j], plan.targets[i]
	})
	c := &Client{cfg: conf, trace: conf.Trace, changed: make(chan struct{}), stopping: make(chan struct{})}
	c.budget.share(conf.MaxBytes, &plan.config)
	c.secrets.ask, c.secrets.turn = plan.config.Credentials, make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.spawnLocked = func(f func(ctx context.Context)) bool {
		if c.err != nil {
			return false
		}
		c.running.Go(func() { f(ctx) })
		return true
	}
	c.lanes.Store(&map[string]*pubLane{})
	c.solo = &pubLane{c: c, alone: true, turn: make(chan struct{}, 1)}
	if conf.OneConnection {
		c.pub = newLink(c, plan, "")
		c.con = c.pub
		return c, nil
	}
	c.pub, c.con = newLink(c, plan, "publish"), newLink(c, plan, "consume")
	return c, nil
}

// spawn is spawnLocked for who doesn't hold mu.
func (c *Client) spawn(f func(ctx context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spawnLocked(f)
}

func (cfg *ClientConfig) check() error {
	switch {
	case cfg.ResendTries < 0:
		return &ConfigError{Field: "ResendTries", Reason: "negative"}
	case cfg.ResendMessages < 0:
		return &ConfigError{Field: "ResendMessages", Reason: "negative"}
	case cfg.MaxBytes < 0:
		return &ConfigError{Field: "MaxBytes", Reason: "negative"}
	}
	return cfg.Topology.Validate()
}

// links are the client's connections, each once.
func (c *Client) links() []*link {
	if c.pub == c.con {
		return []*link{c.pub}
	}
	return []*link{c.pub, c.con}
}

// Channel opens a channel for administration: to look at queues, purge,
// declare. It is the caller's to close, and does not outlive its connection,
// which is the consuming one. It waits for a connection, within ctx.
//
// Errors: as Conn.Channel; errors that wrap ctx's own and why there is no
// connection; ErrClosed.
func (c *Client) Channel(ctx context.Context) (*Channel, error) { return c.con.channel(ctx) }

// errClientClosed is why a client is over that was closed.
var errClientClosed = fmt.Errorf("amqp: the client was closed by Close: %w", ErrClosed)

// over says why nothing can be done any more. mu is held.
func (c *Client) over() error {
	if c.err != nil {
		return &unsentError{c.err}
	}
	return nil
}

// broadcast wakes all who wait for a state. mu is held.
func (c *Client) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// end makes the client's end known, and what waits in it stops. It does not
// wait. It reports whether it was the first.
func (c *Client) end(cause error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	c.err = cause
	c.stop()
	c.broadcast()
	c.cancel()
	return true
}

// stop tells consumers to end. mu is held.
func (c *Client) stop() {
	select {
	case <-c.stopping:
	default:
		close(c.stopping)
	}
}

// Shutdown ends the client in good order, within ctx: it stops consuming, lets
// handlers and loops end what they are at, sends their acks, waits for the
// outcomes of what was published, and closes. Publishing stays possible for the
// handlers meanwhile. Where ctx ends first the rest is as with Close.
//
// A handler or a loop would wait for its own end: there it is refused, and
// nothing happens. Start it on a goroutine that is not waited for, and return.
//
// Errors: one that wraps ctx's own where something was cut short;
// ErrInHandler inside a Trace function, a handler of Serve, or a loop over a
// Subscription, of this client; an *Error where a connection did not end orderly.
func (c *Client) Shutdown(ctx context.Context) error {
	if c.hooking.here() || c.handling.here() {
		return ErrInHandler
	}
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	err := c.quiet(ctx)
	if err == nil {
		err = c.drain(ctx)
	}
	return errors.Join(err, c.Close())
}

// quiet waits until no handler and no loop runs any more.
func (c *Client) quiet(ctx context.Context) error {
	c.mu.Lock()
	for c.consuming > 0 && c.err == nil {
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("amqp: Shutdown did not wait for all handlers: %w", contextError(ctx))
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	return nil
}

// drain waits for the outcomes of what was published.
func (c *Client) drain(ctx context.Context) error {
	lanes := []*pubLane{c.solo}
	for _, ln := range *c.lanes.Load() {
		lanes = append(lanes, ln)
	}
	for _, ln := range lanes {
		if err := ln.drain(ctx); err != nil {
			return fmt.Errorf("amqp: Shutdown did not wait for all confirms: %w", err)
		}
	}
	return nil
}

// Close ends the client: connections are closed as Conn.Close does, side by
// side, within Config.CloseTimeout; what waits returns with ErrClosed, and
// publishes without an outcome end with ErrUnknownOutcome. It does not wait for
// handlers. Closing twice is no error.
//
// Errors: ErrInHandler inside a Trace function of this client; an *Error where
// a connection's end was not orderly.
func (c *Client) Close() error {
	if c.hooking.here() {
		return ErrInHandler
	}
	for _, l := range c.links() {
		if conn := l.current(); conn != nil && conn.inHook() {
			return ErrInHandler
		}
	}
	c.end(errClientClosed)
	return c.tearDown()
}

// tearDown closes the connections and waits for the client's goroutines.
func (c *Client) tearDown() error {
	var errs [2]error
	var wg sync.WaitGroup
	for i, l := range c.links() {
		if conn := l.current(); conn != nil && !lost(conn) {
			wg.Go(func() { errs[i] = l.close(conn) })
		}
	}
	wg.Wait()
	c.running.Wait()
	return errors.Join(errs[:]...)
}
