package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/rpc"
)

// echoCommand answers the calls of the rpc workloads on a broker, where the null server can't.
func echoCommand() *cobra.Command {
	var uri, queue string
	cmd := &cobra.Command{
		Use:    "echo",
		Short:  "Answer calls on a broker with their own bodies",
		Hidden: true, // compare starts it
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			conn, err := amqp.Dial(ctx, uri, nil)
			if err != nil {
				return err
			}
			defer conn.Close()
			ch, err := conn.Channel(ctx)
			if err != nil {
				return err
			}
			if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: queue, Exclusive: true}); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "listening on", queue) // what is called before the consumer is there waits
			return rpc.Serve(ctx, ch, queue, func(_ context.Context, req *rpc.Request) (*amqp.Message, error) {
				return &amqp.Message{Body: req.Body, Properties: amqp.Properties{DeliveryMode: 1}}, nil
			}, nil)
		},
	}
	cmd.Flags().StringVar(&uri, "uri", "", "broker")
	cmd.Flags().StringVar(&queue, "queue", "", "queue, exclusive to this process")
	return cmd
}
