package rabbittest

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// startTimeout bounds how long a broker may take from container to handshake.
// Ten seconds are usual, a busy machine with two cores needs several times that.
const startTimeout = 3 * time.Minute

// Options say how a broker differs from the usual one. The zero value does not.
type Options struct {
	// Image overrides RABBITMQ_IMAGE.
	Image string
	// Conf is appended to rabbitmq.conf, for example "consumer_timeout = 3000\n".
	Conf string
	// Plugins are enabled besides rabbitmq_auth_mechanism_ssl.
	Plugins []string
	// Expire ends the container, whatever became of the test. An hour by default.
	Expire time.Duration

	name    string // container's and host's name; random by default
	cookie  string // Erlang cookie; random by default
	network string // Docker network's id; Docker's default by default
}

// Broker is a running RabbitMQ. Its methods may be called from any goroutine.
type Broker struct {
	*container
	certs   *Certs
	version string
}

// Start starts a broker that is the test's own and goes with it. It fails the
// test if that does not work.
func Start(t testing.TB, opts Options) *Broker {
	t.Helper()
	b, err := Open(opts)
	if err != nil {
		t.Fatalf("rabbittest: no broker: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the broker's last words:\n%s", b.Logs(4<<10))
		}
		if err := b.Purge(); err != nil {
			t.Errorf("rabbittest: %v", err)
		}
	})
	return b
}

// Open is [Start] without a test: the caller must Purge the broker.
func Open(opts Options) (*Broker, error) {
	began := time.Now()
	opts.Image = cmp.Or(opts.Image, Image())
	opts.name = cmp.Or(opts.name, "warren-"+randomName())
	opts.cookie = cmp.Or(opts.cookie, randomName())
	opts.Expire = cmp.Or(opts.Expire, time.Hour)
	certs, err := NewCerts("guest", opts.name)
	if err != nil {
		return nil, err
	}
	c, err := runContainer(opts, certs)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", opts.Image, err)
	}
	b := &Broker{container: c, certs: certs}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := b.awaitReady(ctx); err != nil {
		err = fmt.Errorf("image %s: %w\n%s", opts.Image, err, b.Logs(8<<10))
		_ = b.Purge()
		return nil, err
	}
	// .ci/run looks for this line: a suite that is said to have run on a broker
	// has printed it.
	fmt.Printf("rabbittest: RabbitMQ %s ready (%s, %s)\n", b.version, opts.Image, time.Since(began).Round(100*time.Millisecond))
	return b, nil
}

// awaitReady waits until the broker serves, which is later than when its ports
// open, and remembers its version.
func (b *Broker) awaitReady(ctx context.Context) error {
	version, err := awaitHandshake(ctx, b.Addr(), b.alive)
	if err != nil {
		return fmt.Errorf("no AMQP handshake: %w", err)
	}
	b.version = version
	if out, err := b.Run("sh", "-c", "rabbitmqctl -q await_startup && touch /tmp/warren-ready"); err != nil {
		return fmt.Errorf("await_startup: %w: %s", err, out)
	}
	return nil
}

var shared struct {
	sync.Mutex // guards what follows; held while the broker starts, since everyone waits for it
	broker     *Broker
	err        error
}

// Shared is the broker of this test process, started by whoever asks first. It
// fails the test if there is none. Tests that use it keep to a virtual host or
// names of their own, and do not run in parallel while they change something
// global, such as an alarm.
//
// The container goes when the process does; nobody has to call anything.
func Shared(t testing.TB) *Broker {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.broker == nil && shared.err == nil {
		shared.broker, shared.err = Open(Options{})
	}
	if shared.err != nil {
		t.Fatalf("rabbittest: no broker: %v", shared.err)
	}
	return shared.broker
}

// Main runs a package's tests and then removes the shared broker. Without it the
// container goes too, a moment later:
//
//	func TestMain(m *testing.M) { os.Exit(rabbittest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.broker != nil {
		if err := shared.broker.Purge(); err != nil {
			fmt.Fprintln(os.Stderr, "rabbittest:", err)
			code = max(code, 1)
		}
		shared.broker = nil
	}
	return code
}

// URL is where a test that needs no hand on the broker finds one: AMQP_URL where
// that is set, and the shared broker where not.
func URL(t testing.TB) string {
	t.Helper()
	if u := os.Getenv("AMQP_URL"); u != "" {
		return u
	}
	return Shared(t).URL()
}

// Addr is the host and port for AMQP.
func (b *Broker) Addr() string { return b.address("5672/tcp") }

// TLSAddr is the host and port for AMQP over TLS.
func (b *Broker) TLSAddr() string { return b.address("5671/tcp") }

// URL is guest's, on vhost "/".
func (b *Broker) URL() string { return b.URLFor("guest", "guest", "/") }

// URLFor is that of a user and a virtual host.
func (b *Broker) URLFor(user, password, vhost string) string {
	return amqpURL("amqp", b.Addr(), user, password, vhost)
}

// TLSURL is guest's over TLS, on vhost "/". The server's certificate is under
// the authority of [Broker.Certs].
func (b *Broker) TLSURL() string { return amqpURL("amqps", b.TLSAddr(), "guest", "guest", "/") }

// Certs are those of the TLS listener, with a client's for guest.
func (b *Broker) Certs() *Certs { return b.certs }

// ClientTLS is for a client of the TLS listener; with identify it shows the
// certificate that lets it in as guest by EXTERNAL.
func (b *Broker) ClientTLS(identify bool) *tls.Config { return b.certs.ClientTLS(identify) }

// Version is what the broker says of itself, "4.3.6" for example.
func (b *Broker) Version() string { return b.version }

// AtLeast says whether the broker's version is major.minor or later.
func (b *Broker) AtLeast(major, minor int) bool { return versionAtLeast(b.version, major, minor) }

func versionAtLeast(version string, major, minor int) bool {
	a, rest, _ := strings.Cut(version, ".")
	b, _, _ := strings.Cut(rest, ".")
	gotMajor, _ := strconv.Atoi(a)
	gotMinor, _ := strconv.Atoi(b)
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

func amqpURL(scheme, addr, user, password, vhost string) string {
	return fmt.Sprintf("%s://%s@%s/%s", scheme, url.UserPassword(user, password), addr, url.PathEscape(vhost))
}
