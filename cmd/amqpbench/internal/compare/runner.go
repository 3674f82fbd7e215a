package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/bench"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/nullserver"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer/floor"
)

// Options say what to compare.
type Options struct {
	Self      string // this program, which runs itself as child and as null server
	Peers     []string
	Target    string // "null", "amqptest" or the URI of a broker
	Only      *regexp.Regexp
	Quick     bool
	Rounds    int
	Duration  time.Duration
	Count     int64 // messages of a run on a broker at 16 B
	Chunk     int   // octets per write of the null server's deliveries
	Confirm   bool  // null server: a confirm each
	CRabbit   func(ctx context.Context, spec *bench.Spec) (*exec.Cmd, error)
	CPU       int // of the pinned rows
	Timeout   time.Duration
	Profiles  string // folder for CPU profiles of the last round; "": none
	Progress  func(line string)
	AfterCase func(*Report)
}

// runner is a run's state.
type runner struct {
	opt    Options
	null   *process
	pinned *process
	broker *process // amqptest
	report *Report
}

// process is a server that this run started.
type process struct {
	cmd  *exec.Cmd
	addr string
}

func (p *process) stop() {
	if p != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
}

// Run compares. When ctx ends it returns what there is so far, with ctx's error.
func Run(ctx context.Context, opt Options) (*Report, error) {
	r := &runner{opt: opt, report: &Report{}}
	r.report.Meta.Broker = opt.Target != "null"
	defer func() { r.null.stop(); r.pinned.stop(); r.broker.stop() }()
	var err error
	switch opt.Target {
	case "null":
		if r.null, err = r.start(ctx, -1, "null", "--listen", anyPort); err != nil {
			return nil, err
		}
		if r.pinned, err = r.start(ctx, opt.CPU, "null", "--listen", anyPort); err != nil {
			return nil, err
		}
	case "amqptest":
		if r.broker, err = r.start(ctx, -1, "broker", "--listen", anyPort); err != nil {
			return nil, err
		}
		r.opt.Target = r.broker.addr
	}
	cases := r.cases()
	if len(cases) == 0 {
		return nil, errors.New("no case matches")
	}
	results := make([]map[string][]*bench.Result, len(cases))
	for i := range results {
		results[i] = map[string][]*bench.Result{}
	}
	r.report.Entries = make([]Entry, len(cases))
	total, done, begin := len(cases)*opt.Rounds*len(opt.Peers), 0, time.Now()
	for round := range opt.Rounds {
		for i, c := range cases {
			for k := range opt.Peers {
				// Another peer begins in each round.
				name := opt.Peers[(k+round)%len(opt.Peers)]
				done++
				if opt.Progress != nil {
					left := time.Duration(float64(time.Since(begin)) / float64(done) * float64(total-done))
					opt.Progress(fmt.Sprintf("round %d/%d  %d/%d  %-28s %-12s %s left", round+1, opt.Rounds, done, total, c.ID, name, left.Round(time.Second)))
				}
				if skip(results[i][name]) {
					continue
				}
				res := r.one(ctx, c, name, round)
				if ctx.Err() != nil {
					return r.report, ctx.Err()
				}
				results[i][name] = append(results[i][name], res)
			}
			e := Entry{Case: c}
			for _, name := range opt.Peers {
				e.Peers = append(e.Peers, summarize(name, results[i][name]))
			}
			r.report.Entries[i] = e
			if opt.AfterCase != nil && round == opt.Rounds-1 {
				opt.AfterCase(r.report)
			}
		}
	}
	return r.report, nil
}

// skip says that a peer has no such thing, or failed twice running: more tries would only take time.
func skip(rs []*bench.Result) bool {
	n := len(rs)
	return n > 0 && rs[0].Unfit || n > 1 && rs[n-1].Error != "" && rs[n-2].Error != ""
}

func (r *runner) cases() []Case {
	var out []Case
	for _, c := range Cases() {
		if r.opt.Only != nil && !r.opt.Only.MatchString(c.ID) {
			continue
		}
		if r.report.Meta.Broker && !c.Broker || r.opt.Quick && !c.Quick {
			continue
		}
		c.Pinned = c.Pinned && !r.report.Meta.Broker // a broker can't be pinned from here
		if c.Spec.Duration = r.opt.Duration; c.Spec.Body > 1<<20 {
			c.Spec.Duration = max(c.Spec.Duration, time.Second) // too few of them fit into less
		}
		out = append(out, c)
	}
	return out
}

// one runs one case through one peer.
func (r *runner) one(ctx context.Context, c Case, name string, round int) *bench.Result {
	spec := c.Spec
	spec.Peer = name
	if r.opt.Profiles != "" && round == r.opt.Rounds-1 {
		spec.Profile = fmt.Sprintf("%s/%s-%s.pprof", r.opt.Profiles, strings.ReplaceAll(c.ID, "/", "-"), name)
	}
	cpu := -1
	if c.Pinned {
		cpu = r.opt.CPU
	}
	if r.report.Meta.Broker {
		spec.URI = r.opt.Target
		cleanup, err := r.prepare(ctx, &spec)
		if err != nil {
			return &bench.Result{Error: err.Error()}
		}
		defer cleanup()
	} else {
		server := r.null
		if c.Pinned {
			server = r.pinned
		}
		spec.Null = true
		o := nullserver.Options{Body: spec.Body, Headers: spec.Headers, Chunk: r.opt.Chunk, ConfirmEach: r.opt.Confirm}
		spec.URI = "amqp://guest:guest@" + server.addr + "/" + escapeVHost(o.VHost())
	}
	return r.child(ctx, &spec, cpu)
}

