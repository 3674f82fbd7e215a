package amqp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// How transcripts write methods, messages and frames down.

// fields splits a line at spaces, but not inside quotes and braces.
func fields(t *testing.T, line string) []string {
	t.Helper()
	var list []string
	depth, quoted, start := 0, false, -1
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			depth++
		case c == '}', c == ']':
			depth--
		}
		if c == ' ' && !quoted && depth == 0 {
			if start >= 0 {
				list = append(list, line[start:i])
				start = -1
			}
		} else if start < 0 {
			start = i
		}
	}
	if start >= 0 {
		list = append(list, line[start:])
	}
	if quoted || depth != 0 {
		t.Fatalf("can't read %q", line)
	}
	return list
}

func options(list []string) map[string]string {
	o := map[string]string{}
	for _, f := range list {
		k, v, _ := strings.Cut(f, "=")
		o[k] = v
	}
	return o
}

func unquote(t *testing.T, s string) string {
	t.Helper()
	if n := strings.LastIndexByte(s, '*'); n > 0 && s[n-1] == '"' {
		return strings.Repeat(unquote(t, s[:n]), int(number(t, s[n+1:])))
	}
	if !strings.HasPrefix(s, `"`) {
		return s
	}
	u, err := strconv.Unquote(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return u
}

func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"\|{}[]`, r) }) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}

func methodByName(t *testing.T, name string) MethodID {
	t.Helper()
	for i := range methodTable {
		if methodTable[i].name == name {
			return methodTable[i].id
		}
	}
	t.Fatalf("no method %q", name)
	return 0
}

// parseSaid reads CHANNEL METHOD FIELD=VALUE... [| PROPERTY=VALUE... body= split=].
func parseSaid(t *testing.T, line string) (num uint16, m decodable, msg *Message, split int) {
	t.Helper()
	f := fields(t, line)
	num = uint16(number(t, f[0]))
	m = newMethod(methodByName(t, f[1]))
	at := reflect.ValueOf(m).Elem()
	for _, x := range f[2:] {
		key, value, has := strings.Cut(x, "=")
		switch {
		case x == "|":
			msg = &Message{}
			at = reflect.ValueOf(&msg.Properties).Elem()
		case msg != nil && key == "body":
			msg.Body = []byte(unquote(t, value))
		case msg != nil && key == "split":
			split = int(number(t, value))
		default:
			setField(t, at.FieldByName(key), key, value, has)
		}
	}
	return num, m, msg, split
}

func setField(t *testing.T, v reflect.Value, key, value string, has bool) {
	t.Helper()
	if !v.IsValid() {
		t.Fatalf("no field %q", key)
	}
	switch v.Interface().(type) {
	case Table:
		v.Set(reflect.ValueOf(parseTable(t, value)))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(int64(number(t, value)), 0).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!has || value == "true")
	case reflect.String:
		v.SetString(unquote(t, value))
	default:
		v.SetUint(number(t, value))
	}
}

func parseTable(t *testing.T, s string) Table {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return tableOf(v)
}

func tableOf(v map[string]any) Table {
	table := Table{}
	for k, x := range v {
		table[k] = valueOf(x)
	}
	return table
}

func valueOf(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return tableOf(v)
	case []any:
		for i := range v {
			v[i] = valueOf(v[i])
		}
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			panic(err)
		}
		return n
	}
	return v
}

// describeFields writes the fields that are not zero.
func describeFields(v any) string {
	var b strings.Builder
	r := reflect.Indirect(reflect.ValueOf(v))
	for i := range r.NumField() {
		f := r.Field(i)
		if f.IsZero() {
			continue
		}
		b.WriteString(" " + r.Type().Field(i).Name)
		switch x := f.Interface().(type) {
		case bool:
		case string:
			b.WriteString("=" + quote(x))
		case Table:
			var j bytes.Buffer
			enc := json.NewEncoder(&j)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(x); err != nil {
				panic(err)
			}
			b.WriteString("=" + strings.TrimSpace(j.String()))
		case time.Time:
			b.WriteString("=" + strconv.FormatInt(x.Unix(), 10))
		case ReplyCode:
			b.WriteString("=" + strconv.Itoa(int(x)))
		default:
			fmt.Fprintf(&b, "=%v", x)
		}
	}
	return b.String()
}

func describeBody(p []byte) string {
	if len(p) > 64 {
		return fmt.Sprintf("%d octets, CRC %08x", len(p), crc32.ChecksumIEEE(p))
	}
	return quote(string(p))
}

