package amqp

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Validate finds what no broker accepts, before anything is sent: NewClient
// calls it. What depends on the broker, such as an exchange type of a plugin, is
// left to it.
//
// Errors: *TopologyError, joined where there are several; each wraps ErrRefused.
func (t *Topology) Validate() error {
	if t == nil {
		return nil
	}
	var errs []error
	bad := func(kind, name string, reason string) {
		if reason != "" {
			errs = append(errs, &TopologyError{Kind: kind, Name: name, Err: fmt.Errorf("%w: %s", ErrRefused, reason)})
		}
	}
	exchanges := map[string]bool{}
	for _, x := range t.Exchanges {
		bad("exchange", x.Name, x.check())
		if exchanges[x.Name] {
			bad("exchange", x.Name, "named twice")
		}
		exchanges[x.Name] = true
	}
	queues := map[string]bool{}
	for _, q := range t.Queues {
		reason := q.check()
		if reason == "" && q.Name == "" {
			reason = "a queue that the broker names belongs to its consumer: see Resume.Declare"
		}
		bad("queue", q.Name, reason)
		if queues[q.Name] {
			bad("queue", q.Name, "named twice")
		}
		queues[q.Name] = true
	}
	for _, b := range t.Bindings {
		bad("binding", b.name(), b.check())
	}
	return errors.Join(errs...)
}

// reservedName reports whether the broker keeps the name for itself.
func reservedName(s string) bool { return strings.HasPrefix(s, "amq.") }

func (x Exchange) check() string {
	switch {
	case x.Name == "":
		return "the default exchange is always there and can't be declared"
	case len(x.Name) > 255 || len(x.Type) > 255 || len(x.Alternate) > 255:
		return "a name of over 255 bytes"
	case reservedName(x.Name):
		return "names that begin with \"amq.\" are the broker's"
	}
	return tableProblem(x.Arguments)
}

func (b Binding) check() string {
	switch {
	case b.Source == "":
		return "Source is empty: the default exchange reaches every queue by its name and can't be bound"
	case (b.Queue == "") == (b.Exchange == ""):
		return "one of Queue and Exchange is to be set"
	case max(len(b.Source), len(b.Queue), len(b.Exchange), len(b.RoutingKey)) > 255:
		return "a name of over 255 bytes"
	}
	if v, ok := b.Arguments["x-match"]; ok {
		switch v {
		case "all", "any", "all-with-x", "any-with-x":
		default:
			return fmt.Sprintf("x-match is %v, not all, any, all-with-x or any-with-x", v)
		}
	}
	return tableProblem(b.Arguments)
}

func tableProblem(t Table) string {
	if _, err := AppendTable(nil, t); err != nil {
		return err.Error()
	}
	return ""
}

// check is the reason why no broker accepts q, "" where there is none.
func (q Queue) check() string {
	for _, f := range []func(Queue) string{Queue.checkName, Queue.checkTimes, Queue.checkLimits, Queue.checkDead, Queue.checkType} {
		if reason := f(q); reason != "" {
			return reason
		}
	}
	return tableProblem(q.Arguments)
}

func (q Queue) checkName() string {
	switch {
	case len(q.Name) > 255:
		return "a name of over 255 bytes"
	case reservedName(q.Name):
		return "names that begin with \"amq.\" are the broker's"
	case q.Type != "" && q.Type != Classic && q.Type != Quorum && q.Type != Stream:
		return "type " + string(q.Type) + " is none of classic, quorum and stream"
	case q.Name == "" && (q.Type == Quorum || q.Type == Stream):
		return "a " + string(q.Type) + " queue needs a name of yours"
	}
	return ""
}

// maxTimer is the longest time-out that RabbitMQ takes.
const maxTimer = (1<<32 - 1) * time.Millisecond

func (q Queue) checkTimes() string {
	for name, d := range map[string]time.Duration{"TTL": q.TTL, "Expires": q.Expires, "ConsumerTimeout": q.ConsumerTimeout} {
		switch {
		case d < 0:
			return name + " is negative"
		case d > maxTimer:
			return name + " is over the longest time-out, 49 days and 17 hours"
		case d > 0 && d < time.Millisecond:
			return name + " is below a millisecond"
		}
	}
	switch {
	case q.MaxAge < 0:
		return "MaxAge is negative"
	case q.MaxAge > 0 && q.MaxAge < time.Second:
		return "MaxAge is below a second"
	}
	return ""
}

func (q Queue) checkLimits() string {
	switch {
	case q.MaxLength < 0:
		return "MaxLength is negative"
	case q.MaxBytes < 0:
		return "MaxBytes is negative"
	case q.SegmentBytes < 0 || q.SegmentBytes > 3_000_000_000:
		return "SegmentBytes is negative, or over 3 GB"
	}
	switch q.Overflow {
	case "", DropHead, RejectPublish, RejectPublishDLX:
	default:
		return "Overflow " + string(q.Overflow) + " is none of drop-head, reject-publish and reject-publish-dlx"
	}
	return ""
}

func (q Queue) checkDead() string {
	d := q.DeadLetter
	if d == nil {
		return ""
	}
	switch {
	case len(d.Exchange) > 255 || len(d.RoutingKey) > 255:
		return "DeadLetter has a name of over 255 bytes"
	case d.AtLeastOnce && q.Type != Quorum:
		return "DeadLetter.AtLeastOnce is for quorum queues"
	case d.AtLeastOnce && q.Overflow != RejectPublish:
		return "DeadLetter.AtLeastOnce asks for Overflow RejectPublish: RabbitMQ silently falls back to at-most-once"
	}
	return ""
}

// checkType refuses what a type of queue can't have.
func (q Queue) checkType() string {
	classic := q.Type == "" || q.Type == Classic
	if !classic {
		switch {
		case q.Transient:
			return "a " + string(q.Type) + " queue is always durable"
		case q.Exclusive:
			return "a " + string(q.Type) + " queue can't be exclusive"
		case q.AutoDelete:
			return "a " + string(q.Type) + " queue can't be deleted automatically"
		case q.MaxPriority > 0:
			return "MaxPriority is for classic queues"
		case q.Overflow == RejectPublishDLX && q.Type == Quorum:
			return "Overflow RejectPublishDLX is for classic queues: RabbitMQ takes it for drop-head"
		}
	}
	if q.Type == Stream {
		switch {
		case q.DeadLetter != nil:
			return "nothing of a stream is dead-lettered"
		case q.TTL > 0 || q.Expires > 0:
			return "a stream has MaxAge, not TTL or Expires"
		case q.MaxLength > 0:
			return "a stream is limited by MaxBytes and MaxAge, not by MaxLength"
		case q.Overflow != "":
			return "a stream has no Overflow: it drops its oldest segment"
		case q.SingleActiveConsumer:
			return "a stream has no SingleActiveConsumer in AMQP 0-9-1"
		}
	} else if q.MaxAge > 0 || q.SegmentBytes > 0 {
		return "MaxAge and SegmentBytes are for streams"
	}
	if q.Type != Quorum && (q.DeliveryLimit != 0 || q.ConsumerTimeout > 0) {
		return "DeliveryLimit and ConsumerTimeout are for quorum queues"
	}
	return ""
}
