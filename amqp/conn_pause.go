//go:build !linux

package amqp

import "time"

func pause(d time.Duration) { time.Sleep(d) }
