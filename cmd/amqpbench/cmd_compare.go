package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/bench"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/compare"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/crabbit"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer/warrenpeer"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/report"
)

func compareCommand() *cobra.Command {
	opt := compare.Options{Progress: progressLine(os.Stderr)}
	var only, out, cc string
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Run the workloads through all peers, and hold the figures against the goals",
		Long: `compare runs every workload through every peer, interleaved, --rounds times, and prints medians.

Each run is a process of its own, so that its CPU time (user and system) is the client's alone. Against the
null server (the default) a client is the only cost; --target with a URI measures on a broker, where queues
named amqpbench.<pid> are made and deleted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if only != "" {
				re, err := regexp.Compile(only)
				if err != nil {
					return err
				}
				opt.Only = re
			}
			if opt.Profiles != "" {
				if err := os.MkdirAll(opt.Profiles, 0o755); err != nil {
					return err
				}
			}
			var err error
			if opt.Self, err = os.Executable(); err != nil {
				return err
			}
			if len(opt.Peers) == 0 {
				for _, p := range goPeers() {
					opt.Peers = append(opt.Peers, p.Name())
				}
				opt.Peers = append(opt.Peers, crabbit.Name)
			}
			builder := crabbit.New(cc)
			defer builder.Close()
			var notes []string
			if contains(opt.Peers, crabbit.Name) {
				if err := builder.Build(ctx); err != nil {
					notes = append(notes, "rabbitmq-c is left out: "+err.Error())
					opt.Peers = without(opt.Peers, crabbit.Name)
				}
			}
			opt.CRabbit = func(ctx context.Context, spec *bench.Spec) (*exec.Cmd, error) { return builder.Command(ctx, spec) }
			r, err := compare.Run(ctx, opt)
			opt.Progress("")
			if r == nil {
				return err
			}
			compare.Describe(&r.Meta, opt)
			r.Meta.Notes = notes
			r.Meta.Commit = commit()
			r.Meta.Command = "amqpbench " + hideCredentials(strings.Join(os.Args[1:], " "))
			report.Table(os.Stdout, r)
			if out != "" {
				if serr := save(r, out); serr != nil {
					return errors.Join(err, serr)
				}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&opt.Peers, "peers", nil, "peers to run (default: all)")
	f.StringVar(&opt.Target, "target", "null", `"null", "amqptest" or a broker's URI`)
	f.StringVar(&only, "only", "", "regular expression of the cases to run, such as ^publish/")
	f.BoolVar(&opt.Quick, "quick", false, "only the cases that have goals of their own")
	f.IntVar(&opt.Rounds, "rounds", 5, "how often each is run")
	f.DurationVar(&opt.Duration, "duration", 300*time.Millisecond, "how long a measured run takes, about")
	f.Int64Var(&opt.Count, "count", 100_000, "messages of a run on a broker, at 16 octets")
	f.IntVar(&opt.Chunk, "chunk", 0, "octets that the null server delivers in one write (default 65536)")
	f.BoolVar(&opt.Confirm, "confirm-each", false, "the null server confirms each message by itself")
	f.IntVar(&opt.CPU, "cpu", 0, "the CPU of the pinned rows")
	f.DurationVar(&opt.Timeout, "timeout", time.Minute, "when a run is given up")
	f.StringVar(&opt.Profiles, "profiles", "", "folder for a CPU profile of each run of the last round")
	f.StringVar(&out, "out", "", "write FILE.json, FILE.html, FILE.svg and FILE.md too (given without the ending)")
	f.StringVar(&cc, "cc", "cc", "C compiler for the rabbitmq-c peer")
	return cmd
}

// progressLine rewrites one line on a terminal; elsewhere it writes a line now and then.
func progressLine(f *os.File) func(string) {
	st, err := f.Stat()
	if err == nil && st.Mode()&os.ModeCharDevice != 0 {
		return func(s string) {
			if s == "" {
				fmt.Fprint(f, "\r\x1b[K")
				return
			}
			fmt.Fprintf(f, "\r\x1b[K%s", s)
		}
	}
	last := time.Now()
	return func(s string) {
		if s != "" && time.Since(last) > 20*time.Second {
			last = time.Now()
			fmt.Fprintln(f, s)
		}
	}
}

// save writes all forms of a report.
func save(r *compare.Report, base string) error {
	base = strings.TrimSuffix(base, ".json")
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return err
	}
	if err := r.Save(base + ".json"); err != nil {
		return err
	}
	return report.Write(r, base, nil)
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func without(list []string, s string) []string {
	var out []string
	for _, v := range list {
		if v != s {
			out = append(out, v)
		}
	}
	return out
}

// commit is the revision that this program was built from, where the build knew.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			rev = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " with changes"
		}
	}
	return rev + dirty
}

var credentials = regexp.MustCompile(`//[^/@\s]*@`)

func hideCredentials(s string) string { return credentials.ReplaceAllString(s, "//") }

// childCommand is one measured run: a spec on stdin, a result on stdout.
func childCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "child",
		Short:  "Run one spec from stdin (compare starts these)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec := new(bench.Spec)
			if err := json.NewDecoder(cmd.InOrStdin()).Decode(spec); err != nil {
				return err
			}
			p, err := findPeer(spec.Peer)
			if err != nil {
				return err
			}
			if w, ok := p.(warrenpeer.Peer); ok {
				w.ReadPause = spec.ReadPause
				p = w
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(bench.Run(cmd.Context(), p, spec))
		},
	}
}