// describeEvent writes an event; the engine has checked all that it has.
func describeEvent(t *testing.T, ev *Event) string {
	t.Helper()
	switch ev.Kind {
	case EventOpen:
		return "open"
	case EventClosed:
		if ev.Err == nil {
			return "closed"
		}
		remote := ""
		if ev.Err.Remote {
			remote = " by the peer"
		}
		if !errors.Is(ev.Err, ErrClosed) {
			t.Errorf("%v is not ErrClosed", ev.Err)
		}
		return "closed" + remote + ": " + ev.Err.Error()
	}
	m, err := ev.Method()
	if err != nil {
		t.Errorf("an event of %s: %v", ev.ID, err)
		return "malformed"
	}
	s := fmt.Sprintf("%d %s%s", ev.Channel, ev.ID, describeFields(m))
	if ev.Kind == EventMethod {
		return s
	}
	msg, err := ev.Message()
	if err != nil {
		t.Errorf("the message of %s: %v", ev.ID, err)
		return "malformed"
	}
	s += " |" + describeProperties(&msg.Properties) + " body=" + describeBody(msg.Body)
	if ev.Oversized {
		s += fmt.Sprintf(" oversized=%d", ev.BodySize)
	} else if ev.BodySize != uint64(len(ev.Body)) {
		t.Errorf("a body of %d octets, announced as %d", len(ev.Body), ev.BodySize)
	}
	return s
}

func describeProperties(p *Properties) string {
	c := *p
	c.Present = 0
	return describeFields(c)
}

// describeOutput writes down what an engine has to say, frame by frame.
func describeOutput(t *testing.T, p []byte) []string {
	t.Helper()
	var list []string
	if bytes.HasPrefix(p, []byte(protocolHeader)) {
		list = append(list, "out protocol header")
		p = p[len(protocolHeader):]
	}
	for len(p) > 0 {
		h := parseFrameHeader(p)
		payload := p[frameHeaderSize : frameHeaderSize+h.size]
		if p[frameHeaderSize+h.size] != FrameEnd {
			t.Fatalf("a frame of the engine's does not end: %x", p)
		}
		p = p[frameHeaderSize+h.size+1:]
		list = append(list, "out "+describeFrame(t, h, payload))
	}
	return list
}

func describeFrame(t *testing.T, h frameHeader, payload []byte) string {
	t.Helper()
	switch h.typ {
	case FrameMethod:
		m, err := DecodeMethod(payload)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %s%s", h.channel, m.MethodID(), describeFields(m))
	case FrameHeader:
		var props Properties
		if err := props.DecodeFrom(payload[12:]); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d header of class %d, size %d:%s", h.channel, payload[1], binary.BigEndian.Uint64(payload[4:]), describeProperties(&props))
	case FrameBody:
		return fmt.Sprintf("%d body %s", h.channel, describeBody(payload))
	}
	return "heartbeat"
}

// engineConfig reads ROLE OPTION=VALUE...
func engineConfig(t *testing.T, f []string) EngineConfig {
	t.Helper()
	cfg := EngineConfig{VHost: "/", SASLInfo: SASLInfo{Credentials: &Credentials{Username: "u", Password: "p"}}}
	if f[0] == "server" {
		cfg = EngineConfig{Role: ServerRole}
	}
	for key, value := range options(f[1:]) {
		value = unquote(t, value)
		switch key {
		case "vhost":
			cfg.VHost = value
		case "name":
			cfg.Name = value
		case "user":
			cfg.SASLInfo.Credentials.Username = value
		case "no-credentials":
			cfg.SASLInfo.Credentials = nil
		case "tls":
			cfg.SASLInfo.TLS = true
		case "sasl":
			for _, name := range strings.Split(value, ",") {
				m, ok := mechanismByName(name)
				if !ok {
					m = roundsSASL{}
				}
				cfg.SASL = append(cfg.SASL, m)
			}
		case "mechanisms":
			cfg.Mechanisms = value
		case "properties":
			cfg.Properties = parseTable(t, value)
		case "channel-max":
			cfg.ChannelMax = uint16(number(t, value))
		case "frame-max":
			cfg.FrameMax = uint32(number(t, value))
		case "max-body":
			cfg.MaxBody = int64(number(t, value))
		case "heartbeat":
			d, err := time.ParseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Heartbeat = d
		default:
			t.Fatalf("no option %q", key)
		}
	}
	return cfg
}

// roundsSASL is a mechanism of a user's own, with as many rounds as the broker
// likes.
type roundsSASL struct{}

func (roundsSASL) Mechanism() string { return "ROUNDS" }

func (roundsSASL) Start(info SASLInfo) ([]byte, SASLNext, error) {
	round := 0
	return []byte("hello from " + info.Credentials.Username), func(challenge []byte) ([]byte, error) {
		round++
		if string(challenge) == "impossible" {
			return nil, errors.New("this can't be answered")
		}
		return fmt.Appendf(nil, "answer %d to %s", round, challenge), nil
	}, nil
}
