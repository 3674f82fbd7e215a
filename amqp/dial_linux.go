package amqp

import (
	"math"
	"os"
	"strings"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall
// does not name.
const tcpUserTimeout = 18

// controlUserTimeout sets TCP_USER_TIMEOUT on a socket before it connects.
func controlUserTimeout(d time.Duration) func(network, addr string, c syscall.RawConn) error {
	ms := int(min(d.Milliseconds(), math.MaxInt32))
	return func(network, _ string, c syscall.RawConn) error {
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		var set error
		err := c.Control(func(fd uintptr) {
			set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, ms)
		})
		if err == nil && set != nil {
			err = os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", set)
		}
		return err
	}
}
