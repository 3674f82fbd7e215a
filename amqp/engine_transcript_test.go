package amqp

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata/engine")

// Transcripts are conversations with an engine, one file a subject, one case
// after each line "-- name". A line that begins with a word is what happens to
// the engine; the indented lines behind it are what the engine makes of that:
// its events, its output, the error of the call. They are rewritten by -update.
//
//	engine ROLE OPTION=VALUE...    makes it (a client with u and p if left out)
//	handshake OPTION=VALUE...      takes it through the handshake, without a word
//	open CHANNEL                   opens a channel, without a word
//	peer CHANNEL METHOD FIELD=VALUE... [| PROPERTY=VALUE... body="..." split=N]
//	frame CHANNEL TYPE "payload" [end=N]    any frame that arrives
//	raw "octets"                   anything that arrives
//	send CHANNEL METHOD FIELD=VALUE... [| as for peer]
//	abandon CHANNEL METHOD
//	tick DURATION                  that much later, Tick
//	eof [TEXT]
type transcript struct {
	name  string
	steps []scriptStep
}

type scriptStep struct {
	line string
	want []string
}

// script is what became of one run: what each step printed, and the same by
// groups of steps in which only bytes arrive, which can be joined and cut.
type script struct {
	t     *testing.T
	e     *Engine
	now   time.Time
	start time.Time
	feed  func(e *Engine, now time.Time, p []byte, take func()) error

	events, out []string
	failed      bool
}

func loadTranscripts(t *testing.T, file string) []transcript {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []transcript
	for n, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "-- "):
			list = append(list, transcript{name: line[3:]})
		case len(list) == 0:
			if line != "" && line[0] != '#' {
				t.Fatalf("%s:%d: before the first case", file, n+1)
			}
			list = append(list, transcript{})
			fallthrough
		default:
			c := &list[len(list)-1]
			if strings.HasPrefix(line, "  ") && len(c.steps) > 0 {
				s := &c.steps[len(c.steps)-1]
				s.want = append(s.want, line)
				continue
			}
			c.steps = append(c.steps, scriptStep{line: line})
		}
	}
	return list
}

func TestEngine_Transcripts(t *testing.T) {
	files, err := filepath.Glob("testdata/engine/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			var got strings.Builder
			list := loadTranscripts(t, file)
			for _, c := range list {
				if c.name != "" {
					got.WriteString("-- " + c.name + "\n")
				}
				printed, _ := c.play(t, wholeFeed, false)
				for i, s := range c.steps {
					got.WriteString(s.line + "\n")
					for _, line := range printed[i] {
						got.WriteString("  " + line + "\n")
					}
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
				t.Errorf("rewrite it with -update if this is meant (-want +got):\n%s", diff)
			}
		})
	}
}

// Fed any conversation cut at every byte offset, or joined as far as it can be,
// or by the byte, the engine gives the same events and the same output.
func TestEngine_TranscriptsAtEveryCut(t *testing.T) {
	files, err := filepath.Glob("testdata/engine/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			runs := 0
			for _, c := range loadTranscripts(t, file) {
				_, want := c.play(t, wholeFeed, true)
				check := func(how string, feed feedFunc) {
					runs++
					if _, got := c.play(t, feed, true); !slices.Equal(got, want) {
						t.Fatalf("%s, %s (-want +got):\n%s", c.name, how, cmp.Diff(want, got))
					}
				}
				for _, n := range []int{1, 2, 3, 7, 13} {
					check(fmt.Sprintf("%d octets at a time", n), stepFeed(n))
				}
				check("events left lying", lazyFeed)
				for cut := 1; ; cut++ {
					done := true
					check(fmt.Sprintf("cut at %d", cut), cutFeed(cut, &done))
					if done {
						break
					}
					if cut > 2000 { // nothing but bodies are that long
						cut += cut / 9
					}
				}
			}
			t.Logf("%d runs", runs)
		})
	}
}

type feedFunc = func(e *Engine, now time.Time, p []byte, take func()) error

func wholeFeed(e *Engine, now time.Time, p []byte, take func()) error {
	err := e.Feed(now, p)
	take()
	return err
}

