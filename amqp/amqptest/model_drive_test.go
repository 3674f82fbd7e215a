package amqptest_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// driver runs operations on a broker through an engine, and notes what comes.
type driver struct {
	tg  modelTarget
	nc  net.Conn
	e   *amqp.Engine
	buf []byte

	replies    [4][]string // by channel; 3 is the driver's own
	deliveries [4][]string
	cancels    []string
	gone       error
}

// run runs a sequence on a new connection and compares it step by step with
// the reference model.
func (tg modelTarget) run(ops []op) error {
	nc, err := tg.dial()
	if err != nil {
		return err
	}
	defer nc.Close()
	d := &driver{tg: tg, nc: nc, buf: make([]byte, 16<<10)}
	d.e = amqp.NewEngine(amqp.EngineConfig{
		VHost: "/", Heartbeat: -1,
		SASLInfo: amqp.SASLInfo{Credentials: &amqp.Credentials{Username: "guest", Password: "guest"}},
	})
	opened := false
	if err := d.pump(func() bool { return opened }, func(ev amqp.Event) { opened = opened || ev.Kind == amqp.EventOpen }); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if err := d.setUp(); err != nil {
		return err
	}
	defer d.tearDown()
	ref := newRefBroker()
	for i, o := range ops {
		tag := ref.tagFor(o)
		want := ref.do(o)
		if want.mixed && tg.prefix != "" {
			return nil // RabbitMQ's queues are independent: in which order these come is open
		}
		if err := d.step(o, tag, want); err != nil {
			return fmt.Errorf("at %d, %s: %w", i, o, err)
		}
		if err := d.counts(ref); err != nil {
			return fmt.Errorf("after %d, %s: %w", i, o, err)
		}
	}
	return nil
}

func (d *driver) name(s string) string {
	if s == "" {
		return ""
	}
	return d.tg.prefix + s
}

