package amqptest_test

import (
	"slices"
	"sort"
)

type settleHow int

const (
	settleAck settleHow = iota
	settleNack
	settleReject
	settleNackDrop
	settleRejectDrop
)

// settle ends or returns deliveries. Those of several consumers it takes
// consumer by consumer, in the order of queues and tags; or, at the end of a
// channel, queue by queue.
func (b *refBroker) settle(us []refUnacked, how settleHow, whole bool) {
	sort.SliceStable(us, func(i, j int) bool {
		if us[i].q != us[j].q {
			return us[i].q.name < us[j].q.name
		}
		return !whole && us[i].tagOfConsumer() < us[j].tagOfConsumer()
	})
	for len(us) > 0 {
		n := 1
		for n < len(us) && us[n].q == us[0].q && (whole || us[n].c == us[0].c) {
			n++
		}
		run := us[:n]
		us = us[n:]
		q := run[0].q
		if b.queues[q.name] != q {
			continue
		}
		for _, u := range run {
			if u.c != nil {
				u.c.unacked--
				if slices.Contains(q.consumers, u.c) && !slices.Contains(q.turn, u.c) {
					q.turn = append(q.turn, u.c)
				}
			}
			m := u.msg
			switch how {
			case settleNack, settleReject:
				m.redelivered = true
				if how == settleReject {
					m.fails++
				}
				q.insert(m)
			case settleRejectDrop:
				m.fails++
				b.deadLetter(q, m)
			case settleNackDrop:
				b.deadLetter(q, m)
			}
		}
		b.trim(q)
		b.dispatch(q)
	}
}

func (u refUnacked) tagOfConsumer() string {
	if u.c == nil {
		return ""
	}
	return u.c.tag
}
