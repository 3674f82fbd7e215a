package amqp

import (
	"context"
	"sync/atomic"
	"unsafe"
)

// Delivery is a message that came, bound to the channel that brought it.
//
// By default all of it is a copy and the receiver's to keep; since up to 18
// deliveries of up to 2 KiB share an allocation, who keeps a few of many for long
// had better copy them. Of a consumer that borrows (ConsumeOptions.Borrow), the
// Delivery, its Body and its strings are the connection's and valid until the
// handler returns, the loop goes on, or Release is called.
//
// The methods that settle are safe for concurrent use and never wait for the
// broker. A delivery can be settled once.
//
// Source: https://www.rabbitmq.com/docs/confirms#consumer-acknowledgements.
type Delivery struct {
	Body        []byte
	Exchange    string // "" for the default exchange
	RoutingKey  string
	DeliveryTag uint64 // grows by one for each delivery of the channel
	Redelivered bool   // it was delivered before, to this consumer or another
	// MessageCount is how many more messages the queue held; of Get alone.
	MessageCount uint32

	// A pointer and a length, and no pointer to the channel: the smaller this is,
	// the less the garbage collector has to do for copied deliveries.
	state  atomic.Uint32
	nprops uint32
	props  *byte     // property flags and list, validated
	cons   *Consumer // of Get one that only knows its channel
	seq    uint64    // dense number among the deliveries that want settling
	k      *chunk    // of a borrowed delivery, what its bytes lie in
}

func (d *Delivery) setProps(p []byte) { d.props, d.nprops = unsafe.SliceData(p), uint32(len(p)) }

func (d *Delivery) rawProps() []byte { return unsafe.Slice(d.props, d.nprops) }

// The states of a Delivery.
const (
	unsettled uint32 = iota
	settled
	needsNone // consumed without acknowledgements
)

// Channel is the channel that brought the delivery.
func (d *Delivery) Channel() *Channel {
	if d.cons == nil {
		return nil
	}
	return d.cons.ch
}

// ConsumerTag is the tag of the consumer that the delivery is for; "" of Get.
func (d *Delivery) ConsumerTag() string {
	if d.cons == nil {
		return ""
	}
	return d.cons.tag
}

// Properties are the message's properties but for Headers, which are left
// out: see Headers. They share the delivery's memory.
func (d *Delivery) Properties() Properties {
	var p Properties
	dec := decoder{p: d.rawProps(), alias: true, lazyTables: true}
	p.decode(&dec)
	return p
}

// Headers decodes the message's headers, a fresh table at every call; nil
// where there are none.
//
// Errors: *Error with SyntaxError for a table that is malformed.
func (d *Delivery) Headers() (Table, error) {
	if props := d.rawProps(); len(props) < 2 || PropertyFlags(props[0])<<8&HasHeaders == 0 {
		return nil, nil
	}
	var p Properties
	if err := p.DecodeFrom(d.rawProps()); err != nil {
		return nil, err
	}
	return p.Headers, nil
}

// Message is a copy of the message as it would be published again.
//
// Errors: as Headers.
func (d *Delivery) Message() (Message, error) {
	var m Message
	if err := m.Properties.DecodeFrom(d.rawProps()); err != nil {
		return m, err
	}
	m.Body = append([]byte(nil), d.Body...)
	return m, nil
}

// Ack tells the broker that the message was handled. It may be sent a little
// later, together with others (ConsumeOptions.AckBatch), so that nil says that
// it will be sent, not that the broker has it: where the channel is lost first,
// the message is delivered again.
//
// Errors: ErrSettled; ErrStale where the delivery's channel is gone, and then
// the broker gives the message to somebody else.
func (d *Delivery) Ack() error { return d.settle(Acked) }

// Reject gives the message up: the broker dead-letters it where its queue has
// a dead-letter exchange, and drops it otherwise.
//
// Errors: as Ack.
//
// Source: https://www.rabbitmq.com/docs/dlx.
func (d *Delivery) Reject() error { return d.settle(Rejected) }

// Requeue gives the message back to its queue, to be delivered again, to this
// consumer or another. It is sent as basic.reject, which RabbitMQ 4.3 counts
// towards a quorum queue's delivery limit; see Retry.
//
// Errors: as Ack.
//
// Source: https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling.
func (d *Delivery) Requeue() error { return d.settle(Requeued) }

// Retry gives the message back as Requeue does, but as basic.nack, which
// RabbitMQ 4.3 does not count towards a quorum queue's delivery limit, while
// 4.0 and 3.10 do. Use it for a failure that is not the message's fault.
//
// Errors: as Ack.
func (d *Delivery) Retry() error { return d.settle(retried) }

// retried is a Requeued that is said with basic.nack.
const retried Settlement = 0xFF

func (d *Delivery) settle(how Settlement) error {
	err := d.claim()
	if err == nil {
		err = d.cons.ch.settle(d, how)
		if d.cons != nil && d.cons.opts.track != nil && how != Requeued && how != retried {
			d.cons.opts.track.handled(d)
		}
	}
	if t := d.cons.ch.c.trace; t != nil && t.Settle != nil {
		if how == retried {
			how = Requeued
		}
		t.settle(context.Background(), SettleInfo{Channel: d.cons.ch.id, DeliveryTag: d.DeliveryTag, Settlement: how}, err)
	}
	return err
}

// claim makes the caller the one who settles.
func (d *Delivery) claim() error {
	if !d.state.CompareAndSwap(unsettled, settled) {
		return ErrSettled
	}
	return nil
}

// Release gives the memory of a borrowed delivery back early, before its
// handler returns; settle it first. It does nothing for others.
func (d *Delivery) Release() {
	if k := d.endLoan(); k != nil {
		k.release(1)
	}
}

// endLoan takes the borrowed memory off the delivery. The caller is to release
// the chunk that it returns, if any.
func (d *Delivery) endLoan() *chunk {
	k := d.k
	if k == nil {
		return nil
	}
	d.k = nil
	if poisonReleased {
		d.poison()
	}
	d.Body, d.Exchange, d.RoutingKey = nil, "", ""
	d.setProps(nil)
	return k
}

// poison makes what was lent unreadable, for tests.
func (d *Delivery) poison() {
	for _, b := range [][]byte{
		d.Body, d.rawProps(), unsafe.Slice(unsafe.StringData(d.Exchange), len(d.Exchange)),
		unsafe.Slice(unsafe.StringData(d.RoutingKey), len(d.RoutingKey)),
	} {
		for i := range b {
			b[i] = poison
		}
	}
}
