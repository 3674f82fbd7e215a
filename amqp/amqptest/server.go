package amqptest

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"time"
)

// Server is a broker. All its methods are safe for concurrent use.
type Server struct {
	cfg Config
	tls *tls.Config

	// mu guards the whole model: vhosts, exchanges, queues, channels, and what
	// sessions are to send. It is held for memory only, never for I/O or a wait.
	// A session's engine lock is taken before it, never after.
	mu     sync.Mutex
	vhosts map[string]*vhost
	users  map[string]*user
	rand   *rand.Rand

	sessions  map[*session]struct{}
	listeners []net.Listener
	uri       string
	closed    bool
	wg        sync.WaitGroup

	order   uint64 // counts what is made, to list it in order
	routing uint64 // counts routings
	routed  []*queue
	work    []*exchange
	found   bool // a binding matched
	hit     func(*binding)
	replied bool // a routing met a reply name
	dead    []deadJob
	changed []*queue
	rounds  uint64 // counts settlings
	replies map[string]*channel
	secret  [16]byte // goes into the names for replies

	recorder recorder
	faults   faults
}

// TB is what NewServer needs of a *testing.T, *testing.B or *testing.F.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// NewServer starts a server that is closed when the test ends. It listens
// nowhere until URI is called. At most one Config may be given.
func NewServer(t TB, cfg ...Config) *Server {
	t.Helper()
	var c Config
	if len(cfg) > 0 {
		c = cfg[0]
	}
	srv, err := Start(&c)
	if err != nil {
		t.Fatalf("amqptest: %v", err)
		return nil
	}
	t.Cleanup(srv.Close)
	return srv
}

// Start starts a server for a program that is not a test; Close ends it. A nil
// cfg stands for the zero Config.
//
// Errors: what is wrong with cfg, or that Config.Socket can't be listened on.
func Start(cfg *Config) (*Server, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	srv := &Server{
		cfg: cfg.withDefaults(), tls: cfg.TLS, vhosts: map[string]*vhost{}, users: map[string]*user{},
		rand:     rand.New(rand.NewPCG(cfg.Seed, 0x57a99e)),
		sessions: map[*session]struct{}{}, replies: map[string]*channel{},
	}
	binary.LittleEndian.PutUint64(srv.secret[:], srv.rand.Uint64())
	srv.faults.srv = srv
	srv.hit = srv.hitBinding
	srv.faults.rand = rand.New(rand.NewPCG(cfg.Seed, 0xfa017))
	// Fake time begins in 2000: this is how to tell that we are in a bubble.
	if time.Now().Year() < 2020 {
		srv.cfg.InMemory = true
	}
	for _, u := range srv.cfg.Users {
		c, err := newUser(u)
		if err != nil {
			return nil, fmt.Errorf("permissions of user %q: %w", u.Name, err)
		}
		srv.users[u.Name] = c
	}
	for _, name := range append([]string{"/"}, srv.cfg.VHosts...) {
		srv.vhosts[name] = newVHost(srv, name)
	}
	if cfg.Socket != "" {
		if err := srv.listen("unix", cfg.Socket, nil); err != nil {
			return nil, err
		}
	}
	return srv, nil
}

// URI is where the server is, with the name and password of its first user:
// "amqp://guest:guest@127.0.0.1:40123" or, with Config.TLS, "amqps://...".
// The port is opened at the first call. With Config.InMemory, and inside a
// testing/synctest bubble, there is none: then give amqp.Config the server's
// Dial. It panics where no port can be had, and returns "" after Close.
func (srv *Server) URI() string {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.uri != "" || srv.closed {
		return srv.uri
	}
	host := "amqptest.invalid:5672"
	if !srv.cfg.InMemory {
		addr := srv.cfg.Addr
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		if err := srv.listenLocked("tcp", addr, srv.tls); err != nil {
			panic("amqptest: " + err.Error())
		}
		host = srv.listeners[len(srv.listeners)-1].Addr().String()
	}
	u := url.URL{Scheme: "amqp", Host: host}
	if srv.tls != nil {
		u.Scheme = "amqps"
	}
	if len(srv.cfg.Users) > 0 {
		u.User = url.UserPassword(srv.cfg.Users[0].Name, srv.cfg.Users[0].Password)
	}
	srv.uri = u.String()
	return srv.uri
}

// Dial opens a connection to the server in memory, whatever network and addr
// say: it fits amqp.Config.Dial. With Config.TLS the other end wants TLS, which
// amqp.Dial does for an amqps URI.
//
// Errors: net.ErrClosed after Close, and the context's.
func (srv *Server) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := newPipe()
	if srv.tls != nil {
		server = tls.Server(server, srv.tls)
	}
	if !srv.serve(server) {
		return nil, fmt.Errorf("amqptest: %w", net.ErrClosed)
	}
	return client, nil
}

// Close drops all connections, as a broker that is killed does, and returns
// when nothing of the server runs any more. It may be called more than once.
func (srv *Server) Close() {
	srv.mu.Lock()
	srv.closed = true
	for _, l := range srv.listeners {
		l.Close()
	}
	for s := range srv.sessions {
		s.kill()
	}
	for _, vh := range srv.vhosts {
		for _, q := range vh.queues {
			q.stopTimers()
		}
	}
	srv.mu.Unlock()
	srv.faults.stop()
	srv.wg.Wait()
}

func (srv *Server) listen(network, addr string, t *tls.Config) error {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.listenLocked(network, addr, t)
}

func (srv *Server) listenLocked(network, addr string, t *tls.Config) error {
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	srv.listeners = append(srv.listeners, l)
	srv.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
				continue
			}
			if t != nil {
				nc = tls.Server(nc, t)
			}
			if !srv.serve(nc) {
				nc.Close()
			}
		}
	})
	return nil
}

// serve starts a session on nc; false after Close.
func (srv *Server) serve(nc net.Conn) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closed || srv.faults.refuse {
		nc.Close()
		return !srv.closed
	}
	s := newSession(srv, nc)
	srv.sessions[s] = struct{}{}
	srv.wg.Go(s.read)
	srv.wg.Go(s.write)
	return true
}

// do runs f on the model, and then what follows from it.
func (srv *Server) do(f func()) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	f()
	srv.settle()
}

// touch notes that a queue may have something to hand out now.
func (srv *Server) touch(q *queue) {
	if q.touched != srv.rounds+1 {
		q.touched = srv.rounds + 1
		srv.changed = append(srv.changed, q)
	}
}

// settle does what an operation has set off: dead-lettering, and deliveries
// from the queues that it touched.
func (srv *Server) settle() {
	for len(srv.dead) > 0 || len(srv.changed) > 0 {
		srv.routeDead()
		srv.rounds++
		changed := srv.changed
		srv.changed = nil
		for _, q := range changed {
			q.dispatch()
		}
		if srv.changed == nil {
			clear(changed)
			srv.changed = changed[:0]
		}
	}
}

// afterFunc is time.AfterFunc for the model: f runs under the lock.
func (srv *Server) afterFunc(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		if !srv.closed {
			f()
			srv.settle()
		}
	})
}

// randomName makes a name as RabbitMQ makes them: a prefix and 22 characters.
func (srv *Server) randomName(prefix string) string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], srv.rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], srv.rand.Uint64())
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}
