package amqp

import (
	"fmt"
	"strconv"
)

// The errors of tables, out of the way of the code that is fast. Those on the
// way out begin without a path, and each level that they pass puts its own
// part in front: ["x"][2].

func within(err error, path string) error {
	if e, ok := err.(*EncodeError); ok {
		e.Field = path + e.Field
	}
	return err
}

// keyPath quotes a key, and what is too long to print only in part.
func keyPath(key string) string {
	const most = 64
	if len(key) > most {
		return "[" + strconv.Quote(key[:most]) + "...]"
	}
	return "[" + strconv.Quote(key) + "]"
}

func tooDeep() error {
	return &EncodeError{Reason: "tables and arrays nest more than " + strconv.Itoa(maxDepth) + " deep"}
}

func tooLong(what string, n int) error {
	return &EncodeError{Reason: what + " of " + strconv.Itoa(n) + " bytes, at most 4294967295 fit"}
}

// notFinite refuses a number that RabbitMQ can't parse, which would cost the
// connection.
func notFinite(v float64) error {
	return &EncodeError{Reason: strconv.FormatFloat(v, 'g', -1, 64) + " is not a finite number"}
}

func noWireForm(v any) error {
	return &EncodeError{Reason: fmt.Sprintf("Go type %T has no field type", v)}
}

// What is wrong with tables on the way in.

// fieldPath says where in a table or an array something is wrong.
func fieldPath(key []byte, keyed bool) string {
	if keyed {
		return "table field " + strconv.Quote(string(key)) + ": "
	}
	return "array element: "
}

func unknownFieldType(typ byte) string {
	return "unknown type " + strconv.QuoteRune(rune(typ)) + " (octet " + strconv.Itoa(int(typ)) + ")"
}

func nestedTooDeep() *Error {
	return syntaxError("tables and arrays nest more than " + strconv.Itoa(maxDepth) + " deep")
}

func tableTooCostly(n int) *Error {
	return &Error{Code: ResourceError, Text: "table of " + strconv.Itoa(n) +
		" bytes would take more than " + strconv.Itoa(tableFactor) + " times that in memory"}
}
