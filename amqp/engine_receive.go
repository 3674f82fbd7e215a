package amqp

import (
	"encoding/binary"
	"fmt"
)

// preTuneFrameMax bounds frames until connection.tune-ok. The spec says 4096;
// RabbitMQ's connection.start can be longer, and 8192 is what it grants a client.
const preTuneFrameMax = 8192

// receiver is the half of the engine that turns bytes into events. It shares
// no field with the sender, so that the runtime can run it without the lock
// under which messages are sent; what an event means for the sender's state is
// the business of Engine.accept.
type receiver struct {
	fromPeer func(*methodInfo) bool // which methods the peer may send
	frameMax uint32
	maxBody  uint64
	channels []*chanState // by number; nil: never opened

	// lean leaves it to whoever takes the events to refuse malformed arguments of
	// confirms, and malformed properties of deliveries that come whole, where it
	// decodes them anyway. All else is checked here.
	lean bool

	pastHeader bool // the server role has had its protocol header

	at     int        // where in what next was given the latest frame began; -1: before it
	need   int        // bytes that the next call must hold to get anywhere
	body   *chanState // the channel of a body frame that is partly consumed
	left   uint32     // payload octets of that frame still to come
	frames uint64

	d decoder // kept here so that it is not allocated
}

func (r *receiver) channel(num uint16) *chanState {
	if int(num) < len(r.channels) {
		return r.channels[num]
	}
	return nil
}

func (r *receiver) setChannel(num uint16, st *chanState) {
	r.channels = setChannel(r.channels, num, st)
}

func setChannel(table []*chanState, num uint16, st *chanState) []*chanState {
	if n := int(num) + 1; n > len(table) {
		if n > cap(table) {
			grown := make([]*chanState, n, max(n, 2*cap(table)))
			copy(grown, table)
			table = grown
		}
		table = table[:n]
	}
	table[num] = st
	return table
}

// next consumes up to one event from p. It returns how much it consumed; with
// ev.Kind still eventNone, p is used up as far as it goes and r.need says how
// long what is left must grow. ev must be zero.
func (r *receiver) next(p []byte, ev *Event) (int, error) {
	off := 0
	r.at = -1
	for {
		if r.body != nil {
			n, err := r.moreBody(p[off:], ev)
			off += n
			if err != nil || r.body != nil || ev.Kind != eventNone {
				return off, err
			}
			continue
		}
		q := p[off:]
		r.at = off
		if r.frames == 0 && !r.pastHeader {
			if ok, err := checkFirstFrame(q, false); !ok {
				r.need = len(protocolHeader)
				return off, err
			}
		}
		if len(q) < frameHeaderSize {
			r.need = frameHeaderSize
			return off, nil
		}
		typ, num := q[0], binary.BigEndian.Uint16(q[1:])
		size := binary.BigEndian.Uint32(q[3:])
		if err := r.checkFrame(typ, num, size); err != nil {
			return off, err
		}
		if typ == FrameBody {
			if err := r.beginBody(num, size); err != nil {
				return off, err
			}
			r.frames++
			off += frameHeaderSize
			continue
		}
		end := int(size) + frameHeaderSize
		if len(q) <= end {
			r.need = end + 1
			return off, nil
		}
		if q[end] != FrameEnd {
			return off, frameEndError(num, q[end])
		}
		payload := q[frameHeaderSize:end]
		off += end + 1
		r.frames++
		var err error
		switch typ {
		case FrameMethod:
			var n int
			n, err = r.method(num, payload, p[off:], ev)
			off += n
		case FrameHeader:
			err = r.header(num, payload, ev)
		}
		if err != nil || ev.Kind != eventNone {
			return off, err
		}
	}
}

// checkFrame refuses a frame by its header alone.
func (r *receiver) checkFrame(typ uint8, num uint16, size uint32) error {
	switch typ {
	case FrameMethod, FrameHeader, FrameBody:
	case FrameHeartbeat:
		if num != 0 {
			return protocolError(FrameError, 0, 0, fmt.Sprintf("heartbeat on channel %d", num))
		}
		if size != 0 {
			return protocolError(FrameError, 0, 0, fmt.Sprintf("heartbeat with a payload of %d octets", size))
		}
	default:
		return protocolError(FrameError, 0, 0, fmt.Sprintf("frame type %d is unknown", typ))
	}
	if uint64(size)+frameOverhead > uint64(r.frameMax) {
		return protocolError(FrameError, 0, 0, fmt.Sprintf(
			"frame of %d octets on channel %d is over the limit of %d", uint64(size)+frameOverhead, num, r.frameMax))
	}
	return nil
}

func frameEndError(num uint16, got byte) error {
	return protocolError(FrameError, 0, 0, fmt.Sprintf("frame on channel %d ends in %#02x instead of 0xce", num, got))
}

// method takes a method frame. rest is what follows it, of which it consumes a
// content that lies there whole.
func (r *receiver) method(num uint16, payload, rest []byte, ev *Event) (int, error) {
	id, err := parseMethodID(payload)
	if err != nil {
		return 0, onChannel(err, num)
	}
	args := payload[4:]
	info := infoOf(id)
	if info == nil {
		return 0, onChannel(unknownMethod(id), num)
	}
	if !r.fromPeer(info) {
		return 0, protocolError(CommandInvalid, id, num, "a method that this peer may not send")
	}
	st := r.channel(num)
	if st != nil && st.asm != nil {
		return 0, protocolError(UnexpectedFrame, id, num, "a method inside the content of "+st.asm.describe())
	}
	if err := r.checkArgs(id, args); err != nil {
		return 0, onChannel(inMethod(err, id), num)
	}
	if !info.content {
		*ev = Event{Kind: EventMethod, Channel: num, ID: id, Args: args, st: st}
		return 0, nil
	}
	if num == 0 {
		return 0, protocolError(ChannelError, id, 0, "content on channel 0")
	}
	if st == nil {
		return 0, protocolError(ChannelError, id, num, "content on a channel that is not open")
	}
	if n := r.wholeContent(id, num, rest, ev); n > 0 {
		ev.Kind, ev.Channel, ev.ID, ev.Args, ev.st = EventContent, num, id, args, st
		return n, nil
	}
	st.asm = &asm{id: id, args: len(args), buf: append([]byte(nil), args...)}
	return 0, nil
}

// onChannel says in an error of the decoder where it happened.
func onChannel(err error, num uint16) error {
	if ex, ok := err.(*Error); ok {
		ex.Channel = num
	}
	return err
}

// checkArgs refuses malformed arguments. The methods that come by the thousand
// are named, since a local variable costs nothing and newMethod an allocation.
func (r *receiver) checkArgs(id MethodID, args []byte) error {
	r.d = decoder{p: args, alias: true, lazyTables: true}
	switch id {
	case MethodBasicDeliver:
		var m BasicDeliver
		m.decode(&r.d)
	case MethodBasicAck:
		if r.lean {
			return nil
		}
		var m BasicAck
		m.decode(&r.d)
	case MethodBasicNack:
		if r.lean {
			return nil
		}
		var m BasicNack
		m.decode(&r.d)
	case MethodBasicPublish:
		var m BasicPublish
		m.decode(&r.d)
	case MethodBasicReject:
		var m BasicReject
		m.decode(&r.d)
	case MethodBasicCancel:
		var m BasicCancel
		m.decode(&r.d)
	default:
		newMethod(id).decode(&r.d)
	}
	return r.d.finish()
}
