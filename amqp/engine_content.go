package amqp

import (
	"encoding/binary"
	"fmt"
)

// asm is a content that is being assembled: arguments, properties and body
// lie one after the other in buf.
type asm struct {
	id       MethodID
	buf      []byte
	args     int
	props    int
	size     uint64 // body size that the header said
	got      uint64
	inBody   bool // header seen
	discards bool // over maxBody: counted, not kept
}

// checkProperties refuses a malformed property list. Headers are only measured.
func (r *receiver) checkProperties(p []byte) error {
	if len(p) == 2 && p[0]|p[1] == 0 {
		return nil
	}
	r.d = decoder{p: p, alias: true, lazyTables: true}
	var props Properties
	props.decode(&r.d)
	return r.d.finish()
}

// wholeContent takes a content header and a body of at most one frame where
// both lie complete in p; it returns 0 where they do not, or where anything
// about them is wrong: the frame by frame path then says what.
func (r *receiver) wholeContent(id MethodID, num uint16, p []byte, ev *Event) int {
	if len(p) < frameOverhead+14 || p[0] != FrameHeader || binary.BigEndian.Uint16(p[1:]) != num {
		return 0
	}
	size := uint64(binary.BigEndian.Uint32(p[3:]))
	if size < 14 || size+frameOverhead > uint64(len(p)) || size+frameOverhead > uint64(r.frameMax) {
		return 0
	}
	end := int(size) + frameHeaderSize
	if p[end] != FrameEnd || binary.BigEndian.Uint32(p[7:]) != uint32(id)&^0xffff {
		return 0
	}
	body := binary.BigEndian.Uint64(p[11:])
	if body > r.maxBody {
		return 0
	}
	n := end + 1
	props := p[frameHeaderSize+12 : end]
	if !(r.lean && id == MethodBasicDeliver) && r.checkProperties(props) != nil {
		return 0
	}
	if body == 0 {
		ev.Properties, ev.Body, ev.BodySize = props, nil, 0
		r.frames++
		return n
	}
	p = p[n:]
	if body+frameOverhead > uint64(len(p)) || body+frameOverhead > uint64(r.frameMax) {
		return 0
	}
	if p[0] != FrameBody || binary.BigEndian.Uint16(p[1:]) != num || uint64(binary.BigEndian.Uint32(p[3:])) != body {
		return 0
	}
	end = int(body) + frameHeaderSize
	if p[end] != FrameEnd {
		return 0
	}
	ev.Properties, ev.Body, ev.BodySize = props, p[frameHeaderSize:end:end], body
	r.frames += 2
	return n + end + 1
}

// contentNeeds is the length of the content of class basic that begins in p,
// where it pays to wait until all of it lies in the reader's buffer, which
// spares it memory of its own: its header is there, and its body is to come in
// one frame and is not too large. It is 0 otherwise.
func (r *receiver) contentNeeds(num uint16, p []byte) int {
	if len(p) < frameOverhead+14 || p[0] != FrameHeader || binary.BigEndian.Uint16(p[1:]) != num {
		return 0
	}
	size, body := uint64(binary.BigEndian.Uint32(p[3:])), binary.BigEndian.Uint64(p[11:])
	if size+frameOverhead > uint64(len(p)) || binary.BigEndian.Uint32(p[7:]) != uint32(ClassBasic)<<16 || p[size+frameHeaderSize] != FrameEnd {
		return 0
	}
	// Nothing is set aside on a mere announcement.
	if body > r.maxBody || body+frameOverhead > uint64(r.frameMax) || body > uint64(8*len(p)+64<<10) {
		return 0
	}
	next := p[size+frameOverhead:]
	if len(next) >= frameHeaderSize && (next[0] != FrameBody || binary.BigEndian.Uint16(next[1:]) != num || uint64(binary.BigEndian.Uint32(next[3:])) != body) {
		return 0
	}
	return int(size) + int(body) + 2*frameOverhead
}

// header takes a content header frame.
func (r *receiver) header(num uint16, payload []byte, ev *Event) error {
	a, err := r.assembling(num, "content header")
	if err != nil {
		return err
	}
	if a == nil {
		return protocolError(UnexpectedFrame, 0, num, "a content header without a method before it")
	}
	if a.inBody {
		return protocolError(UnexpectedFrame, a.id, num, "a content header inside the content of "+a.describe())
	}
	if len(payload) < 14 {
		return protocolError(FrameError, a.id, num, fmt.Sprintf("content header of %d octets, where 14 are the least", len(payload)))
	}
	if class := binary.BigEndian.Uint16(payload); class != uint16(a.id>>16) {
		return protocolError(FrameError, a.id, num, fmt.Sprintf("content header of class %d for a method of class %d", class, a.id>>16))
	}
	if weight := binary.BigEndian.Uint16(payload[2:]); weight != 0 {
		return protocolError(FrameError, a.id, num, fmt.Sprintf("content header with weight %d", weight))
	}
	a.size = binary.BigEndian.Uint64(payload[4:])
	props := payload[12:]
	if err := r.checkProperties(props); err != nil {
		return onChannel(inMethod(err, a.id), num)
	}
	a.props = len(props)
	a.inBody = true
	a.discards = a.size > r.maxBody
	a.buf = append(a.buf, props...)
	if a.size == 0 {
		r.finish(r.channel(num), ev)
	}
	return nil
}

