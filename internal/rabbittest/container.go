package rabbittest

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
)

// Label is on every container and network that this package makes, with
// WARREN_RUN for its value. What is left after a crash that even the leash did
// not see is found by it:
//
//	docker ps -aq --filter label=warren.rabbittest
const Label = "warren.rabbittest"

func labels() map[string]string { return map[string]string{Label: os.Getenv("WARREN_RUN")} }

//go:embed boot.sh
var bootScript string

// baseConf is every test broker's configuration. It adds to RabbitMQ's own and
// takes nothing away, so that what tests record is what users meet: ANONYMOUS is
// among RabbitMQ 4's mechanisms, and 3.10 ignores it. The names of the
// certificates' files are boot.sh's.
const baseConf = `loopback_users = none
listeners.tcp.default = 5672
listeners.ssl.default = 5671
ssl_options.cacertfile = /etc/rabbitmq/certs/ca.pem
ssl_options.certfile = /etc/rabbitmq/certs/cert.pem
ssl_options.keyfile = /etc/rabbitmq/certs/key.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = ANONYMOUS
auth_mechanisms.4 = EXTERNAL
disk_free_limit.absolute = 10MB
log.console = true
log.console.level = info
`

// advancedConf has the channels look for late acks every second, so that a test
// of consumer time-outs is over in seconds and not after a minute.
const advancedConf = `[{rabbit, [{channel_tick_interval, 1000}]}].
`

// bootFailed is the last line of boot.sh when the server never came up.
const bootFailed = "warren: the server ended before it was ready"

// container is a Docker container that runs boot.sh.
type container struct {
	pool *dockertest.Pool
	res  *dockertest.Resource
	name string

	mu     sync.Mutex // guards what follows
	leash  net.Conn   // nil where there is none
	purged bool
}

// runContainer starts the container and returns without waiting for the server.
func runContainer(opts Options, certs *Certs) (*container, error) {
	pool, err := dockertest.NewPool("")
	if err != nil {
		return nil, err
	}
	if err := pool.Client.Ping(); err != nil {
		return nil, fmt.Errorf("docker does not answer: %w", err)
	}
	repository, tag := splitImage(opts.Image)
	run := &dockertest.RunOptions{
		Repository: repository,
		Tag:        tag,
		Name:       opts.name,
		Hostname:   opts.name,
		NetworkID:  opts.network,
		Entrypoint: []string{"sh", "-c", bootScript},
		Labels:     labels(),
		Env:        bootEnvironment(opts, certs),
	}
	// A port that was free a moment ago may be taken by now.
	for attempt := 0; ; attempt++ {
		run.PortBindings, err = freePorts(bindIP(pool), "5672/tcp", "5671/tcp")
		if err != nil {
			return nil, err
		}
		res, err := pool.RunWithOptions(run, hostOptions)
		if err == nil {
			return leashed(pool, res, opts.name)
		}
		_ = pool.RemoveContainerByName(opts.name)
		if attempt == 3 || !strings.Contains(err.Error(), "port is already allocated") && !strings.Contains(err.Error(), "address already in use") {
			return nil, err
		}
	}
}

func leashed(pool *dockertest.Pool, res *dockertest.Resource, name string) (*container, error) {
	conn, err := leash(pool, res.Container.ID)
	c := &container{pool: pool, res: res, name: name, leash: conn}
	c.settle()
	if err != nil {
		_ = c.Purge()
		return nil, err
	}
	return c, nil
}

func bootEnvironment(opts Options, certs *Certs) []string {
	plugins := strings.Join(append([]string{"rabbitmq_auth_mechanism_ssl"}, opts.Plugins...), ",")
	return []string{
		"WARREN_CONF=" + baseConf + opts.Conf,
		"WARREN_ADVANCED=" + advancedConf,
		"WARREN_PLUGINS=[" + plugins + "].",
		"WARREN_CA=" + string(certs.CA),
		"WARREN_CERT=" + string(certs.ServerCert),
		"WARREN_KEY=" + string(certs.ServerKey),
		"RABBITMQ_ERLANG_COOKIE=" + opts.cookie,
		fmt.Sprintf("WARREN_EXPIRE=%d", int(opts.Expire.Seconds())),
		"RABBITMQ_NODENAME=rabbit@" + opts.name,
	}
}

func hostOptions(h *docker.HostConfig) {
	h.AutoRemove = true
	h.PublishAllPorts = false
}

