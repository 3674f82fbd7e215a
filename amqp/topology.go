package amqp

import (
	"strconv"
	"time"
)

// Topology is what must exist on the broker for a client to work: it is
// declared at every connection, exchanges first, then queues, then bindings.
// Nothing else is: what is not named here, and is deleted, stays deleted.
//
// It is a value: build it, give it to ClientConfig, and don't change it
// afterwards.
type Topology struct {
	Exchanges []Exchange
	Queues    []Queue
	Bindings  []Binding
}

// Exchange is an exchange that must exist. The zero value of each field is the
// usual choice: a durable exchange of type direct.
//
// Source: https://www.rabbitmq.com/docs/exchanges.
type Exchange struct {
	Name       string
	Type       string // "direct" (also ""), "fanout", "topic", "headers", or one that a plugin adds
	Transient  bool   // it does not survive the broker's restart
	AutoDelete bool   // it goes with its last binding
	Internal   bool   // nobody publishes to it but other exchanges
	Alternate  string // the exchange that takes what this one can't route; "": none
	Arguments  Table  // whatever else the type takes
}

// QueueType is the x-queue-type of a queue.
type QueueType string

// The types of RabbitMQ's queues. The empty one leaves the choice to the
// broker: the vhost's default, which is classic unless configured otherwise.
const (
	Classic QueueType = "classic"
	Quorum  QueueType = "quorum"
	Stream  QueueType = "stream"
)

// Overflow is what a queue that is full does.
type Overflow string

// What a full queue does. The empty one stands for DropHead.
const (
	DropHead         Overflow = "drop-head"          // the oldest messages go
	RejectPublish    Overflow = "reject-publish"     // the new one is nacked
	RejectPublishDLX Overflow = "reject-publish-dlx" // it is nacked and dead-lettered; classic queues alone
)

// Queue is a queue that must exist. The zero value of a field leaves the
// matter to the broker; a queue is durable unless it is Transient.
//
// Source: https://www.rabbitmq.com/docs/queues.
type Queue struct {
	Name       string
	Type       QueueType
	Transient  bool // it does not survive the broker's restart
	Exclusive  bool // it belongs to the consuming connection, and goes with it
	AutoDelete bool // it goes with its last consumer

	DeadLetter *DeadLetter   // where rejected, expired and surplus messages go; nil: nowhere
	TTL        time.Duration // of messages, in whole milliseconds; 0: none
	Expires    time.Duration // of a queue that nobody uses, in whole milliseconds; 0: never
	MaxLength  int64         // messages; 0: no limit
	MaxBytes   int64         // of bodies (of a stream, of segments); 0: no limit
	Overflow   Overflow

	DeliveryLimit        int           // quorum: redeliveries before a message is dead-lettered; 0: the broker's; negative: none
	SingleActiveConsumer bool          // one consumer at a time gets messages
	MaxPriority          uint8         // classic: priorities 0 to this; 0: none
	ConsumerTimeout      time.Duration // quorum: how long a delivery may stay unsettled; 0: the broker's
	MaxAge               time.Duration // stream: in whole seconds; 0: no limit
	SegmentBytes         int64         // stream: the size of its files; 0: the broker's

	// Arguments are sent besides those of the fields above, which win.
	Arguments Table
}

// DeadLetter says where a queue's dead messages go.
//
// Source: https://www.rabbitmq.com/docs/dlx.
type DeadLetter struct {
	Exchange   string // "" is the default exchange
	RoutingKey string // "": the message's own
	// AtLeastOnce has a quorum queue keep a dead message until its new queue has
	// confirmed it. It asks for Overflow RejectPublish.
	AtLeastOnce bool
}

// Binding is a binding that must exist, from an exchange to a queue or to
// another exchange: one of Queue and Exchange is set.
//
// Source: https://www.rabbitmq.com/docs/e2e.
type Binding struct {
	Source     string // the exchange that messages come from
	Queue      string // where they go
	Exchange   string
	RoutingKey string
	Arguments  Table // of a headers exchange
}

// ClassicQueue is a durable classic queue.
func ClassicQueue(name string) Queue { return Queue{Name: name, Type: Classic} }

// QuorumQueue is a quorum queue: replicated, durable.
//
// Source: https://www.rabbitmq.com/docs/quorum-queues.
func QuorumQueue(name string) Queue { return Queue{Name: name, Type: Quorum} }

