package amqptest

import (
	"strconv"
	"strings"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// queueKind is the x-queue-type.
type queueKind uint8

const (
	classic queueKind = iota
	quorum
	stream
)

func (k queueKind) String() string { return [...]string{"classic", "quorum", "stream"}[k] }

// module is the name that RabbitMQ's texts call a queue type by.
func (k queueKind) module() string { return "rabbit_" + k.String() + "_queue" }

// kinds is a set of queue kinds.
type kinds uint8

const (
	onClassic kinds = 1 << classic
	onQuorum  kinds = 1 << quorum
	onStream  kinds = 1 << stream
	onAll           = onClassic | onQuorum | onStream
)

// queueArg is an argument of queue.declare that RabbitMQ knows: which queue
// types take it, and what its value must be.
type queueArg struct {
	name  string
	on    kinds
	check func(v any, args amqp.Table) string
}

// queueArgs is in the order in which RabbitMQ looks at them.
var queueArgs = []queueArg{
	{"x-expires", onClassic | onQuorum, checkExpires},
	{"x-message-ttl", onClassic | onQuorum, checkTTL},
	{"x-dead-letter-exchange", onClassic | onQuorum, nil}, // checked apart: its text differs
	{"x-dead-letter-routing-key", onClassic | onQuorum, checkDeadLetterKey},
	{"x-dead-letter-strategy", onQuorum, checkOneOf("invalid_dlx_strategy", "at-most-once", "at-least-once")},
	{"x-max-length", onClassic | onQuorum, checkNotNegative},
	{"x-max-length-bytes", onAll, checkNotNegative},
	{"x-max-in-memory-length", onQuorum, checkNotNegative},
	{"x-max-in-memory-bytes", onQuorum, checkNotNegative},
	{"x-max-priority", onClassic, checkMaxPriority},
	{"x-overflow", onClassic | onQuorum, checkOneOf("invalid_overflow", "drop-head", "reject-publish", "reject-publish-dlx")},
	{"x-queue-mode", onClassic, nil},
	{"x-queue-version", onClassic, checkVersion},
	{"x-single-active-consumer", onClassic | onQuorum, checkBool},
	{"x-queue-type", onAll, nil},
	{"x-quorum-initial-group-size", onQuorum, checkPositive},
	{"x-max-age", onStream, checkMaxAge},
	{"x-stream-max-segment-size-bytes", onStream, checkNotNegative},
	{"x-stream-filter-size-bytes", onStream, checkNotNegative},
	{"x-initial-cluster-size", onStream, checkPositive},
	{"x-queue-leader-locator", onAll, checkOneOf("invalid_queue_locator_arg", "client-local", "balanced")},
	{"x-consumer-timeout", onQuorum, checkNotNegative},
	{"x-delivery-limit", onQuorum, nil},
}

// maxTimer is the longest time-out that RabbitMQ takes, in milliseconds.
const maxTimer = 1<<32 - 1

func checkInteger(v any) (int64, string) {
	n, ok := intValue(v)
	if !ok {
		return 0, `"expected integer, got ` + typeName(v) + `"`
	}
	return n, ""
}

func checkNotNegative(v any, _ amqp.Table) string {
	n, bad := checkInteger(v)
	if bad == "" && n < 0 {
		bad = "{value_negative," + strconv.FormatInt(n, 10) + "}"
	}
	return bad
}

func checkTTL(v any, args amqp.Table) string {
	bad := checkNotNegative(v, args)
	if n, _ := intValue(v); bad == "" && n > maxTimer {
		bad = "{value_too_large," + strconv.FormatInt(n, 10) + "}"
	}
	return bad
}

func checkExpires(v any, args amqp.Table) string {
	if n, ok := intValue(v); ok && n == 0 {
		return "{value_zero,0}"
	}
	return checkTTL(v, args)
}

func checkPositive(v any, args amqp.Table) string {
	if n, ok := intValue(v); ok && n == 0 {
		return "{value_zero,0}"
	}
	return checkNotNegative(v, args)
}

func checkMaxPriority(v any, args amqp.Table) string {
	bad := checkNotNegative(v, args)
	if n, _ := intValue(v); bad == "" && n > 255 {
		bad = "{max_value_exceeded," + strconv.FormatInt(n, 10) + "}"
	}
	return bad
}

func checkVersion(v any, args amqp.Table) string {
	bad := checkNotNegative(v, args)
	if n, _ := intValue(v); bad == "" && n != 2 {
		bad = `"unsupported queue version '` + strconv.FormatInt(n, 10) + `'"`
	}
	return bad
}

func unacceptable(v any) string { return "{unacceptable_type," + typeName(v) + "}" }

func checkBool(v any, _ amqp.Table) string {
	if _, ok := v.(bool); !ok {
		return unacceptable(v)
	}
	return ""
}

func checkDeadLetterKey(v any, args amqp.Table) string {
	if _, ok := v.(string); !ok {
		return unacceptable(v)
	}
	if _, ok := args["x-dead-letter-exchange"]; !ok {
		return "routing_key_but_no_dlx_defined"
	}
	return ""
}

func checkOneOf(bad string, values ...string) func(any, amqp.Table) string {
	return func(v any, _ amqp.Table) string {
		s, ok := v.(string)
		if !ok {
			return unacceptable(v)
		}
		for _, want := range values {
			if s == want {
				return ""
			}
		}
		return bad
	}
}

func checkMaxAge(v any, _ amqp.Table) string {
	s, ok := v.(string)
	if !ok {
		return unacceptable(v)
	}
	if _, ok := parseAge(s); !ok {
		return "invalid_max_age"
	}
	return ""
}

// parseAge reads a duration such as "7D".
func parseAge(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 32)
	if err != nil || n < 0 {
		return 0, false
	}
	units := map[byte]time.Duration{
		's': time.Second, 'm': time.Minute, 'h': time.Hour,
		'D': 24 * time.Hour, 'M': 30 * 24 * time.Hour, 'Y': 365 * 24 * time.Hour,
	}
	unit, ok := units[s[len(s)-1]]
	return time.Duration(n) * unit, ok
}

