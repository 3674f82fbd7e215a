package rabbittest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
)

// leash ties a container's life to this process's. It starts a command in the
// container that reads its standard input, which is a connection of ours, and
// ends the container when that closes. The kernel closes it when this process
// ends, be it by os.Exit (which goleak and TestMain use), a panic, a time-out or
// SIGKILL: t.Cleanup and deferred calls see none of these.
//
// Docker's own client copies from and to such a connection in goroutines; done
// by hand there are none, so tests that look for leaked goroutines see nothing.
//
// It returns nil where Docker is reached over TLS or a Windows pipe. There the
// container ends by WARREN_EXPIRE at the latest.
func leash(pool *dockertest.Pool, container string) (net.Conn, error) {
	network, address := dockerAddress(pool.Client.Endpoint())
	if network == "" {
		return nil, nil
	}
	exec, err := pool.Client.CreateExec(docker.CreateExecOptions{
		Container:    container,
		Cmd:          []string{"sh", "-c", "trap '' TERM HUP; cat >/dev/null; kill -TERM 1"},
		AttachStdin:  true,
		AttachStdout: true,
	})
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if err := upgrade(conn, "/exec/"+exec.ID+"/start"); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("tying the container to this process: %w", err)
	}
	return conn, nil
}

// upgrade asks Docker to turn conn into the command's input and output.
func upgrade(conn net.Conn, path string) error {
	const body = `{"Detach":false,"Tty":false}`
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"+
		"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	if err != nil {
		return err
	}
	// The command prints nothing, so what the reader might have read ahead of
	// the header's end is nothing either.
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		return fmt.Errorf("docker answered %s", resp.Status)
	}
	return conn.SetDeadline(time.Time{})
}

// dockerAddress is what to dial for an endpoint such as
// unix:///var/run/docker.sock, and empty for those that need more than that.
func dockerAddress(endpoint string) (network, address string) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", ""
	}
	switch u.Scheme {
	case "unix":
		return "unix", strings.TrimPrefix(endpoint, "unix://")
	case "tcp", "http":
		return "tcp", u.Host
	}
	return "", ""
}
