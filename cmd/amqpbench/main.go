// Amqpbench shows what an AMQP client costs: the same workloads through Warren and its peers, against a server
// that costs nothing or a broker, each in a process of its own. It is a load generator too (amqpbench run).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer/floor"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer/peer091"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer/warrenpeer"
)

// goPeers are the peers that run in this program.
func goPeers() []peer.Peer {
	return []peer.Peer{warrenpeer.Peer{}, peer091.Peer{}, floor.Peer{}}
}

func findPeer(name string) (peer.Peer, error) {
	for _, p := range goPeers() {
		if p.Name() == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no peer %q", name)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "amqpbench",
		Short:         "What an AMQP client costs, beside its peers; and a load generator for brokers",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(compareCommand(), runCommand(), nullCommand(), brokerCommand(), reportCommand(), childCommand(), echoCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "amqpbench:", err)
		os.Exit(1)
	}
}
