# `make` lists what there is. Stamps make a second call skip what is already in place.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# Where the demo keeps its files; DEMO_DIR=... runs a second one beside the first.
DEMO_DIR ?= .demo
# More for pytest: make test PYTEST="-k slurm -x"
PYTEST ?=

HPCHUB := $(BIN)/hpchub
PIP := $(BIN)/pip --disable-pip-version-check --quiet
PROXY := node_modules/.stamp

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## The demo ----------------------------------------------------------------------------------------

.PHONY: demo demo-up demo-down demo-install
demo: demo-install ## boot a real Slurm cluster and a hub; Ctrl-C ends both
	@exec $(HPCHUB) demo run --dir $(DEMO_DIR)

demo-up: demo-install ## the same in the background; returns when all is ready
	@$(HPCHUB) demo up --dir $(DEMO_DIR)

demo-down: $(STAMPS)/hub ## stop it
	@$(HPCHUB) demo down --dir $(DEMO_DIR)

# Looks at the machine itself rather than at a stamp: packages can be removed behind our back.
demo-install: $(STAMPS)/hub $(PROXY)
	@$(HPCHUB) demo install

## Checks ------------------------------------------------------------------------------------------

.PHONY: test test-fast coverage lint types audit docs format pictures bench bench-crowd soak
# The tests are compiled once, not by each process of each run. `make clean` takes away what is kept.
test test-fast coverage: export PYTHONDONTWRITEBYTECODE :=
test: $(STAMPS)/dev $(PROXY) ## every test, on the real cluster and in the real browser
	@$(HPCHUB) demo install --for-tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

test-fast: $(STAMPS)/dev $(PROXY) ## tests without cluster or browser, in less than a minute
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not live and not browser and not slow" \
		--hypothesis-profile=quick $(PYTEST)

coverage: $(STAMPS)/dev ## branch coverage of the fast tests
	$(BIN)/python -m pytest -m "not live and not browser" --cov --cov-report=term $(PYTEST)

lint: $(STAMPS)/dev ## ruff, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMPS)/dev ## mypy --strict
	$(BIN)/mypy

audit: $(STAMPS)/audit ## known weaknesses of what is pinned, where the data can be reached
	$(BIN)/python scripts/audit.py $(VENV)/audit/bin/pip-audit

docs: $(STAMPS)/dev ## links and snippets of every page
	$(BIN)/python -m pytest tests/project/test_docs.py $(PYTEST)

format: $(STAMPS)/dev ## rewrite the sources as `lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(STAMPS)/dev $(PROXY) ## random faults while people work: SEED=7 MINUTES=20 RESTARTS=1 SOAK_DIR=.demo
	@$(HPCHUB) demo install
	PYTHONPATH=tests $(BIN)/python -m support.soak --minutes $(or $(MINUTES),20) \
		$(if $(SEED),--seed $(SEED)) $(if $(RESTARTS),--restarts) $(if $(SOAK_DIR),--dir $(SOAK_DIR))

pictures: $(STAMPS)/dev ## take docs/pictures again, from a running demo
	$(BIN)/python scripts/take_pictures.py --dir $(DEMO_DIR)

bench: demo-install ## how fast, how small: a table, and bench/results/
	$(BIN)/python -m bench

# The most servers; with fewer than 4000 everything else is shorter too.
SERVERS ?= 4000
bench-crowd: demo-install ## thousands of servers; SERVERS=100 is quick
	$(BIN)/python -m bench.crowd --servers $(SERVERS)

## What it takes -----------------------------------------------------------------------------------

$(STAMPS)/venv:
	@echo "Making the virtual environment $(VENV)"
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		python=$$(scripts/find-python); \
		"$$python" -m venv --clear $(VENV); \
	fi
	@mkdir -p $(STAMPS)
	@touch $@

# The build tools are pinned as well, so nothing is fetched whose hash is not in requirements/.
$(STAMPS)/hub: requirements/build.txt requirements/hub.txt pyproject.toml $(STAMPS)/venv
	@echo "Installing the hub's Python packages into $(VENV), from requirements/hub.txt"
	@$(PIP) install --require-hashes -r requirements/build.txt -r requirements/hub.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/hub
	@echo "Installing the test tools into $(VENV), from requirements/dev.txt"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(STAMPS)/audit: requirements/audit.txt $(STAMPS)/venv
	@echo "Installing pip-audit into $(VENV)/audit, from requirements/audit.txt"
	@$(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/pip --disable-pip-version-check --quiet install --require-hashes -r requirements/audit.txt
	@touch $@

$(PROXY): package.json package-lock.json
	@command -v npm >/dev/null || scripts/debian-packages nodejs npm
	@echo "Installing configurable-http-proxy into node_modules, from package-lock.json"
	@npm ci --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

.PHONY: lock clean
lock: $(STAMPS)/dev ## compile the pins again; UPGRADE=1 takes the newest versions
	$(BIN)/python scripts/lock.py $(if $(UPGRADE),--upgrade)
	npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund

clean: ## stop the demo; remove all that make has made here (Debian packages stay)
	if [ -e $(DEMO_DIR) ]; then $(HPCHUB) demo down --dir $(DEMO_DIR); fi
	rm -rf $(VENV) node_modules .demo .cache dist .coverage
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find hpchub slurm_magics tests -name __pycache__ -prune -exec rm -rf {} +
