package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/nullserver"
)

func nullCommand() *cobra.Command {
	var addr string
	var stats time.Duration
	cmd := &cobra.Command{
		Use:   "null",
		Short: "Serve AMQP that costs next to nothing",
		Long: `null answers every method by a canned frame, throws publishes away (and confirms them), and blasts deliveries
that were encoded before. A consumer of the queue "blast.1000" gets 1,000 messages, of any other queue messages
without end. The virtual host carries settings, such as
    amqp://localhost:5673/body%3D1024%26headers%3D5%26chunk%3D65536%26confirm%3Deach
Any user and password will do: it is for measuring, on an address that nobody else reaches.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := nullserver.Listen(addr)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "listening on", s.Addr())
			go func() {
				<-cmd.Context().Done()
				s.Close()
			}()
			if stats > 0 {
				go func() {
					last := uint64(0)
					for range time.Tick(stats) {
						n := s.Published()
						fmt.Fprintf(cmd.OutOrStdout(), "%d messages received, %.0f/s\n", n, float64(n-last)/stats.Seconds())
						last = n
					}
				}()
			}
			return s.Serve()
		},
	}
	cmd.Flags().StringVar(&addr, "listen", "127.0.0.1:5673", "address to listen on")
	cmd.Flags().DurationVar(&stats, "stats", 0, "print the publish rate this often")
	return cmd
}
