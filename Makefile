# Every command that people and machines run here; `make help` lists them.
.DEFAULT_GOAL := help
CARGO ?= cargo
PROGRAMS := -p outrigger-proxy -p outrigger-init -p outrigger-controller --bins

.PHONY: help try test check e2e fuzz bench docs audit setup programs

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

try: setup ## Run a mesh on this machine until Ctrl-C (ONCE=1: check every step and end)
	$(CARGO) build --quiet $(PROGRAMS)
	$(CARGO) run --quiet -p outrigger-e2e --bin try -- $(if $(ONCE),--once)

test: check ## Everything that decides whether a change is good
	$(CARGO) test --workspace --exclude outrigger-e2e
	$(MAKE) e2e

check: ## Formatting, lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

e2e: setup programs ## Two pods and a control plane in network namespaces, as root
	$(CARGO) test -p outrigger-e2e

fuzz: ## Every parser on random input, for a while
	@echo "fuzz: nothing here yet" >&2; exit 69

bench: ## Measure; prints every row that there is
	$(CARGO) bench -p outrigger-benches

docs: ## Rewrite the generated documents
	UPDATE_DOCS=1 $(CARGO) test -p outrigger-proxy --test configuration --test metrics

audit: ## Known vulnerabilities of what we depend on (needs the advisory database)
	$(CARGO) deny check advisories

setup:
	@tests/setup.sh

programs:
	$(CARGO) build $(PROGRAMS)
