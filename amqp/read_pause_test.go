package amqp

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestReadPause_FollowsSmallReadsOfAStream: nothing rests that reading would
// have been worth at once.
func TestReadPause_FollowsSmallReadsOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, pause := range []time.Duration{0, 100 * time.Microsecond} {
			r := &reader{c: &Conn{cfg: Config{ReadPause: pause}}, last: time.Now()}
			for i, step := range []struct {
				after time.Duration
				n     int
				rests bool
			}{
				{time.Second, 100, false}, // it may be alone
				{50 * time.Microsecond, 100, true},
				{time.Millisecond, 100, true}, // the pause is part of it
				{50 * time.Microsecond, 20 << 10, false},
				{50 * time.Microsecond, 100, true},
				{2 * time.Millisecond, 100, false},
			} {
				time.Sleep(step.after)
				r.note(step.n)
				if want := step.rests && pause > 0; r.trickle != want {
					t.Errorf("pause %v, read %d: rests %v, want %v", pause, i, r.trickle, want)
				}
			}
		}
	})
}
