package amqp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// The tests in this file know no method by name: they walk methodTable and propertySets. gen's tests
// run them, as they stand, on code that is generated from a spec of another protocol.

// propertySet is a pointer to a generated struct of properties.
type propertySet interface {
	AppendTo(dst []byte) ([]byte, error)
	DecodeFrom(p []byte) error
	decode(d *decoder)
}

var (
	tableType = reflect.TypeFor[Table]()
	timeType  = reflect.TypeFor[time.Time]()
)

// specFill sets each field of a generated struct to something, and some to zero.
func specFill(r *rand.Rand, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		if f.SetZero(); r.IntN(4) == 0 {
			continue
		}
		switch {
		case f.Type() == tableType:
			f.Set(reflect.ValueOf(Table{"n": int64(r.Uint64()), "t": Table{"s": specString(r, 300)}, "v": nil}))
		case f.Type() == timeType:
			f.Set(reflect.ValueOf(time.Unix(int64(r.Uint32()), 0).UTC()))
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.Kind() == reflect.String:
			f.SetString(specString(r, 255))
		default:
			f.SetUint(r.Uint64() >> (64 - f.Type().Bits()))
		}
	}
}

// specString is a string of up to n bytes of any value: UTF-8 is not asked for.
func specString(r *rand.Rand, n int) string {
	b := make([]byte, r.IntN(n+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func TestSpec_MethodsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range methodTable {
		info := &methodTable[i]
		for n := range 20 {
			want := newMethod(info.id)
			if n > 0 { // first the zero value
				specFill(r, reflect.ValueOf(want).Elem())
			}
			b, err := want.AppendTo([]byte("before"))
			if err != nil {
				t.Fatalf("%s: %+v: %v", info.name, want, err)
			}
			args, kept := bytes.CutPrefix(b, []byte("before"))
			if !kept {
				t.Fatalf("%s: AppendTo changed what was in dst", info.name)
			}
			specDecode(t, info, want, args)
		}
	}
}

// specDecode decodes args, whole and cut and with more after them, and expects want of the whole alone.
func specDecode(t *testing.T, info *methodInfo, want decodable, args []byte) {
	t.Helper()
	got := newMethod(info.id)
	if err := got.DecodeFrom(args); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: decoded (-want +got)\n-%+v\n+%+v\nerr %v", info.name, want, got, err)
	}
	if again, err := got.AppendTo(nil); err != nil || !bytes.Equal(again, args) {
		t.Fatalf("%s: encoded again\nwant %x\ngot  %x\nerr %v", info.name, args, again, err)
	}
	// A struct that is used again keeps nothing of its last use.
	if err := got.DecodeFrom(args); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: decoded into a used struct (-want +got)\n-%+v\n+%+v\nerr %v", info.name, want, got, err)
	}
	d := decoder{p: args, alias: true}
	view := newMethod(info.id)
	if view.decode(&d); d.finish() != nil || !reflect.DeepEqual(view, want) {
		t.Fatalf("%s: decoded as views (-want +got)\n-%+v\n+%+v\nerr %v", info.name, want, view, d.err)
	}
	for n := range args {
		if n > 40 && n < len(args)-40 {
			continue // inside long strings and tables, where every cut is alike
		}
		if err := newMethod(info.id).DecodeFrom(args[:n:n]); err == nil {
			t.Fatalf("%s: decoded %d of %d bytes without an error", info.name, n, len(args))
		}
	}
	if err := newMethod(info.id).DecodeFrom(append(args[:len(args):len(args)], 0)); err == nil {
		t.Fatalf("%s: decoded one byte too many without an error", info.name)
	}
}

func TestSpec_TableAgreesWithMethods(t *testing.T) {
	for i := range methodTable {
		info := &methodTable[i]
		if got := infoOf(info.id); got != info {
			t.Errorf("infoOf(%s) is %v", info.name, got)
		}
		if got := newMethod(info.id).MethodID(); got != info.id {
			t.Errorf("newMethod(%s) makes a %s", info.name, got)
		}
		if got := info.id.String(); got != info.name || !strings.HasPrefix(got, info.class+".") {
			t.Errorf("%s of class %s prints as %s", info.name, info.class, got)
		}
		if info.sync != (len(info.replies) > 0) {
			t.Errorf("%s: synchronous %t with %d replies", info.name, info.sync, len(info.replies))
		}
		for _, id := range info.replies {
			if reply := infoOf(id); reply == nil || reply.class != info.class {
				t.Errorf("%s: reply %s is not in its class", info.name, id)
			}
		}
	}
	const none = MethodID(0xFFFF<<16 | 0xFFFE)
	if infoOf(none) != nil || newMethod(none) != nil || none.String() != "65535.65534" {
		t.Errorf("an unknown method: %v, %v, %q", infoOf(none), newMethod(none), none)
	}
}

