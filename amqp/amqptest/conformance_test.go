package amqptest_test

import (
	"flag"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	record    = flag.Bool("record", false, "conformance: take down RabbitMQ's answers instead of comparing (with -tags integration)")
	caseNames = flag.String("cases", "", "conformance: run the cases whose file/name matches this expression")
)

// A scriptFile is one file of the suite.
type scriptFile struct {
	path    string
	preface []string
	cases   []*scriptCase
}

func (f *scriptFile) name() string { return f.cases[0].file }

// suite reads all script files.
func suite(t *testing.T) []*scriptFile {
	t.Helper()
	paths, err := filepath.Glob("testdata/conformance/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no conformance scripts: %v", err)
	}
	var files []*scriptFile
	for _, p := range paths {
		f := &scriptFile{path: p}
		f.preface, f.cases = parseScript(t, p)
		if len(f.cases) > 0 {
			files = append(files, f)
		}
	}
	return files
}

// selected says whether -cases lets a case run.
func selected(t *testing.T, c *scriptCase) bool {
	t.Helper()
	ok, err := regexp.MatchString(*caseNames, c.file+"/"+c.name)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// A result is what one case came to.
type result struct {
	got map[*step][]string
	err error
}

// runCases plays cases on a target, width at a time: most of their time is
// spent waiting. Each gets names of its own.
func runCases(t *testing.T, tg target, cases []*scriptCase, width int, run string) map[*scriptCase]result {
	results := map[*scriptCase]result{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, width)
	for i, c := range cases {
		if !selected(t, c) {
			continue
		}
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			mine := tg
			mine.prefix = fmt.Sprintf("%s.%s.", run, strconv.FormatInt(int64(i+46656), 36))
			got, err := mine.run(c)
			mu.Lock()
			results[c] = result{got, err}
			mu.Unlock()
		}()
	}
	wg.Wait()
	return results
}

// check compares a case's transcript with what it wants.
func check(t *testing.T, c *scriptCase, res result) {
	t.Helper()
	if res.err != nil {
		t.Fatal(res.err)
	}
	if d := cmp.Diff(strings.Split(c.transcript(nil), "\n"), strings.Split(c.transcript(res.got), "\n")); d != "" {
		t.Errorf("%s.txt:%d (-want +got):\n%s", c.file, c.steps[0].line, d)
	}
}
