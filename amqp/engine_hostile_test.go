package amqp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// ready makes an engine that has its handshake behind it and channels open.
func ready(t testing.TB, role Role, channels int) *Engine {
	t.Helper()
	e := NewEngine(EngineConfig{Role: role, VHost: "/", SASLInfo: SASLInfo{Credentials: &Credentials{Username: "u", Password: "p"}}})
	feed := func(m Method, num uint16) {
		if err := e.Feed(time.Unix(1000, 0), frameOf(t, num, m)); err != nil {
			t.Fatal(err)
		}
	}
	send := func(m Method, num uint16) {
		if err := e.Send(num, m); err != nil {
			t.Fatal(err)
		}
	}
	if role == ClientRole {
		feed(&ConnectionStart{VersionMinor: 9, Mechanisms: "PLAIN"}, 0)
		feed(&ConnectionTune{ChannelMax: 2047, FrameMax: 131072, Heartbeat: 60}, 0)
		feed(&ConnectionOpenOk{}, 0)
	} else {
		e.Feed(time.Unix(1000, 0), []byte(protocolHeader))
		feed(&ConnectionStartOk{Mechanism: "PLAIN"}, 0)
		send(&ConnectionTune{ChannelMax: 2047, FrameMax: 131072, Heartbeat: 60}, 0)
		feed(&ConnectionTuneOk{ChannelMax: 2047, FrameMax: 131072, Heartbeat: 60}, 0)
		feed(&ConnectionOpen{VirtualHost: "/"}, 0)
		send(&ConnectionOpenOk{}, 0)
	}
	for num := 1; num <= channels; num++ {
		if role == ClientRole {
			send(&ChannelOpen{}, uint16(num))
			feed(&ChannelOpenOk{}, uint16(num))
		} else {
			feed(&ChannelOpen{}, uint16(num))
			send(&ChannelOpenOk{}, uint16(num))
		}
		discard(e)
	}
	discard(e)
	return e
}

// discard takes all that an engine has to give.
func discard(e *Engine) (events int) {
	for {
		if _, ok := e.Next(); !ok {
			break
		}
		events++
	}
	n := 0
	for _, seg := range e.Output() {
		n += len(seg)
	}
	e.Wrote(n)
	return events
}

func frameOf(t testing.TB, num uint16, m Method) []byte {
	t.Helper()
	p := beginFrame(nil, FrameMethod, num)
	p, err := AppendMethod(p, m)
	if err != nil {
		t.Fatal(err)
	}
	return endFrame(p, 0)
}

func frame(typ uint8, num uint16, payload string) string {
	return string(appendFrameHeader(nil, typ, num, uint32(len(payload)))) + payload + "\xce"
}

func contentHeader(num uint16, size uint64, props string) string {
	return frame(FrameHeader, num, "\x00\x3c\x00\x00"+string(binary.BigEndian.AppendUint64(nil, size))+props)
}

