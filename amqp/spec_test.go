package amqp

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func propertySets() []propertySet { return []propertySet{&Properties{}} }

// TestSpec_Bytes holds the codec to bytes that were written down from the spec by hand, since a
// mistake that encoder and decoder share survives any round trip.
func TestSpec_Bytes(t *testing.T) {
	for _, tc := range []struct {
		m    decodable
		want string
	}{
		{&ConnectionStart{VersionMinor: 9, Mechanisms: "PLAIN", Locales: "en_US"},
			"\x00\x09" + "\x00\x00\x00\x00" + "\x00\x00\x00\x05PLAIN" + "\x00\x00\x00\x05en_US"},
		{&ConnectionStartOk{ClientProperties: Table{"a": true}, Mechanism: "PLAIN", Response: "\x00u\x00p", Locale: "en_US"},
			"\x00\x00\x00\x04\x01at\x01" + "\x05PLAIN" + "\x00\x00\x00\x04\x00u\x00p" + "\x05en_US"},
		{&ConnectionTuneOk{ChannelMax: 2047, FrameMax: 131072, Heartbeat: 60}, "\x07\xff" + "\x00\x02\x00\x00" + "\x00\x3c"},
		{&ConnectionOpen{VirtualHost: "/"}, "\x01/" + "\x00" + "\x00"},
		{&ConnectionOpenOk{}, "\x00"},
		{&ConnectionClose{ReplyCode: UnexpectedFrame, ReplyText: "no", FailedClass: 60, FailedMethod: 40},
			"\x01\xf9" + "\x02no" + "\x00\x3c" + "\x00\x28"},
		{&ConnectionUpdateSecret{NewSecret: "s", Reason: "r"}, "\x00\x00\x00\x01s" + "\x01r"},
		{&ChannelOpen{}, "\x00"},
		{&ChannelOpenOk{}, "\x00\x00\x00\x00"},
		{&AccessRequest{Realm: "/data", Passive: true, Read: true}, "\x05/data" + "\x12"},
		{&ExchangeDeclare{Exchange: "e", Type: "topic", Durable: true, Internal: true},
			"\x00\x00" + "\x01e" + "\x05topic" + "\x0a" + "\x00\x00\x00\x00"},
		{&ExchangeUnbind{Destination: "d", Source: "s", RoutingKey: "k", NoWait: true},
			"\x00\x00" + "\x01d" + "\x01s" + "\x01k" + "\x01" + "\x00\x00\x00\x00"},
		{&QueueDeclare{Queue: "q", Passive: true, Exclusive: true, NoWait: true, Arguments: Table{"x": int32(5)}},
			"\x00\x00" + "\x01q" + "\x15" + "\x00\x00\x00\x07\x01xI\x00\x00\x00\x05"},
		{&QueueDeclareOk{Queue: "q", MessageCount: 7, ConsumerCount: 1 << 24}, "\x01q" + "\x00\x00\x00\x07" + "\x01\x00\x00\x00"},
		{&QueueUnbind{Queue: "q", Exchange: "e", RoutingKey: "k"}, "\x00\x00" + "\x01q" + "\x01e" + "\x01k" + "\x00\x00\x00\x00"},
		{&BasicQos{PrefetchCount: 300, Global: true}, "\x00\x00\x00\x00" + "\x01\x2c" + "\x01"},
		{&BasicConsume{Queue: "q", ConsumerTag: "t", NoLocal: true, NoWait: true},
			"\x00\x00" + "\x01q" + "\x01t" + "\x09" + "\x00\x00\x00\x00"},
		{&BasicPublish{Exchange: "e", RoutingKey: "key", Mandatory: true}, "\x00\x00" + "\x01e" + "\x03key" + "\x01"},
		{&BasicPublish{Immediate: true}, "\x00\x00" + "\x00" + "\x00" + "\x02"},
		{&BasicReturn{ReplyCode: NoRoute, ReplyText: "NO_ROUTE", RoutingKey: "k"}, "\x01\x38" + "\x08NO_ROUTE" + "\x00" + "\x01k"},
		{&BasicDeliver{ConsumerTag: "t", DeliveryTag: 1 << 32, Redelivered: true, Exchange: "e", RoutingKey: "k"},
			"\x01t" + "\x00\x00\x00\x01\x00\x00\x00\x00" + "\x01" + "\x01e" + "\x01k"},
		{&BasicGetOk{DeliveryTag: 2, MessageCount: 3}, "\x00\x00\x00\x00\x00\x00\x00\x02" + "\x00" + "\x00" + "\x00" + "\x00\x00\x00\x03"},
		{&BasicGetEmpty{}, "\x00"},
		{&BasicAck{DeliveryTag: 258, Multiple: true}, "\x00\x00\x00\x00\x00\x00\x01\x02" + "\x01"},
		{&BasicNack{DeliveryTag: 1, Requeue: true}, "\x00\x00\x00\x00\x00\x00\x00\x01" + "\x02"},
		{&ConfirmSelect{NoWait: true}, "\x01"},
		{&TxSelect{}, ""},
	} {
		name := tc.m.MethodID().String()
		b, err := tc.m.AppendTo(nil)
		if diff := cmp.Diff(tc.want, string(b)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
		got := newMethod(tc.m.MethodID())
		if err := got.DecodeFrom([]byte(tc.want)); err != nil {
			t.Errorf("%s: decode: %v", name, err)
		}
		if diff := cmp.Diff(tc.m, got); diff != "" {
			t.Errorf("%s: decoded (-want +got)\n%s", name, diff)
		}
	}
}

// What the spec reserves is skipped, whatever a peer puts there.
func TestSpec_LegacyFieldsAreSkipped(t *testing.T) {
	var open ConnectionOpen
	if err := open.DecodeFrom([]byte("\x01v" + "\x03cap" + "\x01")); err != nil || open != (ConnectionOpen{VirtualHost: "v"}) {
		t.Errorf("connection.open: %+v, %v", open, err)
	}
	var ok ConnectionOpenOk
	if err := ok.DecodeFrom([]byte("\x05hosts")); err != nil {
		t.Errorf("connection.open-ok: %v", err)
	}
	var chOk ChannelOpenOk
	if err := chOk.DecodeFrom([]byte("\x00\x00\x00\x02id")); err != nil {
		t.Errorf("channel.open-ok: %v", err)
	}
	var pub BasicPublish
	if err := pub.DecodeFrom([]byte("\x12\x34" + "\x00" + "\x01k" + "\x00")); err != nil || pub != (BasicPublish{RoutingKey: "k"}) {
		t.Errorf("basic.publish: %+v, %v", pub, err)
	}
	var p Properties
	if err := p.DecodeFrom([]byte("\x80\x04" + "\x01t" + "\x02id")); err != nil || p.ContentType != "t" || p.Present != HasContentType {
		t.Errorf("properties with a cluster id: %+v, %v", p, err)
	}
}

func TestSpec_PropertyBytes(t *testing.T) {
	all := Properties{
		ContentType: "t", ContentEncoding: "e", Headers: Table{"h": nil}, DeliveryMode: 2, Priority: 9,
		CorrelationID: "c", ReplyTo: "r", Expiration: "60", MessageID: "m", Timestamp: time.Unix(1, 0).UTC(),
		Type: "y", UserID: "u", AppID: "a",
	}
	for _, tc := range []struct {
		name string
		p    Properties
		want string
		flag PropertyFlags
	}{
		{"none", Properties{}, "\x00\x00", 0},
		{"all", all, "\xff\xf8" + "\x01t" + "\x01e" + "\x00\x00\x00\x03\x01hV" + "\x02" + "\x09" + "\x01c" + "\x01r" +
			"\x0260" + "\x01m" + "\x00\x00\x00\x00\x00\x00\x00\x01" + "\x01y" + "\x01u" + "\x01a", 0xfff8},
		{"priority 0", Properties{Present: HasPriority}, "\x08\x00" + "\x00", HasPriority},
		{"priority 0 beside a delivery mode", Properties{Present: HasPriority, DeliveryMode: 1}, "\x18\x00" + "\x01" + "\x00",
			HasPriority | HasDeliveryMode},
		{"empty strings and table", Properties{Present: HasHeaders | HasAppID}, "\x20\x08" + "\x00\x00\x00\x00" + "\x00",
			HasHeaders | HasAppID},
		{"flags that are none", Properties{Present: 0x7, MessageID: "m"}, "\x00\x80" + "\x01m", HasMessageID},
	} {
		b, err := tc.p.AppendTo(nil)
		if diff := cmp.Diff(tc.want, string(b)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", tc.name, err, diff)
		}
		var got Properties
		if err := got.DecodeFrom([]byte(tc.want)); err != nil {
			t.Errorf("%s: decode: %v", tc.name, err)
		}
		want := tc.p
		want.Present = tc.flag
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: decoded (-want +got)\n%s", tc.name, diff)
		}
	}
}

