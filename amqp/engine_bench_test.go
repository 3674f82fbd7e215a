package amqp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

// BenchmarkEngine_FeedDeliveries feeds what a broker delivers, 64 KiB at a time,
// and takes the events.
func BenchmarkEngine_FeedDeliveries(b *testing.B) {
	for _, size := range []int{16, 1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			e := ready(b, ClientRole, 1)
			p, tags := encodedDeliveries(b, max(1, 64<<10/(size+100)), size)
			now := time.Unix(1000, 0)
			tag := uint64(0)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for n := 0; n < b.N; {
				for _, at := range tags {
					tag++
					binary.BigEndian.PutUint64(p[at:], tag)
				}
				for off := 0; off < len(p); off += 64 << 10 {
					if err := e.Feed(now, p[off:min(off+64<<10, len(p))]); err != nil {
						b.Fatal(err)
					}
					for {
						ev, ok := e.Next()
						if !ok {
							break
						}
						if len(ev.Body) != size {
							b.Fatal(len(ev.Body))
						}
						n++
					}
				}
			}
		})
	}
}

// encodedDeliveries encodes count deliveries, and says where their tags are.
func encodedDeliveries(t testing.TB, count, size int) (p []byte, tags []int) {
	s := ready(t, ServerRole, 1)
	body := bytes.Repeat([]byte("x"), size)
	for range count {
		m := &BasicDeliver{ConsumerTag: "ctag", DeliveryTag: 1, Exchange: "orders", RoutingKey: "eu.new"}
		tags = append(tags, len(p)+frameHeaderSize+4+5)
		if err := s.SendContent(1, m, &Message{Properties: Properties{DeliveryMode: 2}, Body: body}); err != nil {
			t.Fatal(err)
		}
		p = append(p, drain(s)...)
	}
	return p, tags
}

// BenchmarkEngine_SendPublishes publishes, and takes the output whenever 64 KiB
// have gathered.
func BenchmarkEngine_SendPublishes(b *testing.B) {
	for _, size := range []int{16, 1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			e := ready(b, ClientRole, 1)
			m := &BasicPublish{Exchange: "orders", RoutingKey: "eu.new"}
			msg := &Message{Properties: Properties{DeliveryMode: 2}, Body: bytes.Repeat([]byte("x"), size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := e.SendContent(1, m, msg); err != nil {
					b.Fatal(err)
				}
				if e.s.pending() >= 64<<10 {
					n := 0
					for _, seg := range e.Output() {
						n += len(seg)
					}
					e.Wrote(n)
				}
			}
		})
	}
}

func BenchmarkEngine_Ack(b *testing.B) {
	e := ready(b, ClientRole, 1)
	e.r.channel(1).lastTag = 1 << 60
	m := &BasicAck{}
	b.ReportAllocs()
	for b.Loop() {
		m.DeliveryTag++
		if err := e.Send(1, m); err != nil {
			b.Fatal(err)
		}
		if n := e.s.pending(); n >= 64<<10 {
			e.Wrote(n)
		}
	}
}

// BenchmarkEngine_Handshake is a whole one, both sides.
func BenchmarkEngine_Handshake(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ready(b, ServerRole, 1)
		ready(b, ClientRole, 1)
	}
}
