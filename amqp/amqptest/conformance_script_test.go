package amqptest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A script file holds cases; testdata/conformance/README.md describes the
// language.
//
//	-- get from an empty queue
//	> c1 queue.declare queue=$q
//	< c1 queue.declare-ok queue=$q message-count=0 consumer-count=0
//	> c1 basic.get queue=$q
//	< c1 basic.get-empty
type scriptCase struct {
	file  string
	name  string
	steps []*step
}

// A step is one thing done and the answers that it gets.
type step struct {
	line      int
	lead      []string // comment lines before it
	do        string   // the line, with its > or !
	want      []string // without the <
	unordered bool     // the answers may come in any order
}

// parseScript reads a file. The comments before its first case are its preface.
func parseScript(t *testing.T, path string) (preface []string, cases []*scriptCase) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c *scriptCase
	var lead []string
	for i, line := range strings.Split(strings.TrimRight(string(raw), "\n"), "\n") {
		line = strings.TrimRight(line, " \t")
		if name, ok := strings.CutPrefix(line, "-- "); ok {
			if c == nil {
				preface = lead
			}
			c = &scriptCase{file: strings.TrimSuffix(filepath.Base(path), ".txt"), name: name}
			cases = append(cases, c)
			lead = nil
			continue
		}
		if line == "" && c != nil {
			continue
		}
		if c == nil || strings.HasPrefix(line, "#") {
			lead = append(lead, line)
			continue
		}
		if line == "! unordered" || strings.HasPrefix(line, "< ") {
			if len(c.steps) == 0 {
				t.Fatalf("%s:%d: an answer before any step", path, i+1)
			}
			s := c.steps[len(c.steps)-1]
			if line[0] == '!' {
				s.unordered = true
			} else {
				s.want = append(s.want, line[2:])
			}
			continue
		}
		if line[0] != '>' && line[0] != '!' {
			t.Fatalf("%s:%d: want a step, an answer or a comment: %q", path, i+1, line)
		}
		c.steps = append(c.steps, &step{line: i + 1, lead: lead, do: line})
		lead = nil
	}
	return preface, cases
}

// transcript writes the case's steps with the answers given by step, or with
// the ones that it wants.
func (c *scriptCase) transcript(got map[*step][]string) string {
	var b strings.Builder
	for _, s := range c.steps {
		for _, l := range s.lead {
			b.WriteString(l + "\n")
		}
		b.WriteString(s.do + "\n")
		if s.unordered {
			b.WriteString("! unordered\n")
		}
		want := s.want
		if got != nil {
			want = got[s]
		}
		for _, w := range want {
			b.WriteString("< " + w + "\n")
		}
	}
	return b.String()
}

// splitAddress takes "B:c3" apart; the connection A need not be named.
func splitAddress(s string) (conn string, ch uint16, ok bool) {
	conn = "A"
	if name, rest, found := strings.Cut(s, ":"); found {
		conn, s = name, rest
	}
	_, err := fmt.Sscanf(s, "c%d", &ch)
	return conn, ch, err == nil
}

func address(conn string, ch uint16) string {
	if conn == "A" {
		return fmt.Sprintf("c%d", ch)
	}
	return fmt.Sprintf("%s:c%d", conn, ch)
}
