package amqptest

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/warrenmq/warren/amqp"
)

// violated words the connection.close for a client that broke the protocol as
// RabbitMQ 4.3 does, whose codes are not always the specification's. nil: it
// hangs up, as it does throughout the handshake and where its decoder crashes.
// It runs inside Engine.Feed.
func (s *session) violated(v amqp.Violation) *amqp.ConnectionClose {
	if !v.Open || strings.HasPrefix(v.Err.Text, silence) {
		return nil
	}
	r, id := frameFault(v)
	if r == nil {
		r, id = contentFault(v)
	}
	if r == nil {
		r, id = methodFault(v)
	}
	if r == nil {
		return nil
	}
	return &amqp.ConnectionClose{
		ReplyCode: r.code, ReplyText: r.reply(), FailedClass: uint16(id >> 16), FailedMethod: uint16(id),
	}
}

// silence begins the texts of errors about a peer that went silent.
const silence = "no heartbeat"

func fault(code amqp.ReplyCode, parts ...string) *refusal {
	return &refusal{code: code, text: strings.Join(parts, "")}
}

// frameFault judges a frame by its first seven octets and its last.
func frameFault(v amqp.Violation) (*refusal, amqp.MethodID) {
	const head = 7
	if len(v.Frame) < head {
		return nil, 0
	}
	typ, channel := v.Frame[0], binary.BigEndian.Uint16(v.Frame[1:])
	size := uint64(binary.BigEndian.Uint32(v.Frame[3:]))
	name := "type " + strconv.Itoa(int(typ)) + ", "
	if v.Limit > 0 && size+8 > uint64(v.Limit) {
		return fault(amqp.FrameError, name, "all octets = <<>>: {frame_too_large,",
			strconv.FormatUint(size, 10), ",", strconv.FormatUint(uint64(v.Limit)-8, 10), "}"), 0
	}
	payload := v.Frame[head:]
	whole := uint64(len(payload)) > size
	if whole {
		payload = payload[:size]
	}
	name += octets(payload)
	if whole && v.Frame[head+size] != amqp.FrameEnd {
		return fault(amqp.FrameError, name, ": {invalid_frame_end_marker,", strconv.Itoa(int(v.Frame[head+size])), "}"), 0
	}
	known := false
	switch typ {
	case amqp.FrameMethod:
		known = size >= 4
	case amqp.FrameHeader:
		known = size >= 12
	case amqp.FrameBody:
		known = true
	case amqp.FrameHeartbeat:
		known = size == 0
	}
	switch {
	case !known:
		return fault(amqp.FrameError, name, ": unknown_frame"), 0
	case typ == amqp.FrameHeartbeat, channel == 0 && typ != amqp.FrameMethod:
		return fault(amqp.UnexpectedFrame, name), 0
	}
	return nil, 0
}

// octets shows a payload as an Erlang binary, and of a long one the beginning.
func octets(p []byte) string {
	const shown = 16
	if len(p) > shown {
		return "first 16 octets = " + erlangBinary(p[:shown])
	}
	return "all octets = " + erlangBinary(p)
}

// contentFault judges a frame by the content that its channel is in the midst
// of, or is not.
func contentFault(v amqp.Violation) (*refusal, amqp.MethodID) {
	typ := uint8(amqp.FrameBody)
	if len(v.Frame) > 0 {
		typ = v.Frame[0]
	}
	class := strconv.Itoa(int(v.Content >> 16))
	switch {
	case v.Content == 0 && typ == amqp.FrameMethod:
		return nil, 0
	case v.Content == 0:
		return fault(amqp.UnexpectedFrame, "expected method frame, got non method frame instead"), 0
	case v.InBody && typ == amqp.FrameBody:
		return fault(amqp.FrameError, "content body frame exceeds remaining content size"), v.Content
	case v.InBody:
		return fault(amqp.UnexpectedFrame, "expected content body, got non content body frame instead"), v.Content
	}
	const headerClass = 7
	if typ == amqp.FrameHeader && len(v.Frame) >= headerClass+4 && binary.BigEndian.Uint16(v.Frame[headerClass+2:]) == 0 {
		if binary.BigEndian.Uint16(v.Frame[headerClass:]) == uint16(v.Content>>16) {
			return &refusal{code: amqp.InternalError}, 0 // malformed properties
		}
		return fault(amqp.UnexpectedFrame, "expected content header for class ", class, ", got one for class ",
			strconv.Itoa(int(binary.BigEndian.Uint16(v.Frame[headerClass:]))), " instead"), v.Content
	}
	return fault(amqp.UnexpectedFrame, "expected content header for class ", class, ", got non content header frame instead"), v.Content
}

// methodFault judges a method that does not belong where it came. nil: a
// method that RabbitMQ does not know, at which its reader crashes.
func methodFault(v amqp.Violation) (*refusal, amqp.MethodID) {
	id := amqp.MethodID(binary.BigEndian.Uint32(v.Frame[7:]))
	channel := binary.BigEndian.Uint16(v.Frame[1:])
	switch {
	case !known(id):
		return nil, 0
	case v.Err.Code == amqp.SyntaxError || v.Err.Code == amqp.FrameError:
		return undecodable(v.Frame[7+4:len(v.Frame)-1], v.Err), id
	case channel == 0:
		return fault(amqp.ChannelError, "unexpected method in connection state running"), id
	case v.Err.Code == amqp.NotAllowed:
		return &refusal{code: amqp.NotAllowed, text: v.Err.Text}, 0
	case id == amqp.MethodChannelOpen:
		return fault(amqp.ChannelError, "second 'channel.open' seen"), id
	case !v.Channel:
		return fault(amqp.ChannelError, "expected 'channel.open'"), id
	}
	return unimplemented(), id
}

func unimplemented() *refusal { return fault(amqp.CommandInvalid, "unimplemented method") }

func known(id amqp.MethodID) bool {
	_, err := strconv.Atoi(strings.SplitN(id.String(), ".", 2)[0])
	return err != nil
}

// undecodable is the refusal of arguments that can't be decoded; nil where
// RabbitMQ's reader crashes.
func undecodable(args []byte, err *amqp.Error) *refusal {
	if strings.Contains(err.Text, "unknown type") {
		return nil
	}
	return fault(amqp.FrameError, "cannot decode ", erlangBinary(args))
}

// erlangBinary shows octets as Erlang's ~tp does: as text where all of them are
// Latin-1 that prints, and else as numbers.
func erlangBinary(p []byte) string {
	var b strings.Builder
	b.WriteString("<<")
	if text, ok := erlangText(p); ok && len(p) > 0 {
		b.WriteString(text)
	} else {
		for i, c := range p {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.Itoa(int(c)))
		}
	}
	b.WriteString(">>")
	return b.String()
}

func erlangText(p []byte) (string, bool) {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range p {
		if e := strings.IndexByte("\n\r\t\v\b\f\x1b\"\\", c); e >= 0 {
			b.WriteByte('\\')
			b.WriteByte("nrtvbfe\"\\"[e])
			continue
		}
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return "", false
		}
		b.WriteRune(rune(c))
	}
	b.WriteByte('"')
	return b.String(), true
}
