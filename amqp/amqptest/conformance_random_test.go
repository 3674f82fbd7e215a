package amqptest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// A generator makes random sequences of operations whose answers RabbitMQ gives
// alike every time. That asks for some care: what one operation sets off must
// not race with itself. So each queue has one channel that its consumers are
// on, nobody consumes where messages are published, and dead letters have a
// queue of their own that nothing else fills.
type generator struct {
	*rand.Rand
	seq      *scriptCase
	queues   []*genQueue
	exchange string // its type
	mode     string // of the publishing channel: "", confirm or tx
	tags     int
	bodies   int
	consumes map[string][]string // consumer tags by channel
}

type genQueue struct {
	name, args, ch string
	quorum         bool
}

// randomSequence makes the sequence of a seed, of about n operations.
func randomSequence(seed uint64, n int) *scriptCase {
	g := &generator{
		Rand: rand.New(rand.NewPCG(seed, 0x5eed)), consumes: map[string][]string{},
		seq: &scriptCase{file: "random", name: fmt.Sprintf("seed %d", seed)},
	}
	g.setUp()
	for range n {
		g.operation()
	}
	g.tearDown()
	return g.seq
}

func (g *generator) do(format string, args ...any) {
	g.seq.steps = append(g.seq.steps, &step{do: fmt.Sprintf(format, args...)})
}

