package amqp

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// impure imports would let the protocol layer wait, share or look at the time.
var impure = []string{"context", "log", "os", "runtime", "sync", "syscall", "net", "crypto"}

// clock are the functions of package time that read or run a clock.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// TestPurity_WireAndEngine keeps the protocol layer free of I/O, locks,
// goroutines and clocks, so that it does the same whoever drives it.
func TestPurity_WireAndEngine(t *testing.T) {
	var files []string
	for _, pattern := range []string{"spec_gen.go", "wire*.go", "engine*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	files = slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	for _, name := range []string{"spec_gen.go", "wire_table.go", "engine.go", "engine_accept.go", "engine_receive.go", "engine_send.go"} {
		if !slices.Contains(files, name) {
			t.Fatalf("looked at %v only", files)
		}
	}
	for _, name := range files {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, what := range impurities(f) {
			t.Errorf("%s: %s", fset.Position(what.pos), what.text)
		}
	}
}

func TestPurity_FindsWhatItShould(t *testing.T) {
	const src = `package p
import ("net/http"; "sync/atomic"; clock "time")
func f() { go f(); _ = clock.Now(); var mu atomic.Int32; _, _ = mu, http.Get; _ = clock.Second }`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, what := range impurities(f) {
		got = append(got, what.text)
	}
	want := []string{"imports net/http", "imports sync/atomic", "go statement", "reads the clock: time.Now"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

type impurity struct {
	pos  token.Pos
	text string
}

func impurities(f *ast.File) []impurity {
	var found []impurity
	timeName := ""
	for _, imp := range f.Imports {
		path, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			panic(err) // it was parsed
		}
		root, _, _ := strings.Cut(path, "/")
		if slices.Contains(impure, path) || slices.Contains(impure, root) {
			found = append(found, impurity{imp.Pos(), "imports " + path})
		}
		if path == "time" {
			timeName = "time"
			if imp.Name != nil {
				timeName = imp.Name.Name
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, impurity{n.Pos(), "go statement"})
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && timeName != "" && x.Name == timeName && slices.Contains(clock, n.Sel.Name) {
				found = append(found, impurity{n.Pos(), "reads the clock: time." + n.Sel.Name})
			}
		}
		return true
	})
	return found
}
