# Everything starts here. `make demo` and `make test` need root, Debian 12 and
# Go; each installs what else it needs by package name, and says so.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X connectd/daemon.Version=$(VERSION) -X connectd/daemon.Commit=$(COMMIT)

# Packages whose tests make namespaces and load programs. They may run beside
# one another, but a machine of two cores is then too slow for their deadlines.
SERIAL := ./daemon/e2e/... ./pkg/datapath/... ./pkg/task/docker ./pkg/testutil/docker

# Such as wait half of their time: two at once.
PAIRED := ./daemon ./daemon/demo/... ./scripts/...

# What of the kernel tests runs before a change lands; the others need minutes
# for each kernel without KVM, and are for who changes a hook.
CORE := ^(TestConnect|TestUnconnectedUDP|TestRedirect|TestForward|TestReadyFrontend|TestRefusals|TestServe|TestDirectKeepAlive|TestTerminate|TestRestart)$$

.PHONY: build demo demo-ecs demo-cluster test test-kernels test-kernels-core lint generate generate-check bench fuzz clean help

build: ## bin/connectd, static; needs only Go
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/connectd ./cmd/connectd

demo: ## the whole of connectd at work in namespaces of its own
	scripts/provision.sh demo
	$(MAKE) build
	bin/connectd demo

demo-ecs: ## connectd on an ECS container instance, with a Docker of its own
	scripts/provision.sh demo
	$(MAKE) build
	go run ./scripts/demo-ecs

demo-cluster: ## three nodes that share their services through an AWS of the tests
	scripts/provision.sh demo
	$(MAKE) build
	CGO_ENABLED=0 go build -trimpath -o bin/demo-cluster ./scripts/demo-cluster
	bin/demo-cluster -connectd bin/connectd

test: ## all tests, with the race detector
	scripts/provision.sh test demo generate
	$(MAKE) lint
	@echo "== tests"
	later=$$(go list $(SERIAL) $(PAIRED)); \
	go list ./... | grep -vxF "$$later" | xargs go test -race -count=1 -timeout 10m
	@echo "== tests with programs, namespaces and whole daemons, one package at a time"
	go test -race -count=1 -timeout 25m -p 1 $(SERIAL)
	@echo "== tests with whole daemons, two packages at a time"
	go test -race -count=1 -timeout 25m -p 2 $(PAIRED)
	@echo "== the long churn of connections, which the race detector makes too slow"
	go test -count=1 -timeout 5m -run TestNothingElseIsTerminated ./daemon/e2e
	@echo "== passed: gofmt, vet, shellcheck, and the tests of $$(go list ./... | wc -l) packages"

test-kernels: ## the kernel tests on Linux 5.10, 6.1 and 6.12 under qemu
	scripts/provision.sh kernels
	scripts/kernels.sh

test-kernels-core: ## the core of them
	scripts/provision.sh kernels
	TESTFLAGS='-test.run=$(CORE)' scripts/kernels.sh ./pkg/datapath

lint: ## gofmt, vet, shellcheck
	@echo "== gofmt, vet, shellcheck"
	unformatted=$$(gofmt -l bpf cmd daemon pkg scripts); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:" $$unformatted; exit 1; fi
	go vet ./...
	shellcheck scripts/*.sh .ci/run

generate: ## remake the committed BPF objects and their Go; needs clang
	scripts/provision.sh generate
	go generate ./pkg/datapath

generate-check: ## whether the committed BPF objects are what the source makes
	scripts/provision.sh generate
	scripts/generate-check.sh

bench: ## the numbers of docs/performance.md, in 17 minutes
	scripts/provision.sh bench
	$(MAKE) build
	go run ./scripts/bench -write

fuzz: ## every fuzz target for FUZZTIME (10s)
	scripts/fuzz.sh $${FUZZTIME:-10s}

clean: ## remove what build made
	rm -rf bin

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18
