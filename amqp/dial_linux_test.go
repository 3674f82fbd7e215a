package amqp

import (
	"net"
	"syscall"
	"testing"
	"time"
)

func TestDialTransport_SetsSocketOptions(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	echo(t, l)
	for _, tt := range []struct {
		cfg                      *Config
		alive, idle, userTimeout int
	}{
		{nil, 1, 15, 0},
		{&Config{TCPKeepAlive: time.Minute, TCPUserTimeout: 2500 * time.Millisecond}, 1, 60, 2500},
		{&Config{TCPKeepAlive: -1}, 0, 7200, 0},
	} {
		nc, _, err := dialFirst(t.Context(), "amqp://"+l.Addr().String(), tt.cfg)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []struct {
			name             string
			level, opt, want int
		}{
			{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, tt.alive},
			{"TCP_KEEPIDLE", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, tt.idle},
			{"TCP_USER_TIMEOUT", syscall.IPPROTO_TCP, tcpUserTimeout, tt.userTimeout},
		} {
			if o.name == "TCP_KEEPIDLE" && tt.alive == 0 {
				continue // the kernel's default, whatever it is here
			}
			raw.Control(func(fd uintptr) {
				if got, err := syscall.GetsockoptInt(int(fd), o.level, o.opt); err != nil || got != o.want {
					t.Errorf("%+v: %s is %d (%v), want %d", tt.cfg, o.name, got, err, o.want)
				}
			})
		}
		nc.Close()
	}
}
