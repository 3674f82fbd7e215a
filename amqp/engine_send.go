package amqp

import (
	"encoding/binary"
	"slices"
	"strconv"
)

// connPhase is where in its life a connection stands.
type connPhase uint8

const (
	connHeader  connPhase = iota // server: before the protocol header
	connStart                    // client: awaits start. Server: awaits start-ok or secure-ok
	connTune                     // client: awaits secure or tune. Server: awaits tune-ok
	connOpening                  // client: awaits open-ok. Server: awaits open, or is to answer it
	connOpen
	connClosing // connection.close sent
	connClosed
)

// sender is the half of the engine that turns methods and messages into bytes.
// It shares no field with the receiver.
type sender struct {
	role       Role
	phase      connPhase
	frameMax   uint32
	channelMax uint16
	channels   []*chanState // by number; nil: never opened
	free       int          // no channel number below it is free
	zero       chanState    // channel 0's expectations

	out     []byte   // what is to be written, after segs
	segs    [][]byte // earlier output, with large bodies as they are
	segsLen int
	sent    uint64 // frames
}

// pending is how many octets are to be written.
func (s *sender) pending() int { return s.segsLen + len(s.out) }

func (s *sender) channel(num uint16) *chanState {
	if int(num) < len(s.channels) {
		return s.channels[num]
	}
	return nil
}

// freeChannel gives the lowest channel number that can be opened.
func (s *sender) freeChannel() (uint16, error) {
	limit := int(s.channelMax)
	if limit == 0 {
		limit = 1<<16 - 1
	}
	for num := max(1, s.free); num <= limit; num++ {
		if st := s.channel(uint16(num)); st == nil || st.phase == chanClosed {
			s.free = num
			return uint16(num), nil
		}
	}
	return 0, &Error{Code: NotAllowed, Text: "all " + strconv.Itoa(limit) + " channels of the connection are open"}
}

// release makes the number of a closed channel free again. A server forgets it.
func (s *sender) release(st *chanState) {
	st.phase = chanClosed
	if s.role == ServerRole {
		s.channels[st.num] = nil
	}
	s.free = min(s.free, int(st.num))
}

// method appends a method frame. Where it can't be sent nothing is.
func (s *sender) method(num uint16, m Method) error {
	start := len(s.out)
	dst := beginFrame(s.out, FrameMethod, num)
	id := m.MethodID()
	dst = binary.BigEndian.AppendUint32(dst, uint32(id))
	dst, err := m.AppendTo(dst)
	if err != nil {
		return err
	}
	if size := len(dst) - start + 1; uint64(size) > uint64(s.frameMax) {
		return &EncodeError{Method: id.String(), Field: "frame", Reason: strconv.Itoa(size) +
			" octets, over the connection's frame-max of " + strconv.FormatUint(uint64(s.frameMax), 10)}
	}
	s.out = endFrame(dst, start)
	s.sent++
	return nil
}

// content appends a content header and body after its method, which the
// caller has appended from start on; on error the method is taken back too.
func (s *sender) content(start int, num, class uint16, props *Properties, body []byte, byRef bool) error {
	dst := beginFrame(s.out, FrameHeader, num)
	header := len(s.out)
	dst = append(dst, byte(class>>8), byte(class), 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(len(body)))
	dst, err := props.AppendTo(dst)
	if err == nil && uint64(len(dst)-header+1) > uint64(s.frameMax) {
		err = &EncodeError{Method: "content header", Field: "properties", Reason: strconv.Itoa(len(dst)-header+1) +
			" octets, over the connection's frame-max of " + strconv.FormatUint(uint64(s.frameMax), 10)}
	}
	if err != nil {
		s.takeBack(start)
		return err
	}
	s.out = endFrame(dst, header)
	s.sent += 2
	s.body(num, body, byRef)
	return nil
}

// rawContent is content for properties that are in wire form already.
func (s *sender) rawContent(start int, num, class uint16, props, body []byte, byRef bool) error {
	header := len(s.out)
	dst := beginFrame(s.out, FrameHeader, num)
	dst = append(dst, byte(class>>8), byte(class), 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(len(body)))
	dst = append(dst, props...)
	if size := len(dst) - header + 1; uint64(size) > uint64(s.frameMax) {
		s.takeBack(start)
		return &EncodeError{Method: "content header", Field: "properties", Reason: strconv.Itoa(size) +
			" octets, over the connection's frame-max of " + strconv.FormatUint(uint64(s.frameMax), 10)}
	}
	s.out = endFrame(dst, header)
	s.sent += 2
	s.body(num, body, byRef)
	return nil
}

// takeBack removes a method of which the content can't be sent.
func (s *sender) takeBack(start int) {
	s.out = s.out[:start]
	s.sent--
}

func (s *sender) body(num uint16, body []byte, byRef bool) {
	frames, limit := splitBody(uint64(len(body)), s.frameMax)
	if !byRef && frames > 1 {
		s.out = slices.Grow(s.out, len(body)+int(frames)*frameOverhead)
	}
	for len(body) > 0 {
		n := min(len(body), int(limit))
		dst := appendFrameHeader(s.out, FrameBody, num, uint32(n))
		if byRef {
			s.segs = append(s.segs, dst, body[:n:n])
			s.segsLen += len(dst) + n
			if dst = dst[len(dst):]; cap(dst) < frameOverhead {
				dst = make([]byte, 0, (int(frames)+8)*frameOverhead)
			}
		} else {
			dst = append(dst, body[:n]...)
		}
		s.out = append(dst, frameEndOctet)
		body = body[n:]
		s.sent++
		frames--
	}
}

// publish appends a message. It is content for the hot path: no interface is made.
func (s *sender) publish(st *chanState, m *BasicPublish, msg *Message, byRef bool) error {
	start := len(s.out)
	dst := beginFrame(s.out, FrameMethod, st.num)
	dst = binary.BigEndian.AppendUint32(dst, uint32(MethodBasicPublish))
	dst, err := m.AppendTo(dst)
	if err != nil {
		return err
	}
	s.out = endFrame(dst, start)
	if err := s.content(start, st.num, ClassBasic, &msg.Properties, msg.Body, byRef); err != nil {
		return err
	}
	if st.confirming {
		st.published++
	}
	return nil
}

// heartbeat appends a heartbeat frame ahead of what waits. Only between two
// writes: what is partly written must be finished first.
func (s *sender) heartbeat(dst []byte) []byte {
	s.sent++
	return append(appendFrameHeader(dst, FrameHeartbeat, 0, 0), frameEndOctet)
}
