package amqptest_test

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A target is a broker to run cases on.
type target struct {
	dial    func() (net.Conn, error)
	prefix  string                  // stands for the $ of $name; differs from case to case
	timeout time.Duration           // how long an answer may take
	settle  time.Duration           // how long a silence shows that no answer comes
	record  bool                    // take down what comes instead of comparing
	brisk   bool                    // do not wait for silence after what sets nothing off
	lag     func() time.Duration    // how slow the broker is just now; nil: not at all
	operate func(verb, text string) // what an operator does: block, unblock, close
	pace    time.Duration           // how long to rest after a step that has no answer
}

// A caseRun is one case on one target.
type caseRun struct {
	target
	conns map[string]*rawConn
	wake  chan struct{}
	names map[string]string // what the broker named -> $gen1, $tag1...
	real  map[string]string // and back
	count map[string]int
	held  map[string][]int64 // by address: delivery tags to be settled, for @n
	noAck bool               // the step is a get without acks
	loose bool               // an answer differed: from here on only take down
	got   map[*step][]string
}

// run plays a case. The transcript of what came equals the case's own where
// nothing differed. A fault in the script itself is an error.
func (tg target) run(c *scriptCase) (got map[*step][]string, err error) {
	r := &caseRun{
		target: tg, conns: map[string]*rawConn{}, wake: make(chan struct{}, 1), got: map[*step][]string{},
		held: map[string][]int64{}, names: map[string]string{}, real: map[string]string{}, count: map[string]int{}, loose: tg.record,
	}
	at := 0
	defer func() {
		for _, conn := range r.conns {
			conn.nc.Close()
		}
		if p := recover(); p != nil {
			msg, ok := p.(scriptError)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("%s.txt:%d: %s", c.file, c.steps[at].line, msg)
		}
	}()
	for i, s := range c.steps {
		at = i
		if do, ok := r.resolve(s.do); ok {
			r.step(&scanner{r.expand(do)})
		}
		if r.loose {
			r.collect(s)
			continue
		}
		r.match(s)
		if len(s.want) == 0 {
			time.Sleep(r.pace)
		}
	}
	if len(c.steps) > 0 && !r.loose {
		r.finish(c.steps[len(c.steps)-1])
	}
	for _, conn := range r.conns {
		r.closeGently(conn)
	}
	return r.got, nil
}

var variable = regexp.MustCompile(`\$([a-z][a-z0-9]*)`)

// expand puts real names for the $names in a step.
func (r *caseRun) expand(line string) string {
	return variable.ReplaceAllStringFunc(line, func(v string) string {
		if name, ok := r.real[v]; ok {
			return name
		}
		return r.prefix + v[1:]
	})
}

var brokerNamed = regexp.MustCompile(`amq\.gen-[A-Za-z0-9_=+/-]+|amq\.ctag-[A-Za-z0-9_=+/-]+|amq\.rabbitmq\.reply-to\.[A-Za-z0-9_=+/.-]+|[a-z]+@[a-z0-9-]+`)

var namePrefix = map[string]string{"amq.gen-": "$gen", "amq.ctag-": "$tag", "amq.rabbitmq.reply-to.": "$reply"}

// normalise puts $names for the names that differ from run to run.
func (r *caseRun) normalise(s string) string {
	s = strings.ReplaceAll(s, r.prefix, "$")
	return brokerNamed.ReplaceAllStringFunc(s, func(name string) string {
		if n, ok := r.names[name]; ok {
			return n
		}
		for prefix, short := range namePrefix {
			if strings.HasPrefix(name, prefix) {
				r.count[short]++
				n := fmt.Sprintf("%s%d", short, r.count[short])
				r.names[name], r.real[n] = n, name
				return n
			}
		}
		return "node@host"
	})
}

func (r *caseRun) line(conn string, a *answer) string {
	r.note(address(conn, a.channel), a)
	return address(conn, a.channel) + " " + r.normalise(a.String())
}

// sleep waits for a token or for d to pass, and says which.
func (r *caseRun) sleep(d time.Duration) bool {
	if d <= 0 {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.wake:
		return true
	case <-t.C:
		return false
	}
}

// await polls f at every arrival until it holds or the time is up.
func (r *caseRun) await(f func() bool) bool {
	end := time.Now().Add(r.timeout)
	for !f() {
		if !r.sleep(time.Until(end)) {
			return f()
		}
	}
	return true
}

