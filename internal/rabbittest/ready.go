package rabbittest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Handshake opens an AMQP connection to addr by hand, as guest on vhost "/",
// closes it again and returns the version that the server gives. It is written
// out here, and not with Warren's client, so that a broken client is not taken
// for a broker that is not ready.
func Handshake(ctx context.Context, addr string) (version string, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "AMQP\x00\x00\x09\x01"); err != nil {
		return "", err
	}
	start, err := expect(conn, 10, 10) // connection.start
	if err != nil {
		return "", err
	}
	startOk := table(nil) // client-properties
	startOk = short(startOk, "PLAIN")
	startOk = long(startOk, "\x00guest\x00guest")
	startOk = short(startOk, "en_US")
	if err := send(conn, 10, 11, startOk); err != nil {
		return "", err
	}
	tune, err := expect(conn, 10, 30)
	if err != nil {
		return "", err
	}
	// What the server offers is what we take.
	if err := send(conn, 10, 31, tune); err != nil {
		return "", err
	}
	// connection.open: vhost, and two fields that stay empty.
	if err := send(conn, 10, 40, append(short(nil, "/"), 0, 0)); err != nil {
		return "", err
	}
	if _, err := expect(conn, 10, 41); err != nil {
		return "", err
	}
	// connection.close with reply code 200.
	if err := send(conn, 10, 50, []byte{0, 200, 0, 0, 0, 0, 0}); err != nil {
		return "", err
	}
	if _, err := expect(conn, 10, 51); err != nil {
		return "", err
	}
	return productVersion(start), nil
}

// productVersion finds the "version" entry among the server's properties. The
// key, its type and the length in front of the value make it unmistakable.
func productVersion(start []byte) string {
	_, rest, ok := bytes.Cut(start, []byte("\x07versionS"))
	if !ok || len(rest) < 4 {
		return ""
	}
	n := binary.BigEndian.Uint32(rest)
	if rest = rest[4:]; uint64(n) > uint64(len(rest)) {
		return ""
	}
	return string(rest[:n])
}

func table(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

func short(dst []byte, s string) []byte { return append(append(dst, byte(len(s))), s...) }

func long(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}

// send writes one method frame on channel 0.
func send(w io.Writer, class, method uint16, args []byte) error {
	frame := []byte{1, 0, 0}
	frame = binary.BigEndian.AppendUint32(frame, uint32(4+len(args)))
	frame = binary.BigEndian.AppendUint16(frame, class)
	frame = binary.BigEndian.AppendUint16(frame, method)
	frame = append(append(frame, args...), 0xCE)
	_, err := w.Write(frame)
	return err
}

// expect reads one method frame and returns its arguments.
func expect(r io.Reader, class, method uint16) ([]byte, error) {
	var head [7]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("waiting for method %d.%d: %w", class, method, err)
	}
	size := binary.BigEndian.Uint32(head[3:])
	if size > 1<<20 {
		return nil, fmt.Errorf("waiting for method %d.%d: not an AMQP frame: % x", class, method, head)
	}
	body := make([]byte, size+1)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("waiting for method %d.%d: %w", class, method, err)
	}
	if head[0] != 1 || size < 4 || body[size] != 0xCE {
		return nil, fmt.Errorf("waiting for method %d.%d: unexpected frame % x", class, method, head)
	}
	gotClass, gotMethod := binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	if gotClass != class || gotMethod != method {
		return nil, fmt.Errorf("waiting for method %d.%d: got %d.%d %q", class, method, gotClass, gotMethod, body[4:size])
	}
	return body[4:size], nil
}

// awaitHandshake repeats [Handshake] until it succeeds, or ctx ends, or alive
// reports an error.
func awaitHandshake(ctx context.Context, addr string, alive func() error) (version string, err error) {
	checked := time.Now()
	for {
		attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
		version, err = Handshake(attempt, addr)
		cancel()
		if err == nil {
			return version, nil
		}
		if time.Since(checked) > time.Second { // an attempt may be refused at once
			checked = time.Now()
			if dead := alive(); dead != nil {
				return "", dead
			}
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
