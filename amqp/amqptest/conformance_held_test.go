package amqptest_test

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Random sequences settle what they were given, whatever its tag: @n in a step
// stands for the nth delivery that its channel holds, counted round.

var heldTag = regexp.MustCompile(`@(\d+)`)

// resolve puts the delivery tag for @n. It reports false where the channel
// holds nothing: the step is passed over then.
func (r *caseRun) resolve(do string) (string, bool) {
	words := strings.Fields(do)
	if len(words) < 3 {
		return do, true
	}
	where, method := words[1], words[2]
	r.noAck = method == "basic.get" && strings.HasSuffix(do, "no-ack")
	switch method {
	case "channel.close", "basic.recover":
		delete(r.held, where)
	}
	m := heldTag.FindStringSubmatch(do)
	if m == nil {
		return do, true
	}
	held := r.held[where]
	if len(held) == 0 {
		return "", false
	}
	n, _ := strconv.Atoi(m[1])
	tag := held[n%len(held)]
	multiple := slices.Contains(words, "multiple")
	r.held[where] = slices.DeleteFunc(slices.Clone(held), func(t int64) bool { return t == tag || multiple && t < tag })
	return strings.Replace(do, m[0], strconv.FormatInt(tag, 10), 1), true
}

// note keeps account of what a channel holds. The tags of consumers without
// acks begin with n.
func (r *caseRun) note(where string, a *answer) {
	if a.method == nil {
		return
	}
	switch a.method.Name {
	case "channel.close":
		delete(r.held, where)
	case "basic.deliver":
		if tag, _ := a.args["consumer-tag"].(string); !strings.HasPrefix(tag, "n") {
			r.held[where] = append(r.held[where], a.args["delivery-tag"].(int64))
		}
	case "basic.get-ok":
		if !r.noAck {
			r.held[where] = append(r.held[where], a.args["delivery-tag"].(int64))
		}
	}
}
