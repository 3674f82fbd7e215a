package amqp

import "fmt"

// Send says a method without content. A sync method's reply comes as an event,
// in the order of sending.
//
// Errors: *EncodeError where it has no wire form; ErrRefused where the broker
// would close the whole connection for it; ErrTxMode; *Error with ErrClosed
// where the channel or connection is not open. Nothing is sent then.
func (e *Engine) Send(channel uint16, m Method) error {
	if e.s.role == ClientRole {
		if b, ok := ackTag(m); ok {
			if st := e.r.channel(channel); st == nil || b > st.lastTag {
				return fmt.Errorf("%w: no delivery %d was made on channel %d", ErrRefused, b, channel)
			}
		}
	}
	_, err := e.s.send(channel, m, asksNoReply(m), nil)
	if err != nil {
		return err
	}
	e.afterSend(channel, m)
	return nil
}

// SendContent says a method with content: *BasicPublish for a client;
// *BasicDeliver, *BasicReturn or *BasicGetOk for a server (or these by value).
// A body of 128 KiB or more is not copied: it must stay as it is until Wrote
// has passed it.
//
// Errors: as Send.
func (e *Engine) SendContent(channel uint16, m Method, msg *Message) error {
	st, err := e.s.readyContent(channel, m)
	if err != nil {
		return err
	}
	start := len(e.s.out)
	if err := e.s.method(channel, m); err != nil {
		return err
	}
	err = e.s.content(start, channel, uint16(m.MethodID()>>16), &msg.Properties, msg.Body, len(msg.Body) >= byRefBody)
	if err == nil && st.confirming {
		st.published++
	}
	return err
}

// Forward is SendContent for properties that are in wire form, as an Event has
// them: who hands messages on sends them as they came.
//
// Errors: as Send.
func (e *Engine) Forward(channel uint16, m Method, properties, body []byte) error {
	st, err := e.s.readyContent(channel, m)
	if err != nil {
		return err
	}
	start := len(e.s.out)
	if err := e.s.method(channel, m); err != nil {
		return err
	}
	err = e.s.rawContent(start, channel, uint16(m.MethodID()>>16), properties, body, len(body) >= byRefBody)
	if err == nil && st.confirming {
		st.published++
	}
	return err
}

// byRefBody is the size from which copying a body costs more than a vectored
// write of it.
const byRefBody = 128 << 10

// Output is what is to be written, in order. It stays valid until Wrote, Send,
// SendContent, Feed or Tick.
func (e *Engine) Output() [][]byte {
	e.view = append(e.view[:0], e.s.segs...)
	if len(e.s.out) > 0 {
		e.view = append(e.view, e.s.out)
	}
	return e.view
}

// Wrote says that the first n octets of Output were written.
func (e *Engine) Wrote(n int) {
	e.wrote = e.wrote || n > 0
	for len(e.s.segs) > 0 {
		k := min(n, len(e.s.segs[0]))
		n, e.s.segsLen = n-k, e.s.segsLen-k
		if e.s.segs[0] = e.s.segs[0][k:]; len(e.s.segs[0]) > 0 {
			return
		}
		e.s.segs[0] = nil
		if e.s.segs = e.s.segs[1:]; len(e.s.segs) == 0 {
			e.s.segs = nil
		}
	}
	if n == len(e.s.out) {
		e.s.out = e.s.out[:0] // from the beginning of the buffer, to use all of it again
		return
	}
	e.s.out = e.s.out[n:]
}

// Detach hands over all that is to be written, as Output and Wrote would: it is
// the caller's from then on, so that one goroutine can write it while another
// uses the engine. spare is a buffer that the engine goes on in; what it held is
// lost. The last slice that an earlier Detach gave serves, once it is written.
// Where there is nothing to be written it returns nil, and spare stays the
// caller's.
func (e *Engine) Detach(spare []byte) [][]byte {
	if e.s.pending() == 0 {
		return nil
	}
	out := e.s.segs
	if len(e.s.out) > 0 {
		out = append(out, e.s.out)
	}
	e.wrote = true
	e.s.segs, e.s.segsLen, e.s.out = nil, 0, spare[:0]
	return out
}
