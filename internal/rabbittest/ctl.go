package rabbittest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Ctl runs rabbitmqctl and returns what it printed. A failure is the test's.
// Each call takes a second or more: it boots an Erlang machine.
func (b *Broker) Ctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := b.ctl(args...)
	if err != nil {
		t.Fatalf("rabbittest: %v", err)
	}
	return out
}

func (b *Broker) ctl(args ...string) (string, error) {
	return b.Run(append([]string{"rabbitmqctl", "-q"}, args...)...)
}

// undo is Ctl for a test's end, when what it undoes may be gone already.
func (b *Broker) undo(t testing.TB, args ...string) {
	t.Cleanup(func() {
		if out, err := b.ctl(args...); err != nil {
			t.Logf("rabbittest: %v %s", err, out)
		}
	})
}

// AddVHost makes a virtual host that guest may do everything on, and deletes it
// with everything in it when the test ends. It returns guest's URL for it.
func (b *Broker) AddVHost(t testing.TB, name string) string {
	t.Helper()
	b.Ctl(t, "add_vhost", name)
	b.undo(t, "delete_vhost", name)
	b.SetPermissions(t, "guest", name, ".*", ".*", ".*")
	return b.URLFor("guest", "guest", name)
}

// NewVHost is [Broker.AddVHost] under a name that nobody else has.
func (b *Broker) NewVHost(t testing.TB) string {
	t.Helper()
	return b.AddVHost(t, "test-"+randomName())
}

// AddUser makes a user without any permission, and deletes it when the test
// ends. Tags are RabbitMQ's, such as "administrator".
func (b *Broker) AddUser(t testing.TB, name, password string, tags ...string) {
	t.Helper()
	b.Ctl(t, "add_user", name, password)
	b.undo(t, "delete_user", name)
	if len(tags) > 0 {
		b.Ctl(t, append([]string{"set_user_tags", name}, tags...)...)
	}
}

// ChangePassword gives a user a new password. Open connections are not affected.
func (b *Broker) ChangePassword(t testing.TB, name, password string) {
	t.Helper()
	b.Ctl(t, "change_password", name, password)
}

// SetPermissions says by regular expression what names a user may configure,
// write to and read from on a virtual host. The empty expression allows nothing.
func (b *Broker) SetPermissions(t testing.TB, user, vhost, configure, write, read string) {
	t.Helper()
	b.Ctl(t, "set_permissions", "-p", vhost, user, configure, write, read)
}

// MemoryAlarm raises the memory alarm: the broker tells clients that they are
// blocked and reads no more from those that publish. Clear ends it, and so does
// the test's end.
func (b *Broker) MemoryAlarm(t testing.TB) (clear func()) {
	t.Helper()
	b.Ctl(t, "set_vm_memory_high_watermark", "0.00000001")
	// 0.6 is RabbitMQ 4's own default, above 3.10's; a test broker is far from either.
	const normal = "0.6"
	b.undo(t, "set_vm_memory_high_watermark", normal)
	return func() {
		t.Helper()
		b.Ctl(t, "set_vm_memory_high_watermark", normal)
	}
}

// CloseAllConnections has the broker close every connection with 320
// CONNECTION_FORCED and the reason in its text.
func (b *Broker) CloseAllConnections(t testing.TB, reason string) {
	t.Helper()
	b.Ctl(t, "close_all_connections", reason)
}

// SetConsumerTimeout sets how long a delivery may stay unacknowledged, for the
// channels opened from now on. The test's end sets it back.
func (b *Broker) SetConsumerTimeout(t testing.TB, d time.Duration) {
	t.Helper()
	set := func(ms int64) []string {
		return []string{"eval", fmt.Sprintf("application:set_env(rabbit, consumer_timeout, %d).", ms)}
	}
	b.Ctl(t, set(d.Milliseconds())...)
	b.undo(t, set((30 * time.Minute).Milliseconds())...)
}

