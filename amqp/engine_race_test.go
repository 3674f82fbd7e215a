package amqp

import (
	"bytes"
	"sync"
	"testing"
)

// The receiver runs without a lock, and beside it senders take turns: that is
// how Conn uses an engine, and the race detector watches.
func TestEngine_HalvesSideBySide(t *testing.T) {
	const n = 2000
	e := ready(t, ClientRole, 2)
	e.r.lean = false
	var in []byte
	for i := range n {
		in = append(in, frameOf(t, 1, &BasicDeliver{ConsumerTag: "t", DeliveryTag: uint64(i + 1), RoutingKey: "q"})...)
		in = append(in, contentHeader(1, 3, "\x00\x00")...)
		in = append(in, frame(FrameBody, 1, "ab")...)
		in = append(in, frame(FrameBody, 1, "c")...)
		in = append(in, frameOf(t, 2, &QueueDeclareOk{Queue: "q"})...)
		in = append(in, frameOf(t, 1, &ChannelFlow{Active: true})...)
	}
	var mu sync.Mutex // the sender's lock
	var wg sync.WaitGroup
	confirming := &ConfirmSelect{NoWait: true}
	if err := e.Send(2, confirming); err != nil {
		t.Fatal(err)
	}
	st2 := e.s.channel(2)
	declared := make(chan struct{}, n) // an answer may come only after its question
	out := &bytes.Buffer{}
	wg.Add(3)
	go func() { // asks
		defer wg.Done()
		for range n {
			mu.Lock()
			if _, err := e.s.send(2, &QueueDeclare{Queue: "q"}, false, nil); err != nil {
				t.Error(err)
			}
			mu.Unlock()
			declared <- struct{}{}
		}
	}()
	go func() { // publishes, acknowledges, opens and closes
		defer wg.Done()
		for i := range n {
			mu.Lock()
			if err := e.s.publish(st2, &BasicPublish{RoutingKey: "q"}, &Message{Body: []byte("xyz")}, false); err != nil {
				t.Error(err)
			}
			if i%100 == 0 {
				if _, err := e.s.send(uint16(3+i/100), &ChannelOpen{}, false, nil); err != nil {
					t.Error(err)
				}
			}
			out.Write(e.s.out) // written while others wait
			e.s.out = e.s.out[:0]
			mu.Unlock()
		}
	}()
	var deliveries, answers int
	go func() { // reads
		defer wg.Done()
		for p := in; ; {
			var ev Event
			k, err := e.r.next(p, &ev)
			p = p[k:]
			if err != nil {
				t.Error(err)
				return
			}
			if ev.Kind == eventNone {
				return
			}
			if ev.ID == MethodQueueDeclareOk {
				<-declared
			}
			if ev.ID == MethodBasicDeliver { // needs nothing of the sender's
				var m BasicDeliver
				if err := m.DecodeFrom(ev.Args); err != nil || ev.st.delivered(ev.ID, m.DeliveryTag) != nil || string(ev.Body) != "abc" {
					t.Errorf("delivery %+v of %q, %v", m, ev.Body, err)
				}
				deliveries++
				continue
			}
			mu.Lock()
			keep, err := e.accept(&ev)
			mu.Unlock()
			if err != nil || !keep {
				t.Errorf("%s: %v %v", ev.ID, keep, err)
				return
			}
			if ev.ID == MethodQueueDeclareOk {
				answers++
			}
		}
	}()
	wg.Wait()
	out.Write(e.s.out)
	if deliveries != n || answers != n || st2.published != n {
		t.Errorf("%d deliveries, %d answers, %d published of %d each", deliveries, answers, st2.published, n)
	}
	counts := map[string]int{}
	for _, line := range describeOutput(t, out.Bytes()) {
		for _, what := range []string{"queue.declare", "basic.publish", "body xyz", "channel.flow-ok", "channel.open"} {
			if bytes.Contains([]byte(line), []byte(what)) {
				counts[what]++
			}
		}
	}
	if counts["queue.declare"] != n || counts["basic.publish"] != n || counts["body xyz"] != n || counts["channel.flow-ok"] != n || counts["channel.open"] != n/100 {
		t.Errorf("output %v", counts)
	}
}
