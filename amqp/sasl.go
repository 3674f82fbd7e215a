package amqp

import (
	"errors"
	"fmt"
	"strings"
)

// SASL is a way to authenticate. One value serves any number of handshakes,
// also at the same time: what a handshake has to remember lives in the
// SASLNext that Start returns, never in the SASL.
//
// SASLPlain, SASLAMQPlain and SASLExternal are built in. Others (the broker's
// plugins, say) are made by implementing this interface, with as many rounds
// of connection.secure and secure-ok as they need.
//
// Source: AMQP 0-9-1 §4.7 (security), https://www.rabbitmq.com/docs/access-control#mechanisms.
type SASL interface {
	// Mechanism is the name that the broker lists, such as "PLAIN". It is
	// compared without regard to case.
	Mechanism() string

	// Start begins one handshake: it makes the response that goes into
	// connection.start-ok, and what answers the broker's first challenge, which
	// is nil where the mechanism expects none. The response is the engine's
	// from then on. Start must not block.
	//
	// Errors: whatever it likes, but never with a secret in its text. They end
	// the handshake, before anything was sent, with a *SASLError.
	Start(info SASLInfo) (response []byte, next SASLNext, err error)
}

// SASLNext answers one challenge of the broker (connection.secure) with the
// response for connection.secure-ok. It is called once per challenge, in order;
// the challenge is only valid during the call. It must not block, and its
// errors end the handshake.
type SASLNext func(challenge []byte) (response []byte, err error)

// SASLInfo is what a mechanism may need to know about the handshake it is in.
type SASLInfo struct {
	Credentials *Credentials // nil: none were given
	TLS         bool         // the connection is encrypted
	Host        string       // the host that was dialled; "" for unix sockets and NewConn
	Offered     []string     // the broker's mechanisms
}

// SASLError says that no mechanism could be agreed on or that one failed on
// this side. What the broker refuses is not a SASLError but an *Error with the
// code AccessRefused.
type SASLError struct {
	Mechanism string   // the one that failed; "" where none was agreed on
	Offered   []string // the broker's, where none was agreed on
	Wanted    []string // this side's, where none was agreed on
	Err       error    // nil where none was agreed on
}

// Error describes what failed in one line.
func (e *SASLError) Error() string {
	if e.Mechanism != "" {
		return "amqp: SASL " + e.Mechanism + ": " + e.Err.Error()
	}
	return fmt.Sprintf("amqp: no common SASL mechanism: the broker offers %s; configured here: %s",
		listOrNone(e.Offered), listOrNone(e.Wanted))
}

// Unwrap gives the cause.
func (e *SASLError) Unwrap() error { return e.Err }

func listOrNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return fmt.Sprintf("%q", names)
}

// SASLPlain is the mechanism PLAIN: user name and password as they are. Use
// TLS where the network is not to be trusted.
// Source: RFC 4616.
func SASLPlain() SASL { return saslPlain{} }

// SASLAMQPlain is the mechanism AMQPLAIN: PLAIN in the form of an AMQP table.
// Source: https://www.rabbitmq.com/docs/access-control#mechanisms.
func SASLAMQPlain() SASL { return saslAMQPlain{} }

// SASLExternal is the mechanism EXTERNAL: the broker takes the user's name from
// the client's TLS certificate (RabbitMQ by its plugin
// rabbitmq_auth_mechanism_ssl). Without TLS it is an error.
// Source: RFC 4422 appendix A, https://www.rabbitmq.com/docs/access-control#mechanisms.
func SASLExternal() SASL { return saslExternal{} }

// mechanismByName finds a built-in mechanism by the name that URIs use.
func mechanismByName(name string) (SASL, bool) {
	switch strings.ToLower(name) {
	case "plain":
		return SASLPlain(), true
	case "amqplain":
		return SASLAMQPlain(), true
	case "external":
		return SASLExternal(), true
	}
	return nil, false
}

var (
	errNoCredentials  = errors.New("no user name and password were given")
	errZeroByte       = errors.New("a user name or password with a zero byte has no form in this mechanism")
	errNeedsTLS       = errors.New("only over TLS: the broker takes the user from the client's certificate")
	errNotExpected    = errors.New("the broker sent a challenge, which this mechanism has none of")
	errBadSASLMessage = errors.New("not a response of this mechanism")
)

type saslPlain struct{}

func (saslPlain) Mechanism() string { return "PLAIN" }

func (saslPlain) Start(info SASLInfo) ([]byte, SASLNext, error) {
	c := info.Credentials
	if c == nil {
		return nil, nil, errNoCredentials
	}
	if strings.Contains(c.Username, "\x00") || strings.Contains(c.Password, "\x00") {
		return nil, nil, errZeroByte
	}
	return []byte("\x00" + c.Username + "\x00" + c.Password), nil, nil
}

