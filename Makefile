# callbackd. `make` lists what there is to do; nothing but Go and make is needed
# for build, run, demo and test.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
REVISION ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
SINKS    := file slack webhook

# The race detector needs a C compiler.
CC_FOUND := $(shell command -v $${CC:-gcc} 2>/dev/null)
RACE     := $(if $(CC_FOUND),-race,)

# Tools, each pinned, built into .tools/ on first use. promtool comes out of
# Debian's prometheus package: it cannot be built from the module proxy alone.
TOOLS             := $(CURDIR)/.tools
BUF_VERSION       := v1.75.0
GOLANGCI_VERSION  := v2.15.0
GOFUMPT_VERSION   := v0.12.0
BENCHSTAT_VERSION := v0.0.0-20260908200009-22c9c6c9d4da
PROTOC_GEN_GO_VERSION      := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
PROMETHEUS_DEB    := prometheus/bookworm
BUF       := $(TOOLS)/buf-$(BUF_VERSION)/buf
GOLANGCI  := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint
GOFUMPT   := $(TOOLS)/gofumpt-$(GOFUMPT_VERSION)/gofumpt
BENCHSTAT := $(TOOLS)/benchstat-$(BENCHSTAT_VERSION)/benchstat
PROTOC_GEN_GO      := $(TOOLS)/protoc-gen-go-$(PROTOC_GEN_GO_VERSION)/protoc-gen-go
PROTOC_GEN_GO_GRPC := $(TOOLS)/protoc-gen-go-grpc-$(PROTOC_GEN_GO_GRPC_VERSION)/protoc-gen-go-grpc
PROMTOOL  := $(TOOLS)/prometheus/usr/bin/promtool

# Python with gRPC, and what generates its stubs, as Debian 12 has them: unpacked
# into .tools/, so that the Python sink is tested with what its users install.
PYTHON_DEBS := $(addsuffix /bookworm,python3.11-minimal libpython3.11-minimal libpython3.11-stdlib \
  python3-grpcio python3-protobuf libprotobuf32 libprotoc32 libprotobuf-dev protobuf-compiler protobuf-compiler-grpc \
  libgrpc29 libabsl20220623 libc-ares2 libre2-9 libsqlite3-0 libexpat1 libffi8 libssl3 openssl)
PYTHON      := $(TOOLS)/python/python3
PYTHON_SINK := plugins/scaffold/python/callbackd_sink
PYTHON_COPY := docs/examples/sink-python/callbackd_sink

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the daemon and the sinks into bin/
	@mkdir -p bin
	go build -ldflags '-X main.version=$(VERSION) -X main.revision=$(REVISION)' -o bin/callbackd ./cmd/callbackd
	@for s in $(SINKS); do \
	  go build -ldflags '-X main.version=$(VERSION)' -o bin/callbackd-sink-$$s ./sinks/$$s; \
	done

.PHONY: run
run: build ## build, then run the daemon on config.hcl
	@exec bin/callbackd run --config config.hcl

.PHONY: demo
demo: build ## send every sample through the daemon and show what each sink received
	@go run ./demo -bin bin

# -count=1: many tests build the programs that they run, which the cache of results does
# not see. It would call a test of another program passed.
.PHONY: test
test: ## run the tests, with the race detector where a C compiler is found
ifeq ($(RACE),)
	@echo "no C compiler was found: running WITHOUT the race detector (install gcc to have it)"
endif
	go test $(RACE) -shuffle=on -count=1 -timeout 15m ./...

.PHONY: lint
lint: $(GOLANGCI) $(GOFUMPT) $(BUF) ## check style, formatting and the protocol definition
	$(GOLANGCI) run ./...
	@out=$$($(GOFUMPT) -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); if [ -n "$$out" ]; then echo "not formatted, run make fmt:"; echo "$$out"; exit 1; fi
	$(BUF) lint
	$(BUF) breaking --against plugins/proto/baseline.binpb

.PHONY: fmt
fmt: $(GOFUMPT) ## format the code
	$(GOFUMPT) -w $$(git ls-files '*.go' | grep -v '\.pb\.go$$')

