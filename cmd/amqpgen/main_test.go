package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warrenmq/warren/gen"
)

const (
	specFile    = "../../gen/testdata/invented/spec.json"
	overlayFile = "../../gen/testdata/invented/overlay.json"
)

func TestRun_WritesWhatIsGenerated(t *testing.T) {
	dir := t.TempDir()
	spec, calls := filepath.Join(dir, "s.go"), filepath.Join(dir, "c.go")
	err := run([]string{"-spec", specFile, "-overlay", overlayFile, "-package", "p", "-o", spec, "-calls", calls})
	if err != nil {
		t.Fatal(err)
	}
	want, err := gen.Generate(gen.Input{Spec: specFile, Overlays: []string{overlayFile}, Package: "p"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{spec: want.Spec, calls: want.Calls} {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what was generated: %v", name, err)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("left behind: %v", files)
	}
}

// After an error the files are as they were.
func TestRun_WritesNothingAfterAnError(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.json")
	p, err := os.ReadFile(specFile)
	if err != nil {
		t.Fatal(err)
	}
	p = bytes.Replace(p, []byte(`"domain": "why"`), []byte(`"domain": "wherefore"`), 1)
	if err := os.WriteFile(broken, p, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, spec, overlay, calls string
		want                       string
	}{
		{"a fault in the spec", broken, overlayFile, "c.go", `broken.json: class session: method bye: why: unknown domain "wherefore"`},
		{"no such spec", "none.json", overlayFile, "c.go", "none.json"},
		{"no such overlay", specFile, "none.json", "c.go", "none.json"},
		{"no overlay", specFile, "", "c.go", "are needed"},
		{"nowhere to write", specFile, overlayFile, "none/c.go", "none/c.go"},
	} {
		dir := t.TempDir()
		out := filepath.Join(dir, "s.go")
		if err := os.WriteFile(out, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		args := []string{"-spec", tc.spec, "-package", "p", "-o", out, "-calls", filepath.Join(dir, tc.calls)}
		if tc.overlay != "" {
			args = append(args, "-overlay", tc.overlay)
		}
		err := run(args)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", tc.name, err, tc.want)
		}
		files, _ := os.ReadDir(dir)
		if p, err := os.ReadFile(out); err != nil || string(p) != "old" || len(files) != 1 {
			t.Errorf("%s: %d files, the first with %d bytes: %v", tc.name, len(files), len(p), err)
		}
	}
}
