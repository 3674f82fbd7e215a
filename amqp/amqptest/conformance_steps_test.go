package amqptest_test

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// step does one line of a script.
func (r *caseRun) step(sc *scanner) {
	if sc.eat('>') {
		open := !sc.eat('>')
		sc.space()
		r.call(sc, open)
		return
	}
	sc.want('!')
	sc.space()
	verb := sc.word("")
	sc.space()
	switch verb {
	case "connect":
		r.connect(sc)
	case "dial":
		r.dialRaw(sc.word(""))
	case "raw":
		r.raw(sc)
	case "frame":
		r.frame(sc)
	case "method":
		r.method(sc)
	case "header":
		r.header(sc)
	case "body":
		r.body(sc)
	case "sleep", "quiet":
		r.pause(sc)
	case "until":
		r.until(sc)
	case "drop":
		r.conn(sc.word("")).drop()
	case "close":
		r.closeGently(r.conn(sc.word("")))
	case "mute":
		r.conn(sc.word("")).noReply = true
	case "beat":
		r.conn(sc.word("")).write(frameBytes(8, 0, nil))
	case "beats":
		r.wantBeats(sc)
	case "operator":
		r.operator(sc)
	default:
		sc.failf("no such step: %s", verb)
	}
}

// operator block, operator unblock, operator close "reason": raises and ends a
// memory alarm; closes all connections.
func (r *caseRun) operator(sc *scanner) {
	verb := sc.word("")
	sc.space()
	if r.operate == nil {
		sc.failf("no operator here")
	}
	r.operate(verb, sc.text(""))
}

// conn is the named connection, made when first used.
func (r *caseRun) conn(name string) *rawConn {
	if r.conns[name] == nil {
		r.connect(&scanner{name})
	}
	return r.conns[name]
}

// at reads an address and opens its channel if need be.
func (r *caseRun) at(sc *scanner, open bool) (*rawConn, uint16) {
	sc.space()
	name, ch, ok := splitAddress(sc.word(""))
	if !ok {
		sc.failf("want an address such as c1 or B:c1")
	}
	c := r.conn(name)
	if open && ch > 0 {
		r.openChannel(c, ch)
	}
	sc.space()
	return c, ch
}

func (r *caseRun) openChannel(c *rawConn, ch uint16) {
	c.mu.Lock()
	done := c.open[ch] || c.closing || c.ended
	c.mu.Unlock()
	if !done {
		c.send(ch, spec().byName["channel.open"], nil, nil, "", false)
		r.expect(c, ch, "channel.open-ok")
	}
}

// expect takes the named answer off a channel, and leaves any other there.
func (r *caseRun) expect(c *rawConn, ch uint16, name string) *answer {
	var a *answer
	r.await(func() bool {
		if a = c.front(ch); a == nil && ch != 0 {
			a = c.front(0)
		}
		return a != nil
	})
	if a == nil || a.method == nil || a.method.Name != name {
		return nil
	}
	return c.pop(ch)
}

// call sends a method, with its content where it has one.
func (r *caseRun) call(sc *scanner, open bool) {
	name, _ := sc.peekWord(1)
	c, ch := r.at(sc, open && name != "channel.open")
	m, a, props, body := parseCall(sc)
	c.send(ch, m, a, props, body, m.Content)
	if nowait, _ := a["nowait"].(bool); !r.loose || !m.Sync || nowait {
		return
	}
	r.await(func() bool { return c.replied(ch) })
}

// peekWord is the nth word of what is left.
func (sc *scanner) peekWord(n int) (string, bool) {
	f := strings.Fields(sc.s)
	if n >= len(f) {
		return "", false
	}
	return f[n], true
}

func parseCall(sc *scanner) (m *specMethod, a, props args, body string) {
	name := sc.word("")
	m = spec().byName[name]
	if m == nil {
		sc.failf("no such method: %s", name)
	}
	props = args{}
	a = parseFields(sc, m.Arguments, func(key string, sc *scanner) {
		sc.want('=')
		if key == "body" {
			body = sc.text("")
			return
		}
		for _, f := range spec().properties {
			if f.Name == key && m.Content {
				one := parseFields(&scanner{key + "=" + takeValue(sc)}, []specField{f}, nil)
				props[key] = one[key]
				return
			}
		}
		sc.failf("%s has no field %q", name, key)
	})
	return m, a, props, body
}

// takeValue cuts one value off, quotes and brackets whole.
func takeValue(sc *scanner) string {
	depth, i := 0, 0
	for ; i < len(sc.s); i++ {
		switch c := sc.s[i]; {
		case c == '"':
			q, err := strconv.QuotedPrefix(sc.s[i:])
			if err != nil {
				sc.failf("bad string")
			}
			i += len(q) - 1
		case c == '{' || c == '[' || c == '(':
			depth++
		case c == '}' || c == ']' || c == ')':
			depth--
		}
		if depth == 0 && i < len(sc.s) && sc.s[i] == ' ' {
			break
		}
	}
	v := sc.s[:i]
	sc.s = sc.s[i:]
	return v
}

