// Command amqpgen writes the Go of a protocol from its spec in RabbitMQ's JSON schema and from
// overlays, which say what that schema leaves out. See package gen.
//
//	amqpgen -spec F [-extension F]... -overlay F... -package P -o F -calls F
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/warrenmq/warren/gen"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "amqpgen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var in gen.Input
	fs := flag.NewFlagSet("amqpgen", flag.ContinueOnError)
	fs.StringVar(&in.Spec, "spec", "", "the spec, a JSON `file` in RabbitMQ's schema")
	fs.Var((*list)(&in.Extensions), "extension", "a `file` that extends the spec; may be repeated")
	fs.Var((*list)(&in.Overlays), "overlay", "a `file` with what the spec leaves out; may be repeated")
	fs.StringVar(&in.Package, "package", "amqp", "the `name` of the package to write")
	out := fs.String("o", "", "the `file` for the protocol: constants, methods, codecs")
	calls := fs.String("calls", "", "the `file` for the typed calls")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if in.Spec == "" || len(in.Overlays) == 0 || *out == "" || *calls == "" || fs.NArg() > 0 {
		fs.Usage()
		return fmt.Errorf("-spec, -overlay, -o and -calls are needed, and no further arguments")
	}
	code, err := gen.Generate(in)
	if err != nil {
		return err
	}
	return gen.Write(map[string][]byte{*out: code.Spec, *calls: code.Calls})
}
