package amqptest

import (
	"crypto/tls"
	"time"
)

// Config says what a Server is like. The zero value, and nil, behave as a
// RabbitMQ 4.3 fresh from its package: the user guest, with the password
// guest, and the vhost "/".
type Config struct {
	// Users that may log in. nil: guest, with every permission.
	Users []User

	// VHosts that exist besides "/".
	VHosts []string

	// Mechanisms that connection.start offers, in this order. nil: PLAIN,
	// ANONYMOUS, which logs in as the first of Users, and AMQPLAIN; over TLS also
	// EXTERNAL, which takes the common name of the client's certificate for the
	// user's name.
	Mechanisms []string

	// TLS makes URI an amqps one, whose listener wants TLS. Server.Dial wants
	// it as well then.
	TLS *tls.Config

	// Socket is a path for a unix socket to listen on besides, from the start.
	Socket string

	// Addr is where URI listens, as net.Listen takes it. "": a free port of 127.0.0.1.
	Addr string

	// ChannelMax, FrameMax and Heartbeat are what connection.tune offers.
	// 0: 2047, 131072 and 60 s. Heartbeat is sent in whole seconds; negative: none.
	ChannelMax uint16
	FrameMax   uint32
	Heartbeat  time.Duration

	// MaxBody is the longest message body taken, in octets; 0: 16 MiB. A longer
	// one closes its channel.
	MaxBody int64

	// HandshakeTimeout is how long a connection may take to open. 0: 10 s;
	// negative: for ever.
	HandshakeTimeout time.Duration

	// ConsumerTimeout is how long a consumer of a quorum queue may keep a
	// delivery unsettled, where the queue has no x-consumer-timeout. 0: 30
	// minutes; negative: for ever.
	ConsumerTimeout time.Duration

	// Seed feeds all that is random: the names that the server makes up, and the
	// faults. 0 is a seed like any other: the same run gives the same names.
	Seed uint64

	// Record is how many published messages Server.Published keeps, the latest.
	// 0: 1,000, and 8 MiB of bodies at most; negative: none.
	Record int

	// InMemory makes a server without ports: URI opens none, and only
	// Server.Dial reaches it. Inside a testing/synctest bubble a server is so
	// in any case, since a goroutine that waits for a network never lets the
	// bubble's clock advance.
	InMemory bool
}

func (c Config) withDefaults() Config {
	if c.Users == nil {
		c.Users = []User{{Name: "guest", Password: "guest"}}
	}
	if c.ChannelMax == 0 {
		c.ChannelMax = 2047
	}
	if c.FrameMax == 0 {
		c.FrameMax = 128 << 10
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = time.Minute
	}
	if c.MaxBody == 0 {
		c.MaxBody = 16 << 20
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = 10 * time.Second
	}
	if c.ConsumerTimeout == 0 {
		c.ConsumerTimeout = 30 * time.Minute
	}
	if c.Record == 0 {
		c.Record = 1000
	}
	return c
}
