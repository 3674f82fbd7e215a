package amqp

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"
)

// The schemes of a URI.
const (
	SchemeAMQP  = "amqp"      // plain TCP, port 5672
	SchemeAMQPS = "amqps"     // TLS, port 5671
	SchemeUnix  = "amqp+unix" // a unix socket
)

// URI is an address of a broker, by RabbitMQ's URI specification:
//
//	amqp://user:password@host:5672/vhost?heartbeat=10
//	amqps://host1,host2:5671,[2001:db8::1]/vhost?cacertfile=/etc/ca.pem
//	amqp+unix://user:password@/run/rabbitmq.sock?vhost=vhost
//
// User name, password, host and vhost are percent-decoded; a "/" in a vhost is
// written %2F, and an "@" anywhere but before the hosts %40. Several hosts,
// separated by commas, are nodes of the same cluster.
//
// The vhost is "/" where the URI names none: amqp://host. But amqp://host/
// names the vhost "" (which RabbitMQ lacks unless somebody made it), and
// amqp://host/%2F names "/".
//
// Printing a URI, by whatever verb or through slog, never shows its password:
// only Encode does. A URI has no state and is safe to copy.
//
// Source: https://www.rabbitmq.com/docs/uri-spec,
// https://www.rabbitmq.com/docs/uri-query-parameters.
type URI struct {
	Scheme string   // SchemeAMQP, SchemeAMQPS or SchemeUnix
	Hosts  []string // "host:port", IPv6 in brackets; never empty unless Scheme is SchemeUnix
	Path   string   // of the socket, absolute; only where Scheme is SchemeUnix

	Username string
	Password string `json:"-"`
	UserSet  bool   // the URI named a user, be it ""; false: guest, or Config.Credentials

	VHost    string // "/" where the URI names none
	VHostSet bool   // the URI named a vhost, be it ""

	Query URIQuery
}

// URIQuery is what a URI says behind its "?". A parameter that is not listed
// here is an error, and none of them weakens TLS.
type URIQuery struct {
	Heartbeat         time.Duration // heartbeat=, whole seconds; 0: not said; negative: heartbeat=0, none
	ConnectionTimeout time.Duration // connection_timeout=, whole milliseconds; 0: not said
	ChannelMax        uint16        // channel_max=; 0: not said
	FrameMax          uint32        // frame_max=, bytes; 0: not said
	AuthMechanisms    []string      // auth_mechanism=, any number of them, in order of preference: "plain", "amqplain", "external"
	CACertFile        string        // cacertfile=, PEM; the system's authorities where empty
	CertFile          string        // certfile=, PEM
	KeyFile           string        // keyfile=, PEM; read from CertFile where empty
	ServerName        string        // server_name_indication=; the host's name where empty
}

// ParseURI reads a URI.
//
// Errors: *URIError, which says what is wrong and where, and repeats nothing
// of the URI but the name of a query parameter.
func ParseURI(s string) (*URI, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return nil, uriErr("scheme", `missing: a URI begins with "amqp://", "amqps://" or "amqp+unix://"`)
	}
	u := &URI{Scheme: strings.ToLower(scheme), VHost: "/"}
	if !slices.Contains([]string{SchemeAMQP, SchemeAMQPS, SchemeUnix}, u.Scheme) {
		return nil, uriErr("scheme", `not "amqp", "amqps" or "amqp+unix"`)
	}
	for i := range len(rest) {
		if c := rest[i]; c <= ' ' || c == 0x7f {
			return nil, uriErr("URI", "a space or a control character that is not percent-encoded")
		}
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	// One rule keeps any password with unescaped delimiters from being taken
	// for a host, a vhost or a parameter, and so from being dialled and logged.
	if strings.Contains(tail, "@") || strings.Count(authority, "@") > 1 {
		return nil, uriErr("URI", `an "@" that is not percent-encoded: in a user name, password, vhost or path it is `+
			`written %40 (and "/" %2F, ":" %3A, "?" %3F, "#" %23, "%" %25)`)
	}
	if strings.Contains(tail, "#") {
		return nil, uriErr("fragment", `a URI of AMQP has none; elsewhere "#" is written %23`)
	}
	path, query, _ := strings.Cut(tail, "?")
	if err := u.parseAuthority(authority); err != nil {
		return nil, err
	}
	if err := u.parsePath(path); err != nil {
		return nil, err
	}
	if err := u.parseQuery(query); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *URI) parseAuthority(s string) (err error) {
	userinfo, hosts, ok := strings.Cut(s, "@")
	if !ok {
		userinfo, hosts = "", s
	}
	if ok {
		user, password, _ := strings.Cut(userinfo, ":")
		u.UserSet = true
		if u.Username, err = unescape("user name", user); err != nil {
			return err
		}
		if u.Password, err = unescape("password", password); err != nil {
			return err
		}
	}
	if u.Scheme == SchemeUnix {
		if hosts != "" {
			return uriErr("host", "amqp+unix takes none: amqp+unix:///path/to/socket")
		}
		return nil
	}
	for h := range strings.SplitSeq(hosts, ",") {
		if h == "" && hosts != "" {
			return uriErr("host", "an empty one in a list of hosts")
		}
		addr, err := parseHost(h, u.defaultPort())
		if err != nil {
			return err
		}
		u.Hosts = append(u.Hosts, addr)
	}
	return nil
}

