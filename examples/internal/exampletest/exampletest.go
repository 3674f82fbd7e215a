// Package exampletest runs the long-lived half of an example, the one that waits
// for messages, while a test plays the other.
package exampletest

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 30 * time.Second

// Process is a function that runs until its context ends.
type Process struct {
	t      testing.TB
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex // guards what follows
	out    bytes.Buffer
	err    error
	change chan struct{} // closed and replaced whenever something was written
}

// Start runs f until Stop, or the end of the test.
func Start(t testing.TB, f func(ctx context.Context, out io.Writer) error) *Process {
	ctx, cancel := context.WithCancel(t.Context())
	p := &Process{t: t, cancel: cancel, done: make(chan struct{}), change: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := f(ctx, p)
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}()
	t.Cleanup(p.Stop)
	return p
}

// Write takes the function's output.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.change)
	p.change = make(chan struct{})
	return p.out.Write(b)
}

// Await waits until the function has written text.
func (p *Process) Await(text string) {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		out, change := p.state()
		if bytes.Contains(out, []byte(text)) {
			return
		}
		select {
		case <-change:
		case <-p.done:
			if out, _ := p.state(); bytes.Contains(out, []byte(text)) {
				return
			}
			p.t.Fatalf("ended (%v) without %q, having written %q", p.err, text, p.Output())
		case <-timeout:
			p.t.Fatalf("no %q within %s, but %q", text, patience, out)
		}
	}
}

// Output is what was written so far.
func (p *Process) Output() string {
	out, _ := p.state()
	return string(out)
}

// Stop ends the function's context and waits for it. An error of the function
// fails the test. A second call does nothing.
func (p *Process) Stop() {
	p.t.Helper()
	p.cancel()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("does not end; wrote %q", p.Output())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		p.t.Errorf("ended with error: %v", p.err)
		p.err = nil
	}
}

func (p *Process) state() ([]byte, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.out.Bytes()), p.change
}
