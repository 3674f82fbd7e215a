package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json`; `go doc test2json` describes it.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	FailedBuild string
}

// counts are of tests and their subtests.
type counts struct{ passed, failed, skipped int }

type summary struct {
	counts
	out     io.Writer
	marker  *regexp.Regexp      // nil: none asked for
	output  map[string][]string // of the tests still running, and of packages, by package and name
	ran     map[string]bool     // packages in which a test ran
	marked  map[string]bool     // packages that printed the marker
	broken  []string            // packages that failed as such: no build, a panic, a time-out
	skips   []string            // names, to be shown: a skip ought to be seen
	failing map[string]bool     // packages in which a test failed
	reports []string            // one for each failure, for the end of it all
}

func newSummary(out io.Writer, marker *regexp.Regexp) *summary {
	return &summary{
		out: out, marker: marker,
		output: make(map[string][]string), ran: make(map[string]bool), marked: make(map[string]bool),
		failing: make(map[string]bool),
	}
}

func (s *summary) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.line(line)
		}
		if errors.Is(err, io.EOF) {
			s.unfinished("")
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes one line; what is not JSON is make's or the compiler's and is
// passed on.
func (s *summary) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		s.print(line)
		return
	}
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "output":
		if s.marker != nil && s.marker.MatchString(e.Output) {
			s.marked[e.Package] = true
			s.print(e.Output)
		}
		s.output[key] = append(s.output[key], e.Output)
	case "build-output":
		s.print(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e, key)
		} else {
			s.endTest(e, key)
		}
		delete(s.output, key)
	}
}

func (s *summary) endTest(e event, key string) {
	s.ran[e.Package] = true
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		s.skipped++
		s.skips = append(s.skips, e.Package+" "+e.Test)
	case "fail":
		s.fail(key)
	}
}

// fail counts a failed test, and shows what it printed.
func (s *summary) fail(key string) {
	pkg, _, _ := strings.Cut(key, "\x00")
	s.failed++
	s.failing[pkg] = true
	s.show(key)
}

// show prints what a test or a package printed, now and in the report.
func (s *summary) show(key string) {
	lines := s.output[key]
	s.print(lines...)
	const head, tail = 60, 60 // a panic's goroutines may be thousands of lines
	if len(lines) > head+tail {
		left := fmt.Sprintf("    ... %d lines ...\n", len(lines)-head-tail)
		lines = slices.Concat(lines[:head], []string{left}, lines[len(lines)-tail:])
	}
	name := strings.TrimSpace(strings.ReplaceAll(key, "\x00", " "))
	s.reports = append(s.reports, fmt.Sprintf("--- %s\n%s\n", name, strings.Join(lines, "")))
}

// unfinished fails the tests of a package, or of all, that never came to their
// end: it panicked, took too long, or the whole run was cut short.
func (s *summary) unfinished(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(s.output)) {
		of, test, _ := strings.Cut(key, "\x00")
		if pkg != "" && of != pkg {
			continue
		}
		if test != "" {
			s.fail(key)
		} else if pkg == "" {
			s.show(key)
			s.broken = append(s.broken, of)
		}
		delete(s.output, key)
	}
}

// endPackage prints the package's own line ("ok ..."), and all that it and its
// unfinished tests printed when it failed.
func (s *summary) endPackage(e event, key string) {
	if e.Action != "fail" {
		if n := len(s.output[key]); n > 0 && s.ran[e.Package] {
			s.print(s.output[key][n-1])
		}
		return
	}
	s.show(key)
	delete(s.output, key)
	s.unfinished(e.Package)
	if !s.failing[e.Package] {
		s.failed++ // no test's fault, but the count must not say that all is well
	}
	s.broken = append(s.broken, e.Package)
}

func (s *summary) verdict() error {
	for _, name := range s.skips {
		s.print("skipped: " + name + "\n")
	}
	if s.marker != nil {
		for p := range s.ran {
			if !s.marked[p] {
				return fmt.Errorf("%s ran without printing %q: did it meet a broker?", p, s.marker)
			}
		}
	}
	switch {
	case len(s.broken) > 0:
		return fmt.Errorf("failed: %s", strings.Join(s.broken, " "))
	case s.failed > 0:
		return fmt.Errorf("%d tests failed", s.failed)
	case s.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}

func (s *summary) print(lines ...string) {
	for _, l := range lines {
		_, _ = io.WriteString(s.out, l)
	}
}