func TestProperties_UnknownFlagsAreAnError(t *testing.T) {
	for _, list := range []string{"\x00\x01", "\x00\x01\x00\x00", "\x00\x02"} {
		var p Properties
		err := p.DecodeFrom([]byte(list))
		if !errors.Is(err, SyntaxError) {
			t.Errorf("%x: %v", list, err)
		}
	}
}

func TestReplyCode_IsAnError(t *testing.T) {
	err := fmt.Errorf("declare: %w", NotFound)
	if !errors.Is(err, NotFound) || errors.Is(err, AccessRefused) || err.Error() != "declare: 404 NOT_FOUND" {
		t.Errorf("%v", err)
	}
	for _, tc := range []struct {
		c          ReplyCode
		str, err   string
		hard, soft bool
	}{
		{ReplySuccess, "REPLY_SUCCESS", "200 REPLY_SUCCESS", false, false},
		{PreconditionFailed, "PRECONDITION_FAILED", "406 PRECONDITION_FAILED", false, true},
		{NotImplemented, "NOT_IMPLEMENTED", "540 NOT_IMPLEMENTED", true, false},
		{599, "599", "599", false, false},
	} {
		if tc.c.String() != tc.str || tc.c.Error() != tc.err || tc.c.Hard() != tc.hard || tc.c.Soft() != tc.soft {
			t.Errorf("%d: %s, %s, hard %t, soft %t", uint16(tc.c), tc.c.String(), tc.c.Error(), tc.c.Hard(), tc.c.Soft())
		}
	}
}

