package amqptest_test

import (
	"net"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// rawClient drives an engine over a connection by hand: for clients that do
// what no good client does.
type rawClient struct {
	t  testing.TB
	nc net.Conn
	e  *amqp.Engine
}

// connect makes the handshake.
func (c *rawClient) connect(srv *amqptest.Server) {
	c.t.Helper()
	if c.nc == nil {
		nc, err := srv.Dial(c.t.Context(), "", "")
		if err != nil {
			c.t.Fatal(err)
		}
		c.nc = nc
	}
	c.t.Cleanup(func() { c.nc.Close() })
	c.e = amqp.NewEngine(amqp.EngineConfig{
		VHost: "/", SASLInfo: amqp.SASLInfo{Credentials: &amqp.Credentials{Username: "guest", Password: "guest"}},
	})
	c.until(func(ev amqp.Event) bool { return ev.Kind == amqp.EventOpen })
}

func (c *rawClient) flush() {
	c.t.Helper()
	for _, b := range c.e.Output() {
		if _, err := c.nc.Write(b); err != nil {
			c.t.Fatal(err)
		}
		c.e.Wrote(len(b))
	}
}

// until reads until an event is the one; it returns it.
func (c *rawClient) until(done func(amqp.Event) bool) amqp.Event {
	c.t.Helper()
	buf := make([]byte, 4096)
	for {
		c.flush()
		for {
			ev, ok := c.e.Next()
			if !ok {
				break
			}
			if done(ev) {
				return ev
			}
		}
		n, err := c.nc.Read(buf)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := c.e.Feed(time.Now(), buf[:n]); err != nil {
			c.t.Fatal(err)
		}
	}
}

// method sends a method and waits for what answers it.
func (c *rawClient) method(channel uint16, m amqp.Method) {
	c.t.Helper()
	if err := c.e.Send(channel, m); err != nil {
		c.t.Fatal(err)
	}
	c.until(func(ev amqp.Event) bool { return ev.ID == m.MethodID()+1 })
}
