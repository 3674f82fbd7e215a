package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// Witness says when brokers take messages, by publishing on plain connections
// of its own, one to each: what a client can't be faster than. Its messages are
// received with the others.
type Witness struct {
	t      *Traffic
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu   sync.Mutex // guards what follows
	took []Period   // from when a message was begun to its confirm
}

// Witness begins to ask the brokers, several times a second.
func (t *Traffic) Witness(urls []string) *Witness {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Witness{t: t, cancel: cancel}
	for _, url := range urls {
		w.all.Go(func() {
			for ctx.Err() == nil {
				w.watch(ctx, url)
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
	return w
}

// Stop ends it.
func (w *Witness) Stop() {
	w.cancel()
	w.all.Wait()
}

// Took is when the first message was confirmed that was begun at or after from.
func (w *Witness) Took(from time.Time) (first time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.took {
		if !p.From.Before(from) && (!ok || p.Flowed.Before(first)) {
			first, ok = p.Flowed, true
		}
	}
	return first, ok
}

// watch publishes to one broker until that fails.
func (w *Witness) watch(ctx context.Context, url string) {
	begun := time.Now() // a broker that is away begins with the dial
	bounded, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := amqp.Dial(bounded, url, &amqp.Config{Name: "witness", CloseTimeout: 100 * time.Millisecond})
	if err != nil {
		return
	}
	defer conn.Close()
	ch, err := conn.Channel(bounded)
	if err != nil {
		return
	}
	for w.publish(ctx, ch, begun) == nil && ctx.Err() == nil {
		pause(ctx, 50*time.Millisecond)
		begun = time.Now()
	}
}

func (w *Witness) publish(ctx context.Context, ch *amqp.Channel, begun time.Time) error {
	t := w.t
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	seq := int(t.witnessed.Add(1))
	id, body := t.log.Send(fmt.Sprintf("witness%d", seq), seq, 10, rand.New(rand.NewPCG(0, uint64(seq))))
	msg := amqp.Message{Body: body, Properties: amqp.Properties{DeliveryMode: 2}}
	err := ch.Publish(ctx, amqp.BasicPublish{Exchange: t.o.Exchange, RoutingKey: t.o.Queue, Mandatory: true}, msg)
	t.log.Done(id, OutcomeOf(err), err)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.took = append(w.took, Period{begun, time.Now()})
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
