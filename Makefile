# `make help` lists what can be made.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# sudo does not look where Go's own archive is unpacked.
GO ?= $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go),go)
VERSION ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),devel)

# The version comes from git describe above; stamping again would fail in a checkout of another user.
export GOFLAGS += -buildvcs=false

# Flags for every go test, such as TESTFLAGS=-v.
TESTFLAGS ?=
# How long each fuzz target runs: so many inputs, whatever the machine, or a time such as 5s.
FUZZTIME ?= 20000x
# How long make soak and make soak-load go on.
SOAK ?= 10m
LOADSOAK ?= 1h
# How many clients there are in make storm.
LOADSTORM ?= 10000
# How long the directory is away in make outage.
OUTAGE ?= 5m
# Arguments for postern quickstart in `make run`.
ARGS ?=

DEMO_PACKAGES := iproute2 iputils-ping openvpn slapd ldap-utils
BENCH_PACKAGES := iproute2 iputils-ping openvpn openssl iperf3 ethtool procps tcpdump
TEST_PACKAGES := $(DEMO_PACKAGES) easy-rsa openssl nftables iperf3 tcpdump procps systemd tshark gcc libc6-dev strace

.PHONY: help build run demo bench bench-quick microbench test unit race sim fuzz e2e soak soak-load storm outage interop reproducible vet clean go root

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: go ## bin/postern, one static program
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/postern ./cmd/postern

run: build ## as root: build, make keys and a user in run/quickstart, and serve; ARGS="--endpoint vpn.example.com"
	bin/postern quickstart --dir run/quickstart $(ARGS)

demo: root build ## as root: a directory, a server and a stock client in namespaces, shown step by step
	@deploy/packages $(DEMO_PACKAGES)
	CGO_ENABLED=0 $(GO) build -o bin/ ./cmd/demo ./cmd/lab/depot
	@bin/demo -postern bin/postern -depot bin/depot

bench: root go ## as root: measure beside OpenVPN and wireguard-go, and write docs/benchmarks.md; 35 minutes, on a quiet machine
	@deploy/packages $(BENCH_PACKAGES)
	$(GO) build -o bin/bench ./cmd/bench
	bin/bench -out docs/benchmarks.md

bench-quick: root go ## as root: a little of everything that bench does, in less than three minutes
	@deploy/packages $(BENCH_PACKAGES)
	$(GO) build -o bin/bench ./cmd/bench
	bin/bench -quick

# In turns, so that what else the machine does falls on all alike. Benchmarks compare what their name has behind by=, for what
# it has behind of=.
MICROBENCH_PACKAGES := server/link tun server/datachan server server/firewall
microbench: root go ## as root: each technique of the data path beside its absence, compared by benchstat; two minutes, on a quiet machine
	@deploy/packages iproute2
	@temp=$$(mktemp -d); trap 'rm -rf "$$temp"' EXIT; top=$$PWD; \
	$(GO) build -C cmd/bench/benchstat -o "$$temp/benchstat" golang.org/x/perf/cmd/benchstat; \
	for package in $(MICROBENCH_PACKAGES); do $(GO) test -c -o "$$temp/$${package//\//-}" "./$$package"; done; \
	for turn in {1..10}; do \
		echo "turn $$turn of 10" >&2; \
		for package in $(MICROBENCH_PACKAGES); do \
			cd "$$top/$$package"; \
			"$$temp/$${package//\//-}" -test.run '^$$' -test.bench '/(of|by)=' -test.benchtime 50ms >>"$$temp/results" || { cat "$$temp/results"; exit 1; }; \
		done; \
	done; \
	echo "Postern $(VERSION); $$($(GO) version); Linux $$(uname -r); $$(nproc) CPUs, $$(sed -n '/^model name/{s/.*: //p;q}' /proc/cpuinfo)"; echo; \
	"$$temp/benchstat" -table .name -row '.name,/of' -col /by -ignore pkg,/gomaxprocs \
		-filter '.unit:(ns/packet OR ns/client OR B/s OR allocs/op)' "$$temp/results"

# Every step runs, whatever the others found, and their closing lines come together at the end.
test: root go ## as root: every test there is, installing the Debian packages they need
	@deploy/packages $(TEST_PACKAGES)
	@rm -rf run/test && mkdir -p run/test; result=0; \
	for step in vet race sim fuzz e2e; do \
		echo "== make $$step"; \
		$(MAKE) --no-print-directory $$step 2>&1 | tee run/test/$$step.log || result=1; \
	done; \
	for step in vet race sim fuzz e2e; do \
		echo "== make $$step"; \
		grep -hE '^(ok|FAIL|--- FAIL|panic:|make.*Error)' run/test/$$step.log || [ $$step = vet ] || { echo "nothing ran"; result=1; }; \
	done; \
	[ $$result = 0 ] && echo "== all passed" || echo "== FAILED: the logs are in run/test"; \
	exit $$result

unit: go ## the tests that need neither root nor other programs
	$(GO) test -short $(TESTFLAGS) ./...

