// Package nullserver is a server that costs next to nothing, so that a client's own cost is what a run measures.
//
// It answers every AMQP 0-9-1 method by a canned frame and keeps no queues. Publishes are counted by walking
// frame headers and thrown away; on a confirming channel they are acked, by default with one multiple ack per
// read. A consumer of a queue named "blast.N" is sent N deliveries that were encoded once (any other name:
// without end); with acks at most prefetch at a time. What a channel with a consumer of amq.rabbitmq.reply-to
// publishes comes back on it at once, with the properties it came with: the other side of an rpc.
//
// The virtual host carries the settings, since every client can set one: see ParseOptions.
package nullserver

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Options are one connection's settings.
type Options struct {
	Body        int  // octets in the body of a delivery
	Headers     int  // entries in the headers table of a delivery, at most 5
	Chunk       int  // octets of deliveries in one write; 0: 64 KiB
	ConfirmEach bool // an ack for every publish in place of one per read
}

// VHost is the virtual host that asks for o, not escaped.
func (o Options) VHost() string {
	v := url.Values{}
	v.Set("body", strconv.Itoa(o.Body))
	if o.Headers > 0 {
		v.Set("headers", strconv.Itoa(o.Headers))
	}
	if o.Chunk > 0 {
		v.Set("chunk", strconv.Itoa(o.Chunk))
	}
	if o.ConfirmEach {
		v.Set("confirm", "each")
	}
	return v.Encode()
}

// ParseOptions reads a virtual host such as "body=1024&headers=5&chunk=65536&confirm=each". "/" and "" are the
// defaults (bodies of 16 octets).
func ParseOptions(vhost string) (Options, error) {
	o := Options{Body: 16, Chunk: 64 << 10}
	if vhost == "/" || vhost == "" {
		return o, nil
	}
	v, err := url.ParseQuery(vhost)
	if err != nil {
		return o, err
	}
	for key, into := range map[string]*int{"body": &o.Body, "headers": &o.Headers, "chunk": &o.Chunk} {
		if s := v.Get(key); s != "" {
			if *into, err = strconv.Atoi(s); err != nil || *into < 0 {
				return o, fmt.Errorf("virtual host %q: %s must be a number", vhost, key)
			}
		}
	}
	o.ConfirmEach = v.Get("confirm") == "each"
	return o, nil
}

// Limits that the server offers; RabbitMQ's defaults.
const (
	channelMax = 2047
	frameMax   = 131072
	heartbeat  = 60
)

// Server accepts connections until Close.
type Server struct {
	ln        net.Listener
	published atomic.Uint64

	mu    sync.Mutex // guards conns
	conns map[*conn]struct{}
	done  chan struct{}
}

// Listen starts a server on a TCP address; port 0 picks a free one.
func Listen(addr string) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Server{ln: ln, conns: map[*conn]struct{}{}, done: make(chan struct{})}, nil
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Published is the number of messages received since the start.
func (s *Server) Published() uint64 { return s.published.Load() }

// Serve accepts until Close; it returns nil then.
func (s *Server) Serve() error {
	go s.heartbeats()
	for {
		nc, err := s.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go s.serve(nc)
	}
}

// Close ends the server and its connections.
func (s *Server) Close() {
	close(s.done)
	s.ln.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.rw.Close()
	}
}

// heartbeats keeps idle clients content.
func (s *Server) heartbeats() {
	t := time.NewTicker(4 * time.Second)
	defer t.Stop()
	beat := []byte{8, 0, 0, 0, 0, 0, 0, 0xCE}
	for {
		select {
		case <-s.done:
			return
		case <-t.C:
		}
		s.mu.Lock()
		conns := make([]*conn, 0, len(s.conns))
		for c := range s.conns {
			conns = append(conns, c)
		}
		s.mu.Unlock()
		for _, c := range conns {
			// A lock that is held is a connection that is being written to.
			if c.beats.Load() && c.wmu.TryLock() {
				c.rw.Write(beat)
				c.wmu.Unlock()
			}
		}
	}
}
