package gen

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// upstreamFacts is the digest of the facts in RabbitMQ's own file (rabbitmq-codegen, 2020-11-16), for
// where the file itself is not there to compare with.
const upstreamFacts = "7cb197492bfaf2f12605e1d5a9c537cfa2ecdd233f0c95cc5544e4c0ff19a032"

// facts lists what a spec file says, a line for each fact, sorted. Prose is no fact.
func facts(t *testing.T, path string) []string {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(p, &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var out []string
	walkFacts("", v, func(s string) { out = append(out, s) })
	slices.Sort(out)
	return out
}

// walkFacts calls fact for each leaf of v, with the path that leads there. Lists whose elements have
// names (classes, methods, constants) are sets, and lists of arguments and properties have an order.
func walkFacts(at string, v any, fact func(string)) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			fact(at + " = {}")
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if k == "copyright" || k == "status" {
				continue
			}
			walkFacts(at+"/"+k, v[k], fact)
		}
	case []any:
		ordered := strings.HasSuffix(at, "/arguments") || strings.HasSuffix(at, "/properties")
		if len(v) == 0 {
			fact(at + " = []")
		}
		for i, x := range v {
			name := fmt.Sprint(x)
			if m, ok := x.(map[string]any); ok {
				name = fmt.Sprint(m["name"])
			}
			if ordered {
				name = fmt.Sprintf("%02d %s", i, name)
			}
			walkFacts(at+"/"+name, x, fact)
		}
	default:
		fact(fmt.Sprintf("%s = %#v", at, v))
	}
}

func digest(facts []string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(facts, "\n"))))
}

func TestSpec_FactsEqualUpstream(t *testing.T) {
	own := facts(t, ownSpec)
	if len(own) < 700 {
		t.Errorf("only %d facts", len(own))
	}
	if path := upstream(t, ""); path != "" {
		theirs := facts(t, path)
		if diff := cmp.Diff(theirs, own); diff != "" {
			t.Errorf("spec/amqp0-9-1.json differs from RabbitMQ's (-theirs +ours)\n%s", diff)
		}
		if got := digest(theirs); got != upstreamFacts {
			t.Errorf("RabbitMQ's file has the digest %s", got)
		}
	}
	if got := digest(own); got != upstreamFacts {
		t.Errorf("spec/amqp0-9-1.json says other than RabbitMQ's file did: digest %s", got)
	}
}

func TestExtensions_FactsEqualUpstream(t *testing.T) {
	for _, name := range []string{"credit_extension.json", "demo_extension.json"} {
		own := facts(t, filepath.Join("testdata", name))
		if len(own) < 5 {
			t.Errorf("%s: only %d facts", name, len(own))
		}
		if path := upstream(t, name); path != "" {
			if diff := cmp.Diff(facts(t, path), own); diff != "" {
				t.Errorf("testdata/%s differs from RabbitMQ's (-theirs +ours)\n%s", name, diff)
			}
		}
	}
}

// shuffled writes a copy of a spec with its classes, methods, constants and domains the other way
// round, and with keys that mean nothing.
func shuffled(t *testing.T, path string) string {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(p, &v); err != nil {
		t.Fatal(err)
	}
	v["copyright"] = []string{"prose"}
	for _, k := range []string{"domains", "constants", "classes"} {
		slices.Reverse(v[k].([]any))
	}
	for _, c := range v["classes"].([]any) {
		slices.Reverse(c.(map[string]any)["methods"].([]any))
	}
	p, err = json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(name, p, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