.PHONY: generate
generate: $(BUF) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) ## make the generated files anew
	PATH=$(dir $(PROTOC_GEN_GO)):$(dir $(PROTOC_GEN_GO_GRPC)):$$PATH $(BUF) generate
	@$(MAKE) --no-print-directory generate-python generate-docs

.PHONY: generate-python
generate-python: $(PYTHON)
	@stage=$$(mktemp -d) && trap 'rm -rf $$stage' EXIT && mkdir $$stage/callbackd_sink && \
	cp plugins/proto/callbackd/sink/v1/sink.proto $$stage/callbackd_sink/ && \
	$(TOOLS)/python/run protoc -I$$stage -I$(TOOLS)/python/usr/include \
	  --plugin=protoc-gen-grpc_python=$(TOOLS)/python/usr/bin/grpc_python_plugin \
	  --python_out=$(dir $(PYTHON_SINK)) --grpc_python_out=$(dir $(PYTHON_SINK)) callbackd_sink/sink.proto
	@mkdir -p $(PYTHON_COPY) && rm -rf $(PYTHON_COPY)/*.py && cp $(PYTHON_SINK)/*.py $(PYTHON_COPY)/

.PHONY: generate-docs
generate-docs: # the settings of the sinks and the rules of the contract, on their pages
	go test ./docs -run '^(TestSettingsOfSinks|TestRulesOfTheContract)$$' -count=1 -update

.PHONY: generated-is-current
generated-is-current: generate
	@git diff --exit-code -- '*.pb.go' '*_pb2*.py' $(PYTHON_COPY) docs/sinks docs/plugin-protocol.md || { echo "generated files were out of date: commit what make generate wrote"; exit 1; }

.PHONY: tidy-is-current
tidy-is-current:
	go mod tidy -diff

# Figures of parts, as benchstat reads them: make bench COUNT=10 >new.txt
BENCH  ?= .
COUNT  ?= 1
PARTS  := ./core/ingest ./core/queue ./core/pipeline ./core/config/expr ./core/event ./core/redact ./plugins/sink ./plugins/host ./sinks/file ./sinks/webhook
.PHONY: bench
bench: ## measure the parts and the process line, for benchstat (BENCH=regexp COUNT=n)
	@go test -run '^$$' -bench '$(BENCH)' -count $(COUNT) -timeout 60m $(PARTS)
	@for i in $$(seq $(COUNT)); do go run ./bench deliver; done

# Figures of the whole, onto their page. BENCHFLAGS has more, such as
# "-rounds 2 -duration 2s -write ''"; go run ./bench -help lists them.
LOADBENCH = go run ./bench -bin bin -write docs/benchmarks.md $(BENCHFLAGS)
.PHONY: bench-load
bench-load: build ## measure accept → file and accept → webhook beside references (8 min)
	$(LOADBENCH) load

.PHONY: bench-backlog
bench-backlog: build ## let 1,000,000 deliveries pile up, and restart over them (10 min)
	$(LOADBENCH) backlog

.PHONY: bench-isolation
bench-isolation: build ## measure a healthy sink beside one that is down, slow, hung … (10 min)
	@mkdir -p bin/bench
	go build -o bin/bench/callbackd-sink-fault ./plugins/sinktest/faultsink/callbackd-sink-fault
	$(LOADBENCH) isolation

.PHONY: soak
soak: build ## 10 min at half of the highest rate: memory, goroutines, open files
	$(LOADBENCH) soak

# SEED repeats the plan of a run: it is the first thing that one prints.
FOR  ?= 1h
SEED ?=
.PHONY: crash
crash: ## kill the daemon and its sinks under load for FOR (default 1h; SEED=n)
	CALLBACKD_CRASH_FOR=$(FOR) CALLBACKD_SEED=$(SEED) go test $(RACE) ./e2e -run '^TestCrashes$$' -count=1 -v -timeout 0

.PHONY: thorough
thorough: ## what make test does little of: faults of disks, damage, kills, 1,000 reloads (1 h)
	CALLBACKD_DISK_FAULTS=1 go test $(RACE) ./core/queue -count=1 -v -timeout 0 -rapid.checks=1000
	CALLBACKD_KILLS=100 CALLBACKD_RELOADS=1000 go test $(RACE) ./e2e -run '^(TestNothingOutlivesAKilledDaemon|TestReloads)$$' -count=1 -v -timeout 0

FUZZTIME ?= 10s
.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME (default 10s) each
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r f; do \
	  grep -o '^func Fuzz[A-Za-z0-9_]*' "$$f" | sed 's/func //' | while read -r t; do \
	    echo "== $$t ($$(dirname "$$f"))"; go test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$f")" </dev/null; \
	  done; done

.PHONY: check
check: generated-is-current tidy-is-current lint build ## what CI runs
	CALLBACKD_PROMTOOL=$(PROMTOOL) CALLBACKD_PYTHON=$(PYTHON) $(MAKE) --no-print-directory $(PROMTOOL) $(PYTHON) test
	@$(MAKE) --no-print-directory demo >bin/demo.log 2>&1 || { cat bin/demo.log; exit 1; }
	@echo "the demo shows what it promises (bin/demo.log)"

.PHONY: tools
tools: $(BUF) $(GOLANGCI) $(GOFUMPT) $(BENCHSTAT) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) $(PROMTOOL) $(PYTHON) ## install the pinned tools into .tools/

.PHONY: clean
clean: ## remove what build made
	rm -rf bin

# install PACKAGE@VERSION into the target's folder
install = GOBIN=$(@D) GOFLAGS= go install $(1)
# The released program where npm can bring it: building it takes minutes.
$(BUF):
	@mkdir -p $(@D)
	@if command -v npm >/dev/null && [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  echo "npm pack @bufbuild/buf-linux-x64@$(BUF_VERSION:v%=%)"; cd $(@D) && \
	  npm pack --silent @bufbuild/buf-linux-x64@$(BUF_VERSION:v%=%) >/dev/null && \
	  tar xzf bufbuild-*.tgz --strip-components=2 package/bin/buf && rm bufbuild-*.tgz; \
	else GOBIN=$(@D) GOFLAGS= go install github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION); fi
$(GOLANGCI):
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION))
$(GOFUMPT):
	$(call install,mvdan.cc/gofumpt@$(GOFUMPT_VERSION))
$(BENCHSTAT):
	$(call install,golang.org/x/perf/cmd/benchstat@$(BENCHSTAT_VERSION))
$(PROTOC_GEN_GO):
	$(call install,google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION))
$(PROTOC_GEN_GO_GRPC):
	$(call install,google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC_VERSION))
$(PROMTOOL):
	@mkdir -p $(TOOLS)/prometheus
	cd $(TOOLS)/prometheus && (apt-get download $(PROMETHEUS_DEB) || { apt-get update -qq && apt-get download $(PROMETHEUS_DEB); }) && dpkg -x prometheus_*.deb . && rm prometheus_*.deb
# run PROGRAM and python3 find their libraries and each other in there.
$(PYTHON):
	@rm -rf $(@D) && mkdir -p $(@D)
	cd $(@D) && (apt-get download $(PYTHON_DEBS) || { apt-get update -qq && apt-get download $(PYTHON_DEBS); }) && for d in *.deb; do dpkg -x $$d .; done && rm *.deb
	@printf '%s\n' '#!/bin/sh' 'root=$$(cd "$${0%/*}" && pwd)' \
	  'export PATH="$$root/usr/bin:$${PATH:-/usr/bin:/bin}" PYTHONDONTWRITEBYTECODE=1' \
	  'export LD_LIBRARY_PATH="$$(echo "$$root"/usr/lib/*-linux-gnu)"' 'exec "$$@"' >$(@D)/run
	@printf '%s\n' '#!/bin/sh' 'exec "$${0%/*}/run" python3.11 "$$@"' >$@.new
	@chmod +x $(@D)/run $@.new && mv $@.new $@
