package amqp

import "strconv"

// EncodeError says that a value can't go on the wire as it is: a short string
// over 255 bytes, a Go type without a field type, a number no field can hold.
// It is found before anything is sent, and nothing is ever cut to fit.
//
// It wraps ErrEncode.
type EncodeError struct {
	Method string // "queue.declare"; "" where only a table was encoded
	Field  string // "arguments", or a path within it: arguments["x"][2]
	Reason string
}

// Error describes what could not be encoded in one line.
func (e *EncodeError) Error() string {
	s := "amqp: cannot encode "
	if e.Method != "" {
		s += e.Method + " "
	}
	if e.Field != "" {
		s += e.Field
	} else {
		s += "table"
	}
	return s + ": " + e.Reason
}

// Unwrap gives ErrEncode.
func (e *EncodeError) Unwrap() error { return ErrEncode }

// shortstrError is the error of a short string of n bytes, more than the 255
// that its length octet can say.
func shortstrError(method, field string, n int) error {
	return &EncodeError{method, field, "short string of " + strconv.Itoa(n) + " bytes, at most 255 fit"}
}

// longstrError is the error of a long string that 32 bits can't count.
func longstrError(method, field string, n int) error {
	return &EncodeError{method, field, "long string of " + strconv.Itoa(n) + " bytes, at most 4294967295 fit"}
}

// inField completes an error that a table's encoder made with the method and
// the argument that the table is. Other errors pass.
func inField(err error, method, field string) error {
	if e, ok := err.(*EncodeError); ok {
		e.Method, e.Field = method, field+e.Field
	}
	return err
}

// syntaxError is what a value makes that is whole but not allowed: 502.
func syntaxError(text string) *Error { return &Error{Code: SyntaxError, Text: text} }

// frameError is what can't be decoded: 501.
func frameError(text string) *Error { return &Error{Code: FrameError, Text: text} }
