package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "warren") // t.TempDir's may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "amqp.sock")
	amqptest.NewServer(t, amqptest.Config{Socket: path})
	var out strings.Builder
	if err := run(t.Context(), "amqp+unix://"+path, &out); err != nil {
		t.Fatal(err)
	}
	if want := "over a socket: \"from next door\"\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