// setUp opens the channels and declares the exchanges.
func (d *driver) setUp() error {
	for num := range 3 {
		if err := d.openChannel(num + 1); err != nil {
			return err
		}
	}
	for name, kind := range map[string]string{"x0": "direct", "x1": "fanout", "x2": "topic"} {
		if _, err := d.call(3, &amqp.ExchangeDeclare{Exchange: d.name(name), Type: kind}); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) tearDown() {
	for _, x := range []string{"x0", "x1", "x2"} {
		d.call(3, &amqp.ExchangeDelete{Exchange: d.name(x)})
	}
	for _, q := range []string{"q0", "q1", "q2"} {
		d.call(3, &amqp.QueueDelete{Queue: d.name(q)})
	}
}

func (d *driver) openChannel(num int) error {
	if _, err := d.call(num, &amqp.ChannelOpen{}); err != nil {
		return err
	}
	_, err := d.call(num, &amqp.ConfirmSelect{})
	return err
}

// call sends a method and takes its one reply.
func (d *driver) call(num int, m amqp.Method) (string, error) {
	if err := d.e.Send(uint16(num), m); err != nil {
		return "", err
	}
	return d.reply(num)
}

func (d *driver) reply(num int) (string, error) {
	if err := d.pump(func() bool { return len(d.replies[num]) > 0 }, nil); err != nil {
		return "", err
	}
	r := d.replies[num][0]
	d.replies[num] = d.replies[num][1:]
	return r, nil
}

// pump writes and reads until done, or until it takes too long.
func (d *driver) pump(done func() bool, each func(amqp.Event)) error {
	deadline := time.Now().Add(d.tg.wait)
	for {
		for _, b := range d.e.Output() {
			if _, err := d.nc.Write(b); err != nil {
				return err
			}
			d.e.Wrote(len(b))
		}
		for {
			ev, ok := d.e.Next()
			if !ok {
				break
			}
			if each != nil {
				each(ev)
			}
			d.note(ev)
		}
		if d.gone != nil {
			return d.gone
		}
		if done() {
			return nil
		}
		d.nc.SetReadDeadline(deadline)
		n, err := d.nc.Read(d.buf)
		if err != nil {
			return err
		}
		if err := d.e.Feed(time.Now(), d.buf[:n]); err != nil {
			return err
		}
	}
}

// note writes down an event in the words of the reference model.
func (d *driver) note(ev amqp.Event) {
	if ev.Kind == amqp.EventClosed {
		d.gone = fmt.Errorf("the connection closed: %v", ev.Err)
		return
	}
	if ev.Kind == amqp.EventOpen {
		return
	}
	num := ev.Channel
	m, err := ev.Method()
	if err != nil {
		d.gone = err
		return
	}
	reply := func(format string, args ...any) {
		d.replies[num] = append(d.replies[num], fmt.Sprintf(format, args...))
	}
	switch m := m.(type) {
	case *amqp.BasicDeliver:
		d.deliveries[num] = append(d.deliveries[num], fmt.Sprintf("%s %d %s %v", m.ConsumerTag, m.DeliveryTag, ev.Body, m.Redelivered))
	case *amqp.BasicCancel:
		d.cancels = append(d.cancels, fmt.Sprint(num, " ", m.ConsumerTag))
	case *amqp.BasicReturn:
		reply("return")
	case *amqp.BasicAck:
		reply("ack")
	case *amqp.BasicNack:
		reply("nack")
	case *amqp.BasicGetOk:
		reply("get-ok %d %s %v %d", m.DeliveryTag, ev.Body, m.Redelivered, m.MessageCount)
	case *amqp.QueueDeclareOk:
		reply("declare-ok %d %d", m.MessageCount, m.ConsumerCount)
	case *amqp.QueueDeleteOk:
		reply("delete-ok %d", m.MessageCount)
	case *amqp.QueuePurgeOk:
		reply("purge-ok %d", m.MessageCount)
	case *amqp.BasicConsumeOk:
		reply("consume-ok %s", m.ConsumerTag)
	case *amqp.BasicCancelOk:
		reply("cancel-ok %s", m.ConsumerTag)
	case *amqp.ChannelClose:
		reply("close %d", uint16(m.ReplyCode))
	default:
		name := ev.ID.String()
		reply("%s", name[strings.Index(name, ".")+1:])
	}
}

// step does one operation and compares what comes with what must come.
func (d *driver) step(o op, tag uint64, want refResult) error {
	d.deliveries, d.cancels = [4][]string{}, nil
	if err := d.send(o, tag); err != nil {
		return err
	}
	parts := 0
	if want.reply != "" {
		parts = 1
		if strings.HasPrefix(want.reply, "return ") {
			parts = 2
		}
	}
	err := d.pump(func() bool {
		return len(d.replies[o.ch]) >= parts && len(d.cancels) >= len(want.cancels) &&
			len(d.deliveries[1]) >= len(want.deliveries[1]) && len(d.deliveries[2]) >= len(want.deliveries[2])
	}, nil)
	if err != nil && !os.IsTimeout(err) {
		return err
	}
	got := refResult{reply: strings.Join(d.replies[o.ch], " "), cancels: d.cancels}
	d.replies[o.ch] = nil
	sort.Strings(got.cancels)
	if got.reply != want.reply {
		return fmt.Errorf("reply %q; want %q", got.reply, want.reply)
	}
	for num := 1; num <= 2; num++ {
		if !slices.Equal(d.deliveries[num], want.deliveries[num]) {
			return fmt.Errorf("deliveries on channel %d: %q; want %q", num, d.deliveries[num], want.deliveries[num])
		}
	}
	if !slices.Equal(got.cancels, want.cancels) {
		return fmt.Errorf("cancels %q; want %q", got.cancels, want.cancels)
	}
	if strings.HasPrefix(want.reply, "close ") {
		return d.openChannel(o.ch)
	}
	return nil
}

// counts compares the depth and the consumers of every queue. On RabbitMQ what
// one queue does to another takes a moment.
func (d *driver) counts(ref *refBroker) error {
	for _, name := range []string{"q0", "q1", "q2"} {
		q := ref.queues[name]
		if q == nil {
			continue
		}
		want := fmt.Sprintf("declare-ok %d %d", len(q.ready), len(q.consumers))
		for deadline := time.Now().Add(d.tg.wait); ; {
			got, err := d.call(3, &amqp.QueueDeclare{Queue: d.name(name), Passive: true})
			if err != nil {
				return err
			}
			if got == want {
				break
			}
			if d.tg.prefix == "" || time.Now().After(deadline) {
				return fmt.Errorf("%s: %s; want %s", name, got, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func (d *driver) send(o op, tag uint64) error {
	num := uint16(o.ch)
	queue, exchange := d.name(o.queue), d.name(o.exchange)
	if o.kind >= opAck && tag == 0 {
		return nil
	}
	switch o.kind {
	case opDeclare:
		return d.e.Send(num, &amqp.QueueDeclare{Queue: queue, Exclusive: true, Arguments: refOptions[o.n].args(d.name("q0"))})
	case opDelete:
		return d.e.Send(num, &amqp.QueueDelete{Queue: queue})
	case opPurge:
		return d.e.Send(num, &amqp.QueuePurge{Queue: queue})
	case opBind:
		return d.e.Send(num, &amqp.QueueBind{Queue: queue, Exchange: exchange, RoutingKey: o.key})
	case opUnbind:
		return d.e.Send(num, &amqp.QueueUnbind{Queue: queue, Exchange: exchange, RoutingKey: o.key})
	case opBindExchange:
		return d.e.Send(num, &amqp.ExchangeBind{Destination: d.name("x2"), Source: d.name("x1"), RoutingKey: o.key})
	case opPublish:
		key := o.key
		if o.exchange == "" {
			key = d.name(key)
		}
		msg := &amqp.Message{Body: []byte(o.body), Properties: amqp.Properties{Priority: uint8(o.prio)}}
		return d.e.SendContent(num, &amqp.BasicPublish{Exchange: exchange, RoutingKey: key, Mandatory: o.mandatory}, msg)
	case opGet:
		return d.e.Send(num, &amqp.BasicGet{Queue: queue, NoAck: o.noAck})
	case opConsume:
		if _, err := d.call(o.ch, &amqp.BasicQos{PrefetchCount: uint16(o.n)}); err != nil {
			return err
		}
		return d.e.Send(num, &amqp.BasicConsume{Queue: queue, ConsumerTag: o.tag, NoAck: o.noAck})
	case opCancel:
		return d.e.Send(num, &amqp.BasicCancel{ConsumerTag: o.tag})
	case opRecover:
		return d.e.Send(num, &amqp.BasicRecover{Requeue: true})
	case opClose:
		_, err := d.call(o.ch, &amqp.ChannelClose{ReplyCode: amqp.ReplySuccess})
		if err != nil {
			return err
		}
		err = d.openChannel(o.ch)
		d.replies[o.ch] = append(d.replies[o.ch], "close-ok")
		return err
	case opAck:
		return d.e.Send(num, &amqp.BasicAck{DeliveryTag: tag, Multiple: o.multiple})
	case opNack:
		return d.e.Send(num, &amqp.BasicNack{DeliveryTag: tag, Multiple: o.multiple, Requeue: o.requeue})
	default:
		return d.e.Send(num, &amqp.BasicReject{DeliveryTag: tag, Requeue: o.requeue})
	}
}

// args makes the arguments of queue.declare.
func (o refOption) args(deadQueue string) amqp.Table {
	t := amqp.Table{}
	if o.max > 0 {
		t["x-max-length"] = int32(o.max)
	}
	if o.reject {
		t["x-overflow"] = "reject-publish"
	}
	if o.dead {
		t["x-dead-letter-exchange"], t["x-dead-letter-routing-key"] = "", deadQueue
	}
	if o.prios > 0 {
		t["x-max-priority"] = int32(o.prios)
	}
	if o.single {
		t["x-single-active-consumer"] = true
	}
	return t
}
