//go:build integration

package rabbittest

import (
	"context"
	"crypto/tls"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ory/dockertest/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestShared_ServesAMQP(t *testing.T) {
	b := Shared(t)
	version := handshake(t, b.Addr())
	if got := strings.TrimSpace(b.Ctl(t, "version")); got != version || b.Version() != version {
		t.Errorf("rabbitmqctl says version %q, the handshake %q, Version %q", got, version, b.Version())
	}
	if Shared(t) != b {
		t.Error("a second call gave another broker")
	}
}

func TestShared_LeavesNoGoroutine(t *testing.T) {
	b := Shared(t)
	b.Ctl(t, "version")
	goleak.VerifyNone(t)
}

func TestBroker_TLS(t *testing.T) {
	b := Shared(t)
	for _, identify := range []bool{false, true} {
		conn, err := tls.Dial("tcp", b.TLSAddr(), b.ClientTLS(identify))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
			t.Fatal(err)
		}
		start, err := expect(conn, 10, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, mechanism := range []string{"PLAIN", "AMQPLAIN", "EXTERNAL"} {
			if !strings.Contains(string(start), mechanism) {
				t.Errorf("%s is not among the mechanisms: %q", mechanism, start)
			}
		}
		_ = conn.Close()
	}
}

func TestBroker_UsersAndVHosts(t *testing.T) {
	b := Shared(t)
	url := b.NewVHost(t)
	vhost := url[strings.LastIndexByte(url, '/')+1:]
	if !strings.Contains(b.Ctl(t, "list_vhosts"), vhost) {
		t.Errorf("no vhost %s", vhost)
	}
	b.AddUser(t, "rabbit", "carrot", "monitoring")
	b.SetPermissions(t, "rabbit", vhost, "^r", "", ".*")
	b.ChangePassword(t, "rabbit", "lettuce")
	if got := b.Ctl(t, "list_permissions", "-p", vhost); !strings.Contains(got, "rabbit\t^r\t\t.*") {
		t.Errorf("permissions: %s", got)
	}
	if n := b.QueueLength(t, vhost, "none"); n != -1 {
		t.Errorf("length %d of no queue", n)
	}
}

func TestBroker_MemoryAlarm(t *testing.T) {
	b := Shared(t)
	clear := b.MemoryAlarm(t)
	if got := b.Ctl(t, "eval", "rabbit_alarm:get_alarms()."); !strings.Contains(got, "memory") {
		t.Errorf("alarms: %s", got)
	}
	clear()
	if got := strings.TrimSpace(b.Ctl(t, "eval", "rabbit_alarm:get_alarms().")); got != "[]" {
		t.Errorf("alarms: %s", got)
	}
}

func TestBroker_StopKillRestart(t *testing.T) {
	b := Start(t, Options{Conf: "consumer_timeout = 4321\n"})
	addr := b.Addr()
	if got := strings.TrimSpace(b.Ctl(t, "eval", "application:get_env(rabbit, consumer_timeout).")); got != "{ok,4321}" {
		t.Errorf("consumer_timeout is %s", got)
	}
	b.Ctl(t, "add_vhost", "stays")
	b.StopApp(t)
	b.StartApp(t)
	b.Restart(t)
	b.Kill(t)
	b.Boot(t)
	b.Pause(t)
	b.Unpause(t)
	if b.Addr() != addr {
		t.Errorf("address changed from %s to %s", addr, b.Addr())
	}
	handshake(t, addr)
	if !strings.Contains(b.Ctl(t, "list_vhosts"), "stays") {
		t.Error("what was on disk is gone")
	}
}

func TestStart_SaysWhyItDidNot(t *testing.T) {
	b, err := Open(Options{Conf: "no_such_setting = 1\n"})
	if err == nil {
		_ = b.Purge()
		t.Fatal("a broker that cannot start has started")
	}
	if !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("the error hides the cause: %v", err)
	}
}

func TestStartCluster(t *testing.T) {
	c := StartCluster(t, 3, Options{})
	c.Nodes[1].Kill(t)
	c.AwaitMembers(t, 2)
	c.Nodes[1].Boot(t)
	c.AwaitMembers(t, 3)
}

// TestLeash_TakesTheContainerAlong runs this test binary again, has that start a
// broker, ends it with SIGKILL and watches the container go.
func TestLeash_TakesTheContainerAlong(t *testing.T) {
	pool, err := dockertest.NewPool("")
	if err != nil {
		t.Fatal(err)
	}
	name := "warren-victim-" + randomName()
	exists := func() (bool, error) {
		defer pool.Client.HTTPClient.CloseIdleConnections()
		info, err := pool.Client.InspectContainer(name)
		return err == nil && info.State.Running, nil
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLeash_Victim$")
	cmd.Env = append(os.Environ(), "WARREN_VICTIM="+name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := poll(time.Minute, exists); err != nil {
		t.Fatalf("no broker came: %v", err)
	}
	time.Sleep(2 * time.Second) // the leash is put on right after the start
	_ = cmd.Process.Kill()
	gone := func() (bool, error) {
		ok, err := exists()
		return !ok, err
	}
	if err := poll(time.Minute, gone); err != nil {
		t.Errorf("the container outlives its process: %v", err)
	}
}

// TestLeash_Victim is run by TestLeash_TakesTheContainerAlong.
func TestLeash_Victim(t *testing.T) {
	name := os.Getenv("WARREN_VICTIM")
	if name == "" {
		return
	}
	if _, err := Open(Options{name: name}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
}

func handshake(t *testing.T, addr string) (version string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	version, err := Handshake(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	return version
}