// The facts that break a library which guesses them from the rest.
func TestSpec_MethodTable(t *testing.T) {
	if len(methodTable) != 66 {
		t.Errorf("%d methods, want 66", len(methodTable))
	}
	if MethodExchangeUnbind != 40<<16|40 || MethodExchangeUnbindOk != 40<<16|51 {
		t.Errorf("exchange.unbind is %d, its reply %d", MethodExchangeUnbind&0xFFFF, MethodExchangeUnbindOk&0xFFFF)
	}
	want := methodInfo{id: MethodBasicGet, name: "basic.get", class: "basic", sync: true, fromClient: true,
		replies: []MethodID{MethodBasicGetOk, MethodBasicGetEmpty}}
	if diff := cmp.Diff(want, *infoOf(MethodBasicGet), cmp.AllowUnexported(methodInfo{})); diff != "" {
		t.Errorf("basic.get (-want +got)\n%s", diff)
	}
	want = methodInfo{id: MethodBasicCancel, name: "basic.cancel", class: "basic", sync: true, fromClient: true,
		fromServer: true, replies: []MethodID{MethodBasicCancelOk}, hasNoWait: true}
	if diff := cmp.Diff(want, *infoOf(MethodBasicCancel), cmp.AllowUnexported(methodInfo{})); diff != "" {
		t.Errorf("basic.cancel (-want +got)\n%s", diff)
	}
	var content []string
	for _, i := range methodTable {
		if i.content {
			content = append(content, i.name)
		}
	}
	if diff := cmp.Diff([]string{"basic.publish", "basic.return", "basic.deliver", "basic.get-ok"}, content); diff != "" {
		t.Errorf("methods with content (-want +got)\n%s", diff)
	}
}

