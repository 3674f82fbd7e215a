package amqp

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// URIError says what is wrong with a URI. It never repeats the URI, nor any
// part of it but the name of a query parameter, since a password that was not
// percent-encoded may stand anywhere in it.
type URIError struct {
	Part   string // "scheme", "user name", "password", "host", "port", "vhost", "path", "URI", or a query parameter's name
	Reason string
}

// Error describes what is wrong in one line.
func (e *URIError) Error() string { return "amqp: URI: " + e.Part + ": " + e.Reason }

func uriErr(part, reason string) *URIError { return &URIError{Part: part, Reason: reason} }

// uriParam reads the value of one query parameter into u.
type uriParam struct {
	tls  bool // makes sense with amqps alone
	many bool // may be given more than once
	set  func(u *URI, v string) string
}

// uriParams has every parameter that RabbitMQ's Erlang client knows, also
// those that are refused here, so that their errors can say why.
func uriParams(name string) (uriParam, bool) {
	q := func(set func(q *URIQuery, v string) string) func(*URI, string) string {
		return func(u *URI, v string) string { return set(&u.Query, v) }
	}
	file := func(field func(*URIQuery) *string) uriParam {
		return uriParam{tls: true, set: q(func(q *URIQuery, v string) string {
			if v == "" || strings.Contains(v, "\x00") {
				return "not the path of a file"
			}
			*field(q) = v
			return ""
		})}
	}
	refuse := func(why string) uriParam {
		return uriParam{set: func(*URI, string) string { return why }}
	}
	switch name {
	case "heartbeat":
		return uriParam{set: q(setHeartbeat)}, true
	case "connection_timeout":
		return uriParam{set: q(setConnectionTimeout)}, true
	case "channel_max":
		return uriParam{set: q(setChannelMax)}, true
	case "frame_max":
		return uriParam{set: q(setFrameMax)}, true
	case "auth_mechanism":
		return uriParam{many: true, set: q(addMechanism)}, true
	case "cacertfile":
		return file(func(q *URIQuery) *string { return &q.CACertFile }), true
	case "certfile":
		return file(func(q *URIQuery) *string { return &q.CertFile }), true
	case "keyfile":
		return file(func(q *URIQuery) *string { return &q.KeyFile }), true
	case "server_name_indication":
		return uriParam{tls: true, set: q(setServerName)}, true
	case "verify":
		return uriParam{tls: true, set: only("verify_peer",
			"verify=verify_none is refused: it would accept any server; set Config.TLS where that is wanted")}, true
	case "fail_if_no_peer_cert":
		return uriParam{tls: true, set: only("true", "a server always has to show a certificate; leave the parameter out")}, true
	case "customize_hostname_check":
		return uriParam{tls: true, set: only("https", `only "https" (the rules of RFC 6125) is known, and always on`)}, true
	case "depth":
		return refuse("not supported; Config.TLS.VerifyConnection can limit the length of a chain"), true
	case "password":
		return refuse("encrypted key files are not supported; give the key to Config.TLS"), true
	case "vhost":
		return uriParam{set: func(u *URI, v string) string {
			if u.Scheme != SchemeUnix {
				return "only amqp+unix takes it: elsewhere the vhost is the path, amqp://host/vhost"
			}
			u.VHost, u.VHostSet = v, true
			if err := checkVHost(v); err != nil {
				return err.(*URIError).Reason
			}
			return ""
		}}, true
	}
	return uriParam{}, false
}

// only accepts one value, which changes nothing.
func only(want, why string) func(*URI, string) string {
	return func(_ *URI, v string) string {
		if v != want {
			return why
		}
		return ""
	}
}

