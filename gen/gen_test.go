package gen

import (
	"bytes"
	"flag"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The project's own spec, from this package's directory.
const (
	ownSpec    = "../spec/amqp0-9-1.json"
	ownOverlay = "../spec/overlay.json"
)

func ownInput() Input {
	return Input{Spec: ownSpec, Overlays: []string{ownOverlay}, Package: "amqp"}
}

func inventedInput() Input {
	return Input{Spec: "testdata/invented/spec.json", Overlays: []string{"testdata/invented/overlay.json"}, Package: "warp"}
}

func generate(t *testing.T, in Input) Output {
	t.Helper()
	out, err := Generate(in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// upstream is the path of one of RabbitMQ's own files, or empty where they are not there: the project
// does not distribute them.
func upstream(t *testing.T, name string) string {
	t.Helper()
	main := os.Getenv("WARREN_UPSTREAM")
	if main == "" {
		main = "../../shared/upstream/amqp-rabbitmq-0.9.1.json"
	}
	path := filepath.Join(filepath.Dir(main), name)
	if name == "" {
		path = main
	}
	if _, err := os.Stat(path); err != nil {
		t.Logf("%s is not there: only our own transcription is tested", path)
		return ""
	}
	return path
}

// sameBut compares generated code but for its first line, which names the files it came from.
func sameBut(t *testing.T, want, got []byte) {
	t.Helper()
	_, want, _ = bytes.Cut(want, []byte("\n"))
	_, got, _ = bytes.Cut(got, []byte("\n"))
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("generated code (-want +got)\n%s", diff)
	}
}

func TestGenerate_CommittedCodeIsFresh(t *testing.T) {
	out := generate(t, ownInput())
	for name, want := range map[string][]byte{"../amqp/spec_gen.go": out.Spec, "../amqp/calls_gen.go": out.Calls} {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, got) {
			t.Errorf("%s is stale: run go generate ./amqp", name)
		}
	}
}

func TestGenerate_ReadsUpstreamUnmodified(t *testing.T) {
	path := upstream(t, "")
	if path == "" {
		// A spec in another order and with keys that we have no use for stands in for it.
		path = shuffled(t, ownSpec)
	}
	in := ownInput()
	in.Spec = path
	want, got := generate(t, ownInput()), generate(t, in)
	sameBut(t, want.Spec, got.Spec)
	sameBut(t, want.Calls, got.Calls)
}

func TestGenerate_IsDeterministicAndFormatted(t *testing.T) {
	for _, in := range []Input{ownInput(), inventedInput()} {
		first := generate(t, in)
		for range 3 {
			again := generate(t, in)
			if !bytes.Equal(first.Spec, again.Spec) || !bytes.Equal(first.Calls, again.Calls) {
				t.Errorf("%s: generated twice, and not the same", in.Spec)
			}
		}
		for _, code := range [][]byte{first.Spec, first.Calls} {
			formatted, err := format.Source(code)
			if err != nil || !bytes.Equal(formatted, code) {
				t.Errorf("%s: not as gofmt would have it: %v", in.Spec, err)
			}
		}
	}
}

// TestGenerate_Golden shows a change of the generator as a change of code: the invented protocol has
// all that the generator knows, in small.
func TestGenerate_Golden(t *testing.T) {
	out := generate(t, inventedInput())
	golden(t, "testdata/invented/spec.golden", out.Spec)
	golden(t, "testdata/invented/calls.golden", out.Calls)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s: rewrite it with -update if this is meant (-want +got)\n%s", name, diff)
	}
}

func parse(t *testing.T, code []byte) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "generated.go", code, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Every declaration and field has a doc comment that begins with its name.
func TestGenerate_EverythingIsDocumented(t *testing.T) {
	for _, in := range []Input{ownInput(), inventedInput()} {
		out := generate(t, in)
		for _, code := range [][]byte{out.Spec, out.Calls} {
			ast.Inspect(parse(t, code), func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					documented(t, n.Name.Name, n.Doc)
					return false
				case *ast.GenDecl:
					if n.Tok == token.TYPE {
						documented(t, n.Specs[0].(*ast.TypeSpec).Name.Name, n.Doc)
					}
					if n.Tok == token.VAR {
						documented(t, n.Specs[0].(*ast.ValueSpec).Names[0].Name, n.Doc)
					}
				case *ast.Field:
					documented(t, n.Names[0].Name, n.Doc)
				case *ast.ValueSpec:
					if n.Names[0].IsExported() {
						documented(t, n.Names[0].Name, n.Doc)
					}
				}
				return true
			})
		}
	}
}

func documented(t *testing.T, name string, doc *ast.CommentGroup) {
	t.Helper()
	text := doc.Text()
	if !strings.HasPrefix(text, name+" ") || !strings.Contains(text, ".") || len(strings.Fields(text)) < 3 {
		t.Errorf("%s: documented as %q", name, text)
	}
	for line := range strings.Lines(text) {
		if len(line) > docWidth && strings.Contains(strings.TrimSpace(line), " ") && !strings.HasPrefix(line, "Source: ") {
			t.Errorf("%s: a line of %d columns: %s", name, len(line), line)
		}
	}
}

// The protocol's half does no I/O, and waits for nothing.
func TestGenerate_SpecIsPure(t *testing.T) {
	var got []string
	for _, i := range parse(t, generate(t, ownInput()).Spec).Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		got = append(got, path)
	}
	if diff := cmp.Diff([]string{"encoding/binary", "strconv", "time"}, got); diff != "" {
		t.Errorf("imports (-want +got)\n%s", diff)
	}
}

// Nothing of AMQP's classes and methods is in the generator: what it knows, it reads.
func TestGen_KnowsNoMethod(t *testing.T) {
	m, err := Load(ownInput())
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, c := range m.Classes {
		known[c.Name], known[c.Go] = true, true
		for _, x := range c.Methods {
			known[x.Name], known[x.FullName()], known[x.Go] = true, true, true
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING {
				return true
			}
			s, _ := strconv.Unquote(l.Value)
			if slices.ContainsFunc(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }), func(w string) bool {
				return known[w] && (strings.ContainsAny(w, ".-") || strings.ToLower(w) != w) || known[s]
			}) {
				t.Errorf("%s: %q is of AMQP, and belongs in a JSON file", name, s)
			}
			return true
		})
	}
}
