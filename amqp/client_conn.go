package amqp

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// link is one connection that is kept up, by the goroutine of run.
type link struct {
	c    *Client
	plan dialPlan
	next int // the target to dial next; dial's alone

	// Client.mu guards what follows.
	started  bool
	conn     *Conn // open and set up, or was until a moment ago
	blocked  bool
	reason   string
	cause    error        // why there is no connection
	topology error        // what of the Topology is not there
	creds    *Credentials // by reference, or printing the client would show them
	dials    uint64       // attempts
	opened   uint64       // those that came to a connection that was set up
}

func newLink(c *Client, plan *dialPlan, purpose string) *link {
	l := &link{c: c, plan: *plan}
	cfg := &l.plan.config
	if purpose != "" {
		cfg.Name += " (" + purpose + ")"
	}
	cfg.onBlocked = l.onBlocked
	cfg.Credentials = func(ctx context.Context) (Credentials, error) {
		creds, err := c.secrets.get(ctx)
		if err == nil {
			c.mu.Lock()
			l.creds = &creds
			c.mu.Unlock()
		}
		return creds, err
	}
	return l
}

// begin starts looking after the connection. Client.mu is held.
func (l *link) begin() {
	if l.started || l.c.err != nil {
		return
	}
	l.started = true
	l.c.spawnLocked(l.run)
	l.c.broadcast()
}

// usable is the connection, nil where it is not there. Client.mu is held.
func (l *link) usable() *Conn {
	if l.conn == nil {
		return nil
	}
	select {
	case <-l.conn.done:
		return nil
	default:
		return l.conn
	}
}

// current is the connection at this moment, if there is one.
func (l *link) current() *Conn {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	return l.conn
}

// get waits for the connection, within ctx.
func (l *link) get(ctx context.Context) (*Conn, error) {
	c := l.c
	c.mu.Lock()
	for {
		if err := c.over(); err != nil {
			c.mu.Unlock()
			return nil, err
		}
		l.begin()
		if conn := l.usable(); conn != nil {
			c.mu.Unlock()
			return conn, nil
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			c.mu.Lock()
			cause := l.cause
			c.mu.Unlock()
			return nil, &unsentError{waitError(ctx, cause)}
		}
		c.mu.Lock()
	}
}

// channel opens a channel, on the next connection where one is lost meanwhile.
func (l *link) channel(ctx context.Context) (*Channel, error) {
	for {
		conn, err := l.get(ctx)
		if err != nil {
			return nil, err
		}
		ch, err := conn.Channel(ctx)
		if err == nil || !conn.ending(ctx, err) {
			return ch, err
		}
	}
}

// endTime is how long a connection that failed somebody may take to be over.
const endTime = time.Second

// ending reports whether err is due to the connection's end, and waits until
// that is known to all.
func (c *Conn) ending(ctx context.Context, err error) bool {
	if !errors.Is(err, ErrClosed) || ctx.Err() != nil {
		return false
	}
	if errors.Is(err, NotAllowed) && !lost(c) { // all channels are taken
		return false
	}
	return !pauseOn(ctx, c, endTime) && ctx.Err() == nil
}

// lost reports whether a connection is over.
func lost(conn *Conn) bool {
	select {
	case <-conn.done:
		return true
	default:
		return false
	}
}

// stable is how long a connection must have lived for its end to count as the
// first failure in a row.
const stable = 2 * time.Second

// run keeps the connection up until the client is over.
func (l *link) run(ctx context.Context) {
	failed, refused := 0, 0 // since a connection was well
	for {
		conn, err := l.connect(ctx)
		if err == nil {
			refused = 0
			began := time.Now()
			err = l.watch(ctx, conn)
			if time.Since(began) >= stable {
				failed = 0
			}
		}
		if ctx.Err() != nil {
			return
		}
		if f := l.c.cfg.Fatal; f != nil && f(err) {
			l.c.end(&fatalError{err})
			return
		}
		turnedAway := 0
		if errors.Is(err, AccessRefused) {
			refused++
			turnedAway = refused
		}
		delay := l.pause(failed, turnedAway)
		l.down(err)
		l.c.tellReconnect(ReconnectInfo{Attempt: failed, Delay: delay, Err: err})
		failed++
		if !sleep(ctx, delay) {
			return
		}
	}
}

