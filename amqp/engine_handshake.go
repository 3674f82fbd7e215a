package amqp

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// handshakeStage says what a client has said last, for the text of an error
// when the broker hangs up.
type handshakeStage uint8

const (
	stageHeader handshakeStage = iota
	stageStartOk
	stageTuneOk
	stageOpen
)

// takeHeader reads the protocol header in the server role and answers it.
func (e *Engine) takeHeader(p []byte) (int, error) {
	ok, err := checkProtocolHeader(p)
	if err != nil {
		e.s.out = appendProtocolHeader(e.s.out)
		return 0, err
	}
	if !ok {
		return 0, nil
	}
	mechanisms := e.cfg.Mechanisms
	if mechanisms == "" {
		mechanisms = "PLAIN"
	}
	e.r.pastHeader = true
	e.s.phase = connStart
	return len(protocolHeader), e.s.method(0, &ConnectionStart{
		VersionMajor: 0, VersionMinor: 9,
		ServerProperties: e.cfg.Properties, Mechanisms: mechanisms, Locales: "en_US",
	})
}

// acceptConnection takes what comes on channel 0.
func (e *Engine) acceptConnection(ev *Event) (bool, error) {
	if ev.Kind == EventContent || ev.ID>>16 != MethodID(ClassConnection) {
		return false, protocolError(ChannelError, ev.ID, 0, "a method of a channel on channel 0")
	}
	switch ev.ID {
	case MethodConnectionClose:
		return e.acceptClose(ev)
	case MethodConnectionCloseOk:
		if e.s.phase != connClosing {
			return false, unsolicited(ev)
		}
		e.s.phase = connClosed
		*ev = Event{Kind: EventClosed}
		return true, nil
	}
	if e.s.phase == connClosing {
		return false, nil
	}
	if e.s.phase == connOpen {
		return e.acceptOpenConnection(ev)
	}
	m, err := ev.Method()
	if err != nil {
		return false, err
	}
	if e.s.role == ServerRole {
		return e.serverHandshake(ev, m)
	}
	return e.clientHandshake(ev, m)
}

func (e *Engine) acceptOpenConnection(ev *Event) (bool, error) {
	switch ev.ID {
	case MethodConnectionBlocked, MethodConnectionUnblocked:
		return true, nil
	case MethodConnectionUpdateSecretOk:
		x, ok := e.s.zero.fulfil(ev.ID)
		if !ok {
			return false, unsolicited(ev)
		}
		ev.ref = x.ref
		return !x.abandoned, nil
	case MethodConnectionUpdateSecret:
		return true, nil
	}
	return false, protocolError(CommandInvalid, ev.ID, 0, "a method of the handshake after it was over")
}

// acceptClose answers the peer's connection.close.
func (e *Engine) acceptClose(ev *Event) (bool, error) {
	var m ConnectionClose
	if err := m.DecodeFrom(ev.Args); err != nil {
		return false, err
	}
	if e.s.role == ServerRole {
		return true, nil // its close-ok comes after the answers to what went before
	}
	if err := e.s.method(0, &ConnectionCloseOk{}); err != nil {
		return false, err
	}
	ex := &Error{
		Code: m.ReplyCode, Text: m.ReplyText, Remote: true,
		Method: MethodID(m.FailedClass)<<16 | MethodID(m.FailedMethod),
	}
	if e.s.role == ClientRole && e.s.phase < connOpen {
		ex = e.explainRefusal(ex)
	}
	e.err, e.told = ex, true
	e.s.phase = connClosed
	*ev = Event{Kind: EventClosed, Err: ex}
	return true, nil
}

