package peer

import (
	"context"
	"time"
)

// PublishWatched publishes with at most Window confirms outstanding, and sees each confirm when it comes: a
// goroutine waits for them in order. publish gives what wait waits for.
func PublishWatched[T any](ctx context.Context, job *PublishJob, publish func() (T, error), wait func(T) error) error {
	type sent struct {
		confirm T
		at      time.Time
	}
	// One more is with the goroutine, and one is being published.
	pending := make(chan sent, max(0, job.Window-2))
	failed := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range pending {
			if err := wait(s.confirm); err != nil {
				failed <- err
				return
			}
			job.Confirmed(s.at)
		}
	}()
	err := func() error {
		defer close(pending)
		for i := int64(0); job.N == 0 || i < job.N; i++ {
			if ok, err := job.Before(ctx, job.Body); !ok || err != nil {
				return err
			}
			at := time.Now()
			confirm, err := publish()
			if err != nil {
				return err
			}
			select {
			case pending <- sent{confirm, at}:
			case err := <-failed:
				return err
			}
		}
		return nil
	}()
	<-done
	select {
	case werr := <-failed:
		if err == nil {
			err = werr
		}
	default:
	}
	return err
}