// What the engine asks of a method, held against the table it was made from.
func TestSpec_RepliesAndNoWait(t *testing.T) {
	replies := map[MethodID]bool{}
	for _, i := range methodTable {
		for _, id := range i.replies {
			replies[id] = true
		}
	}
	quiet := 0
	for _, i := range methodTable {
		if i.reply != replies[i.id] {
			t.Errorf("%s: reply is %v", i.name, i.reply)
		}
		m := newMethod(i.id)
		if w, ok := m.(noWaiter); ok != i.hasNoWait || ok && w.noWait() {
			t.Errorf("%s: hasNoWait is %v, an empty one says %v", i.name, i.hasNoWait, ok && w.noWait())
		}
		if !i.hasNoWait {
			continue
		}
		quiet++
		v := reflect.ValueOf(m).Elem()
		v.FieldByName("NoWait").SetBool(true)
		if !asksNoReply(m) || !asksNoReply(v.Interface().(Method)) {
			t.Errorf("%s with NoWait asks for a reply", i.name)
		}
	}
	if quiet != 11 || len(replies) < 25 {
		t.Errorf("%d methods with nowait, %d replies", quiet, len(replies))
	}
}

func TestSpec_HotPathAllocatesNothing(t *testing.T) {
	dst := make([]byte, 0, 1024)
	pub := BasicPublish{Exchange: "exchange", RoutingKey: "routing.key"}
	props := Properties{ContentType: "text/plain", DeliveryMode: 2, MessageID: "id-1", Headers: Table{"k": "v"}}
	deliver, err := BasicDeliver{ConsumerTag: "ctag", DeliveryTag: 7, Exchange: "e", RoutingKey: "k"}.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := props.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	var in BasicDeliver
	var got Properties
	for name, f := range map[string]func(){
		"encode publish":    func() { _, _ = pub.AppendTo(dst) },
		"encode ack":        func() { _, _ = BasicAck{DeliveryTag: 1}.AppendTo(dst) },
		"encode properties": func() { _, _ = props.AppendTo(dst) },
		"decode deliver":    func() { d := decoder{p: deliver, alias: true}; in.decode(&d) },
		"decode properties": func() { d := decoder{p: list, alias: true, lazyTables: true}; got.decode(&d) },
		"look up":           func() { _ = infoOf(MethodBasicDeliver) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkSpec(b *testing.B) {
	dst := make([]byte, 0, 1024)
	pub := BasicPublish{Exchange: "exchange", RoutingKey: "routing.key"}
	var none Properties
	props := Properties{ContentType: "text/plain", DeliveryMode: 2, MessageID: "id-1"}
	deliver, _ := BasicDeliver{ConsumerTag: "ctag", DeliveryTag: 7, Exchange: "e", RoutingKey: "k"}.AppendTo(nil)
	list, _ := props.AppendTo(nil)
	var in BasicDeliver
	var got Properties
	for _, tc := range []struct {
		name string
		f    func()
	}{
		{"EncodePublish", func() { _, _ = pub.AppendTo(dst) }},
		{"EncodeAck", func() { _, _ = BasicAck{DeliveryTag: 1}.AppendTo(dst) }},
		{"EncodeNoProperties", func() { _, _ = none.AppendTo(dst) }},
		{"EncodeProperties", func() { _, _ = props.AppendTo(dst) }},
		{"DecodeDeliver", func() { d := decoder{p: deliver, alias: true}; in.decode(&d) }},
		{"DecodeProperties", func() { d := decoder{p: list, alias: true, lazyTables: true}; got.decode(&d) }},
		{"InfoOf", func() { _ = infoOf(MethodBasicDeliver) }},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tc.f()
			}
		})
	}
}
