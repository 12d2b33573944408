# make demo   the whole system on loopback, broken on purpose, judged from the audio
# make test   everything that must hold before a change lands
# make help   the rest

.DEFAULT_GOAL := help
.SHELLFLAGS   := -eu -c
TOOL          := go tool -modfile=tools/go.mod
VERSION       := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
DAEMONS       := director recorder turretsim watchdog
DEBIAN_ROOT   := /var/tmp/tandem-debian12.tar
comma         := ,

.PHONY: help build demo test check unit race search stories fuzz lab lab-full bench bench-search outage soak generate package test-install clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

build: ## all programs, into bin/
	@mkdir -p bin
	@for d in $(DAEMONS); do go build -ldflags '-X tandem/internal/daemon.version=$(VERSION)' -o bin/tandem-$$d ./cmd/$$d; done
	@go build -ldflags '-X tandem/internal/daemon.version=$(VERSION)' -o bin/recctl ./cmd/recctl

demo: build ## the whole system on loopback: breaks it, shows that nothing was lost
	@bin/recctl demo

test: ## everything: set-up, format, vet, static checks, generated code, unit, race, simulation, fuzz smoke, stories, when root the install test
	@tools/setup
	@$(MAKE) --no-print-directory check race sim fuzz build stories
	@[ "$$(id -u)" != 0 ] && echo "the install test wants root: skipped" || $(MAKE) --no-print-directory test-install

check: ## format, vet, static checks, and that generated code is what make generate makes
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) buf lint
	@before=$$(cat api/tandem/v1/*.go api/tandem/v1/*/*.go | sha256sum); $(MAKE) --no-print-directory generate; \
	after=$$(cat api/tandem/v1/*.go api/tandem/v1/*/*.go | sha256sum); \
	[ "$$before" = "$$after" ] || { echo "make generate changes api/: commit what it makes"; exit 1; }

race: ## unit tests and simulations under the race detector
	GORACE=atexit_sleep_ms=0 go test -race -timeout 8m ./...

unit: ## unit tests only, without the race detector
	go test ./...

sim: ## every order of events between directors and voters, within bounds; a site against seeded faults; every rule sabotaged (SEEDS=2000; SEED=7 plays one and shows it)
	go test -count=1 ./internal/authority
	TANDEM_SIM_SEEDS=$(or $(SEEDS),2000) TANDEM_SIM_SEED=$(SEED) TANDEM_SIM_SABOTAGE="$(SABOTAGE)" go test -count=1 -v -timeout 60m -run '^TestSim|^TestNobody' ./director

fuzz: ## every fuzz target for a short while (TIME=3s)
	@tools/fuzz-smoke $(or $(TIME),3s)

search: ## every order of events between two directors and their voters, as far as a quarter of an hour reaches
	go test -count=1 -v -timeout 3h -run 'Search|Sabotage|Heals' ./internal/authority -authority.long

stories: build ## script stories with the real programs, killed and restarted; the lab's short form when root
	TANDEM_BIN=$(CURDIR)/bin go test -count=1 -p 1 -timeout 10m ./cli/stories ./cli/lab

lab: build ## root: break a floor in namespaces in every way, once each (FAULTS="sigkill drain" SEEDS=3 SEED=1)
	bin/recctl lab --seeds $(or $(SEEDS),1) --seed $(or $(SEED),1) $(subst $(comma), ,$(FAULTS))

lab-full: build ## root: the same with 1,000 channels, 300 live legs and 20 seeds, against the promised gaps (hours)
	bin/recctl lab --turrets 250 --legs 300 --targets --seeds $(or $(SEEDS),20) --seed $(or $(SEED),1) $(subst $(comma), ,$(FAULTS))

bench: ## packets in at the socket to bytes in the journal, beside a bare drain and a goroutine a socket
	go test -run '^$$' -bench Intake -benchtime 1x -timeout 20m ./recorder/intake

bench-search: ## the shared catalog with five million calls on a PostgreSQL of its own (CALLS=; some 6 GB in TMPDIR)
	TANDEM_SEARCH_CALLS=$(or $(CALLS),5000000) go test -count=1 -v -timeout 4h -run Database/speed ./recorder/shared

outage: build ## PostgreSQL away for two minutes while a floor trades (LENGTH=2m, TURRETS=60)
	TANDEM_BIN=$(CURDIR)/bin TANDEM_OUTAGE=$(or $(LENGTH),2m) TANDEM_OUTAGE_TURRETS=$(or $(TURRETS),60) \
	go test -count=1 -v -timeout 60m -run DatabaseOutage ./cli/stories

soak: build ## 1,000 turrets with 4 mixes each for ten minutes (TURRETS=, MINUTES=)
	TANDEM_BIN=$(CURDIR)/bin TANDEM_SOAK_TURRETS=$(or $(TURRETS),1000) TANDEM_SOAK_MINUTES=$(or $(MINUTES),10) \
	go test -count=1 -v -timeout 60m -run Soak ./cli/stories

package: ## deb and rpm, into dist/; the same sources give the same bytes (VERSION=1.2.3)
	@rm -rf dist
	@packaging/build

test-install: package ## root: install the packages on three hosts that boot, as docs/install.md says, and break them
	@tools/debian-root $(DEBIAN_ROOT) || echo "no Debian to install on: the tests that want one skip"
	TANDEM_PACKAGES=$(CURDIR)/dist TANDEM_DEBIAN=$(DEBIAN_ROOT) go test -count=1 -v -timeout 12m ./packaging/installtest

generate: ## api/ from its .proto files
	@$(TOOL) buf generate

clean: ## remove what was built
	rm -rf bin dist