// Short strings over 255 bytes are errors that name method and argument, and leave dst as it was.
func TestSpec_LongStringsAreRefused(t *testing.T) {
	refused := 0
	for i := range methodTable {
		info := &methodTable[i]
		for f := range reflect.TypeOf(newMethod(info.id)).Elem().NumField() {
			m := newMethod(info.id)
			v := reflect.ValueOf(m).Elem().Field(f)
			if v.Kind() != reflect.String {
				continue
			}
			v.SetString(strings.Repeat("x", 256))
			b, err := m.AppendTo([]byte("dst"))
			if err == nil { // a long string
				specDecode(t, info, m, b[3:])
				continue
			}
			refused++
			specRefusal(t, info.name, b, err)
		}
	}
	if refused == 0 {
		t.Error("no method has a short string")
	}
}

// Tables with what has no wire form are errors that name method and argument, and leave dst as it was.
func TestSpec_BadTablesAreRefused(t *testing.T) {
	for i := range methodTable {
		info := &methodTable[i]
		for f := range reflect.TypeOf(newMethod(info.id)).Elem().NumField() {
			m := newMethod(info.id)
			if v := reflect.ValueOf(m).Elem().Field(f); v.Type() == tableType {
				v.Set(reflect.ValueOf(Table{"x": struct{}{}}))
				b, err := m.AppendTo([]byte("dst"))
				specRefusal(t, info.name, b, err)
			}
		}
	}
}

func specRefusal(t *testing.T, method string, dst []byte, err error) {
	t.Helper()
	var e *EncodeError
	if !errors.As(err, &e) || !errors.Is(err, ErrEncode) || e.Method != method || e.Field == "" {
		t.Errorf("%s: error %v (%#v)", method, err, err)
	}
	if string(dst) != "dst" {
		t.Errorf("%s: dst came back as %q", method, dst)
	}
}

func TestSpec_PropertiesRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, set := range propertySets() {
		typ := reflect.TypeOf(set).Elem()
		for range 500 {
			p := reflect.New(typ)
			specFill(r, p.Elem())
			specProperties(t, p)
		}
		specProperties(t, reflect.New(typ)) // none
		present := typ.Field(0).Type
		for bit := range present.Bits() {
			p := reflect.New(typ)
			p.Elem().Field(0).SetUint(1 << bit) // one, and zero
			specProperties(t, p)
		}
	}
}

// specProperties encodes and decodes *p. Present tells afterwards what was sent, and is all that may differ.
func specProperties(t *testing.T, p reflect.Value) {
	t.Helper()
	set := p.Interface().(propertySet)
	b, err := set.AppendTo([]byte("before"))
	if err != nil || string(b[:6]) != "before" {
		t.Fatalf("%+v: %v", set, err)
	}
	list := b[6:]
	got := reflect.New(p.Type().Elem())
	specFill(rand.New(rand.NewPCG(5, 6)), got.Elem()) // what is absent has to become zero
	if err := got.Interface().(propertySet).DecodeFrom(list); err != nil {
		t.Fatalf("%+v: decode %x: %v", set, list, err)
	}
	present := got.Elem().Field(0).Uint()
	want := reflect.New(p.Type().Elem())
	want.Elem().Set(p.Elem())
	want.Elem().Field(0).SetUint(present)
	if !reflect.DeepEqual(got.Interface(), want.Interface()) {
		t.Fatalf("decoded (-want +got)\n-%+v\n+%+v", want, got)
	}
	for i := 1; i < p.Elem().NumField(); i++ {
		if f := p.Elem().Field(i); !f.IsZero() && present == 0 {
			t.Fatalf("%+v: sent no properties", set)
		}
	}
	if again, err := got.Interface().(propertySet).AppendTo(nil); err != nil || !bytes.Equal(again, list) {
		t.Fatalf("encoded again\nwant %x\ngot  %x\nerr %v", list, again, err)
	}
	for n := range list {
		if got.Interface().(propertySet).DecodeFrom(list[:n:n]) == nil {
			t.Fatalf("%+v: decoded %d of %d bytes without an error", set, n, len(list))
		}
	}
	if got.Interface().(propertySet).DecodeFrom(append(list[:len(list):len(list)], 0)) == nil {
		t.Fatalf("%+v: decoded one byte too many without an error", set)
	}
}

func TestSpec_LongPropertiesAreRefused(t *testing.T) {
	for _, set := range propertySets() {
		typ := reflect.TypeOf(set).Elem()
		for i := range typ.NumField() {
			p := reflect.New(typ)
			switch f := p.Elem().Field(i); {
			case f.Kind() == reflect.String:
				f.SetString(strings.Repeat("x", 256))
			case f.Type() == tableType:
				f.Set(reflect.ValueOf(Table{"x": struct{}{}}))
			default:
				continue
			}
			b, err := p.Interface().(propertySet).AppendTo([]byte("dst"))
			if err == nil { // a long string
				specProperties(t, p)
				continue
			}
			var e *EncodeError
			if !errors.As(err, &e) || e.Field == "" || string(b) != "dst" {
				t.Errorf("%s: error %v, dst %q", typ.Field(i).Name, err, b)
			}
		}
	}
}
