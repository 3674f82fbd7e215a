//go:build !linux

package amqp

import (
	"syscall"
	"time"
)

// controlUserTimeout does nothing: the option is Linux's own.
func controlUserTimeout(time.Duration) func(network, addr string, c syscall.RawConn) error {
	return nil
}
