package amqptest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/warrenmq/warren/amqp"
)

// headersRouter compares the headers of a message with the arguments of the
// bindings.
type headersRouter struct{ list []*binding }

func (r *headersRouter) add(b *binding) {
	b.match = newHeadersMatch(b.args)
	r.list = append(r.list, b)
}

func (r *headersRouter) remove(b *binding) { r.list = deleteBinding(r.list, b) }

func (r *headersRouter) route(m *message, _ string, hit func(*binding)) {
	for _, b := range r.list {
		if b.match.matches(m.table()) {
			hit(b)
		}
	}
}

// headersMatch is what a binding asks of the headers.
type headersMatch struct {
	any  bool
	args map[string]any
}

// newHeadersMatch reads x-match: all (also when absent) and any leave out the
// arguments that begin with "x-"; all-with-x and any-with-x compare them too.
func newHeadersMatch(args amqp.Table) *headersMatch {
	mode, _ := args["x-match"].(string)
	h := &headersMatch{any: strings.HasPrefix(mode, "any"), args: map[string]any{}}
	withX := strings.HasSuffix(mode, "-with-x")
	for k, v := range args {
		if k != "x-match" && (withX || !strings.HasPrefix(k, "x-")) {
			h.args[k] = v
		}
	}
	return h
}

func (h *headersMatch) matches(headers amqp.Table) bool {
	for k, want := range h.args {
		got, ok := headers[k]
		// A void argument asks only that the header be there.
		same := ok && (want == nil || sameValue(want, got))
		if same == h.any {
			return h.any
		}
	}
	return !h.any
}

// sameValue compares two field values: numbers by value whatever their width,
// other kinds only with their own kind.
func sameValue(a, b any) bool {
	if x, ok := intValue(a); ok {
		y, ok := intValue(b)
		return ok && x == y
	}
	switch x := a.(type) {
	case []byte:
		y, ok := b.([]byte)
		return ok && slices.Equal(x, y)
	}
	return canonicalValue(a) == canonicalValue(b)
}

// checkHeadersBinding refuses the arguments that RabbitMQ refuses.
func checkHeadersBinding(args amqp.Table) error {
	v, ok := args["x-match"]
	if !ok {
		return nil
	}
	s, ok := v.(string)
	if !ok {
		return refusef(amqp.PreconditionFailed, "Invalid x-match field type %s (value %s); expected longstr",
			typeName(v), erlangTerm(v))
	}
	switch s {
	case "all", "any", "all-with-x", "any-with-x":
		return nil
	}
	return refusef(amqp.PreconditionFailed,
		"Invalid x-match field value <<%q>>; expected all, any, all-with-x, or any-with-x", s)
}

// canonical gives tables with the same content the same text.
func canonical(t amqp.Table) string {
	if len(t) == 0 {
		return ""
	}
	keys := make([]string, 0, len(t))
	for k := range t {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%q=%s,", k, canonicalValue(t[k]))
	}
	return b.String()
}

func canonicalValue(v any) string {
	switch v := v.(type) {
	case amqp.Table:
		return "{" + canonical(v) + "}"
	case []any:
		var b strings.Builder
		for _, x := range v {
			b.WriteString(canonicalValue(x) + ";")
		}
		return "[" + b.String() + "]"
	}
	if n, ok := intValue(v); ok {
		return fmt.Sprintf("int:%d", n)
	}
	return fmt.Sprintf("%T:%v", v, v)
}
