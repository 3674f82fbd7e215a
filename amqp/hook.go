package amqp

import (
	"bytes"
	"runtime"
	"slices"
	"strconv"
)

// hook calls a function of Trace. While it runs, a Close on the same goroutine
// would wait for itself, so that is remembered. No lock is held.
func (c *Conn) hook(f func()) {
	if c.trace == nil {
		return
	}
	id := goroutineID()
	c.mu.Lock()
	c.hooking = append(c.hooking, id)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		i := slices.Index(c.hooking, id)
		c.hooking = slices.Delete(c.hooking, i, i+1)
		c.mu.Unlock()
	}()
	f()
}

// inHook reports whether it is called from inside a hook of this connection.
func (c *Conn) inHook() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hooked()
}

// hooked is inHook with mu held.
func (c *Conn) hooked() bool {
	return len(c.hooking) > 0 && slices.Contains(c.hooking, goroutineID())
}

// runHooks calls what outcomes left to be told to a Trace. No lock is held.
func (c *Conn) runHooks() {
	if c.trace == nil {
		return
	}
	c.mu.Lock()
	hooks := c.hooks
	c.hooks = nil
	c.mu.Unlock()
	for _, f := range hooks {
		c.hook(f)
	}
}

// goroutineID tells goroutines apart, which the language offers no call for.
// It is slow, and asked only where a Trace is.
func goroutineID() uint64 {
	var buf [64]byte
	b := bytes.TrimPrefix(buf[:runtime.Stack(buf[:], false)], []byte("goroutine "))
	if i := bytes.IndexByte(b, ' '); i > 0 {
		id, _ := strconv.ParseUint(string(b[:i]), 10, 64)
		return id
	}
	return 0
}
