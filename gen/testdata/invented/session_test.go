package warp

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
)

func propertySets() []propertySet {
	return []propertySet{&ParcelProperties{}, &SignalInfo{}, &LetterProperties{}, &BareProperties{}}
}

// The bytes are written by hand from the spec's rules.
func TestInvented_Bytes(t *testing.T) {
	for _, tc := range []struct {
		m    decodable
		want string
	}{
		{&SessionHello{Octet: 1, Short: 2, Long: 3, Longlong: 4, Bit: true, Shortstr: "s", Longstr: "l",
			Table: Table{"k": true}, Timestamp: time.Unix(5, 0).UTC()},
			"\x01" + "\x00\x02" + "\x00\x00\x00\x03" + "\x00\x00\x00\x00\x00\x00\x00\x04" + "\x01" + "\x01s" + "\x00\x00\x00\x01l" +
				"\x00\x00\x00\x04\x01kt\x01" + "\x00\x00\x00\x00\x00\x00\x00\x05" + "\x00\x00\x00\x00"},
		// Eleven bits take two octets; eight after another field, one; bits before and after a bit that is
		// no longer used keep their places.
		{&SessionBits{B1: true, B8: true, B9: true, B11: true, Between: 7, B12: true, B19: true, Text: "t"},
			"\x81" + "\x05" + "\x07" + "\x81" + "\x01t" + "\x02"},
		{&SessionBits{B20: true, Quiet: true}, "\x00" + "\x00" + "\x00" + "\x00" + "\x00" + "\x07"},
		{&SessionOld{Kept: 9}, "\x11" + "\x01\x02" + "\x01\x02\x03\x04" + "\x00\x00\x00\x00\x00\x00\x00\x01" + "\x03abc" +
			"\x00\x00\x00\x02de" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x01" + "\x09"},
		{&Farewell{Why: LostParcel}, "\x00\x2c"},
		{&SessionPing{}, ""},
	} {
		b, err := tc.m.AppendTo(nil)
		if err != nil || string(b) != tc.want {
			t.Errorf("%s: %v\nwant %x\ngot  %x", tc.m.MethodID(), err, tc.want, b)
		}
		got := newMethod(tc.m.MethodID())
		if err := got.DecodeFrom([]byte(tc.want)); err != nil || !reflect.DeepEqual(got, tc.m) {
			t.Errorf("%s: decoded %+v, want %+v: %v", tc.m.MethodID(), got, tc.m, err)
		}
	}
}

// The last bit of a word of flags says that another word follows.
func TestInvented_FlagWords(t *testing.T) {
	for _, tc := range []struct {
		p    propertySet
		want string
	}{
		{&ParcelProperties{}, "\x00\x00"},
		{&ParcelProperties{First: 9}, "\x80\x00" + "\x09"},
		{&ParcelProperties{P15: Table{"k": nil}}, "\x00\x02" + "\x00\x00\x00\x03\x01kV"},
		{&ParcelProperties{P16: time.Unix(1, 0).UTC()}, "\x00\x01" + "\x80\x00" + "\x00\x00\x00\x00\x00\x00\x00\x01"},
		{&ParcelProperties{First: 9, P17: 8}, "\x80\x01" + "\x40\x00" + "\x09" + "\x08"},
		{&ParcelProperties{P33: 7}, "\x00\x01" + "\x00\x01" + "\x20\x00" + "\x07"},
		{&ParcelProperties{Present: ParcelHasP31}, "\x00\x01" + "\x00\x01" + "\x80\x00" + "\x00\x00\x00\x00"},
		{&SignalInfo{P20: 6}, "\x00\x01" + "\x08\x00" + "\x00\x00\x00\x06"},
		{&LetterProperties{P15: Table{"k": nil}}, "\x00\x02" + "\x00\x00\x00\x03\x01kV"},
		{&BareProperties{}, "\x00\x00"},
	} {
		if b, err := tc.p.AppendTo(nil); err != nil || string(b) != tc.want {
			t.Errorf("%+v: %v\nwant %x\ngot  %x", tc.p, err, tc.want, b)
		}
	}
	if ParcelHasFirst != 1<<47 || ParcelHasP16 != 1<<31 || ParcelHasP33 != 1<<13 || SignalHasP1 != 1<<31 || LetterHasP15 != 1<<1 {
		t.Error("flags are not where the wire has them")
	}
	for _, tc := range []struct {
		p    propertySet
		list string
	}{
		{&ParcelProperties{}, "\x00\x01\x00\x01\x00\x01\x00\x00"}, // a fourth word
		{&ParcelProperties{}, "\x00\x01\x00\x01\x10\x00"},         // a 34th property
		{&SignalInfo{}, "\x00\x01\x00\x01\x00\x00"},
		{&LetterProperties{}, "\x00\x01\x00\x00"},
		{&BareProperties{}, "\x80\x00"},
	} {
		if err := tc.p.DecodeFrom([]byte(tc.list)); err == nil {
			t.Errorf("%T: decoded %x", tc.p, tc.list)
		}
	}
	// A property that is no longer used is skipped.
	var s SignalInfo
	if err := s.DecodeFrom([]byte("\x00\x01" + "\x30\x00" + "\x02xy" + "\x00\x05")); err != nil || s.P19 != 5 || s.Present != SignalHasP19 {
		t.Errorf("%+v: %v", s, err)
	}
}

func TestInvented_Calls(t *testing.T) {
	var s Session
	ctx := context.Background()
	if err := s.SessionBits(ctx, SessionBits{Quiet: true}); err != nil {
		t.Error(err)
	}
	if err := s.SessionShout(ctx, SessionShout{Text: "oi"}); err != nil {
		t.Error(err)
	}
	if err := s.SessionPing(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Farewell(ctx, Farewell{Why: LostParcel}); err != nil {
		t.Error(err)
	}
	var names []string
	for _, m := range s.sent {
		names = append(names, m.MethodID().String())
	}
	if got, want := fmt.Sprint(names, s.noWait), "[session.bits session.shout session.ping session.bye] [true true false false]"; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

func TestInvented_Facts(t *testing.T) {
	if ClassBeacon != 301 || MethodSessionPing != 7<<16|65535 || MethodBareSend != 65535<<16|1 || WarpLimit != uint64(1)<<32 {
		t.Error("constants are not what the spec says")
	}
	if ProtocolName != "WARP" || ProtocolMajor != 3 || ProtocolMinor != 1 || ProtocolRevision != 4 || ProtocolPort != 4242 {
		t.Error("the protocol is not what the spec says")
	}
	if err := error(LostParcel); !errors.Is(err, LostParcel) || err.Error() != "44 LOST_PARCEL" || !LostParcel.Soft() || LostParcel.Hard() {
		t.Errorf("%v", err)
	}
	i := infoOf(MethodFarewell)
	if !i.fromClient || !i.fromServer || i.content || !infoOf(MethodSessionBits).hasNoWait || !infoOf(MethodParcelSend).content {
		t.Errorf("facts: %+v", i)
	}
	for i := range methodTable {
		answers := false
		for j := range methodTable {
			answers = answers || slices.Contains(methodTable[j].replies, methodTable[i].id)
		}
		if methodTable[i].reply != answers {
			t.Errorf("%s: reply is %v", methodTable[i].name, !answers)
		}
	}
	for _, quiet := range []bool{false, true} {
		if w, ok := Method(&SessionBits{Quiet: quiet}).(noWaiter); !ok || w.noWait() != quiet {
			t.Errorf("Quiet %v is not what noWait says", quiet)
		}
	}
	if _, ok := Method(SessionPing{}).(noWaiter); ok {
		t.Error("a method without the field can ask for no reply")
	}
}
