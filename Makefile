# nuncio: "make" lists the targets. "make demo" and "make test" install what they need (as root or with sudo).
SHELL       := /bin/bash
.DEFAULT_GOAL := help

VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILD       := build
TOOLS       := $(BUILD)/tools
GO_BUILD    := CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
FUZZTIME    ?= 60s
BENCH       ?= 1,100,1000,10000,100000
SOAK        ?= 30m
SEED        ?=
TESTFLAGS   ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## both programs, into build/
	$(GO_BUILD) -o $(BUILD)/ ./cmd/...

.PHONY: images
images: ## the container images haproxy, registrar, apache and etcd; scripts/images lists the settings
	@VERSION=$(VERSION) scripts/images

.PHONY: packages
packages: ## .deb and .rpm of both programs for amd64 and arm64, into dist/; scripts/packages lists the settings
	@scripts/install-tools $(TOOLS) packages
	@VERSION=$(VERSION) scripts/packages

.PHONY: release
release: ## dist/ for one commit: packages, archives, SBOMs, checksums; RELEASING.md has the steps around it
	@scripts/install-tools $(TOOLS) packages
	@VERSION=$(VERSION) scripts/release

.PHONY: demo
demo: ## the main job on this machine: embedded etcd, real HAProxy, two real Apaches, until Ctrl-C
	@scripts/install-tools $(TOOLS) demo
	@$(MAKE) --no-print-directory -s build
	@scripts/demo $(BUILD)

.PHONY: test
test: tools check ## everything that CI checks: formatting, linters, all tests on real parts with the race detector
	@# All is compiled first, so that tests do not compete with the compiler ("go list -export" compiles and does not link).
	@# Then two packages at a time, the longest first: the tests of cmd/nuncio, deploy and reload mostly wait for processes.
	go list -race -export -test -deps ./... >/dev/null
	NUNCIO_TEST_STRICT=1 go test -race -p 2 -parallel 4 -timeout 20m $(TESTFLAGS) ./cmd/nuncio ./deploy ./reload ./...

.PHONY: check
check: tools ## formatting and linters, vet's analyzers among them
	$(TOOLS)/golangci-lint fmt --diff
	$(TOOLS)/golangci-lint run --allow-parallel-runners ./...

.PHONY: fmt
fmt: tools ## format the code
	$(TOOLS)/golangci-lint fmt

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (60s)
	scripts/fuzz $(FUZZTIME)

.PHONY: soak
soak: tools ## random faults and changes under load for SOAK (30m), each HAProxy; SEED repeats a run
	NUNCIO_TEST_STRICT=1 NUNCIO_TEST_SOAK=$(SOAK) NUNCIO_TEST_SEED=$(SEED) go test -v -count 1 -timeout 0 -run '^TestSoak$$' ./cmd/nuncio

.PHONY: load
load: tools ## 2,000 changes and 20 reloads under load, 5,000 changes of 10,000 instances; NUNCIO_TEST_HAPROXY=PROGRAM tries another HAProxy
	NUNCIO_LOAD_CHANGES=2000 NUNCIO_LOAD_RELOADS=20 NUNCIO_LOAD_RATE=100 NUNCIO_GROWTH_CHANGES=5000 NUNCIO_GROWTH_INSTANCES=10000 NUNCIO_TEST_STRICT=1 \
		go test -v -count 1 -timeout 0 -run '^(TestChangesAndReloadsUnderLoadLoseNothing|TestNothingGrowsWithChanges)$$' ./reload

.PHONY: bench
bench: tools build ## a put to etcd, and a docker run, until traffic follows; sizes in BENCH, storms in NUNCIO_BENCH_RATES, watchers in NUNCIO_BENCH_FANOUT; needs a quiet machine
	NUNCIO_BENCH=$(BENCH) go test -v -count 1 -timeout 0 -run '^(TestBench|TestBenchServices|TestStorm)$$' ./cmd/nuncio
	go test -v -count 1 -timeout 0 -run '^TestFanOut$$' ./watch
	go test -count 1 -timeout 0 -run '^$$' -bench ContainerToTraffic -benchtime 30x ./cmd/nuncio-registrar

.PHONY: golden
golden: tools ## write the golden files and the generated reference again; read the diff before you commit it
	NUNCIO_TEST_STRICT=1 go test ./render ./cmd/... -run Golden -update

.PHONY: tools
tools: ## what the tests need: HAProxy 2.6, 3.0, 3.2 and 3.4, Apache, an etcd server, the linter
	@scripts/install-tools $(TOOLS) test

.PHONY: clean
clean: ## remove build/, and the images that the tests of this clone have built
	rm -rf $(BUILD)
	@docker image ls -q --filter label=nuncio.clone=$(CURDIR) 2>/dev/null | xargs -r docker image rm -f >/dev/null
