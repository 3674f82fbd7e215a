package amqp

import (
	"testing"
	"time"
)

// What either side wants of channel-max, frame-max and heartbeat, in all
// combinations: the lesser counts, and 0 is no limit (no heartbeat).
func TestEngine_Tuning(t *testing.T) {
	for _, offeredChannels := range []uint16{0, 1, 100, 2047, 65535} {
		for _, wantedChannels := range []uint16{0, 10, 65535} {
			channels := wantedChannels
			if channels == 0 {
				channels = 2047
			}
			if offeredChannels != 0 {
				channels = min(channels, offeredChannels)
			}
			tuneBothWays(t, ConnectionTune{ChannelMax: offeredChannels, FrameMax: 131072}, EngineConfig{ChannelMax: wantedChannels, Heartbeat: -1},
				ConnectionTuneOk{ChannelMax: channels, FrameMax: 131072})
		}
	}
	for _, offeredFrame := range []uint32{0, 4096, 8192, 131072, 1 << 31} {
		for _, wantedFrame := range []uint32{0, 4096, 10000, 1 << 20} {
			frame := wantedFrame
			if frame == 0 {
				frame = 131072
			}
			if offeredFrame != 0 {
				frame = min(frame, offeredFrame)
			}
			tuneBothWays(t, ConnectionTune{ChannelMax: 10, FrameMax: offeredFrame}, EngineConfig{FrameMax: wantedFrame, Heartbeat: -1},
				ConnectionTuneOk{ChannelMax: 10, FrameMax: frame})
		}
	}
	for _, offered := range []uint16{0, 1, 60, 65535} {
		for _, c := range []struct {
			wanted  time.Duration
			seconds uint16 // 0: none
		}{{0, 10}, {-1, 0}, {time.Nanosecond, 1}, {2500 * time.Millisecond, 3}, {30 * time.Second, 30}, {100 * time.Hour, 65535}} {
			want := c.seconds
			if offered != 0 {
				want = min(want, offered)
			}
			tuneBothWays(t, ConnectionTune{ChannelMax: 10, FrameMax: 131072, Heartbeat: offered}, EngineConfig{Heartbeat: c.wanted},
				ConnectionTuneOk{ChannelMax: 10, FrameMax: 131072, Heartbeat: want})
		}
	}
}

// tuneBothWays holds a client and a server to what comes of an offer.
func tuneBothWays(t *testing.T, offer ConnectionTune, cfg EngineConfig, want ConnectionTuneOk) {
	t.Helper()
	now := time.Unix(1000, 0)
	cfg.SASLInfo.Credentials = &Credentials{}
	c, s := NewEngine(cfg), NewEngine(EngineConfig{Role: ServerRole})
	move := func(from, to *Engine) {
		t.Helper()
		if err := to.Feed(now, drain(from)); err != nil {
			t.Fatal(err)
		}
		discardEvents(to)
	}
	move(c, s)
	move(s, c)
	move(c, s)
	if err := s.Send(0, &offer); err != nil {
		t.Fatal(err)
	}
	move(s, c)
	for who, e := range map[string]*Engine{"client": c, "server": s} {
		if e == s {
			move(c, s)
		}
		channels, frame, heartbeat := e.Tuned()
		got := ConnectionTuneOk{ChannelMax: channels, FrameMax: frame, Heartbeat: uint16(heartbeat / time.Second)}
		if got != want {
			t.Errorf("offered %+v to %+v, the %s has %+v, want %+v", offer, cfg, who, got, want)
		}
	}
}

func discardEvents(e *Engine) {
	for {
		if _, ok := e.Next(); !ok {
			return
		}
	}
}

// A frame as long as was tuned passes in both directions, and one octet more
// does not.
func TestEngine_FrameMaxHolds(t *testing.T) {
	for _, frameMax := range []uint32{4096, 8192, 10000} {
		now := time.Unix(1000, 0)
		e := NewEngine(EngineConfig{FrameMax: frameMax, SASLInfo: SASLInfo{Credentials: &Credentials{}}})
		for _, m := range []Method{&ConnectionStart{VersionMinor: 9, Mechanisms: "PLAIN"}, &ConnectionTune{}, &ConnectionOpenOk{}} {
			if err := e.Feed(now, frameOf(t, 0, m)); err != nil {
				t.Fatal(err)
			}
		}
		discard(e)
		fits := string(make([]byte, int(frameMax)-frameOverhead-4-4-1))
		if err := e.Send(0, &ConnectionUpdateSecret{NewSecret: fits}); err != nil || e.s.pending() != int(frameMax) {
			t.Errorf("%d: %v, %d octets", frameMax, err, e.s.pending())
		}
		if err := e.Send(0, &ConnectionUpdateSecret{NewSecret: fits + "x"}); err == nil {
			t.Errorf("%d: a longer frame was sent", frameMax)
		}
		header := appendFrameHeader(nil, FrameMethod, 0, frameMax-frameOverhead)
		if err := e.Feed(now, header); err != nil {
			t.Errorf("%d: %v", frameMax, err)
		}
	}
}
