package amqp

import (
	"encoding/binary"
	"strconv"
)

// Method is a method of the protocol with its arguments: a generated struct,
// by value or by pointer.
type Method interface {
	// MethodID says which method this is.
	MethodID() MethodID

	// AppendTo appends the arguments, without class and method id, to dst.
	// On error it returns dst as it was given and an *EncodeError.
	AppendTo(dst []byte) ([]byte, error)
}

// decodable is what a pointer to every generated method struct is.
type decodable interface {
	Method
	DecodeFrom(args []byte) error
	decode(d *decoder)
}

// methodInfo is what the spec and its overlay say about a method. Generated
// code holds one for each, and they are never changed.
type methodInfo struct {
	id         MethodID
	name       string // "queue.declare"
	class      string // "queue"
	sync       bool   // waits for one of replies
	content    bool   // a content header and body follow
	fromClient bool
	fromServer bool
	replies    []MethodID
	reply      bool // it is one of another method's replies
	hasNoWait  bool
}

// noWaiter is what a method is that can be sent so that nobody answers it.
type noWaiter interface{ noWait() bool }

// AppendMethod appends the payload of m's method frame to dst: class id,
// method id, arguments.
//
// Errors: *EncodeError, and then dst is returned as it was given.
// Source: AMQP 0-9-1 §4.2.4 (method frames).
func AppendMethod(dst []byte, m Method) ([]byte, error) {
	n := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(m.MethodID()))
	dst, err := m.AppendTo(dst)
	if err != nil {
		return dst[:n], err
	}
	return dst, nil
}

// DecodeMethod decodes the payload of a method frame, all of it, into a
// pointer to the method's struct, which keeps nothing of payload.
//
// Errors: *Error with FrameError where payload is too short or too long for
// the method, CommandInvalid for a method that the spec does not have,
// SyntaxError for a value that is not allowed.
// Source: AMQP 0-9-1 §4.2.4 (method frames).
func DecodeMethod(payload []byte) (Method, error) {
	id, err := parseMethodID(payload)
	if err != nil {
		return nil, err
	}
	m := newMethod(id)
	if m == nil {
		return nil, unknownMethod(id)
	}
	if err := m.DecodeFrom(payload[4:]); err != nil {
		return nil, inMethod(err, id)
	}
	return m, nil
}

// parseMethodID reads the ids that a method frame's payload begins with.
func parseMethodID(payload []byte) (MethodID, error) {
	if len(payload) < 4 {
		return 0, frameError("method frame of " + strconv.Itoa(len(payload)) +
			" bytes, too short for its class and method ids")
	}
	return MethodID(binary.BigEndian.Uint32(payload)), nil
}

func unknownMethod(id MethodID) *Error {
	return &Error{Code: CommandInvalid, Text: "unknown method: class " +
		strconv.Itoa(int(id>>16)) + ", method " + strconv.Itoa(int(id&0xFFFF))}
}

// inMethod completes a decoder's error with the method that it was in.
func inMethod(err error, id MethodID) error {
	if e, ok := err.(*Error); ok && e.Method == 0 {
		e.Method = id
	}
	return err
}
