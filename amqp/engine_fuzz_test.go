package amqp

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// midway is an engine in the midst of things: besides channels that are open,
// a client owes and is owed replies and confirms.
func midway(t testing.TB, role Role, open bool) *Engine {
	t.Helper()
	if !open {
		return NewEngine(EngineConfig{Role: role, SASL: []SASL{roundsSASL{}, SASLPlain()},
			SASLInfo: SASLInfo{Credentials: &Credentials{Username: "u", Password: "p"}}, MaxBody: 1 << 20})
	}
	e := ready(t, role, 2)
	if role == ServerRole {
		e.Send(2, &BasicCancel{ConsumerTag: "t"})
		discard(e)
		return e
	}
	msg := &Message{Body: []byte("abc")}
	for _, m := range []Method{&ConfirmSelect{}, &QueueDeclare{Queue: "q"}, &BasicConsume{Queue: "q"}, &BasicGet{Queue: "q"},
		&BasicPublish{RoutingKey: "q"}, &BasicPublish{RoutingKey: "q"}, &ChannelFlow{Active: true}} {
		var err error
		if m.MethodID() == MethodBasicPublish {
			err = e.SendContent(1, m, msg)
		} else {
			err = e.Send(1, m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e.Abandon(1, MethodBasicConsume)
	e.Send(2, &BasicGet{Queue: "q"})
	e.Abandon(2, MethodBasicGet)
	e.Send(0, &ConnectionUpdateSecret{NewSecret: "x"})
	e.Send(3, &ChannelOpen{})
	discard(e)
	return e
}

// runFuzz feeds p in the pieces that step gives the lengths of, and writes
// down what comes of it.
func runFuzz(t *testing.T, e *Engine, p []byte, step func() int) []string {
	var log, out []string
	var sticky error
	var written []byte
	for len(p) > 0 {
		n := min(max(step(), 1), len(p))
		err := e.Feed(time.Unix(1000, 0), slices.Clone(p[:n]))
		p = p[n:]
		for {
			ev, ok := e.Next()
			if !ok {
				break
			}
			log = append(log, describeFuzzed(t, &ev))
		}
		written = append(written, drain(e)...)
		if sticky != nil && err != sticky {
			t.Fatalf("first %v, then %v", sticky, err)
		}
		sticky = err
	}
	e.EOF(nil)
	for {
		ev, ok := e.Next()
		if !ok {
			break
		}
		log = append(log, describeFuzzed(t, &ev))
	}
	if e.s.phase != connClosed {
		t.Fatal("EOF did not end it")
	}
	if len(log) == 0 || !strings.HasPrefix(log[len(log)-1], "closed") {
		t.Fatalf("EventClosed is not the last: %v", log)
	}
	if err := e.Send(1, &QueueDeclare{}); err == nil {
		t.Fatal("a method was taken after the end")
	}
	return append(log, append(out, describeOutput(t, append(written, drain(e)...))...)...)
}

// describeFuzzed is describeEvent for tables that are costly to build or that
// can't be written as JSON.
func describeFuzzed(t *testing.T, ev *Event) string {
	if ev.Kind != EventMethod && ev.Kind != EventContent {
		return describeEvent(t, ev)
	}
	if _, err := ev.Method(); err != nil && !errors.Is(err, ResourceError) {
		t.Fatalf("the engine let %s pass: %v", ev.ID, err)
	}
	if ev.Kind == EventContent {
		if _, err := ev.Message(); err != nil && !errors.Is(err, ResourceError) {
			t.Fatalf("the engine let properties pass: %v", err)
		}
	}
	return fmt.Sprintf("%d %s %x %x %x %d %v", ev.Channel, ev.ID, ev.Args, ev.Properties, ev.Body, ev.BodySize, ev.Oversized)
}

// FuzzEngine feeds either role anything, from the first octet on or midway. It
// must not panic, must allocate no more than the input allows, give the same
// events and output however the input is cut, and stay with its first error.
func FuzzEngine(f *testing.F) {
	seedEngine(f)
	f.Fuzz(func(t *testing.T, server, open bool, p []byte) {
		role := ClientRole
		if server {
			role = ServerRole
		}
		want := runFuzz(t, midway(t, role, open), p, func() int { return len(p) })
		if len(p) < 4096 {
			if got := runFuzz(t, midway(t, role, open), p, func() int { return 1 }); !slices.Equal(got, want) {
				t.Fatalf("fed by the octet (-whole +got):\n%s", cmp.Diff(want, got))
			}
		}
		sum := uint32(len(p))
		for _, b := range p {
			sum = sum*16777619 ^ uint32(b)
		}
		if got := runFuzz(t, midway(t, role, open), p, func() int { sum = sum*1664525 + 1013904223; return int(sum>>16) % 40 }); !slices.Equal(got, want) {
			t.Fatalf("cut at random (-whole +got):\n%s", cmp.Diff(want, got))
		}
		if len(p) > 512 { // less can't use up the 64 KiB, and measuring is slow
			e := midway(t, role, open)
			if got, limit := allocated(func() { feedAll(e, p, 1<<30) }), memoryLimit(len(p)); got > limit {
				t.Fatalf("%d octets allocate %d, limit %d", len(p), got, limit)
			}
		}
	})
}

// seedEngine takes what arrives in the transcripts.
func seedEngine(f *testing.F) {
	files, err := filepath.Glob("testdata/engine/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no transcripts: %v", err)
	}
	t := new(testing.T)
	for _, file := range files {
		for _, c := range loadTranscripts(t, file) {
			var p []byte
			open, server := false, strings.HasSuffix(file, "_server.txt")
			for _, st := range c.steps {
				verb, rest, _ := strings.Cut(st.line, " ")
				if arrived, ok := (&script{t: t}).arrivals(verb, rest); ok && len(p) < 2000 {
					p = append(p, arrived...)
				}
				open = open || verb == "handshake"
			}
			if len(p) > 0 {
				f.Add(server, open, p)
			}
		}
	}
	for _, role := range []Role{ClientRole, ServerRole} {
		for _, stream := range hostileStreams(f, role, 300) {
			f.Add(role == ServerRole, true, []byte(stream)[:min(len(stream), 2000)])
		}
	}
}
