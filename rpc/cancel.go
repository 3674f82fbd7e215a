package rpc

import (
	"context"
	"sync"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// control is the channel on which a Client says that it no longer waits. It is
// one of its own, since a broker that does not let this user publish there
// closes it; and it has a goroutine of its own, so that no caller waits for it.
type control struct {
	once  sync.Once
	queue chan note
}

// note is a cancel to be sent.
type note struct {
	key, id string
}

const (
	// cancelQueue is how many cancels may wait to be sent; more are dropped.
	cancelQueue = 1024
	// cancelTimeout bounds sending one, on nobody's time.
	cancelTimeout = 5 * time.Second
)

// cancel tells the servers that nobody waits for a call's reply any more. It
// does not wait, and does its best: a server that does not hear it works in
// vain, that is all. On a channel that others use it says nothing, since a
// broker that refuses would close that.
func (c *Client) cancel(p *call) {
	if _, shared := c.open.(onChannel); shared {
		return
	}
	c.control.once.Do(func() {
		c.control.queue = make(chan note, cancelQueue)
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			c.joins.Add(1)
			go c.sendCancels()
		}
	})
	select {
	case c.control.queue <- note{cancelKey(p.to.Exchange, p.to.RoutingKey), p.id}:
	default:
	}
}

// sendCancels sends what is queued until the client is closed or the broker
// refuses.
func (c *Client) sendCancels() {
	defer c.joins.Done()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var ch *amqp.Channel
	defer func() {
		if ch != nil {
			ch.Close(ctx)
		}
	}()
	for {
		var n note
		select {
		case n = <-c.control.queue:
		case <-c.down:
			return
		}
		if ch != nil && isRefusal(ch.Err()) {
			return
		}
		ch = c.sendCancel(ctx, ch, n)
	}
}

func (c *Client) sendCancel(ctx context.Context, ch *amqp.Channel, n note) *amqp.Channel {
	ctx, stop := context.WithTimeout(ctx, cancelTimeout)
	defer stop()
	if ch == nil || ch.Err() != nil {
		fresh, err := c.open.Channel(ctx)
		if err != nil {
			return nil
		}
		ch = fresh
	}
	msg := amqp.Message{}
	msg.CorrelationID, msg.DeliveryMode, msg.Expiration = n.id, 1, "60000"
	ch.BasicPublish(ctx, amqp.BasicPublish{Exchange: cancelExchange, RoutingKey: n.key}, msg)
	return ch
}
