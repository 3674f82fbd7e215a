package rabbittest

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Proxy passes connections on to another address, and cuts them when told to.
// RabbitMQ does not listen on unix sockets; behind a proxy that does, it is as
// if it did.
type Proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]struct{}
	closed bool
}

// UnixSocket returns the path of a unix socket that leads to the TCP address,
// for as long as the test runs.
func UnixSocket(t testing.TB, target string) string {
	t.Helper()
	// Not t.TempDir: a long test name makes a path over the 108 bytes that a
	// socket's may have.
	dir, err := os.MkdirTemp("", "warren")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "amqp.sock")
	NewProxy(t, "unix", path, target)
	return path
}

// NewProxy listens on a "tcp" or "unix" address and passes every connection on
// to the TCP address target, until the test ends.
func NewProxy(t testing.TB, network, address, target string) *Proxy {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: make(map[net.Conn]struct{})}
	p.wg.Add(1)
	go p.accept()
	t.Cleanup(p.close)
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut closes every connection on both sides, without a word of AMQP. New ones
// are still let through.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Add(1)
		go p.serve(conn)
	}
}

func (p *Proxy) serve(near net.Conn) {
	defer p.wg.Done()
	if !p.keep(near) {
		return
	}
	defer p.drop(near)
	far, err := net.Dial("tcp", p.target)
	if err != nil || !p.keep(far) {
		return
	}
	defer p.drop(far)
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		pass(far, near)
	}()
	pass(near, far)
}

// pass copies until src ends and then closes dst, so that the copy in the other
// direction ends as well: AMQP has no use for half-closed connections.
func pass(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	_ = dst.Close()
}

// keep remembers a connection for Cut, and refuses it once the proxy is closed.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}