// queueOptions is what a queue's arguments say.
type queueOptions struct {
	kind          queueKind
	ttl           time.Duration // negative: none
	expires       time.Duration // 0: never
	maxLength     int64         // negative: no limit
	maxBytes      int64
	overflow      string
	dlx           string
	hasDLX        bool
	dlKey         string
	hasDLKey      bool
	maxPriority   int // 0: not a priority queue
	single        bool
	deliveryLimit int64 // negative: no limit
	maxAge        time.Duration
	timeout       time.Duration // consumer time-out; 0: the server's
}

// parseQueueArgs checks the arguments of a queue that is to be made.
func (vh *vhost) parseQueueArgs(name string, args amqp.Table) (o queueOptions, err error) {
	if o.kind, err = vh.queueKind(name, args); err != nil {
		return o, err
	}
	if _, ok := args["x-queue-master-locator"]; ok {
		return o, refusef(amqp.InternalError, "Feature `queue_master_locator` is deprecated.\nBy default, this feature is not "+
			"permitted anymore.\nThe feature will be removed from a future major RabbitMQ version, regardless of the configuration; "+
			"actual version to be determined.\nTo continue using this feature when it is not permitted by default, set a parameter.")
	}
	where := "for queue '" + name + "' in vhost '" + vh.name + "'"
	for _, a := range queueArgs {
		if _, ok := args[a.name]; ok && a.on&(1<<o.kind) == 0 {
			return o, refusef(amqp.PreconditionFailed, "invalid arg '%s' %s of queue type %s", a.name, where, o.kind.module())
		}
	}
	for _, a := range queueArgs {
		v, ok := args[a.name]
		if !ok {
			continue
		}
		if a.name == "x-dead-letter-exchange" {
			if _, ok := v.(string); !ok {
				return o, refusef(amqp.PreconditionFailed, "invalid type '%s' for arg '%s' in queue '%s' in vhost '%s'",
					typeName(v), a.name, name, vh.name)
			}
		}
		if a.check == nil {
			continue
		}
		if bad := a.check(v, args); bad != "" {
			return o, refusef(amqp.PreconditionFailed, "invalid arg '%s' %s: %s", a.name, where, bad)
		}
	}
	o.read(args)
	return o, o.checkStream(args)
}

// checkStream refuses what only streams have limits for.
func (o *queueOptions) checkStream(args amqp.Table) error {
	if n, _ := intValue(args["x-stream-max-segment-size-bytes"]); n > 3_000_000_000 {
		return refusef(amqp.PreconditionFailed, "Exceeded max value for x-stream-max-segment-size-bytes")
	}
	if v, ok := args["x-stream-filter-size-bytes"]; ok {
		if n, _ := intValue(v); n < 16 || n > 255 {
			return refusef(amqp.PreconditionFailed, "Invalid value for x-stream-filter-size-bytes")
		}
	}
	return nil
}

func (vh *vhost) queueKind(name string, args amqp.Table) (queueKind, error) {
	v, ok := args["x-queue-type"]
	if !ok {
		return classic, nil
	}
	bad := ""
	switch s, isString := v.(string); {
	case !isString:
		bad = unacceptable(v)
	case s == "classic":
		return classic, nil
	case s == "quorum":
		return quorum, nil
	case s == "stream":
		return stream, nil
	default:
		bad = `"unsupported queue type '` + s + `'"`
	}
	return classic, refusef(amqp.PreconditionFailed, "invalid arg 'x-queue-type' for queue '%s' in vhost '%s': %s", name, vh.name, bad)
}

