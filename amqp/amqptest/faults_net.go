package amqptest

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Direction says which way bytes go.
type Direction uint8

const (
	ToServer Direction = iota // what clients send
	ToClient                  // what the server sends
)

// String names the direction.
func (d Direction) String() string {
	if d == ToServer {
		return "to the server"
	}
	return "to the client"
}

// netFaults is what is done to the bytes of connections.
type netFaults struct {
	mu    sync.Mutex
	rand  *rand.Rand
	cuts  [2]int64 // octets until the cut, by Direction; negative: none
	split int
	slow  time.Duration
}

// faultConn is the server's end of a connection, to which faults are done.
type faultConn struct {
	net.Conn
	f    *netFaults
	done chan struct{}
	once sync.Once
}

// wrap puts the faults between a session and its connection.
func (f *faults) wrap(_ *session, nc net.Conn) *faultConn {
	raw := nc
	if t, ok := nc.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	if p, ok := raw.(*pipeConn); ok {
		p.out.split = f.net.readSize
	}
	return &faultConn{Conn: nc, f: &f.net, done: make(chan struct{})}
}

func (f *faults) stop() { f.net.heal() }

// CutAfter drops a connection, without a close, once n octets have gone in a
// direction, counted from now over all connections: the octet after the n-th
// does not arrive. It happens once.
func (srv *Server) CutAfter(n int64, dir Direction) {
	f := &srv.faults.net
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cuts[dir] = n + 1
}

// SplitWrites makes the server's output arrive in pieces of 1 to max octets,
// whose sizes the server's seed rules. In memory the client reads exactly these
// pieces; TCP may join them. 0 ends that.
func (srv *Server) SplitWrites(max int) {
	f := &srv.faults.net
	f.mu.Lock()
	defer f.mu.Unlock()
	f.split = max
	if f.rand == nil {
		f.rand = rand.New(rand.NewPCG(srv.cfg.Seed, 0x5e9))
	}
}

// Slow makes every write of the server take d longer. 0 ends that.
func (srv *Server) Slow(d time.Duration) {
	f := &srv.faults.net
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slow = d
}

func (f *netFaults) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cuts, f.split, f.slow = [2]int64{}, 0, 0
}

// readSize is the most that a client's next read from memory gets.
func (f *netFaults) readSize() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.split <= 0 {
		return 1 << 30
	}
	return 1 + f.rand.IntN(f.split)
}

// pass counts n octets and says how many of them arrive before a cut.
func (f *netFaults) pass(n int, dir Direction) (arrive int, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := f.cuts[dir]
	if left == 0 {
		return n, false
	}
	if int64(n) < left {
		f.cuts[dir] -= int64(n)
		return n, false
	}
	f.cuts[dir] = 0
	return int(left - 1), true
}

var errCut = errors.New("amqptest: connection cut by CutAfter")

// Read reads what a client sent.
func (c *faultConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		arrive, cut := c.f.pass(n, ToServer)
		if cut {
			c.Close()
			return arrive, errCut
		}
	}
	return n, err
}

// Write writes what the server says.
func (c *faultConn) Write(p []byte) (int, error) {
	c.f.mu.Lock()
	slow, split := c.f.slow, c.f.split
	c.f.mu.Unlock()
	if slow > 0 {
		t := time.NewTimer(slow)
		select {
		case <-t.C:
		case <-c.done:
			t.Stop()
		}
	}
	arrive, cut := c.f.pass(len(p), ToClient)
	total := 0
	for total < arrive {
		end := arrive
		if _, memory := c.Conn.(*pipeConn); split > 0 && !memory {
			end = min(arrive, total+c.f.readSize())
		}
		n, err := c.Conn.Write(p[total:end])
		total += n
		if err != nil {
			return total, err
		}
	}
	if cut {
		c.Close()
		return total, errCut
	}
	return total, nil
}

// abort ends the connection without a farewell: TLS says one, which can wait.
func (c *faultConn) abort() {
	c.once.Do(func() { close(c.done) })
	if t, ok := c.Conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.Conn.Close()
}

// Close ends the connection and any wait in Write.
func (c *faultConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}
