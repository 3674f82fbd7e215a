package amqp

import (
	"context"
	"errors"
	"reflect"
	"testing"
)

type traceKey struct{}

// callAll calls every function of a Trace the way the runtime does, and
// returns the contexts of those that begin something.
func callAll(t *Trace, ctx context.Context) []context.Context {
	err := errors.New("x")
	t.dialDone(ctx, DialInfo{}, err)
	t.handshake(ctx, HandshakeInfo{})
	t.connClosed(ctx, ConnInfo{}, err)
	t.channelClosed(ctx, ConnInfo{}, 1, err)
	t.blocked(ctx, ConnInfo{}, "low on memory")
	t.unblocked(ctx, ConnInfo{})
	t.publishDone(ctx, 1, err)
	t.returned(ctx, 1, &ReturnError{})
	t.settle(ctx, SettleInfo{Settlement: Acked}, err)
	t.reconnect(ctx, ReconnectInfo{})
	t.topology(ctx, &TopologyError{})
	return []context.Context{
		t.dialStart(ctx, DialInfo{}),
		t.publishStart(ctx, 1, &BasicPublish{}, &Message{}),
		t.deliver(ctx, &Delivery{}),
	}
}

func TestTrace_NilIsSilent(t *testing.T) {
	for _, tr := range []*Trace{nil, {}} {
		for i, got := range callAll(tr, t.Context()) {
			if got != t.Context() {
				t.Errorf("%+v: context %d changed", tr, i)
			}
		}
		if tr.tracesPublish() {
			t.Errorf("%+v traces publishes", tr)
		}
	}
}

func TestTrace_EveryFieldIsCalledOnce(t *testing.T) {
	for _, returns := range []any{nil, context.WithValue(t.Context(), traceKey{}, "mine")} {
		calls := map[string]int{}
		var tr Trace
		v := reflect.ValueOf(&tr).Elem()
		for i := range v.NumField() {
			name, f := v.Type().Field(i).Name, v.Field(i)
			f.Set(reflect.MakeFunc(f.Type(), func(args []reflect.Value) []reflect.Value {
				calls[name]++
				if f.Type().NumOut() == 0 {
					return nil
				}
				out := reflect.New(f.Type().Out(0)).Elem()
				if returns != nil {
					out.Set(reflect.ValueOf(returns))
				}
				return []reflect.Value{out}
			}))
		}
		want := returns
		if want == nil {
			want = t.Context()
		}
		for i, got := range callAll(&tr, t.Context()) {
			if got != want {
				t.Errorf("context %d is %v, want %v", i, got, want)
			}
		}
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; calls[name] != 1 {
				t.Errorf("%s: %d calls", name, calls[name])
			}
		}
	}
}