// hostileStreams are what a peer may send that costs most for its octets, some
// n of them.
func hostileStreams(t testing.TB, role Role, n int) map[string]string {
	repeat := func(unit func(i int) string) string {
		var b strings.Builder
		for i := 0; b.Len() < n; i++ {
			b.WriteString(unit(i))
		}
		return b.String()
	}
	always := func(s string) string { return repeat(func(int) string { return s }) }
	content := func(i int) string { // the method before a content
		return string(frameOf(t, 1, &BasicPublish{}))
	}
	if role == ClientRole {
		content = func(i int) string { return string(frameOf(t, 1, &BasicDeliver{DeliveryTag: uint64(i + 1)})) }
	}
	streams := map[string]string{
		"noise":          always("\xff\x00\x01\xce"),
		"heartbeats":     always(frame(FrameHeartbeat, 0, "")),
		"empty contents": repeat(func(i int) string { return content(i) + contentHeader(1, 0, "\x00\x00") }),
		"small contents": repeat(func(i int) string { return content(i) + contentHeader(1, 1, "\x00\x00") + frame(FrameBody, 1, "a") }),
		"two-part bodies": repeat(func(i int) string {
			return content(i) + contentHeader(1, 2, "\x00\x00") + frame(FrameBody, 1, "a") + frame(FrameBody, 1, "b")
		}),
		"empty bodies":   content(0) + contentHeader(1, 5, "\x00\x00") + always(frame(FrameBody, 1, "")),
		"a lying header": content(0) + contentHeader(1, 16<<20, "\x00\x00") + always(frame(FrameBody, 1, "abcdefgh")),
		"oversized":      content(0) + contentHeader(1, 1<<60, "\x00\x00") + always(frame(FrameBody, 1, strings.Repeat("x", 4000))),
		"long bodies": repeat(func(i int) string {
			return content(i) + contentHeader(1, 16<<20, "\x00\x00") + strings.Repeat(frame(FrameBody, 1, strings.Repeat("x", 131064)), 3)
		}),
		"long properties": repeat(func(i int) string {
			return content(i) + contentHeader(1, 0, "\x20\x00"+long("\x01kS"+long(strings.Repeat("x", 65000))))
		}),
		"begun contents": repeat(func(i int) string {
			num := uint16(i%500 + 1)
			var m Method = &BasicPublish{}
			if role == ClientRole {
				m = &BasicDeliver{DeliveryTag: 1}
			}
			return string(frameOf(t, num, m)) + contentHeader(num, 1<<20, "\x00\x00") + frame(FrameBody, num, strings.Repeat("x", 100))
		}),
		"truncated": frame(FrameMethod, 1, "\x00\x3c\x00\x3c") + "\x01\x00\x01\x00\x01\x00\x00" + strings.Repeat("x", n),
	}
	for name, table := range worstTables(min(n/30, 100000/30)) {
		if role == ServerRole {
			m := "\x00\x32\x00\x0a\x00\x00\x00\x00" + long(table)
			streams["declare: "+name] = always(frame(FrameMethod, 1, m[:min(len(m), 131000)]))
		}
		if len(table) < 130000 {
			streams["headers: "+name] = repeat(func(i int) string { return content(i) + contentHeader(1, 0, "\x20\x00"+long(table)) })
		}
	}
	if role == ServerRole {
		streams["channel.open"] = repeat(func(i int) string { return string(frameOf(t, uint16(i%2000+2), &ChannelOpen{})) })
		streams["calls"] = always(string(frameOf(t, 1, &TxCommit{})))
		streams["secrets"] = always(string(frameOf(t, 0, &ConnectionUpdateSecret{NewSecret: strings.Repeat("x", 1000)})))
		streams["closes"] = always(string(frameOf(t, 0, &ConnectionClose{})))
		return streams
	}
	streams["flow"] = always(string(frameOf(t, 1, &ChannelFlow{})))
	streams["cancel"] = always(string(frameOf(t, 1, &BasicCancel{})))
	streams["blocked"] = always(string(frameOf(t, 0, &ConnectionBlocked{})))
	streams["channel.close"] = repeat(func(i int) string { return string(frameOf(t, uint16(i%500+1), &ChannelClose{})) })
	return streams
}

// What an engine allocates for what it is fed is bounded by its length: at most
// 8 times that, and 64 KiB.
func TestEngine_MemoryIsBoundedByTheInput(t *testing.T) {
	for role, name := range map[Role]string{ClientRole: "client", ServerRole: "server"} {
		worst, worstName := 0.0, ""
		for _, n := range []int{100, 3000, 40000, 400000} {
			for what, stream := range hostileStreams(t, role, n) {
				for _, chunk := range []int{1 << 30, 4096, 17} {
					if chunk == 17 && n > 40000 {
						continue
					}
					e := ready(t, role, 500)
					p := []byte(stream)
					got := allocated(func() { feedAll(e, p, chunk) })
					if limit := memoryLimit(len(p)); got > limit {
						t.Errorf("%s, %s, %d octets by %d: allocates %d, limit %d", name, what, len(p), chunk, got, limit)
					} else if share := float64(got) / float64(limit); share > worst {
						worst, worstName = share, fmt.Sprintf("%s, %d octets by %d", what, len(p), chunk)
					}
				}
			}
		}
		t.Logf("%s: the worst takes %.0f%% of its limit: %s", name, 100*worst, worstName)
	}
}

func feedAll(e *Engine, p []byte, chunk int) {
	for len(p) > 0 {
		n := min(chunk, len(p))
		err := e.Feed(time.Unix(1000, 0), p[:n:n])
		discard(e)
		if err != nil {
			return
		}
		p = p[n:]
	}
}