func (u *URI) defaultPort() string {
	if u.Scheme == SchemeAMQPS {
		return "5671"
	}
	return "5672"
}

func (u *URI) parsePath(path string) (err error) {
	if u.Scheme == SchemeUnix {
		if len(path) < 2 {
			return uriErr("path", "missing: amqp+unix:///path/to/socket")
		}
		if u.Path, err = unescape("path", path); err != nil {
			return err
		}
		if strings.Contains(u.Path, "\x00") {
			return uriErr("path", "a zero byte")
		}
		return nil
	}
	if path == "" {
		return nil
	}
	vhost := path[1:]
	if strings.Contains(vhost, "/") {
		return uriErr("vhost", `a "/" that is not percent-encoded: it is written %2F`)
	}
	u.VHostSet = true
	if u.VHost, err = unescape("vhost", vhost); err != nil {
		return err
	}
	return checkVHost(u.VHost)
}

func checkVHost(s string) error {
	if len(s) > 255 {
		return uriErr("vhost", fmt.Sprintf("%d bytes long; AMQP has room for 255", len(s)))
	}
	return nil
}

// Encode gives the URI as text with its password in clear, so that
// ParseURI(u.Encode()) equals *u for any u that ParseURI returned. It is meant
// for configuration, never for logs: those take String.
func (u *URI) Encode() string { return u.encode(escape(u.Password)) }

// Redacted gives the URI as text with "redacted" in place of its password.
// The rest stays: hosts, user name, vhost, query.
func (u *URI) Redacted() string { return u.encode("redacted") }

// String is Redacted: a URI that is printed does not show its password.
func (u URI) String() string { return u.Redacted() }

// GoString is Redacted.
func (u URI) GoString() string { return "amqp.URI(" + u.Redacted() + ")" }

// Format prints the redacted form whatever the verb.
func (u URI) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		io.WriteString(f, u.GoString())
		return
	}
	io.WriteString(f, u.Redacted())
}

// LogValue is the redacted form.
func (u URI) LogValue() slog.Value { return slog.StringValue(u.Redacted()) }

func (u *URI) encode(password string) string {
	var b strings.Builder
	b.WriteString(u.Scheme)
	b.WriteString("://")
	if u.UserSet || u.Username != "" || u.Password != "" {
		b.WriteString(escape(u.Username))
		if u.Password != "" {
			b.WriteByte(':')
			b.WriteString(password)
		}
		b.WriteByte('@')
	}
	for i, h := range u.Hosts {
		if i > 0 {
			b.WriteByte(',')
		}
		// A zone's "%" is the one character of a host that needs escaping.
		b.WriteString(strings.ReplaceAll(h, "%", "%25"))
	}
	if u.Scheme == SchemeUnix {
		b.WriteString(strings.ReplaceAll(escape(u.Path), "%2F", "/"))
	} else if u.namesVHost() {
		b.WriteByte('/')
		b.WriteString(escape(u.VHost))
	}
	sep := byte('?')
	for _, p := range u.params() {
		b.WriteByte(sep)
		b.WriteString(p[0])
		b.WriteByte('=')
		b.WriteString(strings.ReplaceAll(escape(p[1]), "%2F", "/"))
		sep = '&'
	}
	return b.String()
}

// namesVHost reports whether the text has to name the vhost. A URI made by
// hand may leave VHostSet out, and then "" is as good as not saying it.
func (u *URI) namesVHost() bool {
	return u.VHostSet || (u.VHost != "" && u.VHost != "/")
}

// parseHost turns one host of a URI or of Config.Hosts into "host:port". An
// empty host is localhost. In a URI the host is percent-encoded.
func parseHost(s, defaultPort string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return parseIPv6(s, defaultPort)
	}
	host, port, hasPort := strings.Cut(s, ":")
	if strings.Contains(port, ":") {
		return "", uriErr("host", "more than one colon: an IPv6 address stands in brackets, [::1]:5672")
	}
	host, err := unescape("host", host)
	if err != nil {
		return "", err
	}
	for i := range len(host) {
		c := host[i] | 0x20
		if !(c >= 'a' && c <= 'z' || host[i] >= '0' && host[i] <= '9' || strings.IndexByte("-._~", host[i]) >= 0) {
			return "", uriErr("host", "a character that no host name has (international names are written in their xn-- form)")
		}
	}
	if host == "" {
		host = "localhost"
	}
	port, err = parsePort(port, hasPort, defaultPort)
	return net.JoinHostPort(host, port), err
}