var paramName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,39}$`)

func (u *URI) parseQuery(s string) error {
	if s == "" {
		return nil
	}
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(s, "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !paramName.MatchString(name) {
			return uriErr("query", "not of the form name=value&name=value")
		}
		p, known := uriParams(name)
		if !known {
			return uriErr(name, "unknown query parameter")
		}
		if !ok {
			return uriErr(name, "without a value: a query is of the form name=value&name=value")
		}
		if seen[name] && !p.many {
			return uriErr(name, "given twice")
		}
		seen[name] = true
		if p.tls && u.Scheme != SchemeAMQPS {
			return uriErr(name, "makes sense with amqps:// alone")
		}
		// As in RabbitMQ's own parser a "+" stands for itself, not for a space.
		value, err := unescape(name, value)
		if err != nil {
			return err
		}
		if why := p.set(u, value); why != "" {
			return uriErr(name, why)
		}
	}
	if u.Query.KeyFile != "" && u.Query.CertFile == "" {
		return uriErr("keyfile", "without a certfile")
	}
	return nil
}

func setHeartbeat(q *URIQuery, v string) string {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return "not a whole number of seconds up to 65535"
	}
	if q.Heartbeat = time.Duration(n) * time.Second; n == 0 {
		q.Heartbeat = -1
	}
	return ""
}

func setConnectionTimeout(q *URIQuery, v string) string {
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil || n == 0 {
		return "not a whole number of milliseconds from 1"
	}
	q.ConnectionTimeout = time.Duration(n) * time.Millisecond
	return ""
}

func setChannelMax(q *URIQuery, v string) string {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return "not a whole number up to 65535"
	}
	q.ChannelMax = uint16(n)
	return ""
}

func setFrameMax(q *URIQuery, v string) string {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || (n != 0 && n < minFrameMax) {
		return "not a whole number of bytes from 4096 (RabbitMQ 4.3 asks for 8192)"
	}
	q.FrameMax = uint32(n)
	return ""
}

func addMechanism(q *URIQuery, v string) string {
	v = strings.ToLower(v)
	if _, ok := mechanismByName(v); !ok {
		return `not "plain", "amqplain" or "external"; others go into Config.SASL`
	}
	if slices.Contains(q.AuthMechanisms, v) {
		return "names the same mechanism twice"
	}
	q.AuthMechanisms = append(q.AuthMechanisms, v)
	return ""
}

func setServerName(q *URIQuery, v string) string {
	if v == "disable" || v == "" {
		return "can't be switched off: the server's name is always verified; set Config.TLS where that is not wanted"
	}
	q.ServerName = v
	return ""
}

// params gives the query as names and values, in a fixed order.
func (u *URI) params() [][2]string {
	var ps [][2]string
	add := func(name, value string) {
		if value != "" {
			ps = append(ps, [2]string{name, value})
		}
	}
	num := func(name string, n int64) {
		if n > 0 {
			add(name, strconv.FormatInt(n, 10))
		}
	}
	q := &u.Query
	if u.Scheme == SchemeUnix && u.namesVHost() {
		ps = append(ps, [2]string{"vhost", u.VHost})
	}
	if q.Heartbeat < 0 {
		add("heartbeat", "0")
	}
	num("heartbeat", int64(q.Heartbeat/time.Second))
	num("connection_timeout", q.ConnectionTimeout.Milliseconds())
	num("channel_max", int64(q.ChannelMax))
	num("frame_max", int64(q.FrameMax))
	for _, m := range q.AuthMechanisms {
		add("auth_mechanism", m)
	}
	add("cacertfile", q.CACertFile)
	add("certfile", q.CertFile)
	add("keyfile", q.KeyFile)
	add("server_name_indication", q.ServerName)
	return ps
}

func parseIPv6(s, defaultPort string) (string, error) {
	host, rest, ok := strings.Cut(s[1:], "]")
	if !ok {
		return "", uriErr("host", `a "[" without its "]"`)
	}
	port, hasPort := strings.CutPrefix(rest, ":")
	if !hasPort && rest != "" {
		return "", uriErr("host", `something other than a port behind the "]"`)
	}
	// The zone's own "%" is written %25 by RFC 6874; a bare one is tolerated.
	addr, zone, hasZone := strings.Cut(host, "%")
	if hasZone {
		z, err := unescape("host", strings.TrimPrefix(zone, "25"))
		if err != nil {
			return "", err
		}
		if z == "" || strings.IndexFunc(z, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("[]%/?#@,", r) }) >= 0 {
			return "", uriErr("host", "a zone that no network interface has")
		}
		addr += "%" + z
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil || !ip.Is6() {
		return "", uriErr("host", "not an IPv6 address between the brackets")
	}
	port, err = parsePort(port, hasPort, defaultPort)
	return net.JoinHostPort(addr, port), err
}

func parsePort(s string, given bool, defaultPort string) (string, error) {
	if !given || s == "" { // RFC 3986 lets a port be empty
		return defaultPort, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return "", uriErr("port", "not a number from 1 to 65535")
	}
	return strconv.FormatUint(n, 10), nil
}

// unescape decodes percent-encoding and nothing else.
func unescape(part, s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", uriErr(part, `a "%" that is not followed by two hexadecimal digits: the sign itself is written %25`)
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", uriErr(part, `a "%" that is not followed by two hexadecimal digits: the sign itself is written %25`)
		}
		b = append(b, byte(n))
		i += 2
	}
	return string(b), nil
}

// escape percent-encodes all but the unreserved characters of RFC 3986.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
