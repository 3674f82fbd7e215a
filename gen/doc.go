// Package gen turns a protocol spec in RabbitMQ's JSON schema, and overlays that say what the schema
// cannot, into Go: constants, reply codes, a struct with its codec for every method, content
// properties, and typed calls.
//
// The way is load (read the files), resolve (merge and check them into a [Model]), emit (write Go).
// An overlay is a JSON object; the overlay* types in load.go say what each key is for. It describes
// constants, classes, properties, methods and arguments by their names in the spec: who sends a
// method and what replies, Go names, prose for doc comments (which continues the Go name that the
// generator puts in front: "is the time ..."), fields to leave out, and the methods that get a typed
// call. What is said of an argument at the top level holds in every method that has one of that name;
// what the method's own entry says goes before it. A key that names nothing in the spec is an error,
// and so is a method, an argument or a constant without prose.
//
// Whatever is particular to a protocol stands in the files; the code here knows only the schema. The
// Go that comes out leans on wire helpers that the target package writes by hand (decoder, Table,
// appendTable, shortstrError and their like); amqp/wire*.go are the ones for AMQP 0-9-1.
package gen

import "os"

// Input names the files to generate from.
type Input struct {
	Spec       string   // a spec file in RabbitMQ's schema
	Extensions []string // extension files, merged over the spec in this order
	Overlays   []string // overlay files; at least one, and each entry is given once in all of them
	Package    string   // the name of the Go package to write
}

// Output holds the two files that are generated, formatted.
type Output struct {
	Spec  []byte // the protocol: constants, methods, codecs, properties
	Calls []byte // the typed calls
}

// Generate reads the files of in and returns the Go generated from them. The same files give the same
// bytes.
//
// Errors: a joined list of [*Error] when the files can be read and contradict themselves or each
// other; the reading or parsing error otherwise. No output comes with an error.
func Generate(in Input) (Output, error) {
	m, err := Load(in)
	if err != nil {
		return Output{}, err
	}
	return emit(m)
}

// Write writes files by name, all of them or, as far as can be told before the first is replaced, none.
func Write(files map[string][]byte) error {
	var staged []string
	defer func() {
		for _, name := range staged {
			_ = os.Remove(name)
		}
	}()
	for _, name := range sorted(files) {
		staged = append(staged, name+".tmp")
		if err := os.WriteFile(name+".tmp", files[name], 0o644); err != nil {
			return err
		}
	}
	for _, name := range sorted(files) {
		if err := os.Rename(name+".tmp", name); err != nil {
			return err
		}
	}
	return nil
}
