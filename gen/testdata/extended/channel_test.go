package extended

import (
	"context"
	"testing"
)

func propertySets() []propertySet { return []propertySet{&Properties{}} }

// A new method in an old class, and one in a new class, are typed calls like the others.
func TestExtended_Calls(t *testing.T) {
	ch := &Channel{answer: []byte{0, 0, 0, 9}}
	ok, err := ch.BasicCredit(context.Background(), BasicCredit{ConsumerTag: "t", Credit: 5, Drain: true})
	if err != nil || ok.Available != 9 {
		t.Errorf("%+v, %v", ok, err)
	}
	if err := ch.DemoOne(context.Background()); err != nil {
		t.Error(err)
	}
	var n uint32 = FooConstant
	if n != 121212 || ClassDemo != 555 || MethodBasicCreditDrained != 60<<16|202 || MethodDemoOne != 555<<16|1 {
		t.Error("constants are not what the extensions say")
	}
	b, err := BasicCredit{ConsumerTag: "t", Credit: 5, Drain: true}.AppendTo(nil)
	if want := "\x01t" + "\x00\x00\x00\x05" + "\x01"; err != nil || string(b) != want {
		t.Errorf("basic.credit: %x, want %x, %v", b, want, err)
	}
}
