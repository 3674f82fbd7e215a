//go:build integration

package amqp_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// everyHeader has a value of every type that has a wire form. RabbitMQ keeps
// headers as they are, so that what comes back is the same, type and all.
func everyHeader() amqp.Table {
	return amqp.Table{
		"t": true, "f": false,
		"b": int8(-128), "B": uint8(255), "s": int16(-32768), "u": uint16(65535),
		"I": int32(math.MinInt32), "i": uint32(math.MaxUint32), "l": int64(math.MinInt64),
		"float": float32(1.5), "d": math.Pi, "D": amqp.Decimal{Scale: 2, Value: -314},
		"S": "grüße \x00\xff\xfe", "empty": "", "x": []byte{0, 1, 0xCE, 0xff}, "V": nil,
		"T":                      time.Unix(1_700_000_000, 0).UTC(),
		"A":                      []any{"x", int32(1), nil, []any{}, amqp.Table{"deep": []any{true}}},
		"F":                      amqp.Table{"nested": amqp.Table{"k": "v"}, "none": amqp.Table{}},
		"":                       "a name without letters",
		strings.Repeat("n", 128): "the longest name that RabbitMQ and the spec agree on",
	}
}

func everyProperty() amqp.Properties {
	return amqp.Properties{
		ContentType: "text/plain; charset=utf-8", ContentEncoding: "gzip", Headers: everyHeader(),
		DeliveryMode: 2, Priority: 9, CorrelationID: "correlation \xff", ReplyTo: "reply.to",
		Expiration: "3600000", MessageID: strings.Repeat("m", 255), Timestamp: time.Unix(1_600_000_000, 0).UTC(),
		Type: "type", UserID: "guest", AppID: "app",
	}
}

// TestContent_PropertiesRoundTrip compares on the wire: what was encoded on the
// way out with what came in. Headers are compared as values as well.
func TestContent_PropertiesRoundTrip(t *testing.T) {
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	zeros := amqp.Properties{Present: amqp.HasContentType | amqp.HasHeaders | amqp.HasPriority | amqp.HasMessageID}
	if rabbittest.Shared(t).AtLeast(4, 0) { // 3.10 refuses it: 406
		zeros.Present |= amqp.HasDeliveryMode
	}
	for name, p := range map[string]amqp.Properties{
		"none": {}, "every": everyProperty(), "present but zero": zeros,
		"headers": {Headers: everyHeader()}, "priority": {Priority: 3}, "delivery mode": {DeliveryMode: 1},
		"timestamp": {Timestamp: time.Unix(1, 0).UTC()}, "strings": {Type: "t", AppID: "a", MessageID: "\xff\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := ch.Publish(patiently(t), toQueue(q), amqp.Message{Properties: p}); err != nil {
				t.Fatal(err)
			}
			msg, err := mustGet(t, ch, q).Message()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p.Headers, msg.Headers); diff != "" && name != "present but zero" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			sameOnTheWire(t, p, msg.Properties)
		})
	}
}

// sameOnTheWire compares flags and every property but the headers, whose order
// is a map's, by their encoding.
func sameOnTheWire(t *testing.T, want, got amqp.Properties) {
	t.Helper()
	encode := func(p amqp.Properties) []byte {
		if p.Headers != nil {
			p.Headers = amqp.Table{}
			p.Present |= amqp.HasHeaders
		}
		b, err := p.AppendTo(nil)
		noError(t, err)
		return b
	}
	if a, b := encode(want), encode(got); !bytes.Equal(a, b) {
		t.Errorf("sent % x\ngot  % x", a, b)
	}
}

// TestContent_BytesPassThrough sends on what came, and it stays as it was.
func TestContent_BytesPassThrough(t *testing.T) {
	_, ch := newSession(t)
	first, second := exclusiveQueue(t, ch, nil), exclusiveQueue(t, ch, nil)
	ctx := patiently(t)
	noError(t, ch.Publish(ctx, toQueue(first), amqp.Message{Properties: everyProperty(), Body: []byte("body")}))
	msg, err := mustGet(t, ch, first).Message()
	noError(t, err)
	noError(t, ch.Publish(ctx, toQueue(second), msg))
	again, err := mustGet(t, ch, second).Message()
	noError(t, err)
	if diff := cmp.Diff(msg, again); diff != "" {
		t.Errorf("second time (-want +got):\n%s", diff)
	}
}

