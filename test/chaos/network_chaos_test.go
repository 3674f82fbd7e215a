//go:build chaos

package chaos

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// newProxies starts a proxy before each address, for as long as the test runs.
func newProxies(t *testing.T, addrs ...string) (proxies []*toxiproxy.Proxy) {
	t.Helper()
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics have loggers of their own
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	for i, addr := range addrs {
		p := toxiproxy.NewProxy(server, fmt.Sprintf("node%d", i), "127.0.0.1:0", addr)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		proxies = append(proxies, p)
	}
	return proxies
}

// toxic puts a toxic on every proxy, until the function that it returns is called.
func (r *rig) toxic(kind, stream, attributes string) (undo func()) {
	r.t.Helper()
	for _, p := range r.proxies {
		js := fmt.Sprintf(`{"name":"x","type":%q,"stream":%q,"toxicity":1,"attributes":{%s}}`, kind, stream, attributes)
		if _, err := p.Toxics.AddToxicJson(bytes.NewBufferString(js)); err != nil {
			r.t.Fatal(err)
		}
	}
	return func() {
		for _, p := range r.proxies {
			p.Toxics.RemoveToxic(r.ctx, "x")
		}
	}
}

// The ways in which the kernel can stop traffic to and from a proxy.
var (
	drop   = []string{"-j", "DROP"}
	refuse = []string{"-j", "REJECT", "--reject-with", "tcp-reset"}
)

// filter has the kernel stop what goes to the proxies, what comes from them, or
// both, until the function that it returns is called.
func filter(t *testing.T, proxies []*toxiproxy.Proxy, to, from bool, how []string) (undo func()) {
	t.Helper()
	var rules [][]string
	rule := func(side, addr string) {
		port := addr[strings.LastIndex(addr, ":")+1:]
		rules = append(rules, append([]string{"INPUT", "-i", "lo", "-p", "tcp", side, port}, how...))
	}
	for _, p := range proxies {
		if to {
			rule("--dport", p.Listen)
		}
		if from {
			rule("--sport", p.Listen)
		}
	}
	var done []([]string)
	undo = func() {
		for _, rule := range done {
			run(t, "iptables", append([]string{"-w", "-D"}, rule...)...)
		}
		done = nil
	}
	t.Cleanup(undo)
	for _, rule := range rules {
		run(t, "iptables", append([]string{"-w", "-I"}, rule...)...)
		done = append(done, rule)
	}
	return undo
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