func stepFeed(step int) feedFunc {
	return func(e *Engine, now time.Time, p []byte, take func()) (err error) {
		for n := 0; n < len(p) && err == nil; n += step {
			err = wholeFeed(e, now, slices.Clone(p[n:min(n+step, len(p))]), take)
		}
		return err
	}
}

// lazyFeed takes no event before all is fed.
func lazyFeed(e *Engine, now time.Time, p []byte, take func()) (err error) {
	for n := 0; n < len(p) && err == nil; n += 5 {
		err = e.Feed(now, p[n:min(n+5, len(p))])
	}
	take()
	return err
}

// cutFeed cuts the stream at one place, counted over all of it. done stays as
// it is where that is beyond its end.
func cutFeed(cut int, done *bool) feedFunc {
	at := 0
	return func(e *Engine, now time.Time, p []byte, take func()) error {
		k := cut - at
		at += len(p)
		if k < len(p) {
			*done = false
		}
		if k <= 0 || k >= len(p) {
			return wholeFeed(e, now, p, take)
		}
		if err := wholeFeed(e, now, p[:k:k], take); err != nil {
			return err
		}
		return wholeFeed(e, now, p[k:], take)
	}
}

// play runs a case. printed is what each step printed; log is all of it, with
// steps in which only bytes arrive taken together.
func (c *transcript) play(t *testing.T, feed feedFunc, join bool) (printed [][]string, log []string) {
	t.Helper()
	s := &script{t: t, start: time.Unix(1000, 0), feed: feed}
	s.now = s.start
	var arrived []byte
	flush := func() {
		if len(arrived) > 0 {
			s.arrive(arrived)
			arrived = nil
			log = append(log, s.printed()...)
		}
	}
	for _, st := range c.steps {
		verb, rest, _ := strings.Cut(st.line, " ")
		if verb == "" || verb[0] == '#' {
			printed = append(printed, nil)
			continue
		}
		if p, ok := s.arrivals(verb, rest); ok {
			if join {
				arrived = append(arrived, p...)
				continue
			}
			s.arrive(p)
		} else {
			flush()
			s.do(verb, rest)
		}
		lines := s.printed()
		printed = append(printed, lines)
		log = append(log, lines...)
	}
	flush()
	return printed, log
}

// printed gives what was printed since the last call: events, then output.
func (s *script) printed() []string {
	if s.e != nil {
		s.take()
		s.out = append(s.out, describeOutput(s.t, drain(s.e))...)
	}
	lines := append(s.events, s.out...)
	s.events, s.out = nil, nil
	return lines
}

func (s *script) take() {
	for {
		ev, ok := s.e.Next()
		if !ok {
			return
		}
		s.events = append(s.events, "event "+describeEvent(s.t, &ev))
	}
}

func (s *script) engine() *Engine {
	if s.e == nil {
		s.do("engine", "client")
		s.out = nil
	}
	return s.e
}

func (s *script) arrive(p []byte) {
	err := s.feed(s.engine(), s.now, p, s.take)
	if err != nil && !s.failed {
		s.failed = true
		s.events = append(s.events, "error "+err.Error())
	}
}

// arrivals gives the bytes of a step in which bytes arrive.
func (s *script) arrivals(verb, rest string) ([]byte, bool) {
	switch verb {
	case "raw":
		return []byte(unquote(s.t, rest)), true
	case "frame":
		f := fields(s.t, rest)
		end := byte(FrameEnd)
		if v, ok := strings.CutPrefix(f[len(f)-1], "end="); ok {
			end, f = byte(number(s.t, v)), f[:len(f)-1]
		}
		payload := unquote(s.t, f[2])
		p := appendFrameHeader(nil, byte(number(s.t, f[1])), uint16(number(s.t, f[0])), uint32(len(payload)))
		return append(append(p, payload...), end), true
	case "peer":
		return s.said(rest), true
	}
	return nil, false
}

// said encodes what the peer says.
func (s *script) said(rest string) []byte {
	num, m, msg, split := parseSaid(s.t, rest)
	var out sender
	out.frameMax = 1 << 17
	if err := out.method(num, m); err != nil {
		s.t.Fatal(err)
	}
	if msg == nil {
		return out.out
	}
	if split > 0 {
		out.frameMax = uint32(split + frameOverhead)
	}
	body := msg.Body
	out.frameMax, msg.Body = 1<<17, nil
	header := len(out.out)
	if err := out.content(0, num, uint16(m.MethodID()>>16), &msg.Properties, nil, false); err != nil {
		s.t.Fatal(err)
	}
	putSize(out.out[header:], len(body))
	if split > 0 {
		out.frameMax = uint32(split + frameOverhead)
	}
	out.body(num, body, false)
	return out.out
}