// clientHandshake answers the broker's side of the handshake.
func (e *Engine) clientHandshake(ev *Event, m Method) (bool, error) {
	switch m := m.(type) {
	case *ConnectionStart:
		if e.s.phase == connStart {
			return false, e.startOk(m)
		}
	case *ConnectionSecure:
		if e.s.phase == connTune {
			response, err := e.sasl.challenge([]byte(m.Challenge))
			if err != nil {
				return false, err
			}
			return false, e.s.method(0, &ConnectionSecureOk{Response: string(response)})
		}
	case *ConnectionTune:
		if e.s.phase == connTune {
			return false, e.tuneOk(m)
		}
	case *ConnectionOpenOk:
		if e.s.phase == connOpening {
			e.s.phase = connOpen
			*ev = Event{Kind: EventOpen}
			return true, nil
		}
	}
	return false, protocolError(CommandInvalid, ev.ID, 0, "out of order in the handshake")
}

func (e *Engine) startOk(m *ConnectionStart) error {
	if m.VersionMajor != 0 || m.VersionMinor != 9 {
		return protocolError(NotImplemented, MethodConnectionStart, 0, fmt.Sprintf(
			"the broker wants AMQP %d-%d, not 0-9", m.VersionMajor, m.VersionMinor))
	}
	e.peer = m.ServerProperties
	run, err := startSASL(e.cfg.SASL, m.Mechanisms, e.cfg.SASLInfo)
	if err != nil {
		return err
	}
	e.sasl = run
	e.s.phase, e.stage = connTune, stageStartOk
	queued := len(e.s.out)
	err = e.s.method(0, &ConnectionStartOk{
		ClientProperties: e.clientProperties(),
		Mechanism:        run.mechanism, Response: string(run.response), Locale: "en_US",
	})
	e.startOkSize = len(e.s.out) - queued
	return err
}

// clientProperties says who we are and what we can: RabbitMQ holds back, for
// one, basic.cancel and connection.blocked from clients that don't declare them.
// Source: https://www.rabbitmq.com/docs/connections#capabilities.
func (e *Engine) clientProperties() Table {
	t := Table{
		"product":  "Warren",
		"platform": "Go",
		"capabilities": Table{
			"publisher_confirms":           true,
			"exchange_exchange_bindings":   true,
			"basic.nack":                   true,
			"consumer_cancel_notify":       true,
			"connection.blocked":           true,
			"authentication_failure_close": true,
			"per_consumer_qos":             true,
			"direct_reply_to":              true,
		},
	}
	if e.cfg.Name != "" {
		t["connection_name"] = e.cfg.Name
	}
	for k, v := range e.cfg.Properties {
		t[k] = v
	}
	return t
}

func (e *Engine) tuneOk(m *ConnectionTune) error {
	ok := ConnectionTuneOk{
		ChannelMax: lesser(m.ChannelMax, e.cfg.ChannelMax),
		FrameMax:   lesser(m.FrameMax, e.cfg.FrameMax),
		Heartbeat:  negotiateHeartbeat(m.Heartbeat, e.cfg.Heartbeat),
	}
	if ok.FrameMax < FrameMinSize {
		return frameMaxError(MethodConnectionTune, ok.FrameMax)
	}
	if err := e.s.method(0, &ok); err != nil {
		return err
	}
	e.tune(ok)
	e.s.phase, e.stage = connOpening, stageTuneOk
	return e.s.method(0, &ConnectionOpen{VirtualHost: e.cfg.VHost})
}

func frameMaxError(id MethodID, n uint32) *Error {
	return protocolError(SyntaxError, id, 0, fmt.Sprintf("frame-max of %d octets, where %d are the least", n, FrameMinSize))
}

// tune makes what was negotiated hold.
func (e *Engine) tune(m ConnectionTuneOk) {
	e.s.channelMax = m.ChannelMax
	e.r.frameMax, e.s.frameMax = m.FrameMax, m.FrameMax
	e.heartbeatIn = time.Duration(m.Heartbeat) * time.Second
}

