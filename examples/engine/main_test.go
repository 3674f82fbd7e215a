package main

import (
	"strings"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestEngine(t *testing.T) {
	srv := amqptest.NewServer(t)
	var out strings.Builder
	if err := run(srv.URI(), 500, &out); err != nil {
		t.Fatal(err)
	}
	if want := "500 published, confirmed and received\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestEngine_Refused(t *testing.T) {
	srv := amqptest.NewServer(t)
	uri := strings.Replace(srv.URI(), "guest:guest", "guest:wrong", 1)
	err := run(uri, 1, &strings.Builder{})
	if err == nil || !strings.Contains(err.Error(), "ACCESS_REFUSED") {
		t.Errorf("a wrong password: got %v", err)
	}
}
