# Every command that people and machines run here; `make help` lists them. CI has no commands of its own.
.DEFAULT_GOAL := help
CARGO ?= cargo
PROGRAMS := -p outrigger-proxy -p outrigger-init -p outrigger-controller --bins

# Tools that cargo installs live below target/: nothing of the user's own is touched.
TOOLS := target/tools
DENY_VERSION := 0.20.2
DENY := $(TOOLS)/cargo-deny-$(DENY_VERSION)

# Conformance suites that other people wrote, pinned with their hashes in tests/go and tests/python.
H2SPEC := $(TOOLS)/h2spec
GRPC_INTEROP := $(TOOLS)/grpc-interop-client $(TOOLS)/grpc-interop-server
AUTOBAHN := $(TOOLS)/autobahntestsuite-25.10.1
GO := PATH="$$PATH:/usr/local/go/bin" GOTOOLCHAIN=local GOFLAGS="-mod=readonly -buildvcs=false" go

# What runs often in the benches, as `make profile` has learnt it. The names in it are those of one toolchain, one Cargo
# profile and one target, which is always named: so a program that learns and one that has learnt are built alike. It holds
# what never runs too, or that would not be built to be small.
PROFILE := benches/proxy.profdata.xz
PGO := target/pgo
# Another one has another name, or Cargo would not build anew.
LEARNT = $(abspath $(PGO))/$(shell sha256sum $(PROFILE) | cut -c1-12).profdata
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
LLVM = $(shell rustc --print sysroot)/lib/rustlib/$(HOST)/bin
GUIDED = $(CARGO) build --locked --quiet --release -p outrigger-proxy --target $(HOST) --target-dir $(PGO)
GUIDE = $(if $(filter x86_64-unknown-linux-gnu,$(HOST)),-Cprofile-use=$(LEARNT))

.NOTPARALLEL:
.PHONY: help try test check lint deny docs-check unit e2e suites fuzz bench release guided profile docs audit image setup setup-suites programs root

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

try: setup ## Run a mesh on this machine until Ctrl-C, as root (ONCE=1: check every step and end)
	$(CARGO) build --locked --quiet $(PROGRAMS)
	$(CARGO) run --locked --quiet -p outrigger-e2e --bin try -- $(if $(ONCE),--once)

test: root setup check unit e2e ## Everything that decides whether a change is good, as root

check: lint deny docs-check ## Formatting, lints, licences, documentation: all that runs nothing of ours

unit: ## Tests of one process or one namespace: units, properties, fuzz seeds, floors, documents, budgets
	$(CARGO) test --locked --no-fail-fast --workspace --exclude outrigger-e2e

e2e: root setup suites programs ## Two pods and a control plane in network namespaces, as root
	$(CARGO) test --locked --no-fail-fast -p outrigger-e2e

suites: setup-suites $(H2SPEC) $(GRPC_INTEROP) $(AUTOBAHN) ## The conformance suites that e2e runs through a pair of proxies

fuzz: ## Every fuzz target for a minute, with libFuzzer (SECONDS=n, TARGET=one of them)
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz and a nightly toolchain are needed:" \
	  "cargo install --locked cargo-fuzz && rustup toolchain install nightly" >&2; exit 69; }
	@for target in $(or $(TARGET),$(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))); do \
	  $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(or $(SECONDS),60) || exit 1; \
	done

bench: root setup guided ## Measure against the bare pair, HAProxy and nginx, as root (QUICK=1: a few minutes)
	$(CARGO) build --locked --quiet --profile bench -p outrigger-benches -p outrigger-init -p outrigger-controller --bins
	cp $(PGO)/$(HOST)/release/outrigger-proxy target/release
	target/release/bench run $(if $(QUICK),--seconds 1 --repeat 2)
	target/release/bench greeting
	target/release/bench growth $(if $(QUICK),--seconds 1 --sizes 1,100)
	target/release/bench scale $(if $(QUICK),--seconds 1)

