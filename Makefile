# Every command that people and machines run here; `make help` lists them. CI has no commands of its own.
.DEFAULT_GOAL := help
CARGO ?= cargo
PROGRAMS := -p outrigger-proxy -p outrigger-init -p outrigger-controller --bins

# Tools that cargo installs live below target/: nothing of the user's own is touched.
TOOLS := target/tools
DENY_VERSION := 0.20.2
DENY := $(TOOLS)/cargo-deny-$(DENY_VERSION)

.NOTPARALLEL:
.PHONY: help try test check lint deny docs-check unit e2e fuzz bench docs audit image setup programs root

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

try: setup ## Run a mesh on this machine until Ctrl-C, as root (ONCE=1: check every step and end)
	$(CARGO) build --locked --quiet $(PROGRAMS)
	$(CARGO) run --locked --quiet -p outrigger-e2e --bin try -- $(if $(ONCE),--once)

test: root setup check unit e2e ## Everything that decides whether a change is good, as root

check: lint deny docs-check ## Formatting, lints, licences, documentation: all that runs nothing of ours

unit: ## Tests of one process or one namespace: units, properties, fuzz seeds, floors, documents, budgets
	$(CARGO) test --locked --no-fail-fast --workspace --exclude outrigger-e2e

e2e: root setup programs ## Two pods and a control plane in network namespaces, as root
	$(CARGO) test --locked --no-fail-fast -p outrigger-e2e

fuzz: ## Every fuzz target for a minute, with libFuzzer (SECONDS=n, TARGET=one of them)
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz and a nightly toolchain are needed:" \
	  "cargo install --locked cargo-fuzz && rustup toolchain install nightly" >&2; exit 69; }
	@for target in $(or $(TARGET),$(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))); do \
	  $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(or $(SECONDS),60) || exit 1; \
	done

bench: root setup ## Measure against the bare pair, HAProxy and nginx, as root (QUICK=1: a few minutes)
	$(CARGO) build --locked --quiet --profile bench -p outrigger-benches $(PROGRAMS)
	target/release/bench run $(if $(QUICK),--seconds 1 --repeat 2)

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

# Network namespaces and iptables need root. Without it nothing is skipped: `make check` and most of `make unit` still run.
root:
	@[ "$$(id -u)" -eq 0 ] || { echo "This needs root, for network namespaces and iptables: sudo -E env \"PATH=\$$PATH\" make test" >&2; exit 69; }

setup:
	@tests/setup.sh

programs:
	$(CARGO) build --locked $(PROGRAMS)