// lesser takes the smaller of two limits, of which 0 is none.
func lesser[T uint16 | uint32](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// negotiateHeartbeat gives the interval in seconds: the lesser of what both
// sides want, or the one that is wanted at all.
func negotiateHeartbeat(offered uint16, wanted time.Duration) uint16 {
	if wanted < 0 {
		return 0
	}
	seconds := (wanted + time.Second - 1) / time.Second
	return lesser(offered, uint16(min(seconds, 1<<16-1)))
}

// serverHandshake holds a client's side of the handshake to its order; the
// answers are the user's to send.
func (e *Engine) serverHandshake(ev *Event, m Method) (bool, error) {
	switch m := m.(type) {
	case *ConnectionStartOk:
		if e.s.phase == connStart && e.stage == stageHeader {
			e.stage = stageStartOk
			e.peer = m.ClientProperties
			return true, nil
		}
	case *ConnectionSecureOk:
		if e.secured {
			e.secured = false
			return true, nil
		}
	case *ConnectionTuneOk:
		if e.s.phase == connTune {
			if m.FrameMax != 0 && m.FrameMax < FrameMinSize {
				return false, frameMaxError(MethodConnectionTuneOk, m.FrameMax)
			}
			ok := *m
			ok.ChannelMax = lesser(ok.ChannelMax, e.offered.ChannelMax)
			ok.FrameMax = lesser(ok.FrameMax, e.offered.FrameMax)
			if ok.FrameMax == 0 {
				ok.FrameMax = e.cfg.FrameMax
			}
			e.tune(ok)
			e.s.phase = connOpening
			return true, nil
		}
	case *ConnectionOpen:
		if e.s.phase == connOpening {
			return true, nil
		}
	}
	return false, protocolError(CommandInvalid, ev.ID, 0, "out of order in the handshake")
}

// afterSend follows the server's own steps of the handshake.
func (e *Engine) afterSend(channel uint16, m Method) {
	if e.s.role != ServerRole || channel != 0 {
		return
	}
	switch m.MethodID() {
	case MethodConnectionSecure:
		e.secured = true
	case MethodConnectionTune:
		switch m := m.(type) {
		case *ConnectionTune:
			e.offered = *m
		case ConnectionTune:
			e.offered = m
		}
		e.s.phase = connTune
	case MethodConnectionOpenOk:
		e.s.phase = connOpen
		e.events = append(e.events, Event{Kind: EventOpen})
	case MethodConnectionCloseOk:
		e.events = append(e.events, Event{Kind: EventClosed})
	}
}

// explainRefusal says what a broker's close in the handshake is about.
func (e *Engine) explainRefusal(ex *Error) *Error {
	if why := explainRefused(e.handshakeFacts(), ex.Code); why != "" {
		ex.Text += "; " + why
	}
	return ex
}

// handshakeFacts is what explainRefused and explainHangup go by.
func (e *Engine) handshakeFacts() handshakeFacts {
	f := handshakeFacts{
		stage: e.stage, tls: e.cfg.SASLInfo.TLS, vhost: e.cfg.VHost,
		frameMax: e.s.frameMax, startOk: e.startOkSize,
	}
	if c := e.cfg.SASLInfo.Credentials; c != nil {
		f.user = c.Username
	}
	if e.sasl != nil {
		f.mechanism = e.sasl.mechanism
	}
	return f
}

// explainEOF says what it means that the stream ended where it did.
func (e *Engine) explainEOF(cause error) *Error {
	if e.s.role == ClientRole && e.r.frames == 0 && len(e.in) > 0 {
		var ex *Error
		if _, err := checkFirstFrame(e.in, true); errors.As(err, &ex) {
			ex.cause = cause
			return ex
		}
		return &Error{Text: "the broker hung up in the middle of connection.start", cause: cause}
	}
	if e.s.role == ServerRole || e.s.phase >= connOpen {
		text := "connection lost"
		if errors.Is(cause, io.EOF) {
			text = "connection lost: the peer hung up without a close"
		}
		return &Error{Text: text, cause: cause}
	}
	return &Error{Text: explainHangup(e.handshakeFacts()), cause: cause}
}
