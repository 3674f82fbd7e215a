package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// DialError says why a host could not be reached, before AMQP was spoken.
type DialError struct {
	Addr string // "host:port" or the path of a unix socket; "" from NewConn
	Op   string // "credentials", "connect", "certificates" or "tls"
	Err  error
}

// Error describes the failure in one line.
func (e *DialError) Error() string {
	if e.Addr == "" {
		return "amqp: " + e.Op + ": " + e.Err.Error()
	}
	return "amqp: dial " + e.Addr + ": " + e.Op + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Timeout reports whether time ran out: Config.DialTimeout, the context's
// deadline, or the network's own.
func (e *DialError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// dialTarget is one address to try.
type dialTarget struct {
	network    string // "tcp" or "unix"
	addr       string // "host:port" or a path
	host       string // of addr; "" for a unix socket
	serverName string // to be verified; "" without TLS
	tls        bool
}

// dialPlan is a URI and a Config made into one.
type dialPlan struct {
	targets []dialTarget // in the order given; never empty
	config  Config       // the URI's settings and the defaults filled in
	vhost   string       // to be opened; unlike config.VHost, "" means ""
}

// resolveDial reads uri and merges cfg, which may be nil, over it.
//
// Errors: *URIError, *ConfigError.
func resolveDial(uri string, cfg *Config) (*dialPlan, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	c, err := mergeConfig(u, cfg)
	if err != nil {
		return nil, err
	}
	p := &dialPlan{config: c, vhost: u.VHost}
	if c.VHost != "" {
		p.vhost = c.VHost
	}
	if u.Scheme == SchemeUnix {
		p.targets = []dialTarget{{network: "unix", addr: u.Path}}
		return p, nil
	}
	for _, h := range c.Hosts {
		addr, err := parseConfigHost(h, u.defaultPort())
		if err != nil {
			return nil, &ConfigError{Field: "Hosts", Reason: err.Error()}
		}
		t := dialTarget{network: "tcp", addr: addr, tls: u.Scheme == SchemeAMQPS}
		t.host, _, _ = net.SplitHostPort(addr)
		if t.tls {
			t.serverName = serverName(u, &c, t.host)
		}
		p.targets = append(p.targets, t)
	}
	return p, nil
}

// resolveConfig does for NewConn, which has no URI, what resolveDial does for
// Dial.
//
// Errors: *ConfigError.
func resolveConfig(cfg *Config) (c Config, vhost string, err error) {
	c, err = mergeConfig(&URI{VHost: "/"}, cfg)
	vhost = "/"
	if c.VHost != "" {
		vhost = c.VHost
	}
	return c, vhost, err
}

// mergeConfig makes a complete Config of cfg, which may be nil, and the URI,
// whose scheme is "" where there is none.
func mergeConfig(u *URI, cfg *Config) (Config, error) {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	if err := c.validate(); err != nil {
		return c, err
	}
	if u.Scheme == SchemeUnix && len(c.Hosts) > 0 {
		return c, &ConfigError{Field: "Hosts", Reason: "set, but the URI names a unix socket"}
	}
	// Going on in clear where somebody took the trouble to set up TLS would be
	// the worst of all answers.
	if u.Scheme != SchemeAMQPS {
		why := "set, but the URI's scheme is " + u.Scheme + ": TLS is spoken with amqps alone"
		if u.Scheme == "" {
			why = "set, but NewConn speaks over the stream as it is: wrap it in tls.Client"
		}
		if c.TLS != nil {
			return c, &ConfigError{Field: "TLS", Reason: why}
		}
		if c.TLSFiles != (TLSFiles{}) {
			return c, &ConfigError{Field: "TLSFiles", Reason: why}
		}
	}
	c.overURI(u)
	c.setDefaults()
	return c, nil
}

// parseConfigHost is parseHost for Config.Hosts, where an IPv6 address may also
// stand alone and without brackets.
func parseConfigHost(s, defaultPort string) (string, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Is6() {
		return net.JoinHostPort(s, defaultPort), nil
	}
	return parseHost(s, defaultPort)
}

func serverName(u *URI, c *Config, host string) string {
	switch {
	case c.TLS != nil && c.TLS.ServerName != "":
		return c.TLS.ServerName
	case u.Query.ServerName != "":
		return u.Query.ServerName
	}
	host, _, _ = strings.Cut(host, "%") // a zone is no part of a certificate's name
	return host
}

var errDialTimeout = errors.New("Config.DialTimeout is over")

// attempt makes the context that bounds one attempt to connect to one host,
// the AMQP handshake included.
func (c *Config) attempt(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.DialTimeout < 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, c.DialTimeout, &timeoutError{errDialTimeout})
}

// timeoutError is the cause of a context that Config.DialTimeout ended.
type timeoutError struct{ error }

func (*timeoutError) Timeout() bool   { return true }
func (*timeoutError) Temporary() bool { return true }
func (e *timeoutError) Unwrap() error { return context.DeadlineExceeded }

// resolveCredentials asks for the credentials of one handshake.
func (c *Config) resolveCredentials(ctx context.Context, t dialTarget) (*Credentials, error) {
	creds, err := c.Credentials(ctx)
	if err != nil {
		return nil, &DialError{Addr: t.addr, Op: "credentials", Err: because(ctx, err)}
	}
	return &creds, nil
}

// dialTransport opens the stream to t and says whether it is encrypted. The
// context bounds it all; callers make it with Config.attempt.
//
// Errors: *DialError.
func dialTransport(ctx context.Context, c *Config, t dialTarget) (nc net.Conn, secure bool, err error) {
	dial := c.Dial
	if dial == nil {
		dial = c.netDialer().DialContext
	}
	nc, err = dial(ctx, t.network, t.addr)
	if err == nil && nc == nil {
		err = errors.New("Config.Dial returned neither a connection nor an error")
	}
	if err != nil {
		return nil, false, &DialError{Addr: t.addr, Op: "connect", Err: because(ctx, err)}
	}
	if !t.tls {
		return nc, isTLS(nc), nil
	}
	conf, err := c.clientTLS(t.serverName)
	if err != nil {
		nc.Close()
		return nil, false, &DialError{Addr: t.addr, Op: "certificates", Err: err}
	}
	tc := tls.Client(nc, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, false, &DialError{Addr: t.addr, Op: "tls", Err: explainTLS(because(ctx, err))}
	}
	return tc, true, nil
}

// isTLS reports whether nc encrypts, for streams that were opened elsewhere.
func isTLS(nc net.Conn) bool {
	_, ok := nc.(interface{ ConnectionState() tls.ConnectionState })
	return ok
}

// because adds to err what ended ctx, if it ended and err does not say so.
func because(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}

func (c *Config) netDialer() *net.Dialer {
	d := &net.Dialer{KeepAlive: -1}
	if c.TCPKeepAlive > 0 {
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: c.TCPKeepAlive, Interval: c.TCPKeepAlive}
	}
	if c.TCPUserTimeout > 0 {
		d.Control = controlUserTimeout(max(c.TCPUserTimeout, time.Millisecond))
	}
	return d
}
