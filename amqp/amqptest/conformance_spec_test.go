package amqptest_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The methods, read from the protocol's specification rather than from the
// generated code under test.

type specField struct {
	Name   string
	Type   string
	Domain string
}

type specMethod struct {
	ID        uint16
	Name      string
	Sync      bool `json:"synchronous"`
	Content   bool
	Arguments []specField

	class uint16
}

type specFile struct {
	Domains [][2]string
	Classes []struct {
		ID         uint16
		Name       string
		Properties []specField
		Methods    []*specMethod
	}
}

var spec = sync.OnceValue(func() (s struct {
	byName     map[string]*specMethod
	byID       map[[2]uint16]*specMethod
	properties []specField
}) {
	raw, err := os.ReadFile("../../spec/amqp0-9-1.json")
	if err != nil {
		panic(err)
	}
	var f specFile
	if err := json.Unmarshal(raw, &f); err != nil {
		panic(err)
	}
	types := map[string]string{}
	for _, d := range f.Domains {
		types[d[0]] = d[1]
	}
	resolve := func(fs []specField) {
		for i := range fs {
			if fs[i].Type == "" {
				fs[i].Type = fs[i].Domain
			}
			if t := types[fs[i].Type]; t != "" {
				fs[i].Type = t
			}
		}
	}
	s.byName, s.byID = map[string]*specMethod{}, map[[2]uint16]*specMethod{}
	for _, c := range f.Classes {
		if c.Name == "basic" {
			resolve(c.Properties)
			s.properties = c.Properties
		}
		for _, m := range c.Methods {
			m.class = c.ID
			m.Name = c.Name + "." + m.Name
			resolve(m.Arguments)
			s.byName[m.Name] = m
			s.byID[[2]uint16{m.class, m.ID}] = m
		}
	}
	return s
})

// args are a method's arguments or a message's properties, by field name. The
// values are int64, bool, string or tableValue.
type args map[string]any

func appendField(dst []byte, typ string, v any) []byte {
	switch typ {
	case "shortstr":
		s, _ := v.(string)
		if len(s) > 255 {
			s = s[:255]
		}
		return append(append(dst, byte(len(s))), s...)
	case "longstr":
		s, _ := v.(string)
		return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
	case "table":
		t, _ := v.(tableValue)
		return appendTableValue(dst, t)
	}
	n, _ := v.(int64)
	return appendInt(dst, fieldTag[typ], uint64(n))
}

var fieldTag = map[string]byte{"octet": 'B', "short": 'u', "long": 'i', "longlong": 'L', "timestamp": 'T'}

// appendArguments writes a method's ids and arguments; absent ones are zero.
func (m *specMethod) appendArguments(dst []byte, a args) []byte {
	dst = binary.BigEndian.AppendUint16(dst, m.class)
	dst = binary.BigEndian.AppendUint16(dst, m.ID)
	bits := 0
	for _, f := range m.Arguments {
		if f.Type != "bit" {
			bits = 0
			dst = appendField(dst, f.Type, a[f.Name])
			continue
		}
		if bits%8 == 0 {
			dst = append(dst, 0)
		}
		if set, _ := a[f.Name].(bool); set {
			dst[len(dst)-1] |= 1 << (bits % 8)
		}
		bits++
	}
	return dst
}

func (r *reader) field(typ string) any {
	switch typ {
	case "shortstr":
		return r.short()
	case "longstr":
		return r.long()
	case "table":
		return r.table()
	}
	return int64(r.uint(intWidth[fieldTag[typ]]))
}

func (m *specMethod) readArguments(r *reader) args {
	a := args{}
	bits, octet := 0, uint64(0)
	for _, f := range m.Arguments {
		if f.Type != "bit" {
			bits = 0
			a[f.Name] = r.field(f.Type)
			continue
		}
		if bits%8 == 0 {
			octet = r.uint(1)
		}
		a[f.Name] = octet>>(bits%8)&1 == 1
		bits++
	}
	return a
}

func appendProperties(dst []byte, a args) []byte {
	at := len(dst)
	dst = append(dst, 0, 0)
	var flags uint16
	for i, f := range spec().properties {
		if v, ok := a[f.Name]; ok {
			flags |= 1 << (15 - i)
			dst = appendField(dst, f.Type, v)
		}
	}
	binary.BigEndian.PutUint16(dst[at:], flags)
	return dst
}

func (r *reader) properties() args {
	a := args{}
	flags := r.uint(2)
	for i, f := range spec().properties {
		if flags>>(15-i)&1 == 1 {
			a[f.Name] = r.field(f.Type)
		}
	}
	return a
}

// hidden are the fields that carry nothing, or nothing that two brokers need
// agree on.
var hidden = map[string]bool{
	"ticket": true, "known-hosts": true, "channel-id": true, "cluster-id": true,
	"out-of-band": true, "capabilities": true, "insist": true,
}

func formatFields(b *strings.Builder, fs []specField, a args) {
	for _, f := range fs {
		v, ok := a[f.Name]
		if !ok || hidden[f.Name] {
			continue
		}
		switch v := v.(type) {
		case bool:
			if v {
				b.WriteString(" " + f.Name)
			}
		case string:
			b.WriteString(" " + f.Name + "=" + bare(v))
		case tableValue:
			b.WriteString(" " + f.Name + "=" + v.String())
		case int64:
			text := strconv.FormatInt(v, 10)
			if f.Type == "timestamp" {
				text = timeText(v)
			}
			b.WriteString(" " + f.Name + "=" + text)
		}
	}
}

// formatMethod writes a method as a script's answer line has it.
func formatMethod(m *specMethod, a args) string {
	var b strings.Builder
	b.WriteString(m.Name)
	switch m.Name {
	case "channel.close", "connection.close":
		fmt.Fprintf(&b, " %d %d.%d %q", a["reply-code"], a["class-id"], a["method-id"], a["reply-text"])
		return b.String()
	case "connection.start":
		maskServer(a)
	}
	formatFields(&b, m.Arguments, a)
	return b.String()
}

// maskServer hides what names the product, its version and its host, and sorts
// the mechanisms: RabbitMQ lists them in an order that differs from boot to boot.
func maskServer(a args) {
	if m, ok := a["mechanisms"].(string); ok {
		words := strings.Fields(m)
		slices.Sort(words)
		a["mechanisms"] = strings.Join(words, " ")
	}
	t, _ := a["server-properties"].(tableValue)
	for i, f := range t {
		if f.val.tag == 'S' {
			t[i].val.v = "*"
		}
	}
}

// parseFields reads key=value words and lone flags until the line ends. The
// fields not in fs (of which body is one) go to extra.
func parseFields(sc *scanner, fs []specField, extra func(key string, sc *scanner)) args {
	types := map[string]string{}
	for _, f := range fs {
		types[f.Name] = f.Type
	}
	a := args{}
	for sc.space(); sc.s != ""; sc.space() {
		key := sc.word("=")
		typ := types[key]
		switch {
		case typ == "":
			extra(key, sc)
		case typ == "bit":
			a[key] = true
			if sc.eat('=') {
				a[key] = sc.word("") == "true"
			}
		default:
			sc.want('=')
			switch typ {
			case "shortstr", "longstr":
				a[key] = sc.text("")
			case "table":
				a[key] = sc.table()
			default:
				a[key] = sc.int()
			}
		}
	}
	return a
}
