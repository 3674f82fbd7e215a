package load

import (
	"context"
	"syscall"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/hist"
)

func processCPU() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watch reports at every interval until the load is over: its time, its count, ctx's end, or an error.
func (l *load) watch(ctx context.Context, begin time.Time, cpu time.Duration, produced <-chan struct{}) (Sample, error) {
	total := Sample{EndToEnd: new(hist.Hist), Confirms: new(hist.Hist)}
	tick := time.NewTicker(l.o.Interval)
	defer tick.Stop()
	var end <-chan time.Time
	if l.o.Time > 0 {
		t := time.NewTimer(l.o.Time)
		defer t.Stop()
		end = t.C
	}
	if l.o.Producers == 0 {
		produced = nil
	}
	last, lastAt := Sample{CPU: cpu}, begin
	for {
		var err error
		over := false
		select {
		case <-tick.C:
		case <-end:
			over = true
		case <-ctx.Done():
			over = true
		case <-produced:
			over = true
		case err = <-l.errs:
			over = true
		}
		now := time.Now()
		s := Sample{At: now.Sub(begin), Took: now.Sub(lastAt), Sent: l.sent.Load() - last.Sent, Confirmed: l.confirmed.Load() - last.Confirmed,
			Received: l.received.Load() - last.Received, CPU: processCPU() - last.CPU, EndToEnd: l.endToEnd.Take(), Confirms: l.confirms.Take()}
		total.EndToEnd.Merge(s.EndToEnd)
		total.Confirms.Merge(s.Confirms)
		if l.o.Line != nil && s.Took > l.o.Interval/10 {
			l.o.Line(s)
		}
		if over {
			return total, err
		}
		last.Sent += s.Sent
		last.Confirmed += s.Confirmed
		last.Received += s.Received
		last.CPU += s.CPU
		lastAt = now
	}
}

// finish completes the figures of the whole run.
func (l *load) finish(s *Sample, begin time.Time, cpu time.Duration) {
	s.Took = time.Since(begin)
	s.At = s.Took
	s.Sent, s.Confirmed, s.Received = l.sent.Load(), l.confirmed.Load(), l.received.Load()
	s.CPU = processCPU() - cpu
	s.EndToEnd.Merge(l.endToEnd.Take())
	s.Confirms.Merge(l.confirms.Take())
}
