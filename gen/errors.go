package gen

import (
	"errors"
	"fmt"
	"strings"
)

// Error is a fault in a spec or overlay file, with the place that it is in.
type Error struct {
	File   string // the file as it was named in [Input]
	Class  string // empty when the fault is in no class
	Method string // empty when it is in no method
	Field  string // the argument, property, constant or domain; empty when it is in none
	Text   string // what is wrong
}

// Error gives the fault in one line that begins with the file.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	b.WriteString(": ")
	if e.Class != "" {
		b.WriteString("class " + e.Class + ": ")
	}
	if e.Method != "" {
		b.WriteString("method " + e.Method + ": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Text)
	return b.String()
}

// place is where in the files the resolver stands.
type place struct{ file, class, method, field string }

// faults gathers what is wrong, so that one run reports all of it.
type faults struct{ list []error }

func (f *faults) add(p place, format string, args ...any) {
	f.list = append(f.list, &Error{
		File: p.file, Class: p.class, Method: p.method, Field: p.field, Text: fmt.Sprintf(format, args...),
	})
}

func (f *faults) err() error { return errors.Join(f.list...) }