// sleep waits; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause is how long to wait after the failed-th failure in a row, and where that
// was the refused-th refusal of credentials. It grows with the rounds of all hosts. Within a round it is as short as after a loss, since
// one host that is away says nothing of the next: a client is to be back as soon
// as any of them is.
func (l *link) pause(failed, refused int) time.Duration {
	n := len(l.plan.targets)
	round := failed / n
	if failed%n > 0 {
		round = 0
	}
	if f := l.c.cfg.Backoff; f != nil {
		return f(round)
	}
	return defaultBackoff(round, refused/n)
}

// defaultBackoff is short enough for a service to be back within a second of
// its broker, and long enough for a thousand of them not to be a burden. A
// broker that is asked with a wrong password again and again logs it every time,
// so that rounds of being refused make longer ones; but not the first, which a
// broker gives to all whose users it does not know yet.
func defaultBackoff(attempt, refused int) time.Duration {
	const first, longest, refusedLongest = 50 * time.Millisecond, 750 * time.Millisecond, 10 * time.Second
	if attempt <= 0 {
		return rand.N(first)
	}
	d := min(first<<min(attempt, 20), longest)
	if refused > 0 {
		d = max(d, min(first<<min(refused, 20), refusedLongest))
	}
	return d/2 + rand.N(d/2)
}

// connect gets a connection that is set up, in one round of dial.
func (l *link) connect(ctx context.Context) (*Conn, error) {
	c := l.c
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	missing, err := l.setUp(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		conn.Close()
		return nil, c.err
	}
	l.conn, l.cause, l.topology = conn, nil, joinTopology(missing)
	l.opened++
	c.broadcast()
	c.mu.Unlock()
	if len(missing) > 0 {
		c.spawn(func(ctx context.Context) { l.declareLater(ctx, conn, missing) })
	}
	return conn, nil
}

// watch waits for the connection's end, and renews its credentials meanwhile.
func (l *link) watch(ctx context.Context, conn *Conn) error {
	timer := time.NewTimer(l.c.secrets.due(l.credentials()))
	defer timer.Stop()
	for {
		select {
		case <-conn.done:
			if err := conn.Err(); err != nil {
				return err
			}
			return errClosing // somebody closed it by way of Channel.Conn
		case <-timer.C:
			timer.Reset(l.renew(ctx, conn))
		case <-ctx.Done():
			l.close(conn)
			return ctx.Err()
		}
	}
}

func (l *link) credentials() *Credentials {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	return l.creds
}

// blockedClose is how long a broker that blocks a connection is given to answer
// its close: it reads nothing, so an answer is only to be had if the alarm ends.
const blockedClose = time.Second

// close is Conn.Close for one that may be blocked.
func (l *link) close(conn *Conn) error {
	l.c.mu.Lock()
	blocked := l.blocked
	l.c.mu.Unlock()
	if blocked {
		t := time.AfterFunc(blockedClose, func() {
			conn.fail(&Error{Text: "closed while blocked: the broker reads nothing, and did not answer connection.close"})
		})
		defer t.Stop()
	}
	return conn.Close()
}

// down makes it known that there is no connection.
func (l *link) down(err error) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	l.conn, l.blocked, l.reason, l.cause = nil, false, "", err
	c.broadcast()
}

func (l *link) onBlocked(on bool, reason string) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	l.blocked, l.reason = on, reason
	c.broadcast()
}

func (c *Client) tellReconnect(r ReconnectInfo) {
	if c.cfg.Logger != nil {
		c.cfg.Logger.Warn("amqp: reconnecting", "attempt", r.Attempt, "delay", r.Delay, "error", r.Err)
	}
	if c.trace != nil {
		c.hooking.run(func() { c.trace.reconnect(context.Background(), r) })
	}
}

// fatalError is why a client is over that gave up.
type fatalError struct{ cause error }

func (e *fatalError) Error() string   { return "amqp: the client gave up: " + e.cause.Error() }
func (e *fatalError) Unwrap() []error { return []error{ErrClosed, e.cause} }

// Terminal is a ClientConfig.Fatal for programs that had rather end than wait
// for somebody to mend what is wrong: it reports true for credentials that
// are refused, a vhost that isn't there or isn't allowed, certificates that are
// not accepted, and mechanisms that don't meet. It reports false where the
// network or the broker is away, which passes.
func Terminal(err error) bool {
	var dial *DialError
	var sasl *SASLError
	switch {
	case errors.Is(err, AccessRefused), errors.Is(err, NotAllowed), errors.Is(err, InvalidPath), errors.As(err, &sasl):
		return true
	case errors.As(err, &dial):
		return dial.Op == "certificates" || dial.Op == "tls" && isCertificateError(err)
	}
	return false
}
