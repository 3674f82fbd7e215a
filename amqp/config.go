package amqp

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The defaults of Config.
const (
	DefaultHeartbeat    = 10 * time.Second
	DefaultDialTimeout  = 30 * time.Second
	DefaultCloseTimeout = 10 * time.Second
	DefaultTCPKeepAlive = 15 * time.Second
	DefaultFrameMax     = 128 << 10 // bytes; what RabbitMQ offers
	DefaultMaxBody      = 16 << 20  // bytes; RabbitMQ 4's max_message_size
	DefaultUnconfirmed  = 4096      // messages
	DefaultMaxOutbox    = 128 << 10 // bytes; more than a second batch only falls out of the cache

	longestReadPause = 10 * time.Millisecond

	// minFrameMax is the spec's smallest frame; RabbitMQ 4.3 asks for 8192.
	minFrameMax = 4096
)

// Config says how to connect and within what bounds to work. Nil and the zero
// value mean sensible defaults, and a field that is set wins over what the URI
// says. Dial and NewConn copy a Config (not what its pointers lead to), so it
// may be used for several connections at once, and changed afterwards.
//
// For durations zero means the default and, where said so, a negative one
// means none.
type Config struct {
	// Hosts are nodes of one cluster, "host", "host:port" or "[ipv6]:port", in
	// place of the URI's. Names are looked up at every dial.
	Hosts []string

	// VHost is the virtual host, in place of the URI's. "" means that the URI
	// says it, and "/" where it says nothing either. The vhost whose name is ""
	// can be named by a URI alone: amqp://host/ .
	VHost string

	// Name is what the broker's management pages and logs call the connection
	// (client property connection_name). Empty: the program's name and process id.
	Name string

	// SASL are the mechanisms to use, in order of preference; the first that the
	// broker offers is taken. Nil: the URI's auth_mechanism, or else PLAIN and
	// AMQPLAIN.
	SASL []SASL

	// Credentials is asked for user name and password at every dial, so that a
	// token can be fresh each time. It may wait, within its context, which
	// DialTimeout bounds. Nil: the URI's, or else guest and guest, which
	// RabbitMQ accepts from localhost only. See StaticCredentials.
	Credentials func(context.Context) (Credentials, error)

	// TLS is used where the URI's scheme is amqps; with another scheme it is an
	// error to set it. ServerName defaults to the URI's
	// server_name_indication, or else to the host that is dialled. Versions
	// below TLS 1.2 are refused. Nil: the defaults of crypto/tls.
	TLS *tls.Config

	// TLSFiles are read again at every dial, so that renewed certificates are
	// used without a restart. What is set here stands in for the same thing in
	// TLS. Zero: the URI's cacertfile, certfile and keyfile.
	TLSFiles TLSFiles

	// Dial opens the stream that AMQP, or TLS and then AMQP, is spoken over;
	// network is "tcp" or "unix". It must return when its context ends. Nil: a
	// net.Dialer; TCPKeepAlive and TCPUserTimeout apply to that one only.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// DialTimeout bounds one attempt to connect to one host: name look-up, TCP,
	// TLS, authentication and tuning together. Zero: the URI's
	// connection_timeout, or else DefaultDialTimeout. Negative: none but the
	// context's.
	DialTimeout time.Duration

	// CloseTimeout bounds Close: to send what was accepted and to hear
	// close-ok. Zero: DefaultCloseTimeout. Negative: none.
	CloseTimeout time.Duration

	// Heartbeat is the interval to propose, rounded up to whole seconds; the
	// shorter of this and the broker's is used, and a connection that is silent
	// for twice as long is dead. Zero: the URI's heartbeat, or else
	// DefaultHeartbeat. Negative: none, whatever the broker proposes.
	Heartbeat time.Duration

	// TCPKeepAlive is the idle time before, and the interval of, TCP's own
	// probes. Zero: DefaultTCPKeepAlive. Negative: none.
	TCPKeepAlive time.Duration

	// TCPUserTimeout is how long sent bytes may stay unacknowledged before the
	// kernel ends the connection (TCP_USER_TIMEOUT, Linux only). Zero or
	// negative: the kernel's. Mind that a broker under a memory or disk alarm
	// stops reading, and Linux counts that too: a time-out shorter than an alarm
	// ends the connection.
	TCPUserTimeout time.Duration

	// ChannelMax is the most channels to have open. Zero: the URI's channel_max,
	// or else 2047, which is also RabbitMQ's own; the broker may allow less.
	ChannelMax uint16

	// FrameMax is the largest frame to accept and send, in bytes, from 4096
	// (RabbitMQ 4.3 from 8192). The smaller of this and the broker's is used.
	// Zero: the URI's frame_max, or else DefaultFrameMax.
	FrameMax uint32

	// MaxBody is the largest message body to accept and send, in bytes. A larger
	// one that comes in is rejected as a message, and one that is to go out is an
	// error. Zero: DefaultMaxBody. Negative: no bound.
	MaxBody int64

	// Unconfirmed is how many publishes of one channel may wait for their
	// confirms; the next one waits for room, within its context. Zero:
	// DefaultUnconfirmed.
	Unconfirmed int

	// MaxOutbox is how many bytes may wait to be written before publishes wait
	// for room, within their contexts. Everything else passes them. A message
	// that is larger goes when the outbox is empty. Zero: DefaultMaxOutbox.
	MaxOutbox int

	// ReadPause is how long reading rests after a read that brought little,
	// where one follows another within a millisecond: a stream of small messages
	// then costs a fraction of the wake-ups, and each comes as much later at most,
	// or a little more. 100 µs halves what a consumer costs on RabbitMQ; in a
	// program with GOMAXPROCS=1 other goroutines may have to wait as long. It is
	// for connections that consume: answers wait too. At most 10 ms. Zero: no rest.
	ReadPause time.Duration

	// FailWhenBlocked makes a publish fail with ErrBlocked while the broker
	// blocks the connection (an alarm); otherwise it waits, within its context.
	FailWhenBlocked bool

	// Properties are added to the client properties, which the broker shows on
	// its management pages, and win over those of this library, apart from
	// "capabilities".
	Properties Table

	// Logger is told what nobody may be listening for, such as a lost
	// connection or an exception of the channel without a waiting call. It is
	// never given credentials or bodies. Nil: silence.
	Logger *slog.Logger

	// Trace is called at the turning points of a connection's life.
	Trace *Trace

	// onBlocked tells a Client what the broker says of alarms, outside all locks.
	onBlocked func(on bool, reason string)

	budget *budget // a Client's; nil: nothing is counted
}