// replied says whether a channel has had the answer to a synchronous call.
func (c *rawConn) replied(ch uint16) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.queues[ch] {
		if a.method == nil {
			return true
		}
		switch a.method.Name {
		case "basic.deliver", "basic.return", "basic.ack", "basic.nack", "basic.cancel":
		default:
			return true
		}
	}
	return c.ended || c.closing
}

func (c *rawConn) drop() {
	c.mu.Lock()
	c.closing = true // the end of the stream is no news
	c.mu.Unlock()
	c.nc.Close()
}

func (r *caseRun) raw(sc *scanner) {
	c := r.conn(sc.word(""))
	sc.space()
	if rest, ok := strings.CutPrefix(sc.s, "hex "); ok {
		b, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
		if err != nil {
			sc.failf("bad hex")
		}
		c.write(b)
		return
	}
	c.write([]byte(sc.text("")))
}

// frame c1 TYPE "payload" [END]: any frame at all.
func (r *caseRun) frame(sc *scanner) {
	c, ch := r.at(sc, false)
	typ := sc.int()
	sc.space()
	b := frameBytes(byte(typ), ch, []byte(sc.text("")))
	if sc.space(); sc.s != "" {
		b[len(b)-1] = byte(sc.int())
	}
	c.write(b)
}

func (r *caseRun) method(sc *scanner) {
	c, ch := r.at(sc, true)
	m, a, _, _ := parseCall(sc)
	c.send(ch, m, a, nil, "", false)
}

// header c1 size=5 [class=60] [properties]
func (r *caseRun) header(sc *scanner) {
	c, ch := r.at(sc, true)
	class, size := int64(60), int64(0)
	props := parseFields(sc, spec().properties, func(key string, sc *scanner) {
		sc.want('=')
		switch key {
		case "class":
			class = sc.int()
		case "size":
			size = sc.int()
		default:
			sc.failf("a header has no %q", key)
		}
	})
	c.write(frameBytes(2, ch, headerBytes(uint16(class), size, props)))
}

func (r *caseRun) body(sc *scanner) {
	c, ch := r.at(sc, true)
	c.write(frameBytes(3, ch, []byte(sc.text(""))))
}

// pause waits a set time. What arrives meanwhile are the step's answers; a
// quiet step has none.
func (r *caseRun) pause(sc *scanner) {
	d, err := time.ParseDuration(sc.word(""))
	if err != nil {
		sc.failf("bad duration")
	}
	time.Sleep(d)
}

// until [A:]queue [messages=N] [consumers=N] [gone]: polls, on a channel of
// its own, until a passive declare answers so. For what the broker does in
// its own time.
func (r *caseRun) until(sc *scanner) {
	name, queue := "A", sc.word("")
	if n, q, ok := strings.Cut(queue, "::"); ok {
		name, queue = n, q
	}
	want := args{}
	gone := false
	for sc.space(); sc.s != ""; sc.space() {
		switch key := sc.word("="); key {
		case "gone":
			gone = true
		case "messages", "consumers":
			sc.want('=')
			want[strings.TrimSuffix(key, "s")+"-count"] = sc.int()
		default:
			sc.failf("until knows no %q", key)
		}
	}
	const pollChannel = 2000
	c := r.conn(name)
	last := "no answer"
	for end := time.Now().Add(r.timeout); time.Now().Before(end); time.Sleep(15 * time.Millisecond) {
		r.openChannel(c, pollChannel)
		c.send(pollChannel, spec().byName["queue.declare"], args{"queue": queue, "passive": true}, nil, "", false)
		a := r.expect(c, pollChannel, "queue.declare-ok")
		if a == nil {
			a = c.pop(pollChannel)
		}
		if a == nil {
			return // the connection is gone; the next step shows it
		}
		last = a.String()
		if a.method.Name != "queue.declare-ok" {
			if gone {
				return
			}
			continue
		}
		done := !gone
		for k, v := range want {
			done = done && a.args[k] == v
		}
		if done {
			return
		}
	}
	c.queue(&answer{text: "until: " + last})
}

// wantBeats A 3s: a heartbeat arrives within the time.
func (r *caseRun) wantBeats(sc *scanner) {
	c := r.conn(sc.word(""))
	sc.space()
	d, err := time.ParseDuration(sc.word(""))
	if err != nil {
		sc.failf("bad duration")
	}
	c.mu.Lock()
	had := c.beats
	c.mu.Unlock()
	time.Sleep(d)
	c.mu.Lock()
	n := c.beats - had
	c.mu.Unlock()
	if n == 0 {
		c.queue(&answer{text: "no heartbeat"})
	}
}
