package history

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// A checker that finds nothing proves nothing: each rule is broken once.
func TestCheck_FindsEveryViolation(t *testing.T) {
	for name, test := range map[string]struct {
		do    func(l *Log, id string, body []byte)
		rules Rules
		want  string
	}{
		"nothing": {do: func(l *Log, id string, body []byte) { l.Done(id, Confirmed, nil); l.Received(body, false) }},
		"redelivery": {do: func(l *Log, id string, body []byte) {
			l.Done(id, Unknown, nil)
			l.Received(body, false)
			l.Received(body, true)
		}},
		"resend": {do: func(l *Log, id string, body []byte) {
			l.Done(id, Confirmed, nil)
			l.Received(body, false)
			l.Received(body, false)
		}, rules: Rules{Resent: 1}},
		"no outcome": {do: func(l *Log, id string, body []byte) {}, want: "has no outcome"},
		"two": {do: func(l *Log, id string, body []byte) {
			l.Done(id, Unknown, nil)
			l.Done(id, Confirmed, nil)
			l.Received(body, false)
		}, want: "has 2 outcomes"},
		"lost": {do: func(l *Log, id string, body []byte) { l.Done(id, Confirmed, nil) }, want: "lost: "},
		"invented": {do: func(l *Log, id string, body []byte) {
			l.Done(id, Unknown, nil)
			l.Received([]byte(checksum("q-1 x")+" q-1 x"), false)
		}, want: "invented: q-1"},
		"corrupted": {do: func(l *Log, id string, body []byte) {
			l.Done(id, Unknown, nil)
			body[len(body)-1]++
			l.Received(body, false)
		}, want: "corrupted: "},
		"unsent": {do: func(l *Log, id string, body []byte) { l.Done(id, Unsent, nil); l.Received(body, false) }, want: "was unsent"},
		"duplicate": {do: func(l *Log, id string, body []byte) {
			l.Done(id, Confirmed, nil)
			l.Received(body, false)
			l.Received(body, false)
		}, want: "1 duplicates"},
		"out of order": {do: func(l *Log, id string, body []byte) {
			l.Send("p", 2, 1, rand.New(rand.NewPCG(0, 0)))
			l.Done("p-2", Unknown, nil)
			l.Done(id, Unknown, nil)
		}, rules: Rules{Arrived: []string{"p-2", "p-1", "p-2"}}, want: "order: p-1 arrived after p-2"},
	} {
		l := New()
		id, body := l.Send("p", 1, 10, rand.New(rand.NewPCG(1, 2)))
		test.do(l, id, body)
		_, err := l.Check(test.rules)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