// TLSFiles are the paths of PEM files.
type TLSFiles struct {
	CA   string // the authorities to trust; empty: the system's
	Cert string // the client's certificate with its chain; empty: none
	Key  string // the key of Cert; empty: in the file Cert
}

// ConfigError says that a Config makes no sense, alone or with its URI.
type ConfigError struct {
	Field  string
	Reason string
}

// Error describes what is wrong in one line.
func (e *ConfigError) Error() string { return "amqp: Config." + e.Field + ": " + e.Reason }

// validate finds what is wrong in c by itself.
func (c *Config) validate() error {
	bad := func(field, reason string) error { return &ConfigError{Field: field, Reason: reason} }
	switch {
	case c.FrameMax != 0 && c.FrameMax < minFrameMax:
		return bad("FrameMax", "below 4096, the least that AMQP allows (RabbitMQ 4.3 asks for 8192)")
	case c.Heartbeat > 65535*time.Second:
		return bad("Heartbeat", "over 65535 seconds")
	case len(c.VHost) > 255:
		return bad("VHost", "over 255 bytes")
	case c.Unconfirmed < 0:
		return bad("Unconfirmed", "negative")
	case c.MaxOutbox < 0:
		return bad("MaxOutbox", "negative")
	case c.ReadPause < 0 || c.ReadPause > longestReadPause:
		return bad("ReadPause", "not between 0 and 10 ms")
	case c.TLSFiles.Key != "" && c.TLSFiles.Cert == "":
		return bad("TLSFiles", "Key without Cert")
	}
	if t := c.TLS; t != nil {
		if t.MinVersion != 0 && t.MinVersion < tls.VersionTLS12 {
			return bad("TLS", "MinVersion is below TLS 1.2")
		}
		if t.MaxVersion != 0 && t.MaxVersion < tls.VersionTLS12 {
			return bad("TLS", "MaxVersion is below TLS 1.2")
		}
	}
	for _, m := range c.SASL {
		if m == nil {
			return bad("SASL", "a nil mechanism")
		}
	}
	return nil
}

// overURI fills in, from the URI, what c leaves unset.
func (c *Config) overURI(u *URI) {
	q := &u.Query
	if len(c.Hosts) == 0 {
		c.Hosts = u.Hosts
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = q.Heartbeat
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = q.ConnectionTimeout
	}
	if c.ChannelMax == 0 {
		c.ChannelMax = q.ChannelMax
	}
	if c.FrameMax == 0 {
		c.FrameMax = q.FrameMax
	}
	if c.SASL == nil {
		for _, name := range q.AuthMechanisms {
			m, _ := mechanismByName(name)
			c.SASL = append(c.SASL, m)
		}
	}
	if c.Credentials == nil && u.UserSet {
		c.Credentials = StaticCredentials(u.Username, u.Password)
	}
	t := c.TLS
	if c.TLSFiles.CA == "" && (t == nil || t.RootCAs == nil) {
		c.TLSFiles.CA = q.CACertFile
	}
	if c.TLSFiles.Cert == "" && (t == nil || (t.Certificates == nil && t.GetClientCertificate == nil)) {
		c.TLSFiles.Cert, c.TLSFiles.Key = q.CertFile, q.KeyFile
	}
}

// setDefaults fills in what neither c nor a URI said. VHost stays as it is:
// "" may be what is meant by then.
func (c *Config) setDefaults() {
	def(&c.Heartbeat, DefaultHeartbeat)
	def(&c.DialTimeout, DefaultDialTimeout)
	def(&c.CloseTimeout, DefaultCloseTimeout)
	def(&c.TCPKeepAlive, DefaultTCPKeepAlive)
	def(&c.FrameMax, DefaultFrameMax)
	def(&c.MaxBody, DefaultMaxBody)
	def(&c.Unconfirmed, DefaultUnconfirmed)
	def(&c.MaxOutbox, DefaultMaxOutbox)
	if c.Name == "" {
		c.Name = filepath.Base(os.Args[0]) + "-" + strconv.Itoa(os.Getpid())
	}
	if len(c.SASL) == 0 {
		c.SASL = []SASL{SASLPlain(), SASLAMQPlain()}
	}
	if c.Credentials == nil {
		c.Credentials = StaticCredentials("guest", "guest")
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
