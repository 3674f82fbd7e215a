package amqp

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is one connection to a broker. All its methods are safe for concurrent
// use. It does not reconnect: Client does.
//
// Source: https://www.rabbitmq.com/docs/connections.
type Conn struct {
	cfg   Config
	info  ConnInfo
	trace *Trace
	nc    net.Conn
	raw   *rawConn // nil where nc has no file descriptor to try without waiting

	e *Engine // its receiver belongs to the reader, the rest to mu

	// mu guards the sending half of the engine and everything below. It is held
	// for as long as it takes to encode, never while anything waits.
	mu       sync.Mutex
	w        outbox
	waiting  waitList // publishers that wait for room or for the end of an alarm
	waiters  waiterPool
	blocked  bool
	reason   string
	closing  bool  // Close was called
	err      error // why the connection is over, or is about to be
	over     bool
	returned uint64
	dropped  uint64
	dirty    []*Channel // channels with acks that wait for company
	hooks    []func()   // calls of Trace that wait for mu to be free
	hooking  []uint64   // goroutines that are in one

	done    chan struct{}
	running sync.WaitGroup // reader and writer
	reader  reader
	inline  inline
	hold    hold
	largest atomic.Int64 // body that the broker is known to take
	readsIn atomic.Int64 // octets read
}

