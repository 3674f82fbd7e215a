package amqp

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// nullServer costs as little as a server can: after the handshake it discards
// what comes, or confirms it, or sends deliveries without end. It allocates
// nothing, so that what a test counts is the client's.
type nullServer struct {
	nc      net.Conn
	e       *Engine
	consume chan []byte // the consumer's tag is known: blast this
}

// dialNull connects to a server over loopback. Both end with the test.
func dialNull(tb testing.TB, body int, confirms bool) *Channel {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	s := &nullServer{nc: peer, e: NewEngine(EngineConfig{Role: ServerRole}), consume: make(chan []byte, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { s.run(body, confirms) })
	wg.Go(s.blast)
	conn, err := NewConn(tb.Context(), nc, &Config{Heartbeat: -1, CloseTimeout: time.Millisecond})
	if err != nil {
		tb.Fatal(err)
	}
	ch, err := conn.Channel(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		conn.Close() // the server does not answer
		wg.Wait()
	})
	return ch
}

func (s *nullServer) run(body int, confirms bool) {
	defer close(s.consume)
	defer s.nc.Close()
	buf := make([]byte, 256<<10)
	for open := false; !open; {
		n, err := s.nc.Read(buf)
		if err != nil || s.e.Feed(time.Now(), buf[:n]) != nil {
			return
		}
		for ev, ok := s.e.Next(); ok; ev, ok = s.e.Next() {
			switch ev.ID {
			case MethodConnectionStartOk:
				s.e.Send(0, &ConnectionTune{ChannelMax: 100, FrameMax: 128 << 10})
			case MethodConnectionOpen:
				s.e.Send(0, &ConnectionOpenOk{})
			case MethodChannelOpen:
				s.e.Send(ev.Channel, &ChannelOpenOk{})
				open = true
			}
		}
		for _, seg := range s.e.Output() {
			s.nc.Write(seg)
			s.e.Wrote(len(seg))
		}
	}
	s.scan(buf, body, confirms)
}

// scan looks at the method of each frame.
func (s *nullServer) scan(buf []byte, body int, confirms bool) {
	ack := []byte{FrameMethod, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1, FrameEnd}
	var published, acked uint64
	w := 0
	for {
		n, err := s.nc.Read(buf[w:])
		if err != nil {
			return
		}
		w += n
		r := 0
		for w-r >= frameHeaderSize {
			end := r + frameOverhead + int(binary.BigEndian.Uint32(buf[r+3:]))
			if end > w {
				break
			}
			if buf[r] == FrameMethod {
				switch MethodID(binary.BigEndian.Uint32(buf[r+frameHeaderSize:])) {
				case MethodBasicPublish:
					published++
				case MethodBasicQos:
					s.nc.Write([]byte{FrameMethod, 0, 1, 0, 0, 0, 4, 0, 60, 0, 11, FrameEnd})
				case MethodBasicConsume:
					s.nc.Write([]byte{FrameMethod, 0, 1, 0, 0, 0, 6, 0, 60, 0, 21, 1, 't', FrameEnd})
					s.consume <- encodeDeliveries(body)
				}
			}
			r = end
		}
		w = copy(buf, buf[r:w])
		if confirms && published > acked {
			acked = published
			binary.BigEndian.PutUint64(ack[11:], acked)
			if _, err := s.nc.Write(ack); err != nil {
				return
			}
		}
	}
}

const blastSize = 64

// encodeDeliveries makes deliveries with keys and message ids that differ.
func encodeDeliveries(body int) []byte {
	e := NewEngine(EngineConfig{Role: ServerRole})
	e.s.phase, e.s.frameMax = connOpen, 128<<10
	e.s.channels = setChannel(nil, 1, &chanState{num: 1, phase: chanOpen})
	var out []byte
	for i := range blastSize {
		m := &BasicDeliver{ConsumerTag: "t", DeliveryTag: 1, RoutingKey: fmt.Sprint("key.", i)}
		msg := &Message{Properties: Properties{MessageID: fmt.Sprint("message-", i), DeliveryMode: 2}, Body: make([]byte, body)}
		if err := e.SendContent(1, m, msg); err != nil {
			panic(err)
		}
	}
	for _, seg := range e.Output() {
		out = append(out, seg...)
	}
	return out
}

// blast sends deliveries, with tags that grow, until the connection ends.
func (s *nullServer) blast() {
	out := <-s.consume
	if out == nil {
		return
	}
	var tags []int // where they stand
	for r := 0; r < len(out); r += frameOverhead + int(binary.BigEndian.Uint32(out[r+3:])) {
		if out[r] == FrameMethod {
			tags = append(tags, r+frameHeaderSize+4+2)
		}
	}
	for tag := uint64(1); ; {
		for _, at := range tags {
			binary.BigEndian.PutUint64(out[at:], tag)
			tag++
		}
		if _, err := s.nc.Write(out); err != nil {
			return
		}
	}
}

// subscribeNull consumes from a nullServer, which heeds no prefetch.
func subscribeNull(tb testing.TB, ch *Channel, noAck, borrow bool) *Consumer {
	tb.Helper()
	cons, err := ch.Subscribe(tb.Context(), BasicConsume{NoAck: noAck}, &ConsumeOptions{
		Prefetch: -1, HoldBack: true, Borrow: borrow,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return cons
}