release: guided ## The programs in target/release as the image has them
	$(CARGO) build --locked --quiet --release -p outrigger-init -p outrigger-controller --bins
	cp $(PGO)/$(HOST)/release/outrigger-proxy target/release

guided: $(LEARNT)
	RUSTFLAGS="$(RUSTFLAGS) $(GUIDE)" $(GUIDED)

$(LEARNT): $(PROFILE)
	mkdir -p $(@D) && xz -dc $< > $@.new && mv $@.new $@

profile: root setup ## Learn anew what runs often in the benches (20 minutes): after much has changed, or the toolchain has
	rustup component add llvm-tools
	$(CARGO) build --locked --quiet --profile bench -p outrigger-benches -p outrigger-init -p outrigger-controller --bins
	rm -rf $(PGO)/raw $(PGO)/train
	mkdir -p $(PGO)/train && mkdir -m 1777 $(PGO)/raw
	RUSTFLAGS="-Cprofile-generate=$(abspath $(PGO)/raw)" $(GUIDED)
	cp $(addprefix target/release/,bench load app outrigger outrigger-init) $(PGO)/train
	cp $(PGO)/$(HOST)/release/outrigger-proxy $(PGO)/train
	$(PGO)/train/bench run --only ours --seconds 1 --repeat 1 --out $(PGO)/train.json
	$(LLVM)/llvm-profdata merge -o $(PGO)/all.profdata $(PGO)/raw
	xz -9e -c $(PGO)/all.profdata > $(PROFILE)

docs: ## Rewrite the generated documents
	UPDATE_DOCS=1 $(CARGO) test --locked -p outrigger-proxy --test configuration --test metrics

audit: $(DENY) ## Known vulnerabilities of what we depend on (fetches the advisory database)
	$(DENY) check advisories

image: ## The container image, with docker or what ENGINE names
	$(or $(ENGINE),docker) build -t outrigger:$(or $(TAG),dev) .

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

deny: $(DENY)
	$(DENY) check --hide-inclusion-graph bans licenses sources

# The documents that are printed from the code are compared by tests in `unit`.
docs-check:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet

# Unoptimized: it builds in a fifth of the time, and our graph is small.
$(DENY):
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --quiet --locked --debug cargo-deny --version $(DENY_VERSION) \
	  --root $(TOOLS)/root --target-dir $(TOOLS)/build
	mv $(TOOLS)/root/bin/cargo-deny $@ && rm -rf $(TOOLS)/build $(TOOLS)/root

$(H2SPEC): tests/go/go.mod tests/go/go.sum
	mkdir -p $(TOOLS) && cd tests/go && $(GO) build -o $(abspath $@) github.com/summerwind/h2spec/cmd/h2spec

$(TOOLS)/grpc-interop-%: tests/go/go.mod tests/go/go.sum
	mkdir -p $(TOOLS) && cd tests/go && $(GO) build -o $(abspath $@) google.golang.org/grpc/interop/$*

# It is written for Python 2: `tests/apps/autobahn.py` reads its cases, nothing of it is installed.
$(AUTOBAHN): tests/python/suites.txt
	mkdir -p $(TOOLS) && /usr/bin/python3 -m pip --quiet download --no-deps --no-binary :all: --no-build-isolation \
	  --require-hashes -r $< --dest $(TOOLS)
	tar -C $(TOOLS) --no-same-owner -xzf $@.tar.gz && touch $@

# Network namespaces and iptables need root. Without it nothing is skipped: `make check` and most of `make unit` still run.
root:
	@[ "$$(id -u)" -eq 0 ] || { echo "This needs root, for network namespaces and iptables: sudo -E env \"PATH=\$$PATH\" make test" >&2; exit 69; }

setup:
	@tests/setup.sh

setup-suites:
	@tests/setup.sh suites

programs:
	$(CARGO) build --locked $(PROGRAMS)