// TestContent_NoFaithfulForm: an error and not something else on the wire.
func TestContent_NoFaithfulForm(t *testing.T) {
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	deep := amqp.Table{}
	for range 64 {
		deep = amqp.Table{"d": deep}
	}
	for name, p := range map[string]amqp.Properties{
		"long short string": {MessageID: strings.Repeat("x", 256)},
		"long header name":  {Headers: amqp.Table{strings.Repeat("x", 256): 1}},
		"uint64 too large":  {Headers: amqp.Table{"n": uint64(math.MaxUint64)}},
		"struct":            {Headers: amqp.Table{"n": struct{}{}}},
		"deep":              {Headers: deep},
		"over frame-max":    {Headers: amqp.Table{"n": strings.Repeat("x", 200_000)}},
	} {
		if err := ch.Publish(patiently(t), toQueue(q), amqp.Message{Properties: p}); !errors.Is(err, amqp.ErrEncode) || !amqp.SafeToRetry(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustPut(t, ch, q, "still whole")
	if d := mustGet(t, ch, q); string(d.Body) != "still whole" {
		t.Errorf("got %q", d.Body)
	}
}

func patternBody(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// TestContent_Bodies sends bodies of every size around the frame's, up to the
// limit, copied and borrowed, got and consumed.
func TestContent_Bodies(t *testing.T) {
	const frame = 16384 - 8 // what one body frame holds
	sizes := []int{0, 1, 100, 4096, frame - 1, frame, frame + 1, 2 * frame, 2*frame + 1, 65536, 131072, 1 << 20, 16 << 20}
	c := mustDial(t, &amqp.Config{FrameMax: 16384})
	ch := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	for _, borrow := range []bool{false, true} {
		t.Run(fmt.Sprintf("borrow=%t", borrow), func(t *testing.T) {
			own := mustOpen(t, c)
			cons := mustSubscribe(t, own, q, &amqp.ConsumeOptions{Borrow: borrow, Prefetch: 3})
			for _, n := range sizes {
				body := patternBody(n)
				if err := ch.Publish(patiently(t), toQueue(q), amqp.Message{Body: body}); err != nil {
					t.Fatalf("%d octets: %v", n, err)
				}
				for d, err := range cons.All() {
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(d.Body, body) {
						t.Errorf("%d octets of %d came back, or others", len(d.Body), n)
					}
					noError(t, d.Ack())
					break
				}
			}
			noError(t, own.Close(patiently(t)))
		})
	}
	for _, n := range sizes {
		body := patternBody(n)
		noError(t, ch.Publish(patiently(t), toQueue(q), amqp.Message{Body: body}))
		if d := mustGet(t, ch, q); !bytes.Equal(d.Body, body) {
			t.Errorf("got %d octets of %d, or others", len(d.Body), n)
		}
	}
}

// TestContent_OverTheBrokersLimit: 16 MiB on RabbitMQ 4, 128 MiB before. It
// costs the channel.
func TestContent_OverTheBrokersLimit(t *testing.T) {
	c := mustDial(t, &amqp.Config{MaxBody: -1})
	ch := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	err := ch.Publish(patiently(t), toQueue(q), amqp.Message{Body: make([]byte, 16<<20+1)})
	if !rabbittest.Shared(t).AtLeast(4, 0) {
		noError(t, err)
		if d := mustGet(t, ch, q); len(d.Body) != 16<<20+1 {
			t.Errorf("%d octets", len(d.Body))
		}
		return
	}
	wantCode(t, err, amqp.PreconditionFailed)
	wantErr(t, err, amqp.ErrUnknownOutcome)
	mustLive(t, c)
}

// TestContent_OverTheClientsLimit: a message that is too large to take in is
// rejected, and costs neither channel nor connection.
func TestContent_OverTheClientsLimit(t *testing.T) {
	_, ch := newSession(t)
	dead := exclusiveQueue(t, ch, nil)
	q := durableQueue(t, ch, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	small := mustDial(t, &amqp.Config{MaxBody: 1000})
	cons := mustSubscribe(t, mustOpen(t, small), q, nil)
	big := strings.Repeat("x", 1001)
	mustPut(t, ch, q, "before", big, "after")
	ds := mustTake(t, cons, 2)
	if got := bodiesOf(ds); !cmp.Equal(got, []string{"before", "after"}) {
		t.Errorf("got %q", got)
	}
	for _, d := range ds {
		noError(t, d.Ack())
	}
	mustSettle(t, ch, dead, 1)
	if d := mustGet(t, ch, dead); len(d.Body) != 1001 {
		t.Errorf("%d octets were dead-lettered", len(d.Body))
	}
	if n := small.Stats().Dropped; n != 1 {
		t.Errorf("%d dropped", n)
	}
	noError(t, cons.Close(patiently(t)))

	mustPut(t, ch, q, big, "next")
	getter := mustOpen(t, small)
	_, err := getter.Get(patiently(t), amqp.BasicGet{Queue: q})
	wantErr(t, err, amqp.ContentTooLarge)
	if d := mustGet(t, getter, q); string(d.Body) != "next" {
		t.Errorf("got %q", d.Body)
	}
	mustSettle(t, ch, dead, 1)
}
