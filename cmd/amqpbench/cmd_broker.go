package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/warrenmq/warren/amqp/amqptest"
)

func brokerCommand() *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:   "broker",
		Short: "Serve amqptest, Warren's broker for tests",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			srv, err := amqptest.Start(&amqptest.Config{Addr: addr, Record: -1})
			if err != nil {
				return err
			}
			defer srv.Close()
			fmt.Fprintln(cmd.OutOrStdout(), "listening on", srv.URI())
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&addr, "listen", "127.0.0.1:5674", "address to listen on")
	return cmd
}
