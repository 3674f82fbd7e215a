package amqp

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Retry says what becomes of a message whose handler returned an error or
// panicked. One of Delays and Limit is set.
//
// A message that waits, or is parked, is a copy: it is published, with a
// confirm, before the original is acked, so that it is never lost, and may be
// there twice where the connection is lost in between.
type Retry struct {
	// Delays are the pauses before the second attempt, the third and so on, in
	// whole milliseconds; after the last the message is given up. The message
	// waits in a queue "<queue>.retry.<pause>", which Serve declares, and comes
	// back at the end of its queue.
	Delays []time.Duration

	// Limit requeues a message, after ServeOptions.Delay, until it was delivered
	// so often. It is for quorum queues, which count that (x-acquired-count, or
	// x-delivery-count before RabbitMQ 4.3); elsewhere a message is given up
	// when it is redelivered.
	Limit int

	// Parking is the queue for messages that were given up. Serve declares it, in
	// the type of the queue that it serves, unless the Topology names it. "":
	// they are rejected, to be dead-lettered or dropped as their queue says.
	Parking string

	// GiveUp says which errors no other attempt would mend. Nil: none.
	GiveUp func(error) bool
}

// The headers of a message that waits or is parked.
const (
	headerFailures = "x-warren-failures"    // how often its handler has failed
	headerExchange = "x-warren-exchange"    // where it was published
	headerKey      = "x-warren-routing-key" // with which key
	headerUser     = "x-warren-user-id"     // by whom: the broker takes a user id from that user alone
)

// retrier is a Retry at work.
type retrier struct {
	Retry
	c       *Client
	queue   string
	publish func(queue string, msg Message) error
}

// useRetry makes a Retry the policy of a Serve.
func (o *ServeOptions) useRetry(ctx context.Context, c *Client, src *source) error {
	r := &retrier{Retry: *o.Retry, c: c, queue: src.m.Queue}
	bad := func(reason string) error { return &ConfigError{Field: "Retry", Reason: reason} }
	switch {
	case o.OnError != nil:
		return bad("set together with OnError")
	case (len(r.Delays) > 0) == (r.Limit > 0):
		return bad("one of Delays and Limit is to be set")
	case r.Limit < 0:
		return bad("Limit is negative")
	case src.resume.Declare != nil && src.resume.Declare.Name == "":
		return bad("a queue that the broker names can't be come back to")
	case src.track != nil:
		return bad("nothing of a stream is retried")
	case src.m.NoAck:
		return bad("a consumer without acknowledgements has nothing to retry")
	}
	if d := src.resume.Declare; d != nil {
		r.queue = d.Name
	}
	ctx = context.WithoutCancel(ctx) // a handler's end is waited for when Serve's context is over
	r.publish = func(queue string, msg Message) error {
		ctx, cancel := context.WithTimeout(ctx, publishCopy)
		defer cancel()
		return c.Publish(ctx, BasicPublish{RoutingKey: queue, Mandatory: true}, msg)
	}
	queues := r.queues()
	for _, q := range queues {
		if reason := q.check(); reason != "" {
			return &TopologyError{Kind: "queue", Name: q.Name, Err: fmt.Errorf("%w: %s", ErrRefused, reason)}
		}
	}
	src.besides = queues
	o.OnError, o.Retry = r.failed, nil
	return nil
}

// publishCopy bounds the publishing of a copy; the original waits for it.
const publishCopy = 30 * time.Second

// queues are those that the policy needs, in the type of the served one.
func (r *retrier) queues() []Queue {
	kind := Classic
	if q := r.c.cfg.Topology.queue(r.queue); q != nil && q.Type == Quorum {
		kind = Quorum
	}
	var list []Queue
	seen := map[string]bool{}
	for _, d := range r.Delays {
		q := Queue{Name: r.delayQueue(d), Type: kind, TTL: d, DeadLetter: &DeadLetter{RoutingKey: r.queue}}
		if kind == Quorum {
			q.DeadLetter.AtLeastOnce, q.Overflow = true, RejectPublish
		}
		if !seen[q.Name] {
			list = append(list, q)
		}
		seen[q.Name] = true
	}
	if r.Parking != "" && !r.c.cfg.Topology.names(r.Parking) {
		list = append(list, Queue{Name: r.Parking, Type: kind})
	}
	return list
}

func (r *retrier) delayQueue(d time.Duration) string { return r.queue + ".retry." + d.String() }

// failed is a ServeOptions.OnError.
func (r *retrier) failed(d *Delivery, err error) Action {
	if d.cons.ch.gone.Load() {
		return ActionDelay // it is stale: the broker gives it to somebody else
	}
	headers, _ := d.Headers()
	n := count(headers, headerFailures) + 1
	var to string
	switch {
	case r.Retry.GiveUp != nil && r.Retry.GiveUp(err):
		to = r.Parking
	case r.Limit > 0:
		if deliveries(d, headers) < int64(r.Limit) {
			return ActionDelay
		}
		to = r.Parking
	case n <= int64(len(r.Delays)):
		to = r.delayQueue(r.Delays[n-1])
	default:
		to = r.Parking
	}
	if to == "" {
		return ActionReject
	}
	msg, err := d.Message()
	if err == nil {
		msg.Properties = copyProperties(msg.Properties, d, n)
		err = r.publish(to, msg)
	}
	if err != nil {
		return ActionDelay // it stays where it is, and comes again
	}
	return ActionAck
}

// copyProperties are the properties of the copy.
func copyProperties(p Properties, d *Delivery, failures int64) Properties {
	h := make(Table, len(p.Headers)+4)
	for k, v := range p.Headers {
		h[k] = v
	}
	delete(h, "CC") // the copy is for one queue
	delete(h, "BCC")
	h[headerFailures] = failures
	if _, again := p.Headers[headerExchange]; !again {
		h[headerExchange], h[headerKey] = d.Exchange, d.RoutingKey
		if p.UserID != "" {
			h[headerUser] = p.UserID
		}
	}
	p.Headers = h
	p.UserID, p.Expiration = "", ""
	p.Present &^= HasUserID | HasExpiration
	return p
}

// deliveries is how often the broker has delivered a message, this time
// included.
func deliveries(d *Delivery, headers Table) int64 {
	if n := count(headers, "x-acquired-count"); n > 0 {
		return n + 1
	}
	if n := count(headers, "x-delivery-count"); n > 0 {
		return n + 1
	}
	_, acquired := headers["x-acquired-count"]
	_, delivered := headers["x-delivery-count"]
	if !acquired && !delivered && d.Redelivered {
		return 1 << 30 // nobody counts: twice is what is known
	}
	return 1
}

// count is a header that holds a whole number, 0 where there is none.
func count(t Table, key string) int64 {
	switch v := t[key].(type) {
	case int64:
		return v
	case int32:
		return int64(v)
	case int16:
		return int64(v)
	case int8:
		return int64(v)
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case string:
		n, _ := strconv.ParseInt(v, 10, 64)
		return n
	}
	return 0
}
