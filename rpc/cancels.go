package rpc

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// cancels is what a server knows of callers that gave up. Cancels come by a
// queue of the server's own, since requests of one queue are spread over its
// servers and a cancel must reach the one that has the request.
type cancels struct {
	mu      sync.Mutex
	running map[string]context.CancelFunc // by correlation id
	gone    map[string]*list.Element      // cancelled before they began
	order   *list.List                    // of gone, oldest first
	bound   map[string]*binding           // by routing key
	binds   chan *binding                 // to be made
}

// binding is a routing key for which cancels come, once ready is closed.
type binding struct {
	key   string
	ready chan struct{}
}

// bindTimeout bounds how long the first request of a routing key waits until
// its cancel would be heard.
const bindTimeout = time.Second

// maxGone is how many cancels of requests that are not here are remembered.
// Most are some other server's.
const maxGone = 4096

func newCancels() *cancels {
	return &cancels{
		running: map[string]context.CancelFunc{}, gone: map[string]*list.Element{},
		order: list.New(), bound: map[string]*binding{}, binds: make(chan *binding, 16),
	}
}

// begin notes that a request is being handled; it reports false where its
// caller gave up before.
func (c *cancels) begin(ctx context.Context, req *Request, stop context.CancelFunc) bool {
	c.bind(ctx, cancelKey(req.Exchange, req.RoutingKey))
	c.mu.Lock()
	defer c.mu.Unlock()
	id := req.CorrelationID
	if e := c.gone[id]; e != nil {
		c.order.Remove(e)
		delete(c.gone, id)
		return false
	}
	c.running[id] = stop
	return true
}

// bind sees to it that cancels of a routing key are heard, if they can be.
func (c *cancels) bind(ctx context.Context, key string) {
	c.mu.Lock()
	b := c.bound[key]
	if b == nil {
		b = &binding{key, make(chan struct{})}
		select {
		case c.binds <- b:
			c.bound[key] = b
		default:
			b = nil
		}
	}
	c.mu.Unlock()
	if b == nil {
		return
	}
	select {
	case <-b.ready:
		return
	default:
	}
	t := time.NewTimer(bindTimeout)
	defer t.Stop()
	select {
	case <-b.ready:
	case <-ctx.Done():
	case <-t.C:
		c.bindingDone(b) // the others need not wait as well
	}
}

// bindingDone ends the wait for a binding, made or not.
func (c *cancels) bindingDone(b *binding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.done()
}

// done closes ready, once. cancels.mu is held.
func (b *binding) done() {
	select {
	case <-b.ready:
	default:
		close(b.ready)
	}
}

// ended notes the end of a request, and reports whether it was cancelled.
func (c *cancels) ended(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	stop, known := c.running[id]
	delete(c.running, id)
	return known && stop == nil
}

// cancel ends the request of a caller that gave up.
func (c *cancels) cancel(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stop, ok := c.running[id]; ok {
		if stop != nil {
			stop()
			c.running[id] = nil
		}
		return
	}
	if c.gone[id] != nil || id == "" {
		return
	}
	c.gone[id] = c.order.PushBack(id)
	if c.order.Len() > maxGone {
		e := c.order.Front()
		c.order.Remove(e)
		delete(c.gone, e.Value.(string))
	}
}

// listen takes cancels on a channel of its own until ctx ends. What the broker
// refuses here costs nothing but the cancels.
func (c *cancels) listen(ctx context.Context, ch *amqp.Channel) error {
	q, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true, AutoDelete: true})
	if err != nil {
		return err
	}
	_, err = ch.Handle(ctx, amqp.BasicConsume{Queue: q.Queue, NoAck: true}, func(d *amqp.Delivery) {
		c.cancel(d.Properties().CorrelationID)
	}, nil)
	for err == nil {
		select {
		case b := <-c.binds:
			err = ch.QueueBind(ctx, amqp.QueueBind{Queue: q.Queue, Exchange: cancelExchange, RoutingKey: b.key})
			c.bindingDone(b)
		case <-ch.Done():
			err = ch.Err()
			if err == nil {
				err = amqp.ErrClosed
			}
		case <-ctx.Done():
			return nil
		}
	}
	return err
}