// Dial connects to the broker that uri names and opens its virtual host. cfg
// may be nil. Several hosts are tried in turn, from a random one on. It waits
// until the connection is open, within ctx and Config.DialTimeout per host.
//
// Errors: *URIError, *ConfigError; *DialError of the last host that could not be
// reached; *SASLError; *Error with the broker's refusal (AccessRefused: the
// credentials; NotAllowed: the vhost); errors that wrap ctx's own.
//
// Source: https://www.rabbitmq.com/docs/uri-spec.
func Dial(ctx context.Context, uri string, cfg *Config) (*Conn, error) {
	plan, err := resolveDial(uri, cfg)
	if err != nil {
		return nil, err
	}
	first := rand.IntN(len(plan.targets))
	var errs []error
	for i := range plan.targets {
		t := plan.targets[(first+i)%len(plan.targets)]
		c, err := dialTarget1(ctx, plan, t)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

func dialTarget1(ctx context.Context, plan *dialPlan, t dialTarget) (c *Conn, err error) {
	cfg := plan.config
	d := DialInfo{Network: t.network, Addr: t.addr, TLS: t.tls, VHost: plan.vhost}
	ctx = cfg.Trace.dialStart(ctx, d)
	defer func() { cfg.Trace.dialDone(ctx, d, err) }()
	bounded, cancel := cfg.attempt(ctx)
	defer cancel()
	creds, err := cfg.resolveCredentials(bounded, t)
	if err != nil {
		return nil, err
	}
	nc, secure, err := dialTransport(bounded, &cfg, t)
	if err != nil {
		return nil, err
	}
	return open(bounded, nc, cfg, plan.vhost, SASLInfo{Credentials: creds, TLS: secure, Host: t.host})
}

// NewConn speaks AMQP as a client over a stream that is open already, on the
// vhost of cfg or "/". cfg may be nil. The stream is the connection's from then
// on: it is closed with it, and where NewConn fails. It waits until the
// connection is open, within ctx and Config.DialTimeout.
//
// Errors: as Dial's, without those of reaching a host.
func NewConn(ctx context.Context, nc net.Conn, cfg *Config) (*Conn, error) {
	conf, vhost, err := resolveConfig(cfg)
	if err != nil {
		nc.Close()
		return nil, err
	}
	d := DialInfo{VHost: vhost}
	ctx = conf.Trace.dialStart(ctx, d)
	bounded, cancel := conf.attempt(ctx)
	defer cancel()
	creds, err := conf.resolveCredentials(bounded, dialTarget{})
	if err != nil {
		nc.Close()
		return nil, err
	}
	c, err := open(bounded, nc, conf, vhost, SASLInfo{Credentials: creds, TLS: isTLS(nc)})
	conf.Trace.dialDone(ctx, d, err)
	return c, err
}

// open makes the AMQP handshake and starts the connection's two goroutines.
func open(ctx context.Context, nc net.Conn, cfg Config, vhost string, info SASLInfo) (*Conn, error) {
	c := &Conn{cfg: cfg, trace: cfg.Trace, nc: nc, done: make(chan struct{})}
	c.hold.init()
	c.info = ConnInfo{Name: cfg.Name, Local: addrString(nc.LocalAddr()), Remote: addrString(nc.RemoteAddr())}
	c.e = NewEngine(EngineConfig{
		SASL: cfg.SASL, SASLInfo: info, VHost: vhost, Name: cfg.Name, Properties: cfg.Properties,
		ChannelMax: cfg.ChannelMax, FrameMax: cfg.FrameMax, Heartbeat: cfg.Heartbeat, MaxBody: cfg.MaxBody,
	})
	if err := c.handshake(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	channelMax, frameMax, heartbeat := c.e.Tuned()
	c.trace.handshake(ctx, HandshakeInfo{
		Conn: c.info, Mechanism: c.e.sasl.mechanism, Server: c.e.peer,
		Heartbeat: heartbeat, ChannelMax: channelMax, FrameMax: frameMax,
	})
	c.raw = newRawConn(nc)
	c.w.init()
	c.reader.init(c)
	c.running.Add(2)
	go c.writeLoop(heartbeat)
	go c.readLoop(heartbeat)
	return c, nil
}

func addrString(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// handshake runs the engine on the caller's goroutine until the connection is
// open. The context's end interrupts it by way of the stream's deadline.
func (c *Conn) handshake(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.nc.SetDeadline(time.Unix(1, 0)) })
	buf := make([]byte, preTuneFrameMax)
	for {
		for _, seg := range c.e.Output() {
			n, err := c.nc.Write(seg)
			c.e.Wrote(n)
			if err != nil {
				return c.handshakeError(ctx, stop, err)
			}
		}
		if ev, ok := c.e.Next(); ok {
			switch ev.Kind {
			case EventOpen:
				if !stop() {
					return &Error{Text: "the handshake was cut short", cause: contextError(ctx)}
				}
				return nil
			case EventClosed:
				c.flushHandshake()
				stop()
				return ev.Err
			}
			continue
		}
		n, err := c.nc.Read(buf)
		if n > 0 {
			if ferr := c.e.Feed(time.Now(), buf[:n]); ferr != nil {
				c.flushHandshake()
				stop()
				return ferr
			}
			continue
		}
		if err != nil {
			return c.handshakeError(ctx, stop, err)
		}
	}
}

// flushHandshake says the last words of a handshake that failed, if they fit.
func (c *Conn) flushHandshake() {
	c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	for _, seg := range c.e.Output() {
		if _, err := c.nc.Write(seg); err != nil {
			return
		}
	}
}

func (c *Conn) handshakeError(ctx context.Context, stop func() bool, err error) error {
	stop()
	if ctx.Err() != nil {
		return &Error{Text: "the handshake was cut short", cause: contextError(ctx)}
	}
	c.e.EOF(err)
	return c.e.err
}

// Channel opens a channel and waits for it, within ctx. The lowest number that
// is free is taken.
//
// Errors: *Error with NotAllowed where all channels of the connection are
// open, with ErrClosed where it is over; errors that wrap ctx's own: the late
// channel is then closed.
//
// Source: https://www.rabbitmq.com/docs/channels.
func (c *Conn) Channel(ctx context.Context) (*Channel, error) {
	if ctx.Err() != nil {
		return nil, &unsentError{contextError(ctx)}
	}
	cl := newCall(&ChannelOpenOk{})
	c.mu.Lock()
	num, err := c.e.s.freeChannel()
	if err == nil {
		err = c.usable()
	}
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	st, err := c.e.s.send(num, &ChannelOpen{}, false, cl)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	ch := &Channel{c: c, st: st, id: num}
	st.ref = ch
	c.unlockFlush(flushNow)
	if err := c.await(ctx, st, cl); err != nil {
		return nil, err
	}
	return ch, nil
}

// usable says why no call can be made. mu is held.
func (c *Conn) usable() error {
	if c.hooked() {
		return &unsentError{ErrInHandler}
	}
	if c.err != nil {
		return &unsentError{c.err}
	}
	if c.closing {
		return &unsentError{errClosing}
	}
	return nil
}

var errClosing = &Error{Text: "the connection was closed by Close"}

// UpdateSecret gives the broker a new password or token for the connection as
// it is. It waits for the answer within ctx.
//
// Errors: *Error; errors that wrap ctx's own, and then the outcome is unknown.
//
// Source: https://www.rabbitmq.com/docs/oauth2#token-expiration.
func (c *Conn) UpdateSecret(ctx context.Context, secret, reason string) error {
	if ctx.Err() != nil {
		return &unsentError{contextError(ctx)}
	}
	cl := newCall(&ConnectionUpdateSecretOk{})
	c.mu.Lock()
	err := c.usable()
	var st *chanState
	if err == nil {
		st, err = c.e.s.send(0, &ConnectionUpdateSecret{NewSecret: secret, Reason: reason}, false, cl)
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	c.unlockFlush(flushNow)
	return c.await(ctx, st, cl)
}

// Done is closed when the connection is over, however it came to that.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection is over: an *Error. It is nil before that, and
// where Close was called and nothing went wrong.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over || c.err == errClosing {
		return nil
	}
	return c.err
}

// ServerProperties are what the broker said of itself: product, version,
// capabilities. The table is a copy, what it holds is not to be changed.
func (c *Conn) ServerProperties() Table { return maps.Clone(c.e.peer) }

// Stats is what a connection holds and has done, at one moment.
type Stats struct {
	Channels    int    // that are open
	Consumers   int    // on them
	Unconfirmed int    // publishes whose confirm is still to come
	Unacked     int    // deliveries not settled yet, taken or not
	Outbox      int    // octets accepted and not written yet
	Waiting     int    // publishes that wait for room, or for the end of an alarm
	Blocked     bool   // the broker does not take publishes now
	FramesIn    uint64 // since the connection was opened
	FramesOut   uint64
	OctetsIn    uint64
	OctetsOut   uint64
	Returned    uint64 // messages returned as unroutable
	Dropped     uint64 // oversized deliveries that were rejected
}

// Stats reads the connection's counters. It does not wait for the broker.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	s := Stats{
		Outbox: c.e.s.pending() + c.w.inFlight + len(c.w.rest), Waiting: c.waiting.n, Blocked: c.blocked,
		FramesIn: c.reader.frames.Load(), FramesOut: c.e.s.sent,
		OctetsIn: uint64(c.readsIn.Load()), OctetsOut: c.w.written,
		Returned: c.returned, Dropped: c.dropped,
	}
	var open []*Channel
	for _, st := range c.e.s.channels {
		if st == nil || st.phase != chanOpen {
			continue
		}
		ch := st.ref.(*Channel)
		s.Channels++
		s.Consumers += len(ch.listed())
		s.Unconfirmed += ch.unconfirmed
		open = append(open, ch)
	}
	c.mu.Unlock()
	for _, ch := range open {
		s.Unacked += ch.acks.outstanding()
	}
	return s
}