// defaultDeliveryLimit is what a quorum queue has without x-delivery-limit.
const defaultDeliveryLimit = 20

func (o *queueOptions) read(args amqp.Table) {
	num := func(name string, absent int64) int64 {
		if n, ok := intValue(args[name]); ok {
			return n
		}
		return absent
	}
	str := func(name string) (string, bool) {
		s, ok := args[name].(string)
		return s, ok
	}
	const ms = int64(time.Millisecond)
	o.ttl = time.Duration(num("x-message-ttl", -1) * ms)
	o.expires = time.Duration(num("x-expires", 0) * ms)
	o.maxLength = num("x-max-length", -1)
	o.maxBytes = num("x-max-length-bytes", -1)
	o.overflow, _ = str("x-overflow")
	o.dlx, o.hasDLX = str("x-dead-letter-exchange")
	o.dlKey, o.hasDLKey = str("x-dead-letter-routing-key")
	o.maxPriority = int(num("x-max-priority", 0))
	o.single, _ = args["x-single-active-consumer"].(bool)
	o.deliveryLimit = num("x-delivery-limit", defaultDeliveryLimit)
	o.timeout = time.Duration(num("x-consumer-timeout", 0) * ms)
	if age, ok := str("x-max-age"); ok {
		o.maxAge, _ = parseAge(age)
	}
}

// sameArgs compares the arguments of a second declare with the first's. Only
// those that RabbitMQ knows count, and numbers count by value.
func sameArgs(what, name, vhost string, keys []string, now, was amqp.Table) error {
	for _, key := range keys {
		a, hasA := now[key]
		b, hasB := was[key]
		if !hasA && !hasB || hasA && hasB && sameValue(a, b) {
			continue
		}
		describe := func(v any, has, other bool) string {
			switch {
			case !has:
				return "none"
			case !other:
				return "the value '" + plainValue(v) + "' of type '" + typeName(v) + "'"
			}
			return "'" + plainValue(v) + "'"
		}
		return inequivalent(key, what, name, vhost, describe(a, hasA, hasB), describe(b, hasB, hasA))
	}
	return nil
}

// fixedArgs are the arguments that must be the same when a queue is declared
// again, in the order in which RabbitMQ compares them, by the queue's type.
var fixedArgs = map[queueKind][]string{
	classic: {
		"x-expires", "x-message-ttl", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-max-length",
		"x-max-length-bytes", "x-max-priority", "x-overflow", "x-queue-mode", "x-queue-version",
		"x-single-active-consumer", "x-queue-type", "x-queue-leader-locator",
	},
	quorum: {
		"x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy", "x-expires", "x-max-length",
		"x-max-length-bytes", "x-max-in-memory-length", "x-max-in-memory-bytes", "x-overflow",
		"x-single-active-consumer", "x-queue-type", "x-quorum-initial-group-size", "x-delivery-limit",
		"x-message-ttl", "x-queue-leader-locator", "x-consumer-timeout",
	},
	stream: {
		"x-max-length-bytes", "x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes",
		"x-queue-type", "x-initial-cluster-size", "x-queue-leader-locator",
	},
}

// sameArgs compares the arguments of a second declare with the queue's.
func (q *queue) sameArgs(now amqp.Table) error {
	kind, err := q.vh.queueKind(q.name, now)
	if err != nil {
		return err
	}
	for _, name := range fixedArgs[q.opts.kind] {
		a, b := "", ""
		switch name {
		case "x-queue-type":
			a, b = kind.String(), q.opts.kind.String()
		case "x-max-age":
			a, b = ageText(now[name]), ageText(q.args[name])
		}
		switch {
		case a != "" && b != "" && a != b:
			return inequivalent(name, "queue", q.name, q.vh.name, "'"+a+"'", "'"+b+"'")
		case a != "" && b != "":
			continue
		}
		if err := sameArgs("queue", q.name, q.vh.name, []string{name}, now, q.args); err != nil {
			return err
		}
	}
	return nil
}

// ageText is an x-max-age as RabbitMQ compares it: in milliseconds.
func ageText(v any) string {
	s, _ := v.(string)
	if d, ok := parseAge(s); ok {
		return strconv.FormatInt(d.Milliseconds(), 10)
	}
	return ""
}

func inequivalent(arg, what, name, vhost, received, current string) error {
	return refusef(amqp.PreconditionFailed, "inequivalent arg '%s' for %s '%s' in vhost '%s': received %s but current is %s",
		arg, what, name, vhost, received, current)
}

func sameFlag(arg, what, name, vhost string, received, current bool) error {
	if received == current {
		return nil
	}
	quote := func(b bool) string { return "'" + strconv.FormatBool(b) + "'" }
	return inequivalent(arg, what, name, vhost, quote(received), quote(current))
}

// reserved reports whether a name is kept for the broker.
func reserved(name string) bool { return strings.HasPrefix(name, "amq.") }
