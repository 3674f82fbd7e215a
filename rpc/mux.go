package rpc

import (
	"context"
	"fmt"
	"sync"

	"github.com/warrenmq/warren/amqp"
)

// Mux sends requests to handlers by name: the message's type, or where it has
// none or no handler is registered for it, the routing key. It is safe for
// concurrent use. The zero value is ready.
type Mux struct {
	mu       sync.RWMutex
	handlers map[string]Handler
}

// Handle registers h for a name, in place of any other.
func (m *Mux) Handle(name string, h Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.handlers == nil {
		m.handlers = map[string]Handler{}
	}
	m.handlers[name] = h
}

// Serve is a Handler: that of the request's name. Where there is none, the
// caller gets CodeNotFound.
func (m *Mux) Serve(ctx context.Context, req *Request) (*amqp.Message, error) {
	m.mu.RLock()
	h := m.handlers[req.Type]
	if h == nil {
		h = m.handlers[req.RoutingKey]
	}
	m.mu.RUnlock()
	if h == nil {
		return nil, &RemoteError{Code: CodeNotFound, Text: fmt.Sprintf("nothing serves type %q, routing key %q", req.Type, req.RoutingKey)}
	}
	return h(ctx, req)
}
