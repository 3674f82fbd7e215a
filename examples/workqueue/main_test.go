package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/examples/internal/exampletest"
)

func TestWorkqueue_SlowTaskHoldsUpNobody(t *testing.T) {
	srv := amqptest.NewServer(t)
	uri := srv.URI()
	worker := func(ctx context.Context, out io.Writer) error { return work(ctx, uri, out) }
	first := exampletest.Start(t, worker)
	if err := submit(t.Context(), uri, "slow .."); err != nil {
		t.Fatal(err)
	}
	first.Await("slow ..: 2s of work")
	second := exampletest.Start(t, worker)
	for _, task := range []string{"a", "b", "c"} {
		if err := submit(t.Context(), uri, task); err != nil {
			t.Fatal(err)
		}
	}
	second.Await("c: done")
	if out := first.Output(); strings.Contains(out, "done") {
		t.Errorf("the first worker was to be at the slow task still: %q", out)
	}
	second.Stop()
	first.Stop() // returns when the task is done
	if out := first.Output(); !strings.HasSuffix(out, "slow ..: done\n") {
		t.Errorf("the first worker did not finish: %q", out)
	}
}
