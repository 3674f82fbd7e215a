package amqptest_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp/amqptest"
)

type opKind int

const (
	opDeclare opKind = iota
	opDelete
	opPurge
	opBind
	opUnbind
	opBindExchange
	opPublish
	opGet
	opConsume
	opCancel
	opRecover
	opClose
	opAck
	opNack
	opReject
	opKinds
)

// op is one operation of a sequence. It names no state, so that any part of a
// sequence is a sequence: shrinking relies on it.
type op struct {
	kind                                opKind
	ch                                  int
	queue, exchange, key, body, tag     string
	n, prio                             int // option, prefetch, or which delivery
	noAck, mandatory, multiple, requeue bool
}

var opNames = [...]string{
	"declare", "delete", "purge", "bind", "unbind", "bind-exchange", "publish", "get", "consume", "cancel", "recover",
	"close", "ack", "nack", "reject",
}

func (o op) String() string {
	s := fmt.Sprintf("%s ch=%d", opNames[o.kind], o.ch)
	switch o.kind {
	case opDeclare:
		return s + fmt.Sprintf(" %s %+v", o.queue, refOptions[o.n])
	case opBind, opUnbind:
		return s + fmt.Sprintf(" %s to %s key=%s", o.queue, o.exchange, o.key)
	case opPublish:
		return s + fmt.Sprintf(" exchange=%q key=%s body=%s prio=%d mandatory=%v", o.exchange, o.key, o.body, o.prio, o.mandatory)
	case opConsume:
		return s + fmt.Sprintf(" %s tag=%s prefetch=%d no-ack=%v", o.queue, o.tag, o.n, o.noAck)
	case opCancel:
		return s + " " + o.tag
	case opAck, opNack, opReject:
		return s + fmt.Sprintf(" the %dth multiple=%v requeue=%v", o.n, o.multiple, o.requeue)
	}
	return s + fmt.Sprintf(" %s no-ack=%v", o.queue, o.noAck)
}

// weights is how often each kind of operation comes.
var weights = [opKinds]int{
	opDeclare: 8, opDelete: 2, opPurge: 2, opBind: 6, opUnbind: 2, opBindExchange: 1, opPublish: 30, opGet: 10, opConsume: 8,
	opCancel: 4, opRecover: 2, opClose: 1, opAck: 12, opNack: 7, opReject: 7,
}

var modelKeys = []string{"a", "b", "a.b", "a.b.c", "*.b", "a.#", "#", "*"}

func randomOps(rnd *rand.Rand, n int) []op {
	total := 0
	for _, w := range weights {
		total += w
	}
	ops := make([]op, n)
	for i := range ops {
		kind := opDeclare
		for r := rnd.IntN(total); r >= weights[kind]; kind++ {
			r -= weights[kind]
		}
		o := op{kind: kind, ch: 1 + rnd.IntN(2), queue: fmt.Sprint("q", rnd.IntN(3))}
		switch kind {
		case opDeclare:
			o.n = rnd.IntN(len(refOptions))
			if o.queue == "q0" {
				o.n = rnd.IntN(5) // it takes the dead letters, and has none itself
			}
		case opBind, opUnbind, opBindExchange:
			o.exchange, o.key = fmt.Sprint("x", rnd.IntN(3)), modelKeys[rnd.IntN(len(modelKeys))]
		case opPublish:
			o.body, o.prio, o.mandatory = fmt.Sprint("m", i), rnd.IntN(4), rnd.IntN(3) == 0
			o.key = o.queue
			if rnd.IntN(2) == 0 {
				o.exchange, o.key = fmt.Sprint("x", rnd.IntN(3)), modelKeys[rnd.IntN(4)]
			}
		case opGet:
			o.noAck = rnd.IntN(2) == 0
		case opConsume:
			o.tag, o.n, o.noAck = fmt.Sprint("t", i), rnd.IntN(4), rnd.IntN(4) == 0
		case opCancel:
			o.tag = fmt.Sprint("t", rnd.IntN(i+1))
		default:
			o.n, o.multiple, o.requeue = rnd.IntN(6), kind != opReject && rnd.IntN(3) == 0, rnd.IntN(2) == 0
		}
		ops[i] = o
	}
	return ops
}

// modelTarget is a broker to run sequences on.
type modelTarget struct {
	dial   func() (net.Conn, error)
	prefix string        // of all names; differs from sequence to sequence
	wait   time.Duration // how long what must come may take
}

// shrinkOps removes operations for as long as the rest still fails.
func shrinkOps(ops []op, fails func([]op) error) ([]op, error) {
	err := fails(ops)
	for size := len(ops) / 2; size > 0; {
		smaller := false
		for at := 0; at+size <= len(ops); {
			rest := append(append([]op(nil), ops[:at]...), ops[at+size:]...)
			if e := fails(rest); e != nil {
				ops, err, smaller = rest, e, true
				continue
			}
			at += size
		}
		if !smaller {
			size /= 2
		}
	}
	return ops, err
}

// checkSequence runs the sequence of a seed; on failure it reports the shortest
// one found that fails too.
func checkSequence(t *testing.T, seed uint64, length int, run func([]op) error) bool {
	t.Helper()
	ops := randomOps(rand.New(rand.NewPCG(seed, 2)), length)
	if run(ops) == nil {
		return true
	}
	short, err := shrinkOps(ops, run)
	if err == nil {
		t.Errorf("seed %d failed once, and then not again", seed)
		return false
	}
	var b strings.Builder
	for i, o := range short {
		fmt.Fprintf(&b, "%3d %s\n", i, o)
	}
	t.Errorf("seed %d: %v\n%s", seed, err, b.String())
	return false
}

// TestModel_RandomSequences runs 10,000 random sequences of 30 operations.
func TestModel_RandomSequences(t *testing.T) {
	n := 10_000
	if testing.Short() || raceEnabled {
		n = 500
	}
	failed := 0
	for seed := range uint64(n) {
		ok := checkSequence(t, seed, 30, func(ops []op) error {
			srv, err := amqptest.Start(&amqptest.Config{Record: -1})
			if err != nil {
				return err
			}
			defer srv.Close()
			tg := modelTarget{wait: time.Second, dial: func() (net.Conn, error) { return srv.Dial(t.Context(), "", "") }}
			return tg.run(ops)
		})
		if !ok {
			if failed++; failed == 3 {
				t.Fatalf("gave up after seed %d", seed)
			}
		}
	}
}