func (g *generator) one(of ...string) string { return of[g.IntN(len(of))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// setUp makes the queues, an exchange and its bindings.
func (g *generator) setUp() {
	g.mode = g.one("", "confirm", "confirm", "tx")
	for i, ch := range []string{"c1", "c2", "c3"} {
		q := &genQueue{name: fmt.Sprintf("$q%d", i), ch: ch}
		var args []string
		if i == 0 && g.chance(60) {
			args = append(args, `x-dead-letter-exchange:"",x-dead-letter-routing-key:$dl`)
		}
		if g.chance(30) {
			args = append(args, fmt.Sprintf("x-max-length:%d", g.IntN(4)), g.one("x-overflow:drop-head", "x-overflow:reject-publish"))
		}
		// In a transaction a quorum queue refuses publishes when it gets to it.
		q.quorum = i == 2 && g.mode != "tx" && g.chance(40)
		switch {
		case q.quorum:
			args = append(args, "x-queue-type:quorum")
			if g.chance(50) {
				args = append(args, fmt.Sprintf("x-delivery-limit:%d", g.IntN(3)))
			}
		case g.chance(25):
			args = append(args, "x-max-priority:5")
		}
		if g.chance(15) {
			args = append(args, "x-single-active-consumer:true")
		}
		q.args = strings.Join(args, ",")
		g.queues = append(g.queues, q)
		g.declare(q)
	}
	g.do("> c6 queue.declare queue=$dl durable")
	g.exchange = g.one("direct", "fanout", "topic", "headers")
	g.do("> c6 exchange.declare exchange=$x type=%s", g.exchange)
	for range 3 {
		g.bind()
	}
	if g.mode != "" {
		g.do("> c4 %s.select", g.mode)
	}
}

func (g *generator) declare(q *genQueue) {
	g.do("> c6 queue.declare queue=%s durable arguments={%s}", q.name, q.args)
}

func (g *generator) queue() *genQueue { return g.queues[g.IntN(len(g.queues))] }

func (g *generator) key() string { return g.one("a", "b", "a.b", "a.b.c") }

func (g *generator) bind() {
	pattern, args := g.key(), ""
	switch g.exchange {
	case "topic":
		pattern = g.one("a", "a.*", "#", "*.b.#", "a.#")
	case "headers":
		args = " arguments={" + g.one("x-match:all,k:1", "x-match:any,k:1,l:2", "k:1,l:2", "x-match:any") + "}"
	}
	g.do("> c6 queue.%s queue=%s exchange=$x routing-key=%s%s", g.one("bind", "bind", "bind", "unbind"), g.queue().name, pattern, args)
}

// operation adds one random operation, the frequent kinds often.
func (g *generator) operation() {
	switch n := g.IntN(100); {
	case n < 34:
		g.publish()
	case n < 44:
		q := g.queue()
		g.do("> %s basic.get queue=%s%s", g.one("c5", "c5", q.ch), q.name, g.one("", "", " no-ack"))
	case n < 54:
		g.consume()
	case n < 76:
		g.settle()
	case n < 80:
		g.cancel()
	case n < 84:
		g.bind()
	case n < 87:
		g.do("> %s basic.qos prefetch-count=%d", g.queue().ch, g.IntN(4))
	case n < 89:
		g.do("> %s basic.recover requeue", g.one("c5", g.queue().ch))
	case n < 92:
		g.do("> %s channel.close reply-code=200", g.one("c5", g.queue().ch))
	case n < 94:
		g.do("> c6 queue.purge queue=%s", g.queue().name)
	case n < 96 && g.mode != "tx": // a commit to a queue that went costs the connection
		g.anew(g.queue())
	case n < 98:
		g.do("> c6 queue.declare queue=%s passive", g.queue().name)
	case g.mode == "tx":
		g.do("> c4 tx.%s", g.one("commit", "commit", "rollback"))
	default:
		g.do("> c6 queue.declare queue=%s durable arguments={x-max-length:99}", g.queue().name)
	}
}

// anew deletes a queue and declares it again. Nobody may hold a message of the
// old one: RabbitMQ takes its tag for one of the new queue's.
func (g *generator) anew(q *genQueue) {
	g.do("> %s channel.close reply-code=200", q.ch)
	g.do("> c5 channel.close reply-code=200")
	unless := ""
	if !q.quorum { // which close the connection
		unless = g.one("", " if-empty", " if-unused")
	}
	g.do("> c6 queue.delete queue=%s%s", q.name, unless)
	g.declare(q)
}

func (g *generator) publish() {
	g.bodies++
	to := "exchange=$x routing-key=" + g.key()
	if g.chance(60) {
		to = "routing-key=" + g.queue().name
	}
	var headers []string
	if g.chance(30) {
		headers = append(headers, "k:1")
	}
	if g.chance(20) {
		headers = append(headers, "l:2")
	}
	props := ""
	if len(headers) > 0 {
		props += " headers={" + strings.Join(headers, ",") + "}"
	}
	if g.chance(30) {
		props += fmt.Sprintf(" priority=%d", g.IntN(8))
	}
	if g.chance(30) {
		props += " mandatory"
	}
	g.do("> c4 basic.publish %s%s body=\"%d\"", to, props, g.bodies)
}

func (g *generator) consume() {
	q := g.queue()
	g.tags++
	tag, flags := fmt.Sprintf("t%d", g.tags), ""
	if g.chance(20) {
		tag, flags = fmt.Sprintf("n%d", g.tags), " no-ack"
	}
	if g.chance(5) {
		flags += " exclusive"
	}
	if g.chance(20) {
		flags += fmt.Sprintf(" arguments={x-priority:%d}", g.IntN(3))
	}
	g.consumes[q.ch] = append(g.consumes[q.ch], tag)
	g.do("> %s basic.consume queue=%s consumer-tag=%s%s", q.ch, q.name, tag, flags)
}

func (g *generator) cancel() {
	ch := g.queue().ch
	if len(g.consumes[ch]) == 0 {
		return
	}
	g.do("> %s basic.cancel consumer-tag=%s", ch, g.consumes[ch][g.IntN(len(g.consumes[ch]))])
}

func (g *generator) settle() {
	ch := g.one("c5", "c1", "c2", "c3")
	switch n := g.IntN(20); {
	case n < 9:
		g.do("> %s basic.ack delivery-tag=@%d%s", ch, g.IntN(9), g.one("", "", " multiple"))
	case n < 14:
		g.do("> %s basic.nack delivery-tag=@%d%s%s", ch, g.IntN(9), g.one("", " multiple"), g.one(" requeue", " requeue", ""))
	case n < 19:
		g.do("> %s basic.reject delivery-tag=@%d%s", ch, g.IntN(9), g.one(" requeue", " requeue", ""))
	default:
		g.do("> %s basic.ack delivery-tag=%d", ch, g.IntN(12)) // and perhaps a wrong one
	}
}

// tearDown ends the consumers, looks at what is left, and removes it.
func (g *generator) tearDown() {
	if g.mode == "tx" {
		g.do("> c4 tx.commit")
	}
	for _, ch := range []string{"c1", "c2", "c3", "c5"} {
		g.do("> %s channel.close reply-code=200", ch)
	}
	for _, q := range append(slices.Clone(g.queues), &genQueue{name: "$dl"}) {
		for range 6 {
			g.do("> c6 basic.get queue=%s no-ack", q.name)
		}
		g.do("> c6 queue.delete queue=%s", q.name)
	}
	g.do("> c6 exchange.delete exchange=$x")
}

// shrink removes steps from a failing sequence for as long as it fails, and
// calls fails at most budget times.
func shrink(c *scriptCase, budget int, fails func(*scriptCase) bool) *scriptCase {
	for size := (len(c.steps) + 1) / 2; size > 0; {
		cut := false
		for at := 0; at < len(c.steps) && budget > 0; {
			less := &scriptCase{file: c.file, name: c.name}
			less.steps = append(less.steps, c.steps[:at]...)
			less.steps = append(less.steps, c.steps[min(at+size, len(c.steps)):]...)
			if budget--; len(less.steps) > 0 && fails(less) {
				c, cut = less, true
				continue
			}
			at += size
		}
		if budget <= 0 {
			break
		}
		if !cut || size > 1 {
			size /= 2
		}
	}
	return c
}

// TestConformance_RandomSequencesRepeat plays random sequences twice on amqptest:
// the same operations have the same answers. Against RabbitMQ they are played by
// TestConformance_RandomSequences.
func TestConformance_RandomSequencesRepeat(t *testing.T) {
	n := uint64(300)
	if testing.Short() {
		n = 30
	}
	differ := func(c *scriptCase) bool {
		once := answersInMemory(t, c)
		return once != answersInMemory(t, c)
	}
	for seed := range n {
		if c := randomSequence(seed, 40); differ(c) {
			c = shrink(c, 500, differ)
			t.Fatalf("%s differs from itself:\n%s", c.name, firstDifference(answersInMemory(t, c), answersInMemory(t, c)))
		}
	}
}

// firstDifference shows two transcripts up to and past where they part.
func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	const more = 6
	text := "  " + strings.Join(a[:n], "\n  ")
	for _, l := range a[n:min(n+more, len(a))] {
		text += "\n- " + l
	}
	for _, l := range b[n:min(n+more, len(b))] {
		text += "\n+ " + l
	}
	return text
}

func answersInMemory(t *testing.T, c *scriptCase) (text string) {
	synctest.Test(t, func(t *testing.T) {
		res := runInMemoryAs(t, c, true)
		if res.err != nil {
			t.Fatal(res.err)
		}
		text = answers(c, res.got)
	})
	return text
}

// answers is a sequence's transcript. The order of a step's answers counts on
// each channel alone, and there not among the cancels that a deletion sends.
func answers(c *scriptCase, got map[*step][]string) string {
	for _, s := range c.steps {
		if strings.Contains(s.do, "queue.delete") {
			slices.Sort(got[s])
		}
	}
	return c.transcript(got)
}
