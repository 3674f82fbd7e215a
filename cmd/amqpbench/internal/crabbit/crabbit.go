// Package crabbit builds and runs the rabbitmq-c peer: a C program of our own over Debian's librabbitmq-dev,
// compiled when a comparison wants it. It takes a spec as arguments and prints a result as the Go peers do.
package crabbit

import (
	"context"
	_ "embed"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/bench"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

// Name is the peer's name.
const Name = "rabbitmq-c"

//go:embed csrc/bench.c
var source []byte

// Builder compiles the program once.
type Builder struct {
	cc  string
	dir string
	bin string
}

// New makes a builder; cc is the compiler.
func New(cc string) *Builder { return &Builder{cc: cc} }

// Close removes what Build made.
func (b *Builder) Close() {
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// Build compiles; it fails where there is no compiler or no librabbitmq.
func (b *Builder) Build(ctx context.Context) error {
	cc, err := exec.LookPath(b.cc)
	if err != nil {
		return fmt.Errorf("no C compiler: %w", err)
	}
	if b.dir, err = os.MkdirTemp("", "amqpbench-c-"); err != nil {
		return err
	}
	src := filepath.Join(b.dir, "bench.c")
	if err := os.WriteFile(src, source, 0o600); err != nil {
		return err
	}
	bin := filepath.Join(b.dir, "bench")
	out, err := exec.CommandContext(ctx, cc, "-O2", "-Wall", "-o", bin, src, "-lrabbitmq", "-lm").CombinedOutput()
	if err != nil {
		first, _, _ := strings.Cut(string(out), "\n")
		return fmt.Errorf("does not compile (is librabbitmq-dev installed?): %s", first)
	}
	b.bin = bin
	return nil
}

// Command is the run of a spec, or peer.ErrUnsupported. One blocking connection, one thread: several goroutines,
// concurrent rpc and the idle workloads have no counterpart.
func (b *Builder) Command(ctx context.Context, s *bench.Spec) (*exec.Cmd, error) {
	if s.Goroutines > 1 || s.Channels > 1 || s.Body > 1<<20 {
		return nil, peer.ErrUnsupported
	}
	switch s.Workload {
	case "publish", "consume", "rpc", "connection", "channel":
	default:
		return nil, peer.ErrUnsupported
	}
	u, err := url.Parse(s.URI)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = "5672"
	}
	user, pass := "guest", "guest"
	if u.User != nil {
		user = u.User.Username()
		pass, _ = u.User.Password()
	}
	vhost := "/"
	if p := u.EscapedPath(); len(p) > 1 {
		if vhost, err = url.PathUnescape(p[1:]); err != nil {
			return nil, err
		}
	}
	flag := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	cmd := exec.CommandContext(ctx, b.bin, s.Workload, u.Hostname(), port, user, vhost,
		strconv.Itoa(s.Body), strconv.Itoa(s.Headers), strconv.Itoa(s.Window), flag(s.NoAck), strconv.Itoa(max(1, s.AckEvery)),
		strconv.Itoa(s.Prefetch), strconv.FormatInt(s.Count, 10), strconv.FormatInt(int64(s.Duration), 10),
		strconv.FormatInt(s.Warm, 10), s.Queue, s.WarmQueue, flag(s.Null))
	cmd.Env = append(os.Environ(), "AMQPBENCH_PASSWORD="+pass) // not where ps shows it
	return cmd, nil
}
