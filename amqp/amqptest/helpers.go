package amqptest

import (
	"fmt"
	"strings"
	"time"
)

// waitLimit is how long the Wait helpers wait. In a testing/synctest bubble it
// costs nothing.
const waitLimit = 5 * time.Second

// wait polls until check returns "", which says what is wrong else.
func (srv *Server) wait(t TB, check func() string) {
	t.Helper()
	deadline := time.Now().Add(waitLimit)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		wrong := check()
		if wrong == "" {
			return
		}
		if !time.Now().Before(deadline) {
			t.Fatalf("amqptest: %s, after %s\n%s", wrong, waitLimit, srv)
			return
		}
		time.Sleep(pause)
	}
}

// WaitQueue waits, for 5 s at most, until a queue of the vhost "/" has as many
// ready and unacknowledged messages, and fails the test else.
func (srv *Server) WaitQueue(t TB, name string, ready, unacked int) {
	t.Helper()
	srv.wait(t, func() string {
		q, ok := srv.Queue(name)
		switch {
		case !ok:
			return fmt.Sprintf("there is no queue %q; want one with %d ready, %d unacked", name, ready, unacked)
		case q.Ready != ready || q.Unacked != unacked:
			return fmt.Sprintf("%s; want %d ready, %d unacked", q, ready, unacked)
		}
		return ""
	})
}

// WaitConsumers waits, for 5 s at most, until a queue of the vhost "/" has n
// consumers, and fails the test else.
func (srv *Server) WaitConsumers(t TB, queue string, n int) {
	t.Helper()
	srv.wait(t, func() string {
		q, ok := srv.Queue(queue)
		switch {
		case !ok:
			return fmt.Sprintf("there is no queue %q; want one with %d consumers", queue, n)
		case q.Consumers != n:
			return fmt.Sprintf("%s; want %d consumers", q, n)
		}
		return ""
	})
}

// WaitConnections waits, for 5 s at most, until n connections are open, and
// fails the test else.
func (srv *Server) WaitConnections(t TB, n int) {
	t.Helper()
	srv.wait(t, func() string {
		open := 0
		for _, c := range srv.Connections() {
			if c.VHost != "" {
				open++
			}
		}
		if open != n {
			return fmt.Sprintf("%d connections are open; want %d", open, n)
		}
		return ""
	})
}

// WaitPublished waits, for 5 s at most, until at least n messages have been
// published to an exchange ("" is the default exchange), fails the test else,
// and returns them.
func (srv *Server) WaitPublished(t TB, exchange string, n int) []Published {
	t.Helper()
	srv.wait(t, func() string {
		if have := len(srv.Published(exchange)); have < n {
			return fmt.Sprintf("%d messages were published to exchange %q; want %d", have, exchange, n)
		}
		return ""
	})
	return srv.Published(exchange)
}

// WantBinding fails the test, without ending it, unless the vhost "/" has a
// binding from an exchange to a queue or exchange with this routing key.
func (srv *Server) WantBinding(t TB, source, destination, key string) {
	t.Helper()
	for _, b := range srv.Bindings() {
		if b.VHost == "/" && b.Source == source && b.Destination == destination && b.RoutingKey == key {
			return
		}
	}
	t.Errorf("amqptest: there is no binding from %q to %q with the key %q\n%s", source, destination, key, srv)
}

// String describes a queue in one line.
func (q QueueInfo) String() string {
	return fmt.Sprintf("queue %q (%s): %d ready, %d unacked, %d consumers", q.Name, q.Type, q.Ready, q.Unacked, q.Consumers)
}

// String describes a binding in one line.
func (b BindingInfo) String() string {
	return fmt.Sprintf("binding from %q to %s %q with key %q", b.Source, b.DestinationType, b.Destination, b.RoutingKey)
}

// String describes a consumer in one line.
func (c ConsumerInfo) String() string {
	return fmt.Sprintf("consumer %q of queue %q by %s, channel %d: %d unacked", c.Tag, c.Queue, c.Connection, c.Channel, c.Unacked)
}

// String describes a connection in one line.
func (c ConnectionInfo) String() string {
	name := c.Name
	if c.ClientName != "" {
		name = fmt.Sprintf("%q (%s)", c.ClientName, c.Name)
	}
	state := ""
	if c.Blocked {
		state = ", blocked"
	}
	return fmt.Sprintf("connection %s of user %q: %d channels%s", name, c.User, c.Channels, state)
}

// String describes what the server has, line by line: for failure messages.
func (srv *Server) String() string {
	var b strings.Builder
	line := func(x fmt.Stringer) { b.WriteString("\t" + x.String() + "\n") }
	b.WriteString("the server has:\n")
	for _, c := range srv.Connections() {
		line(c)
	}
	for _, q := range srv.Queues() {
		line(q)
	}
	for _, x := range srv.Bindings() {
		line(x)
	}
	for _, c := range srv.Consumers() {
		line(c)
	}
	return b.String()
}