// QueueLength is how many messages lie ready in a queue, as the broker counts
// them; -1 if there is no such queue.
func (b *Broker) QueueLength(t testing.TB, vhost, queue string) int {
	t.Helper()
	out := b.Ctl(t, "list_queues", "-p", vhost, "--no-table-headers", "messages_ready", "name")
	for line := range strings.Lines(out) {
		var n int
		count, name, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok || name != queue {
			continue
		}
		if _, err := fmt.Sscan(count, &n); err == nil {
			return n
		}
	}
	return -1
}

// StopApp stops RabbitMQ and leaves its Erlang node running: connections are
// closed with 320, the ports too. [Broker.StartApp] is its opposite.
func (b *Broker) StopApp(t testing.TB) {
	t.Helper()
	b.Ctl(t, "stop_app")
}

// StartApp starts RabbitMQ on a running node and waits until it serves.
func (b *Broker) StartApp(t testing.TB) {
	t.Helper()
	b.Ctl(t, "start_app")
	b.mustBeReady(t)
}

// Stop shuts the server down in good order. The container, its ports and its
// data stay for [Broker.Boot].
func (b *Broker) Stop(t testing.TB) {
	t.Helper()
	b.hold(t)
	b.Ctl(t, "stop")
	b.mustBeDown(t)
}

// Kill ends the server with SIGKILL, as a crash would. The container, its ports
// and its data stay for [Broker.Boot].
func (b *Broker) Kill(t testing.TB) {
	t.Helper()
	b.hold(t)
	// Not every image has pkill, but every shell has this.
	const kill = `for p in /proc/[0-9]*; do
		case "$(readlink "$p/exe")" in */beam.smp) kill -KILL "${p#/proc/}" ;; esac
	done; true`
	if _, err := b.Run("sh", "-c", kill); err != nil {
		t.Fatalf("rabbittest: %v", err)
	}
	b.mustBeDown(t)
}

// Boot starts the server after [Broker.Stop] or [Broker.Kill] and waits until it
// serves.
func (b *Broker) Boot(t testing.TB) {
	t.Helper()
	b.release(t)
	b.mustBeReady(t)
}

// Restart is Stop and Boot.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	b.Stop(t)
	b.Boot(t)
}

// Pause freezes everything in the container: connections stay open and nobody
// answers. [Broker.Unpause] is its opposite; the test's end sees to it too.
func (b *Broker) Pause(t testing.TB) {
	t.Helper()
	defer b.settle()
	if err := b.pool.Client.PauseContainer(b.res.Container.ID); err != nil {
		t.Fatalf("rabbittest: %v", err)
	}
	t.Cleanup(func() {
		defer b.settle()
		_ = b.pool.Client.UnpauseContainer(b.res.Container.ID) // an error if it is not paused any more
	})
}

// Unpause lets a paused container go on.
func (b *Broker) Unpause(t testing.TB) {
	t.Helper()
	defer b.settle()
	if err := b.pool.Client.UnpauseContainer(b.res.Container.ID); err != nil {
		t.Fatalf("rabbittest: %v", err)
	}
}

func (b *Broker) hold(t testing.TB) {
	t.Helper()
	if _, err := b.Run("touch", "/tmp/warren-hold"); err != nil {
		t.Fatalf("rabbittest: %v", err)
	}
}

func (b *Broker) release(t testing.TB) {
	t.Helper()
	if _, err := b.Run("rm", "-f", "/tmp/warren-hold"); err != nil {
		t.Fatalf("rabbittest: %v", err)
	}
}

func (b *Broker) mustBeReady(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := b.awaitReady(ctx); err != nil {
		t.Fatalf("rabbittest: %v\n%s", err, b.Logs(8<<10))
	}
}

func (b *Broker) mustBeDown(t testing.TB) {
	t.Helper()
	err := poll(time.Minute, func() (bool, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := Handshake(ctx, b.Addr())
		return err != nil, nil
	})
	if err != nil {
		t.Fatalf("rabbittest: the server is still up: %v", err)
	}
}