// Close ends the connection: what was accepted for sending is sent first,
// then connection.close, and the broker's answer is awaited, all within
// Config.CloseTimeout; after that the stream is closed as it is. Publishes that
// wait for room fail, unsent; those that wait for a confirm that has not come
// end with ErrUnknownOutcome. Closing twice is no error.
//
// Errors: ErrInHandler inside a Trace function of this connection; an *Error
// where the end was not orderly.
func (c *Conn) Close() error {
	if c.inHook() {
		return ErrInHandler
	}
	c.flushDirty()
	c.mu.Lock()
	if !c.over && !c.closing {
		c.closing = true
		if _, err := c.e.s.send(0, &ConnectionClose{ReplyCode: ReplySuccess, ReplyText: "bye"}, false, nil); err == nil {
			c.waiting.wakeAll()
			c.letReaderGo()
			c.unlockFlush(flushNow)
			c.mu.Lock()
		}
	}
	c.takeOver()
	c.mu.Unlock()
	if c.cfg.CloseTimeout > 0 {
		t := time.NewTimer(c.cfg.CloseTimeout)
		defer t.Stop()
		select {
		case <-c.done:
		case <-t.C:
			c.fail(&Error{Text: "the broker did not answer connection.close within CloseTimeout"})
		}
	}
	<-c.done
	c.running.Wait()
	return c.Err()
}

// letReaderGo ends what holds the reader back, since an answer is to be read.
// mu is held.
func (c *Conn) letReaderGo() {
	c.wakeReader()
	for _, st := range c.e.s.channels {
		if st == nil {
			continue
		}
		if ch, ok := st.ref.(*Channel); ok {
			ch.confirms.room.wakeAll()
			for _, cons := range ch.listed() {
				cons.letGo()
			}
		}
	}
}

// fail ends the connection for everybody. The first cause stays; nil is that
// of an orderly Close.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	c.over = true
	c.err = errClosing
	if cause != nil {
		c.err = asError(cause)
	}
	err := c.err
	c.e.s.phase = connClosed
	var ended []*Consumer
	for _, st := range c.e.s.channels {
		if st != nil && st.phase != chanClosed {
			st.phase = chanClosed
			ended = append(ended, st.ref.(*Channel).end(err)...)
		}
	}
	failCalls(&c.e.s.zero, err)
	if c.inline.timer != nil {
		c.inline.timer.Stop()
	}
	c.waiting.wakeAll()
	c.w.wake()
	c.takeOver() // a handler on the reading goroutine does not hold up Close
	c.mu.Unlock()
	c.wakeReader()
	c.nc.Close()
	for _, cons := range ended {
		cons.end(err, true)
	}
	close(c.done)
	if cause != nil {
		c.log("connection lost", err)
	}
	if cause == nil {
		err = nil
	}
	c.runHooks()
	c.hook(func() { c.trace.connClosed(context.Background(), c.info, err) })
}

func (c *Conn) log(msg string, err error) {
	if c.cfg.Logger != nil {
		c.cfg.Logger.Warn("amqp: "+msg, "connection", c.info.Name, "remote", c.info.Remote, "error", err)
	}
}