// StreamQueue is a stream: messages stay after they were read, until they are
// too old or too many. Zero stands for no limit of that kind.
//
// Source: https://www.rabbitmq.com/docs/streams.
func StreamQueue(name string, maxAge time.Duration, maxBytes int64) Queue {
	return Queue{Name: name, Type: Stream, MaxAge: maxAge, MaxBytes: maxBytes}
}

// TemporaryQueue is a queue that the broker names, for one consumer and as long
// as that lives: Resume.Declare is the place for it.
func TemporaryQueue() Queue {
	return Queue{Type: Classic, Transient: true, Exclusive: true, AutoDelete: true}
}

// QuorumWithParking is a quorum queue that gives a message up after limit
// redeliveries, and the classic queue "<name>.dead" that such messages go to.
func QuorumWithParking(name string, limit int) []Queue {
	q, dead := QuorumQueue(name), QuorumQueue(name+".dead")
	q.DeliveryLimit = limit
	q.DeadLetter = &DeadLetter{RoutingKey: dead.Name}
	return []Queue{q, dead}
}

// TopologyError says which entity of a Topology makes no sense (Err wraps
// ErrRefused then) or could not be declared, and why.
type TopologyError struct {
	Kind string // "exchange", "queue" or "binding"
	Name string // a binding's is "source -> destination"
	Err  error
}

// Error describes the failure in one line.
func (e *TopologyError) Error() string {
	return "amqp: " + e.Kind + " " + strconv.Quote(e.Name) + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *TopologyError) Unwrap() error { return e.Err }

func (b Binding) name() string {
	dest := "queue " + b.Queue
	if b.Queue == "" {
		dest = "exchange " + b.Exchange
	}
	if b.RoutingKey == "" {
		return b.Source + " -> " + dest
	}
	return b.Source + " -> " + dest + " (" + b.RoutingKey + ")"
}

// names reports whether t has a queue of this name.
func (t *Topology) names(queue string) bool { return t.queue(queue) != nil }

func (t *Topology) queue(name string) *Queue {
	if t == nil {
		return nil
	}
	for i := range t.Queues {
		if t.Queues[i].Name == name {
			return &t.Queues[i]
		}
	}
	return nil
}

// method is the exchange as it is declared.
func (x Exchange) method() ExchangeDeclare {
	m := ExchangeDeclare{
		Exchange: x.Name, Type: x.Type, Durable: !x.Transient, AutoDelete: x.AutoDelete, Internal: x.Internal,
		Arguments: x.Arguments,
	}
	if m.Type == "" {
		m.Type = "direct"
	}
	if x.Alternate != "" {
		m.Arguments = m.Arguments.with("alternate-exchange", x.Alternate)
	}
	return m
}

// with is a copy of t with one more entry.
func (t Table) with(key string, value any) Table {
	c := make(Table, len(t)+1)
	for k, v := range t {
		c[k] = v
	}
	c[key] = value
	return c
}

// method is the queue as it is declared.
func (q Queue) method() QueueDeclare {
	args := Table{}
	for k, v := range q.Arguments {
		args[k] = v
	}
	number := func(key string, n int64) {
		if n != 0 {
			args[key] = n
		}
	}
	text := func(key, s string) {
		if s != "" {
			args[key] = s
		}
	}
	text("x-queue-type", string(q.Type))
	number("x-message-ttl", q.TTL.Milliseconds())
	number("x-expires", q.Expires.Milliseconds())
	number("x-max-length", q.MaxLength)
	number("x-max-length-bytes", q.MaxBytes)
	text("x-overflow", string(q.Overflow))
	if d := q.DeadLetter; d != nil {
		args["x-dead-letter-exchange"] = d.Exchange
		text("x-dead-letter-routing-key", d.RoutingKey)
		if d.AtLeastOnce {
			args["x-dead-letter-strategy"] = "at-least-once"
		}
	}
	number("x-delivery-limit", int64(max(q.DeliveryLimit, -1)))
	if q.SingleActiveConsumer {
		args["x-single-active-consumer"] = true
	}
	number("x-max-priority", int64(q.MaxPriority))
	number("x-consumer-timeout", q.ConsumerTimeout.Milliseconds())
	if q.MaxAge > 0 {
		args["x-max-age"] = strconv.FormatInt(int64(q.MaxAge/time.Second), 10) + "s"
	}
	number("x-stream-max-segment-size-bytes", q.SegmentBytes)
	m := QueueDeclare{Queue: q.Name, Durable: !q.Transient, Exclusive: q.Exclusive, AutoDelete: q.AutoDelete}
	if len(args) > 0 {
		m.Arguments = args
	}
	return m
}