// The same before the handshake is over, when tables are built.
func TestEngine_MemoryIsBoundedInTheHandshake(t *testing.T) {
	for name, table := range worstTables(8000) {
		for _, role := range []Role{ClientRole, ServerRole} {
			p := frame(FrameMethod, 0, "\x00\x0a\x00\x0a\x00\x09"+long(table)+long("PLAIN")+long("en_US"))
			if role == ServerRole {
				p = protocolHeader + frame(FrameMethod, 0, "\x00\x0a\x00\x0b"+long(table)+"\x05PLAIN"+long("")+"\x00")
			}
			got := allocated(func() {
				e := NewEngine(EngineConfig{Role: role})
				feedAll(e, []byte(p), 1<<30)
			})
			if limit := memoryLimit(len(p)); got > limit {
				t.Errorf("%v %s: %d octets allocate %d, limit %d", role, name, len(p), got, limit)
			}
		}
	}
}

// Nested deeper than 32 levels, in arguments and in headers, by either side.
func TestEngine_NestedBombs(t *testing.T) {
	for _, typ := range []string{"F", "A"} {
		bomb := ""
		for range 40 {
			if typ == "F" {
				bomb = "\x01kF" + long(bomb)
			} else {
				bomb = "A" + long(bomb)
			}
		}
		if typ == "A" {
			bomb = "\x01k" + bomb
		}
		for _, c := range []struct {
			name, stream string
			role         Role
			method       MethodID
		}{
			{"queue.declare", frame(FrameMethod, 1, "\x00\x32\x00\x0a\x00\x00\x00\x00"+long(bomb)), ServerRole, MethodQueueDeclare},
			{"publish", string(frameOf(t, 1, &BasicPublish{})) + contentHeader(1, 0, "\x20\x00"+long(bomb)), ServerRole, MethodBasicPublish},
			{"deliver", string(frameOf(t, 1, &BasicDeliver{DeliveryTag: 1})) + contentHeader(1, 0, "\x20\x00"+long(bomb)), ClientRole, MethodBasicDeliver},
		} {
			e := ready(t, c.role, 1)
			err := e.Feed(time.Unix(1000, 0), []byte(c.stream))
			var ex *Error
			if !errors.As(err, &ex) || ex.Code != SyntaxError || !strings.Contains(ex.Text, "32") || ex.Method != c.method {
				t.Errorf("%s of %s: got %v", c.name, typ, err)
			}
			checkLastWords(t, e, ex)
		}
	}
}

// checkLastWords fails unless the engine's output is the connection.close that
// says what ex does, and EventClosed the only event.
func checkLastWords(t *testing.T, e *Engine, ex *Error) {
	t.Helper()
	ev, ok := e.Next()
	if !ok || ev.Kind != EventClosed || ev.Err != ex {
		t.Errorf("got event %+v, want EventClosed with %v", ev, ex)
	}
	if _, ok := e.Next(); ok {
		t.Error("an event after EventClosed")
	}
	want := frameOf(t, 0, &ConnectionClose{ReplyCode: ex.Code, ReplyText: ex.Text, FailedClass: uint16(ex.Method >> 16), FailedMethod: uint16(ex.Method)})
	if got := drain(e); !bytes.Equal(got, want) {
		t.Errorf("last words %q, want %q", got, want)
	}
}

func TestEngine_ErrorsStay(t *testing.T) {
	for _, role := range []Role{ClientRole, ServerRole} {
		e := ready(t, role, 1)
		first := e.Feed(time.Unix(1000, 0), []byte(frame(9, 0, "")))
		var ex *Error
		if !errors.As(first, &ex) {
			t.Fatalf("got %v", first)
		}
		checkLastWords(t, e, ex)
		for range 3 {
			if err := e.Feed(time.Unix(1001, 0), frameOf(t, 0, &ConnectionCloseOk{})); err != first {
				t.Errorf("Feed: got %v, want %v", err, first)
			}
			if err := e.Tick(time.Unix(2000, 0)); err != first {
				t.Errorf("Tick: got %v, want %v", err, first)
			}
			var m Method = &QueueDeclare{}
			if role == ServerRole {
				m = &QueueDeclareOk{}
			}
			if err := e.Send(1, m); !errors.Is(err, ErrClosed) || !SafeToRetry(err) {
				t.Errorf("Send: got %v", err)
			}
			e.EOF(nil)
			if n := discard(e); n != 0 {
				t.Errorf("%d more events", n)
			}
		}
	}
}

func TestEngine_ClipsTextsBetweenRunes(t *testing.T) {
	for n := 250; n < 260; n++ {
		text := strings.Repeat("x", n) + "漢字"
		got := clip(text)
		if len(got) > 255 || !strings.HasPrefix(text, got) || strings.ContainsRune(got, '\uFFFD') || len(got) < 253 {
			t.Errorf("%d: clipped to %d: %q", n, len(got), got[240:])
		}
	}
}
