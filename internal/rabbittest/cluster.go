package rabbittest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
)

// Cluster is several brokers that are one. Any of them can be stopped, killed,
// paused and booted by its own methods.
type Cluster struct {
	Nodes []*Broker
}

// StartCluster starts n nodes on a Docker network of their own and waits until
// each of them counts n. It all goes with the test.
func StartCluster(t testing.TB, n int, opts Options) *Cluster {
	t.Helper()
	pool, err := dockertest.NewPool("")
	if err != nil {
		t.Fatalf("rabbittest: no cluster: %v", err)
	}
	id := randomName()
	network, err := pool.CreateNetwork("warren-"+id, func(o *docker.CreateNetworkOptions) {
		o.Labels = labels()
	})
	pool.Client.HTTPClient.CloseIdleConnections()
	if err != nil {
		t.Fatalf("rabbittest: no cluster: %v", err)
	}
	t.Cleanup(func() { // runs last, when the containers are off the network
		defer pool.Client.HTTPClient.CloseIdleConnections()
		if err := pool.RemoveNetwork(network); err != nil {
			t.Errorf("rabbittest: %v", err)
		}
	})
	opts.network = network.Network.ID
	opts.cookie = randomName()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("warren-%s-%d", id, i+1)
	}
	opts.Conf += peerConf(names)
	c := &Cluster{Nodes: startNodes(t, opts, names)}
	c.AwaitMembers(t, n)
	return c
}

// peerConf has the nodes find each other by name as they boot.
func peerConf(names []string) string {
	var b strings.Builder
	b.WriteString("cluster_formation.peer_discovery_backend = classic_config\n")
	for i, name := range names {
		fmt.Fprintf(&b, "cluster_formation.classic_config.nodes.%d = rabbit@%s\n", i+1, name)
	}
	b.WriteString("cluster_partition_handling = pause_minority\n")
	return b.String()
}

// startNodes starts all at once: a node that waits for its peers must not be
// waited for before they are there.
func startNodes(t testing.TB, opts Options, names []string) []*Broker {
	t.Helper()
	nodes := make([]*Broker, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		o := opts
		o.name = name
		wg.Go(func() { nodes[i], errs[i] = Open(o) })
	}
	wg.Wait()
	for _, b := range nodes {
		if b != nil {
			t.Cleanup(func() {
				if err := b.Purge(); err != nil {
					t.Errorf("rabbittest: %v", err)
				}
			})
		}
	}
	for i, err := range errs {
		if err != nil {
			t.Fatalf("rabbittest: node %s: %v", names[i], err)
		}
	}
	return nodes
}

// AwaitMembers waits until every node that runs counts n running members.
func (c *Cluster) AwaitMembers(t testing.TB, n int) {
	t.Helper()
	for _, b := range c.Nodes {
		err := poll(time.Minute, func() (bool, error) {
			// Down nodes have no say; eval fails there.
			out, err := b.ctl("eval", "length(rabbit_nodes:list_running()).")
			return err != nil || strings.TrimSpace(out) == fmt.Sprint(n), fmt.Errorf("%s counts %s", b.name, out)
		})
		if err != nil {
			t.Fatalf("rabbittest: %v", err)
		}
	}
}

// Boot starts all nodes after each was stopped or killed, and waits until they
// serve: one alone may wait for its peers.
func (c *Cluster) Boot(t testing.TB) {
	t.Helper()
	for _, b := range c.Nodes {
		b.release(t)
	}
	for _, b := range c.Nodes {
		b.mustBeReady(t)
	}
}

// URLs are guest's at every node, in order.
func (c *Cluster) URLs() []string {
	urls := make([]string, len(c.Nodes))
	for i, b := range c.Nodes {
		urls[i] = b.URL()
	}
	return urls
}
