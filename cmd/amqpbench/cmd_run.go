package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/load"
)

func runCommand() *cobra.Command {
	var o load.Options
	var peerName string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Put a load on a broker, with live rates and latencies",
		Long: `run publishes and consumes at any rate and prints what goes through, every --interval.

    amqpbench run --uri amqp://guest:guest@localhost --producers 2 --consumers 4 --size 1024 --confirm 500 --time 30s
    amqpbench run --queue-type quorum --persistent --rate 5000 --ack-every 10 --prefetch 200
    amqpbench run --producers 0 --queue orders --keep --auto-ack        # only consume

Latency is measured from publish to delivery, by the clock of this machine (the first 8 octets of a body are
the time), and from publish to confirm.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Peer, err = findPeer(peerName); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if !asJSON {
				printHead(out, &o)
				o.Line = func(s load.Sample) { printLine(out, s) }
			}
			total, err := load.Run(cmd.Context(), o)
			if total.Took > 0 {
				if asJSON {
					printJSON(out, &o, total)
				} else {
					printTotal(out, total)
				}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.URIs, "uri", []string{envOr("AMQP_URL", "amqp://guest:guest@localhost:5672")}, "broker, or several for connections to take in turn")
	f.StringVar(&peerName, "peer", "warren", "client library: warren or amqp091-go")
	f.IntVarP(&o.Producers, "producers", "x", 1, "producers, each a channel")
	f.IntVarP(&o.Consumers, "consumers", "y", 1, "consumers, each a channel")
	f.IntVar(&o.Channels, "channels", 1, "channels to a connection")
	f.StringVarP(&o.Queue, "queue", "u", "amqpbench.run", "queue name, or prefix with --queues")
	f.IntVar(&o.Queues, "queues", 1, "spread over so many queues")
	f.StringVar(&o.QueueType, "queue-type", "", "classic, quorum or stream (default: the broker's)")
	f.BoolVar(&o.Durable, "durable", true, "declare durable queues")
	f.BoolVar(&o.Keep, "keep", false, "leave the queues behind")
	f.StringVar(&o.Exchange, "exchange", "", "publish to this exchange, with the queue name as the key")
	f.IntVarP(&o.Size, "size", "s", 64, "octets in a body, at least 8")
	f.IntVar(&o.Headers, "headers", 0, "entries in the headers table, at most 5")
	f.BoolVar(&o.Persistent, "persistent", false, "publish persistent messages")
	f.Float64VarP(&o.Rate, "rate", "r", 0, "messages a second for each producer (default: all it can)")
	f.Int64VarP(&o.Count, "count", "C", 0, "messages for each producer, then end")
	f.DurationVarP(&o.Time, "time", "z", 0, "end after this long")
	f.IntVarP(&o.Confirm, "confirm", "c", 0, "publisher confirms, so many outstanding at most")
	f.IntVarP(&o.Prefetch, "prefetch", "q", 250, "prefetch of a consumer")
	f.BoolVarP(&o.AutoAck, "auto-ack", "a", false, "consume without acks")
	f.IntVarP(&o.AckEvery, "ack-every", "A", 1, "ack so many at once")
	f.BoolVar(&o.Borrow, "borrow", false, "borrow deliveries in place of copying them (warren)")
	f.DurationVar(&o.Interval, "interval", time.Second, "between two lines")
	f.DurationVar(&o.ConsumeDelay, "work", 0, "how long handling a message takes")
	f.BoolVar(&asJSON, "json", false, "print the whole run's figures as JSON, and nothing before")
	return cmd
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func printHead(w io.Writer, o *load.Options) {
	fmt.Fprintf(w, "%s %s: %d producers, %d consumers, bodies of %d octets\n", o.Peer.Name(), o.Peer.Version(), o.Producers, o.Consumers, max(o.Size, 8))
	fmt.Fprintf(w, "%8s %10s %10s %10s  %-32s %-32s %5s\n", "time", "sent/s", "conf/s", "recv/s", "end to end p50/p99/p99.9", "confirm p50/p99/p99.9", "CPU")
}

func printLine(w io.Writer, s load.Sample) {
	secs := s.Took.Seconds()
	rate := func(n int64) string { return fmt.Sprintf("%.0f", float64(n)/secs) }
	fmt.Fprintf(w, "%7.1fs %10s %10s %10s  %-32s %-32s %4.0f%%\n", s.At.Seconds(), rate(s.Sent), rate(s.Confirmed), rate(s.Received),
		quantiles(s.EndToEnd), quantiles(s.Confirms), 100*s.CPU.Seconds()/secs)
}

func quantiles(h interface {
	Count() uint64
	Quantile(float64) time.Duration
}) string {
	if h.Count() == 0 {
		return "-"
	}
	return fmt.Sprintf("%s / %s / %s", short(h.Quantile(.5)), short(h.Quantile(.99)), short(h.Quantile(.999)))
}

// short rounds a duration to three digits.
func short(d time.Duration) string {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

func printTotal(w io.Writer, s load.Sample) {
	secs := s.Took.Seconds()
	fmt.Fprintf(w, "\n%d sent (%.0f/s), %d confirmed, %d received (%.0f/s) in %s\n", s.Sent, float64(s.Sent)/secs, s.Confirmed,
		s.Received, float64(s.Received)/secs, s.Took.Round(time.Millisecond))
	if s.EndToEnd.Count() > 0 {
		fmt.Fprintf(w, "end to end p50/p99/p99.9: %s\n", quantiles(s.EndToEnd))
	}
	if s.Confirms.Count() > 0 {
		fmt.Fprintf(w, "confirm    p50/p99/p99.9: %s\n", quantiles(s.Confirms))
	}
	if n := s.Sent + s.Received; n > 0 {
		fmt.Fprintf(w, "CPU %.2f s, %.0f ns for each message sent or received\n", s.CPU.Seconds(), float64(s.CPU)/float64(n))
	}
}

func printJSON(w io.Writer, o *load.Options, s load.Sample) {
	type quant struct{ P50, P99, P999 time.Duration }
	q := func(h interface{ Quantile(float64) time.Duration }) quant {
		return quant{h.Quantile(.5), h.Quantile(.99), h.Quantile(.999)}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.Encode(map[string]any{
		"peer": o.Peer.Name(), "version": o.Peer.Version(), "seconds": s.Took.Seconds(), "sent": s.Sent, "confirmed": s.Confirmed,
		"received": s.Received, "cpu_seconds": s.CPU.Seconds(), "end_to_end_ns": q(s.EndToEnd), "confirm_ns": q(s.Confirms),
	})
}