# What takes longest begins first. Benchmarks check what they move: each goes around once.
race: go ## as root: all tests but the end-to-end ones, and every benchmark once, with the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 20m -skip '^TestE2E' $(TESTFLAGS) ./tlsctl ./...
	CGO_ENABLED=1 $(GO) test -race $(TESTFLAGS) -run '^$$' -bench . -benchtime 1x ./tlsctl $(addprefix ./,$(MICROBENCH_PACKAGES))

sim: go ## ten thousand clients of all versions over lossy wires, in virtual time
	$(GO) test -count 1 -timeout 20m -run '^TestSimulation$$' $(TESTFLAGS) ./tlsctl

# Each package is built once for all of its targets.
fuzz: go ## every fuzz target for a short time; FUZZTIME=1m for longer
	@bin=$$(mktemp -d); trap 'rm -rf "$$bin"' EXIT; cache=$$($(GO) env GOCACHE)/fuzz; \
	$(GO) list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do \
		grep -qs '^func Fuzz' "$$dir"/*_test.go || continue; \
		$(GO) test -c -fuzz . -o "$$bin/test" $(TESTFLAGS) "$$package"; \
		cd "$$dir"; \
		targets=$$("$$bin/test" -test.list '^Fuzz'); \
		for target in $$targets; do \
			echo "$$target"; \
			"$$bin/test" -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(FUZZTIME) -test.fuzzminimizetime 100x -test.fuzzcachedir "$$cache/$$package" -test.timeout 10m || exit 1; \
		done; \
		echo "ok  	$$package"; \
	done

# Without a -run of yours the soaks come behind the others, and have the machine to themselves: both count what is lost.
SOAKS := ^TestE2E(Load)?Soak$$
E2E = CGO_ENABLED=0 $(GO) test -count 1 -timeout 40m -parallel 4

e2e: go ## as root: the stock openvpn client and slapd against bin/postern in namespaces; TESTFLAGS="-run E2EFloat"
ifneq ($(findstring -run,$(TESTFLAGS)),)
	$(E2E) $(TESTFLAGS) ./cmd/postern
else
	result=0; \
	$(E2E) -run '^TestE2E' -skip '$(SOAKS)' $(TESTFLAGS) ./cmd/postern || result=1; \
	$(E2E) -run '$(SOAKS)' $(TESTFLAGS) ./cmd/postern || result=1; \
	exit $$result
endif

soak: go ## as root: 20 stock clients that renegotiate, roam and restart for SOAK=10m; two minutes of it are in e2e
	CGO_ENABLED=0 SOAK=$(SOAK) $(GO) test -count 1 -timeout 0 -run '^TestE2ESoak$$' -v $(TESTFLAGS) ./cmd/postern

soak-load: go ## as root: hundreds of sessions that come and go and two stock clients in bulk for LOADSOAK=1h; three minutes of it are in e2e
	CGO_ENABLED=0 LOADSOAK=$(LOADSOAK) $(GO) test -count 1 -timeout 0 -run '^TestE2ELoadSoak$$' -v $(TESTFLAGS) ./cmd/postern

storm: go ## as root: LOADSTORM=10000 clients log in, 100 a second, and leave at once, beside others that move data; 300 of them are in e2e
	CGO_ENABLED=0 LOADSTORM=$(LOADSTORM) $(GO) test -count 1 -timeout 0 -run '^TestE2ELoadStorm$$' -v $(TESTFLAGS) ./cmd/postern

outage: go ## as root: the directory is away for OUTAGE=5m while clients renegotiate; twenty seconds of it are in e2e
	CGO_ENABLED=0 OUTAGE=$(OUTAGE) $(GO) test -count 1 -timeout 0 -run '^TestE2ELDAPOutage$$' -v $(TESTFLAGS) ./cmd/postern

interop: root go ## as root: the tests behind docs/compatibility.md, and its tables with how each row went
	@deploy/packages $(TEST_PACKAGES)
	@$(GO) run ./cmd/interop

# Both folders are copies of what is committed, under names of different length, and compile everything.
reproducible: go ## build twice, in two folders and from nothing, and compare the programs
	@temp=$$(mktemp -d); trap 'chmod -R u+w "$$temp"; rm -rf "$$temp"' EXIT; \
	for place in a another/and/longer; do \
		mkdir -p "$$temp/$$place"; \
		git archive HEAD | tar -x -C "$$temp/$$place"; \
		GOCACHE="$$temp/cache" $(MAKE) --no-print-directory -C "$$temp/$$place" build VERSION=$(VERSION); \
		rm -rf "$$temp/cache"; \
	done; \
	sha256sum "$$temp"/a/bin/postern "$$temp"/another/and/longer/bin/postern | sed "s|$$temp/||"; \
	cmp "$$temp"/a/bin/postern "$$temp"/another/and/longer/bin/postern

vet: go ## gofmt and go vet
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l .); [ -z "$$unformatted" ] || { echo "not in gofmt's form: $$unformatted"; exit 1; }
	$(GO) vet ./...

clean: ## remove what was built; run/quickstart stays
	rm -rf bin run/test

go:
	@$(GO) version >/dev/null 2>&1 || { echo "Go is missing: https://go.dev/dl/ (1.26 or newer)"; exit 1; }

root:
	@[ "$$(id -u)" = 0 ] || { echo "this needs root, for network namespaces: sudo make $(MAKECMDGOALS)"; exit 1; }