// take pops every answer that waits, by connection and channel.
func (r *caseRun) take() (lines []string) {
	for _, name := range r.connNames() {
		c := r.conns[name]
		for _, ch := range c.waiting() {
			for a := c.pop(ch); a != nil; a = c.pop(ch) {
				lines = append(lines, r.line(name, a))
			}
		}
	}
	return lines
}

func (r *caseRun) connNames() []string {
	var names []string
	for n := range r.conns {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// inert are the calls that have one answer and nothing else follows from.
var inert = regexp.MustCompile(`basic\.(get|qos)|(queue|exchange)\.(declare|bind|unbind)|(confirm|tx)\.select`)

// collect takes down all answers until a silence.
func (r *caseRun) collect(s *step) {
	settle, lag := r.settle, time.Duration(0)
	if r.lag != nil {
		lag = r.lag()
	}
	if r.brisk && inert.MatchString(s.do) {
		settle = settle/10 + lag
	} else {
		settle += 4 * lag
	}
	for end := time.Now().Add(settle); ; {
		if !r.sleep(time.Until(end)) {
			break
		}
		end = time.Now().Add(settle)
	}
	r.got[s] = append(r.got[s], r.take()...)
	if s.unordered {
		slices.Sort(r.got[s])
	}
}

// match waits for the answers that a step wants. At the first difference the
// run turns loose, so that the report shows all that came.
func (r *caseRun) match(s *step) {
	if s.unordered {
		var got []string
		r.await(func() bool {
			got = append(got, r.take()...)
			return len(got) >= len(s.want)
		})
		slices.Sort(got)
		r.got[s] = got
		if !slices.Equal(got, slices.Sorted(slices.Values(s.want))) {
			r.differ(s)
		}
		return
	}
	for _, want := range s.want {
		where, _, _ := strings.Cut(want, " ")
		name, ch, ok := splitAddress(where)
		c := r.conns[name]
		if !ok || c == nil {
			panic(scriptError("answer on no connection: " + want))
		}
		var a *answer
		r.await(func() bool { a = c.pop(ch); return a != nil })
		if a == nil {
			r.got[s] = append(r.got[s], address(name, ch)+" (nothing came)")
			r.differ(s)
			return
		}
		got := r.line(name, a)
		if got != want && r.pace > 0 && recount(want, got) {
			got = r.again(s, want, name, c, ch)
		}
		r.got[s] = append(r.got[s], got)
		if got != want {
			r.differ(s)
			return
		}
	}
}

var counts = regexp.MustCompile(`message-count=\d+ consumer-count=\d+`)

// recount says whether two answers to queue.declare differ in their counts
// alone. RabbitMQ's queues count out of turn: ahead of publishes and acks that
// were sent before.
func recount(want, got string) bool {
	return strings.Contains(want, " queue.declare-ok ") && counts.ReplaceAllString(want, "") == counts.ReplaceAllString(got, "")
}

// again repeats a declare until its counts are as wanted or the time is up.
func (r *caseRun) again(s *step, want, name string, c *rawConn, ch uint16) (got string) {
	for end := time.Now().Add(r.timeout / 2); time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		r.step(&scanner{r.expand(s.do)})
		var a *answer
		r.await(func() bool { a = c.pop(ch); return a != nil })
		if a == nil {
			return "(nothing came)"
		}
		if got = r.line(name, a); got == want {
			break
		}
	}
	return got
}

func (r *caseRun) differ(s *step) {
	r.loose = true
	r.collect(s)
}

// finish looks for answers that no step wanted.
func (r *caseRun) finish(last *step) {
	for r.sleep(r.settle) {
	}
	for _, l := range r.take() {
		r.got[last] = append(r.got[last], l+" (unexpected)")
	}
}

// closeGently ends a connection as a client should, so that what it holds is
// free again when the case is over.
func (r *caseRun) closeGently(c *rawConn) {
	c.mu.Lock()
	over := c.closing || c.ended
	c.mu.Unlock()
	if over {
		return
	}
	c.send(0, spec().byName["connection.close"], args{"reply-code": int64(200)}, nil, "", false)
	r.expect(c, 0, "connection.close-ok")
}
