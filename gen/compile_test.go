package gen

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A protocol with other classes and methods makes code that compiles, beside amqp's wire helpers as
// they are, and passes amqp's round-trip tests as they are.
func TestGenerate_InventedProtocolWorks(t *testing.T) {
	t.Parallel()
	runPackage(t, "warp", "testdata/invented", generate(t, inventedInput()))
}

func extendedInput(dir string) Input {
	return Input{
		Spec:       ownSpec,
		Extensions: []string{filepath.Join(dir, "credit_extension.json"), filepath.Join(dir, "demo_extension.json")},
		Overlays:   []string{ownOverlay, "testdata/credit_overlay.json", "testdata/demo_overlay.json"},
		Package:    "extended",
	}
}

func TestGenerate_ExtensionsWork(t *testing.T) {
	t.Parallel()
	out := generate(t, extendedInput("testdata"))
	runPackage(t, "extended", "testdata/extended", out)
	if path := upstream(t, "credit_extension.json"); path != "" {
		theirs := generate(t, extendedInput(filepath.Dir(path)))
		sameBut(t, out.Spec, theirs.Spec)
		sameBut(t, out.Calls, theirs.Calls)
	}
}

// The golden files hold what the extensions add, and nothing that they leave alone is changed.
func TestGenerate_ExtensionsGolden(t *testing.T) {
	in := ownInput()
	in.Package = "extended"
	base, out := generate(t, in), generate(t, extendedInput("testdata"))
	golden(t, "testdata/extended/spec.golden", added(t, base.Spec, out.Spec))
	golden(t, "testdata/extended/calls.golden", added(t, base.Calls, out.Calls))
}

// added prints the declarations of code that are not in base.
func added(t *testing.T, base, code []byte) []byte {
	t.Helper()
	old, all := declarations(t, base), declarations(t, code)
	var b bytes.Buffer
	for _, d := range all {
		if !slices.Contains(old, d) {
			b.WriteString(d + "\n\n")
		}
	}
	for _, d := range old {
		if name, _, _ := strings.Cut(d, "\n"); !slices.Contains(all, d) {
			t.Errorf("changed by an extension: %s", name)
		}
	}
	return b.Bytes()
}

// grown are the declarations that list all methods.
var grown = regexp.MustCompile(`func infoOf|func newMethod|var methodTable`)

// declarations cuts code into its declarations, each with its comment, constants one by one.
func declarations(t *testing.T, code []byte) []string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "generated.go", code, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	cut := func(n ast.Node, doc *ast.CommentGroup) {
		from := n.Pos()
		if doc != nil {
			from = doc.Pos()
		}
		out = append(out, string(code[fset.Position(from).Offset:fset.Position(n.End()).Offset]))
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			cut(d, d.Doc)
		case *ast.GenDecl:
			if d.Tok != token.CONST {
				cut(d, d.Doc)
				continue
			}
			for _, s := range d.Specs {
				cut(s, s.(*ast.ValueSpec).Doc)
			}
		}
	}
	return slices.DeleteFunc(out, func(d string) bool { return grown.MatchString(d) })
}

// runPackage makes a module of the code, the Go files in dir, and amqp's wire helpers and round-trip
// tests, then vets and tests it. It needs nothing from the network.
func runPackage(t *testing.T, name, dir string, out Output) {
	t.Helper()
	to := t.TempDir()
	files := map[string][]byte{
		"go.mod": []byte("module " + name + "\n\ngo 1.26\n"), "spec_gen.go": out.Spec, "calls_gen.go": out.Calls,
	}
	for _, pattern := range []string{filepath.Join(dir, "*.go"), "../amqp/wire*.go", "../amqp/spec_roundtrip_test.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: no files (%v)", pattern, err)
		}
		for _, path := range found {
			if strings.HasPrefix(filepath.Base(path), "wire") && strings.HasSuffix(path, "_test.go") {
				continue
			}
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(path)] = bytes.Replace(p, []byte("package amqp\n"), []byte("package "+name+"\n"), 1)
		}
	}
	for file, p := range files {
		if err := os.WriteFile(filepath.Join(to, file), p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-vet=all", "-count=1", ".")
	cmd.Dir = to
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "GOTOOLCHAIN=local")
	if p, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test: %v\n%s", err, p)
	}
}
