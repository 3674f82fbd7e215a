# Everything here runs on a machine with Go and make; `race` needs a C compiler
# besides, and `integration` and `chaos` need Docker.

GO        ?= go
# Packages for integration, fuzz and microbench.
PACKAGES  ?= ./...
TESTFLAGS ?=
FUZZTIME  ?= 10s
BENCH     ?= .
BENCHTIME ?= 1s
SOAK      ?= 1h
BENCHFLAGS ?=
# What `make integration` runs in Docker; see internal/rabbittest.
RABBITMQ_IMAGE ?= rabbitmq:4
export RABBITMQ_IMAGE
# The version is part of what we check against: a new one has new opinions.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help
help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: demo
demo: ## run the main job: in process, or on the broker of AMQP_URL
	@CGO_ENABLED=0 $(GO) run ./examples/demo

.PHONY: test
test: ## run the tests that need nothing but Go
	@CGO_ENABLED=0 .ci/each $(GO) test $(TESTFLAGS) ./...

.PHONY: race
race: ## run the same tests under the race detector (needs gcc)
	@CGO_ENABLED=1 .ci/each $(GO) test -race $(TESTFLAGS) ./...

.PHONY: integration
integration: ## run the tests that need RabbitMQ, from RABBITMQ_IMAGE, in Docker
	@TESTFLAGS="$(TESTFLAGS)" GO="$(GO)" .ci/integration $(PACKAGES)

.PHONY: chaos
chaos: ## do 250 bad things to a RabbitMQ cluster under load (root, iptables, Docker; CHAOS=short: a part)
	cd test/chaos && $(GO) test -tags chaos -count=1 -timeout 2h -v $(TESTFLAGS) ./...

.PHONY: soak
soak: ## have a client work through faults for SOAK (1h) and print the heap's slope
	SOAK=$(SOAK) $(GO) test -count=1 -timeout 0 -v -run '^TestClient_Soak$$' ./amqp

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	@FUZZTIME="$(FUZZTIME)" GO="$(GO)" .ci/fuzz $(PACKAGES)

.PHONY: bench
bench: ## compare Warren with its peers against the null server (BENCHFLAGS)
	cd cmd/amqpbench && CGO_ENABLED=0 $(GO) build -o ../../bin/amqpbench .
	bin/amqpbench compare --quick $(BENCHFLAGS)

.PHONY: microbench
microbench: ## run the Go benchmarks of BENCH (all)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem $(PACKAGES)

.PHONY: generate
generate: ## refresh the generated code
	@.ci/each $(GO) generate ./...

.PHONY: lint
lint: ## gofmt, go vet and staticcheck, with and without the integration tests
	@files=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$files" ] || { echo "not gofmt'ed:"; echo "$$files"; exit 1; }
	.ci/each $(GO) vet ./...
	.ci/each $(GO) vet -tags integration ./...
	cd test/chaos && $(GO) vet -tags chaos ./...
	.ci/each $(GO) run $(STATICCHECK) -tags integration ./...
