// Command testsum reads what `go test -json` prints, shows it as `go test` would,
// and keeps count over several runs for .ci/run.
//
//	go test -json ./... | testsum -suite unit -tally FILE
//	testsum -total -tally FILE
//
// What failed tests printed goes to FILE.failures besides, and -total shows it
// again, so that it stands where a long log ends.
//
// It fails when a test failed, when a package did not build, when nothing ran,
// or when a package ran that did not print what -marker looks for: a suite that
// needs a broker and never met one has proved nothing.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

func main() {
	suite := flag.String("suite", "tests", "name of the `suite`, for the tally")
	tally := flag.String("tally", "", "`file` that the counts are appended to")
	marker := flag.String("marker", "", "`regexp` that every package with tests must print")
	total := flag.Bool("total", false, "print the sum of the tally and end")
	flag.Parse()
	err := run(os.Stdin, os.Stdout, *suite, *tally, *marker, *total)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, suite, tally, marker string, total bool) error {
	if total {
		return printTotal(out, tally)
	}
	var want *regexp.Regexp
	if marker != "" {
		var err error
		if want, err = regexp.Compile(marker); err != nil {
			return err
		}
	}
	s := newSummary(out, want)
	if err := s.read(in); err != nil {
		return err
	}
	if tally != "" {
		if err := appendTally(tally, suite, s); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(out, "%s: %d passed, %d failed, %d skipped\n", suite, s.passed, s.failed, s.skipped)
	return s.verdict()
}

// reportsOf is the file with what the failures of a tally printed.
func reportsOf(tally string) string { return tally + ".failures" }

// appendTally adds one line "suite<TAB>passed failed skipped", and the reports.
func appendTally(tally, suite string, s *summary) error {
	if err := appendFile(tally, fmt.Sprintf("%s\t%d %d %d\n", suite, s.passed, s.failed, s.skipped)); err != nil {
		return err
	}
	if len(s.reports) == 0 {
		return nil
	}
	return appendFile(reportsOf(tally), fmt.Sprintf("=== failures of %s\n%s", suite, strings.Join(s.reports, "")))
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// printTotal shows the failures and the tally, and ends with the line that counts
// it all.
func printTotal(out io.Writer, path string) error {
	reports, err := os.ReadFile(reportsOf(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, _ = out.Write(reports)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var sum counts
	for line := range strings.Lines(string(data)) {
		suite, rest, _ := strings.Cut(line, "\t")
		var c counts
		if _, err := fmt.Sscan(rest, &c.passed, &c.failed, &c.skipped); err != nil {
			return fmt.Errorf("%s: %q: %w", path, line, err)
		}
		_, _ = fmt.Fprintf(out, "%-24s %5d passed %5d failed %5d skipped\n", suite, c.passed, c.failed, c.skipped)
		sum.passed += c.passed
		sum.failed += c.failed
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed\n", sum.passed, sum.failed)
	if sum.failed > 0 || sum.passed == 0 {
		return fmt.Errorf("%d tests failed", sum.failed)
	}
	return nil
}
