package amqp

import (
	"syscall"
	"time"
)

// pause sleeps in a system call: Go's own sleep is a millisecond at least
// where nothing else is to be done.
func pause(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	syscall.Nanosleep(&ts, nil)
}
