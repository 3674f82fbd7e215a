package main

import (
	"os"
	"strings"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestReadme_ProgramRuns(t *testing.T) {
	if err := run(t.Context(), amqptest.NewServer(t).URI()); err != nil {
		t.Fatal(err)
	}
}

func TestReadme_ShowsThisProgram(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(program), "func run(ctx context.Context, uri string) error {\n")
	body = strings.ReplaceAll("\n"+strings.TrimSuffix(body, "}\n"), "\n\t", "\n")
	if !strings.Contains(string(readme), strings.TrimSpace(body)) {
		t.Errorf("README.md does not show the body of run in examples/readme/main.go:\n%s", body)
	}
}
