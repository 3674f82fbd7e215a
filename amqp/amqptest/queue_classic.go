package amqptest

import "slices"

// level is the priority level that a message waits at.
func (q *queue) level(m *message) uint8 {
	if q.opts.kind == quorum {
		return quorumLevel(m.priority)
	}
	if q.opts.maxPriority == 0 || m.priority < 0 {
		return 0 // an absent priority is the lowest
	}
	return uint8(min(int(m.priority), q.opts.maxPriority))
}

// requeueClassic puts messages back in their old places.
func (q *queue) requeueClassic(us []unack, counts bool) {
	entries := make([]entry, len(us))
	for i, u := range us {
		entries[i] = u.entry
		entries[i].redelivered = true
		if counts {
			entries[i].failed++
		}
	}
	// From the back to the front: each then goes in before the last, at no cost.
	slices.SortFunc(entries, func(a, b entry) int { return int(int64(b.seq) - int64(a.seq)) })
	for _, e := range entries {
		q.ready.insert(e)
	}
}