func putSize(header []byte, n int) {
	copy(header[frameHeaderSize+4:], []byte{0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// do takes a step in which something is asked of the engine.
func (s *script) do(verb, rest string) {
	var err error
	switch verb {
	case "engine":
		s.e = NewEngine(engineConfig(s.t, fields(s.t, rest)))
	case "handshake":
		s.handshake(options(fields(s.t, rest)))
	case "open":
		num := uint16(number(s.t, rest))
		if s.engine().s.role == ServerRole {
			s.quietly(s.said(rest + " channel.open"))
			err = s.e.Send(num, &ChannelOpenOk{})
		} else {
			err = s.e.Send(num, &ChannelOpen{})
			s.quietly(s.said(rest + " channel.open-ok"))
		}
		s.quietly(nil)
	case "send":
		num, m, msg, _ := parseSaid(s.t, rest)
		if msg != nil {
			err = s.engine().SendContent(num, m, msg)
		} else {
			err = s.engine().Send(num, m)
		}
	case "abandon":
		f := fields(s.t, rest)
		if !s.engine().Abandon(uint16(number(s.t, f[0])), methodByName(s.t, f[1])) {
			err = errors.New("nothing to abandon")
		}
	case "tick":
		d, perr := time.ParseDuration(rest)
		if perr != nil {
			s.t.Fatal(perr)
		}
		s.now = s.now.Add(d)
		err = s.engine().Tick(s.now)
		s.events = append(s.events, s.deadline())
	case "eof":
		var cause error
		if rest != "" {
			cause = errors.New(rest)
		}
		s.engine().EOF(cause)
	default:
		s.t.Fatalf("what is %q?", verb)
	}
	if err != nil {
		s.events = append(s.events, "error "+err.Error())
	}
}

func (s *script) deadline() string {
	d := s.e.Deadline()
	if d.IsZero() {
		return "deadline none"
	}
	return "deadline in " + d.Sub(s.now).String()
}

// quietly feeds bytes and prints nothing of what follows.
func (s *script) quietly(p []byte) {
	s.t.Helper()
	if err := s.e.Feed(s.now, p); err != nil {
		s.t.Fatal(err)
	}
	s.take()
	drain(s.e)
	s.events, s.out = nil, nil
}

// handshake takes the engine through a handshake.
func (s *script) handshake(o map[string]string) {
	s.t.Helper()
	get := func(key string, otherwise uint64) uint64 {
		if v, ok := o[key]; ok {
			return number(s.t, v)
		}
		return otherwise
	}
	tune := ConnectionTune{
		ChannelMax: uint16(get("channel-max", 2047)), FrameMax: uint32(get("frame-max", 131072)), Heartbeat: uint16(get("heartbeat", 60)),
	}
	if s.engine().s.role == ClientRole {
		s.quietly(s.said(`0 connection.start VersionMinor=9 Mechanisms="PLAIN AMQPLAIN EXTERNAL" Locales=en_US`))
		s.quietly(s.said(fmt.Sprintf("0 connection.tune ChannelMax=%d FrameMax=%d Heartbeat=%d", tune.ChannelMax, tune.FrameMax, tune.Heartbeat)))
		s.quietly(s.said("0 connection.open-ok"))
		return
	}
	s.quietly([]byte(protocolHeader))
	s.quietly(s.said(`0 connection.start-ok Mechanism=PLAIN Response="\x00u\x00p" Locale=en_US`))
	if err := s.e.Send(0, &tune); err != nil {
		s.t.Fatal(err)
	}
	s.quietly(s.said(fmt.Sprintf("0 connection.tune-ok ChannelMax=%d FrameMax=%d Heartbeat=%d", tune.ChannelMax, tune.FrameMax, tune.Heartbeat)))
	s.quietly(s.said("0 connection.open VirtualHost=/"))
	if err := s.e.Send(0, &ConnectionOpenOk{}); err != nil {
		s.t.Fatal(err)
	}
	s.quietly(nil)
}
