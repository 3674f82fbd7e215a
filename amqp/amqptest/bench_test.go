package amqptest_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// BenchmarkServer measures the broker with clients that do as little as they
// can: one writes publishes that were encoded before, the other counts octets.
// cpu-ns/op is the processor time of the whole process per message, so an
// upper bound of the broker's share.
func BenchmarkServer(b *testing.B) {
	for _, transport := range []string{"memory", "tcp"} {
		for _, size := range []int{16, 1 << 10, 64 << 10} {
			for _, work := range []string{"publish", "confirmed", "through"} {
				b.Run(fmt.Sprintf("%s/%s/%dB", transport, work, size), func(b *testing.B) {
					srv := amqptest.NewServer(b, amqptest.Config{Record: -1})
					benchmark(b, srv, transport, work, size)
				})
			}
		}
	}
}

func benchClient(b *testing.B, srv *amqptest.Server, transport string) *rawClient {
	c := &rawClient{t: b}
	if transport == "tcp" {
		nc, err := net.Dial("tcp", srv.URI()[strings.Index(srv.URI(), "@")+1:])
		if err != nil {
			b.Fatal(err)
		}
		c.nc = nc
	}
	c.connect(srv)
	c.method(1, &amqp.ChannelOpen{})
	return c
}

func benchmark(b *testing.B, srv *amqptest.Server, transport, work string, size int) {
	pub := benchClient(b, srv, transport)
	args := amqp.Table{}
	if work != "through" {
		args["x-max-length"] = int32(0) // routed, and dropped
	}
	pub.method(1, &amqp.QueueDeclare{Queue: "q", Arguments: args})
	read := make(chan int64, 1)
	switch work {
	case "through":
		con := benchClient(b, srv, transport)
		con.method(1, &amqp.BasicConsume{Queue: "q", ConsumerTag: "t", NoAck: true})
		per := int64(len(deliverFrames("t", "q", size)))
		go func() {
			n, _ := io.CopyN(io.Discard, con.nc, per*int64(b.N))
			read <- n / per
		}()
	case "confirmed":
		pub.method(1, &amqp.ConfirmSelect{})
	}
	// A chunk of publishes, as a client under load writes them.
	one := publishFrames("q", size)
	per := max(1, (64<<10)/len(one))
	chunk := []byte(strings.Repeat(string(one), per))
	if work == "confirmed" {
		go readConfirms(pub.nc, uint64(b.N), read)
	}
	cpu := cpuTime()
	b.ResetTimer()
	for left := b.N; left > 0; left -= per {
		if _, err := pub.nc.Write(chunk[:min(left, per)*len(one)]); err != nil {
			b.Fatal(err)
		}
	}
	if work == "publish" {
		pub.method(1, &amqp.QueuePurge{Queue: "q"})
	} else {
		<-read
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
	b.SetBytes(int64(size))
}

// readConfirms reads basic.ack frames until n is confirmed.
func readConfirms(nc net.Conn, n uint64, done chan<- int64) {
	buf := make([]byte, 0, 8192)
	tmp := make([]byte, 4096)
	for last := uint64(0); last < n; {
		k, err := nc.Read(tmp)
		if err != nil {
			break
		}
		buf = append(buf, tmp[:k]...)
		const frame = 7 + 4 + 9 + 1 // an ack's
		for ; len(buf) >= frame; buf = buf[frame:] {
			var ack amqp.BasicAck
			if err := ack.DecodeFrom(buf[11:20]); err != nil {
				break
			}
			last = ack.DeliveryTag
		}
		buf = append(buf[:0:0], buf...)
	}
	done <- int64(n)
}

func publishFrames(key string, size int) []byte {
	return frames(&amqp.BasicPublish{RoutingKey: key}, size)
}

func deliverFrames(tag, key string, size int) []byte {
	return frames(&amqp.BasicDeliver{ConsumerTag: tag, RoutingKey: key}, size)
}

// frames encodes a method with a content of size octets.
func frames(m amqp.Method, size int) []byte {
	payload, err := amqp.AppendMethod(nil, m)
	if err != nil {
		panic(err)
	}
	out := frame(1, payload)
	header := []byte{0, 60, 0, 0, 0, 0, 0, 0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size), 0, 0}
	out = append(out, frame(2, header)...)
	return append(out, frame(3, make([]byte, size))...)
}

func frame(typ byte, payload []byte) []byte {
	n := len(payload)
	out := append([]byte{typ, 0, 1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, payload...)
	return append(out, 0xce)
}

func cpuTime() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkClient is what a program sees that uses package amqp on it: publish
// with confirms, and consume with acks.
func BenchmarkClient(b *testing.B) {
	for _, size := range []int{16, 1 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			srv := amqptest.NewServer(b, amqptest.Config{Record: -1})
			pub, con := open(b, srv), open(b, srv)
			declare(b, con, "q", nil)
			cons, err := con.Subscribe(b.Context(), amqp.BasicConsume{Queue: "q"}, nil)
			if err != nil {
				b.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				n := 0
				for d, err := range cons.All() {
					if err != nil || d.Ack() != nil {
						return
					}
					if n++; n == b.N {
						return
					}
				}
			}()
			msg := amqp.Message{Body: make([]byte, size)}
			b.ResetTimer()
			for range b.N {
				if _, err := pub.PublishAsync(b.Context(), amqp.BasicPublish{RoutingKey: "q"}, msg); err != nil {
					b.Fatal(err)
				}
			}
			select {
			case <-done:
			case <-time.After(time.Minute):
				b.Fatal("stuck")
			}
		})
	}
}