// escapeVHost escapes all that some client's URI parser may trip over.
func escapeVHost(s string) string {
	return strings.NewReplacer("%", "%25", "&", "%26", "=", "%3D", "/", "%2F", "?", "%3F").Replace(s)
}

// child runs a spec in a process of its own.
func (r *runner) child(ctx context.Context, spec *bench.Spec, cpu int) *bench.Result {
	ctx, cancel := context.WithTimeout(ctx, r.opt.Timeout)
	defer cancel()
	var cmd *exec.Cmd
	if spec.Peer == cBase {
		var err error
		if cmd, err = r.opt.CRabbit(ctx, spec); err != nil {
			return &bench.Result{Error: err.Error(), Unfit: errors.Is(err, peer.ErrUnsupported)}
		}
	} else {
		cmd = exec.CommandContext(ctx, r.opt.Self, "child")
		in, err := json.Marshal(spec)
		if err != nil {
			return &bench.Result{Error: err.Error()}
		}
		cmd.Stdin = bytes.NewReader(in)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := startPinned(cmd, cpu)
	if err == nil {
		err = cmd.Wait()
	}
	res := new(bench.Result)
	if jerr := json.Unmarshal(out.Bytes(), res); jerr != nil {
		res.Error = fmt.Sprintf("child: %v, %v: %.2000s", err, ctx.Err(), errs.String())
	}
	return res
}

const anyPort = "127.0.0.1:0"

// start starts a server of this program's, on one CPU where cpu >= 0, and waits until it says where it listens.
func (r *runner) start(ctx context.Context, cpu int, command ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, r.opt.Self, command...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := startPinned(cmd, cpu); err != nil {
		return nil, err
	}
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil && err != io.EOF {
		return nil, err
	}
	_, addr, ok := strings.Cut(strings.TrimSpace(string(line[:n])), "listening on ")
	if !ok {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("%s said %q", command[0], line[:n])
	}
	return &process{cmd: cmd, addr: addr}, nil
}

// prepare gives a run on a broker its queues, filled for a consumer, and who answers its calls.
func (r *runner) prepare(ctx context.Context, spec *bench.Spec) (cleanup func(), err error) {
	if spec.Count == 0 {
		spec.Count = r.opt.Count
		if spec.Body >= 1<<10 {
			spec.Count /= 2
		}
		switch {
		case spec.Workload == "rpc" && spec.Goroutines > 1:
			spec.Count /= 5
		case spec.Workload == "rpc" || spec.Workload == "connection" || spec.Workload == "channel" || spec.Window == 1:
			spec.Count /= 50
		}
	}
	spec.Warm = max(spec.Count/10, 1)
	name := fmt.Sprintf("amqpbench.%d", os.Getpid())
	spec.Queue, spec.WarmQueue = name, name+".warm"
	switch spec.Workload {
	case "rpc":
		echo, err := r.start(ctx, -1, "echo", "--uri", spec.URI, "--queue", spec.Queue)
		return echo.stop, err
	case "consume":
		return r.fill(ctx, spec)
	}
	return func() {}, nil
}

// fill declares a consumer's queues and fills them.
func (r *runner) fill(ctx context.Context, spec *bench.Spec) (cleanup func(), err error) {
	c, err := floor.Peer{}.Dial(ctx, spec.URI)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ch, err := c.Channel(ctx)
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(ctx); err != nil {
		return nil, err
	}
	body := bytes.Repeat([]byte("a"), spec.Body)
	for q, n := range map[string]int64{spec.Queue: spec.Count, spec.WarmQueue: spec.Warm} {
		if err := ch.Declare(ctx, peer.Queue{Name: q, Durable: true}); err != nil {
			return nil, err
		}
		if err := ch.Purge(ctx, q); err != nil {
			return nil, err
		}
		job := &peer.PublishJob{Queue: q, Body: body, Headers: spec.Headers, N: n, Window: 2000}
		if err := ch.Publish(ctx, job); err != nil {
			return nil, err
		}
	}
	return func() { r.dropQueues(spec) }, nil
}

func (r *runner) dropQueues(spec *bench.Spec) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := floor.Peer{}.Dial(ctx, spec.URI)
	if err != nil {
		return
	}
	defer c.Close()
	if ch, err := c.Channel(ctx); err == nil {
		ch.Delete(ctx, spec.Queue)
		ch.Delete(ctx, spec.WarmQueue)
	}
}

// Describe fills in a report's Meta.
func Describe(m *Meta, opt Options) {
	m.When = time.Now().UTC().Format("2006-01-02 15:04 MST")
	m.Target, m.Peers, m.Rounds, m.Duration = opt.Target, opt.Peers, opt.Rounds, opt.Duration.String()
	if at := strings.LastIndex(m.Target, "@"); at >= 0 { // no credentials in a report
		m.Target = "amqp://" + m.Target[at+1:]
	}
	switch m.Target {
	case "amqptest":
		m.Target = "amqptest, Warren's broker for tests"
	case "null":
		m.Target = "null server"
	}
	m.Go = runtime.Version()
	m.CPUs = runtime.NumCPU()
	m.System = runtime.GOOS + "/" + runtime.GOARCH
	if p, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += ", Linux " + strings.TrimSpace(string(p))
	}
	if p, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(p), "\n") {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
}