// assembling finds the content that a channel is in the midst of; nil for none.
func (r *receiver) assembling(num uint16, what string) (*asm, error) {
	if num == 0 {
		return nil, protocolError(ChannelError, 0, 0, what+" on channel 0")
	}
	st := r.channel(num)
	if st == nil {
		return nil, protocolError(ChannelError, 0, num, what+" on a channel that is not open")
	}
	return st.asm, nil
}

// describe says how far a content has come, for an error about what came instead.
func (a *asm) describe() string {
	if !a.inBody {
		return a.id.String() + ", whose header is to come"
	}
	return fmt.Sprintf("%s, of whose body %d of %d octets have come", a.id, a.got, a.size)
}

// beginBody takes the header of a body frame.
func (r *receiver) beginBody(num uint16, size uint32) error {
	a, err := r.assembling(num, "content body")
	if err != nil {
		return err
	}
	if a == nil {
		return protocolError(UnexpectedFrame, 0, num, "a content body that no header announced")
	}
	if !a.inBody {
		return protocolError(UnexpectedFrame, a.id, num, "a content body before its header")
	}
	if uint64(size) > a.size-a.got {
		return protocolError(FrameError, a.id, num, fmt.Sprintf(
			"body is longer than the %d octets that its header said", a.size))
	}
	r.body, r.left = r.channel(num), size
	return nil
}

// moreBody consumes payload of the current body frame, and its end.
func (r *receiver) moreBody(p []byte, ev *Event) (int, error) {
	n := min(int(r.left), len(p))
	a := r.body.asm
	if n > 0 {
		if !a.discards {
			r.room(a, n)
			a.buf = append(a.buf, p[:n]...)
		}
		r.took(n)
	}
	if r.left > 0 || n == len(p) {
		r.need = 1
		return n, nil
	}
	if p[n] != FrameEnd {
		return n, frameEndError(r.body.num, p[n])
	}
	st := r.body
	r.body = nil
	if a.got == a.size {
		r.finish(st, ev)
	}
	return n + 1, nil
}

func (r *receiver) took(n int) {
	r.left -= uint32(n)
	r.body.asm.got += uint64(n)
}

// room makes the buffer of a grow ahead of n octets that are there: never
// beyond the content's end, and never by more than a few times what has
// arrived, since the announced size may be a lie.
func (r *receiver) room(a *asm, n int) {
	have := len(a.buf)
	if have+n <= cap(a.buf) {
		return
	}
	whole := a.args + a.props + int(a.size)
	a.buf = append(rawBytes(min(whole, max(4*(have+n), have+min(int(r.left), 64<<10)+64)))[:0], a.buf...)
}

// space returns where the next octets of a large body can be read to directly,
// nil where the caller should read into its own buffer. After reading n octets
// there, call spaceFilled.
func (r *receiver) space() []byte {
	if r.body == nil || r.body.asm.discards || r.left < directRead {
		return nil
	}
	a := r.body.asm
	r.room(a, int(min(r.left, directRead)))
	free := a.buf[len(a.buf):cap(a.buf)]
	if len(free) > int(r.left) {
		free = free[:r.left]
	}
	if len(free) < directRead/2 {
		return nil
	}
	return free
}

// directRead is the size from which reading a body straight to its place
// saves more than the further system call costs.
const directRead = 8 << 10

func (r *receiver) spaceFilled(n int) {
	a := r.body.asm
	a.buf = a.buf[:len(a.buf)+n]
	r.took(n)
}

// finish makes the event of a content that is complete.
func (r *receiver) finish(st *chanState, ev *Event) {
	a := st.asm
	st.asm = nil
	*ev = Event{
		Kind: EventContent, Channel: st.num, ID: a.id, st: st,
		Args:       a.buf[:a.args:a.args],
		Properties: a.buf[a.args : a.args+a.props : a.args+a.props],
		BodySize:   a.size, Oversized: a.discards, owned: a.buf,
	}
	if !a.discards && a.size > 0 {
		ev.Body = a.buf[a.args+a.props:]
	}
}
