package main

import (
	"path/filepath"
	"strings"
	"testing"
)

const passing = `make: entering
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"broker 4.3 ready\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`

const failing = `{"Action":"output","Package":"q","Test":"TestA","Output":"the reason\n"}
{"Action":"fail","Package":"q","Test":"TestA"}
{"Action":"output","Package":"q","Test":"TestB","Output":"panic: oh\n"}
{"Action":"output","Package":"q","Output":"FAIL\tq\t0.1s\n"}
{"Action":"fail","Package":"q"}
`

const unbuilt = `{"ImportPath":"r","Action":"build-output","Output":"r.go:1: no\n"}
{"ImportPath":"r","Action":"build-fail"}
{"Action":"output","Package":"r","Output":"FAIL\tr [build failed]\n"}
{"Action":"fail","Package":"r","FailedBuild":"r"}
`

const cut = `{"Action":"output","Package":"s","Test":"TestA","Output":"half a\n"}
{"Action":"output","Package":"s","Output":"reading on\n"}
`

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name, in, marker string
		err              string // part of it; empty for none
		out              []string
	}{
		{"passing", passing, "", "", []string{"make: entering\n", "ok  \tp", "skipped: p TestB", "1 passed, 0 failed, 1 skipped"}},
		{"marked", passing, "ready", "", []string{"broker 4.3 ready"}},
		{"unmarked", passing, "steady", "did it meet a broker", nil},
		{"failing", failing, "", "failed: q", []string{"the reason", "panic: oh", "0 passed, 2 failed"}},
		{"cut short", passing + cut, "", "failed: s", []string{"half a", "reading on", "1 passed, 1 failed"}},
		{"unbuilt", passing + unbuilt, "", "failed: r", []string{"r.go:1: no", "1 passed, 1 failed"}},
		{"nothing", "", "", "no test ran", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			err := run(strings.NewReader(tt.in), &out, "suite", "", tt.marker, false)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			for _, want := range tt.out {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in the output:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestRun_Total(t *testing.T) {
	tally := filepath.Join(t.TempDir(), "tally")
	var out strings.Builder
	if err := run(strings.NewReader(passing), &out, "unit", tally, "", false); err != nil {
		t.Fatal(err)
	}
	if err := run(strings.NewReader(passing), &out, "race", tally, "", false); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := run(nil, &out, "", tally, "", true); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "\n2 passed, 0 failed\n") {
		t.Errorf("got:\n%s", out.String())
	}
	if err := run(strings.NewReader(failing), &out, "bad", tally, "", false); err == nil {
		t.Error("a failed suite was taken for a good one")
	}
	out.Reset()
	if err := run(nil, &out, "", tally, "", true); err == nil {
		t.Error("a tally with failures was taken for a good one")
	}
	for _, want := range []string{"=== failures of bad", "--- q TestA\nthe reason\n", "panic: oh"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the total:\n%s", want, out.String())
		}
	}
}