type saslAMQPlain struct{}

func (saslAMQPlain) Mechanism() string { return "AMQPLAIN" }

func (saslAMQPlain) Start(info SASLInfo) ([]byte, SASLNext, error) {
	c := info.Credentials
	if c == nil {
		return nil, nil, errNoCredentials
	}
	b := make([]byte, 0, 32+len(c.Username)+len(c.Password))
	b = appendLongstrField(b, "LOGIN", c.Username)
	b = appendLongstrField(b, "PASSWORD", c.Password)
	return b, nil, nil
}

type saslExternal struct{}

func (saslExternal) Mechanism() string { return "EXTERNAL" }

func (saslExternal) Start(info SASLInfo) ([]byte, SASLNext, error) {
	if !info.TLS {
		return nil, nil, errNeedsTLS
	}
	return []byte{}, nil, nil
}

// saslRun is the client's half of one SASL exchange.
type saslRun struct {
	mechanism string // as the broker spells it
	response  []byte // for connection.start-ok
	next      SASLNext
}

// startSASL picks the first of wanted that the broker offers (in its space
// separated list) and starts it. A mechanism that was picked and fails is not
// passed over for a later one: that could mean sending a password where a
// certificate was meant to do.
func startSASL(wanted []SASL, offered string, info SASLInfo) (*saslRun, error) {
	info.Offered = strings.Fields(offered)
	names := make([]string, len(wanted))
	for i, m := range wanted {
		names[i] = m.Mechanism()
		for _, o := range info.Offered {
			if !strings.EqualFold(o, names[i]) {
				continue
			}
			response, next, err := m.Start(info)
			if err != nil {
				return nil, &SASLError{Mechanism: o, Err: err}
			}
			return &saslRun{mechanism: o, response: response, next: next}, nil
		}
	}
	return nil, &SASLError{Offered: info.Offered, Wanted: names}
}

// challenge answers connection.secure.
func (r *saslRun) challenge(p []byte) ([]byte, error) {
	if r.next == nil {
		return nil, &SASLError{Mechanism: r.mechanism, Err: errNotExpected}
	}
	response, err := r.next(p)
	if err != nil {
		return nil, &SASLError{Mechanism: r.mechanism, Err: err}
	}
	return response, nil
}

// DecodePLAIN reads the response of the mechanism PLAIN, as a broker does. An
// authorization identity in front of the user name is an error, as it is for
// RabbitMQ.
//
// Errors: an error without any part of the response.
func DecodePLAIN(response []byte) (Credentials, error) {
	parts := strings.Split(string(response), "\x00")
	if len(parts) != 3 || parts[0] != "" {
		return Credentials{}, &SASLError{Mechanism: "PLAIN", Err: errBadSASLMessage}
	}
	return Credentials{Username: parts[1], Password: parts[2]}, nil
}

// DecodeAMQPLAIN reads the response of the mechanism AMQPLAIN, as a broker
// does: the fields LOGIN and PASSWORD of a table without its length. Fields
// that are no strings are an error.
//
// Errors: an error without any part of the response.
func DecodeAMQPLAIN(response []byte) (Credentials, error) {
	var c Credentials
	var login, password bool
	for p := response; len(p) > 0; {
		name, value, rest, ok := cutLongstrField(p)
		if !ok {
			return Credentials{}, &SASLError{Mechanism: "AMQPLAIN", Err: errBadSASLMessage}
		}
		switch p = rest; name {
		case "LOGIN":
			c.Username, login = value, true
		case "PASSWORD":
			c.Password, password = value, true
		}
	}
	if !login || !password {
		return Credentials{}, &SASLError{Mechanism: "AMQPLAIN", Err: errBadSASLMessage}
	}
	return c, nil
}

// appendLongstrField appends one field of a table whose value is a long string.
func appendLongstrField(b []byte, name, value string) []byte {
	b = append(append(b, byte(len(name))), name...)
	n := uint32(len(value))
	b = append(b, 'S', byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	return append(b, value...)
}

func cutLongstrField(p []byte) (name, value string, rest []byte, ok bool) {
	n := int(p[0])
	if len(p) < 1+n+5 || p[1+n] != 'S' {
		return "", "", nil, false
	}
	name, p = string(p[1:1+n]), p[1+n+1:]
	size := uint32(p[0])<<24 | uint32(p[1])<<16 | uint32(p[2])<<8 | uint32(p[3])
	if p = p[4:]; uint64(size) > uint64(len(p)) {
		return "", "", nil, false
	}
	return name, string(p[:size]), p[size:], true
}