// freePorts picks a free port of the host for each container port. Docker could
// pick them itself, but then a client that has to reconnect after the container
// restarts would find another.
func freePorts(ip string, ports ...string) (map[docker.Port][]docker.PortBinding, error) {
	bindings := make(map[docker.Port][]docker.PortBinding)
	for _, p := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// Held until all are picked, so that they differ.
		defer func() { _ = l.Close() }()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		bindings[docker.Port(p)] = []docker.PortBinding{{HostIP: ip, HostPort: port}}
	}
	return bindings, nil
}

// bindIP is the address that the container's ports are published on: loopback,
// unless Docker is on another machine.
func bindIP(pool *dockertest.Pool) string {
	if dockerHost(pool) == "127.0.0.1" {
		return "127.0.0.1"
	}
	return "0.0.0.0"
}

// dockerHost is the host on which published ports are reached.
func dockerHost(pool *dockertest.Pool) string {
	u, err := url.Parse(pool.Client.Endpoint())
	if err != nil || u.Hostname() == "" || u.Scheme == "npipe" || u.Hostname() == "localhost" {
		return "127.0.0.1"
	}
	return u.Hostname()
}

func (c *container) address(port string) string {
	return net.JoinHostPort(dockerHost(c.pool), c.res.GetPort(port))
}

// alive is an error once the container has ended, or its server has before it
// was ready.
func (c *container) alive() error {
	defer c.settle()
	info, err := c.pool.Client.InspectContainer(c.res.Container.ID)
	if err != nil {
		return fmt.Errorf("the container is gone: %w", err)
	}
	if !info.State.Running {
		return fmt.Errorf("the container ended with status %d", info.State.ExitCode)
	}
	var out bytes.Buffer
	err = c.pool.Client.Logs(docker.LogsOptions{Container: info.ID, OutputStream: &out, Stdout: true, Tail: "1"})
	if err == nil && strings.Contains(out.String(), bootFailed) {
		return errors.New("the server ended before it was ready")
	}
	return nil
}

// Name is the container's, and its host name.
func (c *container) Name() string { return c.name }

// Run runs a command as root in the container and returns what it printed. An
// exit status other than 0 is an error that has the output.
func (c *container) Run(command ...string) (string, error) {
	defer c.settle()
	var stdout, stderr bytes.Buffer
	code, err := c.res.Exec(command, dockertest.ExecOptions{StdOut: &stdout, StdErr: &stderr})
	if err != nil {
		return "", err
	}
	if code != 0 {
		return stdout.String(), fmt.Errorf("%s: exit status %d: %s", strings.Join(command, " "), code,
			strings.TrimSpace(stderr.String()+stdout.String()))
	}
	return stdout.String(), nil
}

// Logs returns the last bytes of what the server logged, at most limit of them.
func (c *container) Logs(limit int) string {
	defer c.settle()
	var out bytes.Buffer
	err := c.pool.Client.Logs(docker.LogsOptions{
		Container: c.res.Container.ID, OutputStream: &out, ErrorStream: &out, Stdout: true, Stderr: true,
	})
	if err != nil {
		return err.Error()
	}
	// Debian's package sends the console to a file.
	if more, err := c.Run("sh", "-c", "cat /var/log/rabbitmq/startup_log 2>/dev/null || true"); err == nil {
		out.WriteString(more)
	}
	text := out.Bytes()
	return string(text[max(0, len(text)-limit):])
}

// Purge removes the container and its data. The second time it does nothing.
func (c *container) Purge() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.purged {
		return nil
	}
	c.purged = true
	defer c.settle()
	err := c.pool.Client.RemoveContainer(docker.RemoveContainerOptions{ID: c.res.Container.ID, Force: true, RemoveVolumes: true})
	if c.leash != nil {
		_ = c.leash.Close()
		c.leash = nil
	}
	if err != nil && !strings.Contains(err.Error(), "already in progress") && !strings.Contains(err.Error(), "No such container") {
		return fmt.Errorf("removing container %s: %w", c.name, err)
	}
	return nil
}

// settle closes the idle connections to Docker and with them their goroutines,
// for tests that count these.
func (c *container) settle() { c.pool.Client.HTTPClient.CloseIdleConnections() }

// randomName is for containers and cookies.
func randomName() string { return strings.ToLower(rand.Text()[:8]) }

// poll repeats check until it says yes, for at most the time-out.
func poll(timeout time.Duration, check func() (bool, error)) error {
	deadline := time.Now().Add(timeout)
	for {
		ok, err := check()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("not within %s", timeout), err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
