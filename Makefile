# Carillon. `make` or `make help` lists all there is.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
SOURCES := kernel store segments templates campaigns reports web workers demo cli tests benchmarks
PYTEST := $(BIN)/python -m pytest
NODE := tests/outside/node/node_modules

# The first Python on the path that is new enough; `make test PYTHON=/path/to/python3.13` chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; \
	done)

.PHONY: help demo test test-data test-laws test-outside faults check format bench migration clean

help: ## List what make can do
	@echo "Carillon: campaigns as code for B2B commerce"
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo
	@echo "The first run makes $(VENV) with Python 3.11 or newer (PYTHON=… chooses one) and installs what it needs."

demo: $(VENV)/.installed ## Run the main job on a made-up wholesaler in .demo/ (KEEP=1 leaves it running)
	@$(BIN)/python -m demo $(if $(filter-out 0 no,$(KEEP)),--keep)

test: $(VENV)/.installed-dev ## Run the tests on SQLite and a real PostgreSQL, Redis, SMTP, HTTP; skips none
	@$(PYTEST) -m "not data and not outside and not faults" -n $(or $(JOBS),4) $(ARGS)

test-data: $(VENV)/.installed-dev ## Run the checks on the real data files (in ../shared/data or $CARILLON_DATA)
	@$(PYTEST) -m data $(ARGS)

test-laws: $(VENV)/.installed-dev ## Try the laws of segments on ten times as many random worlds as make test does
	@CARILLON_TEST_WORLDS=$(or $(WORLDS),10) $(PYTEST) -n $(or $(JOBS),2) tests/integration/test_segments_oracle.py \
	  tests/integration/test_segments_evaluation.py tests/integration/test_segments_incremental.py tests/integration/test_segments_leaves.py $(ARGS)

test-outside: $(VENV)/.installed-dev $(NODE)/.installed ## Let programs nobody here wrote judge what is sent: mailparser, SpamAssassin, Postfix …
	@$(PYTEST) -m outside tests/outside $(ARGS)

faults: $(VENV)/.installed-dev ## Break workers, servers and networks on purpose and judge what is left (ONLY=F1,F5; QUICK=1 for the subset of CI)
	@FAULTS_ONLY="$(ONLY)" FAULTS_QUICK="$(QUICK)" FAULTS_RESULTS=$(if $(QUICK),build,docs)/faults.json \
	  $(PYTEST) tests/faults -n $(or $(JOBS),4) --dist worksteal $(ARGS); \
	  code=$$?; $(if $(QUICK),,$(BIN)/python -m tests.faults.table;) exit $$code

check: $(VENV)/.installed-dev ## Lint, format, types, and the order of the rooms; changes nothing
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "not formatted as agreed: run 'make format'" >&2; exit 1; }
	@order=$$($(BIN)/lint-imports --no-logo) || { echo "$$order"; exit 1; }
	@$(BIN)/mypy

format: $(VENV)/.installed-dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## Measure, and write the figures to benchmarks/results/ (ONLY=send runs one)
	@$(BIN)/python -m benchmarks.run $(ONLY)

migration: $(VENV)/.installed-dev ## Write the next schema revision from store/tables.py (SAYS="what changed")
	@$(BIN)/python -m store.migrations.writing $(if $(SAYS),"$(SAYS)",$(error say what changed: make migration SAYS="orders: a channel column"))
	@$(BIN)/ruff format --quiet store/migrations

clean: ## Remove what the targets above made, the virtual environment too
	rm -rf $(VENV) .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/results $(NODE)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment ---------------------------------------------------------------------------------
# Debian's python3 may come without ensurepip: then the machine's own pip, or uv, fills the environment.

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Carillon needs Python 3.11 or newer; none of python3, python3.11 … python3.14 is. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Carillon needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1)" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $@ install pip 2>/dev/null; } \
	  || { rm -rf $(VENV); uv venv --quiet --seed --python $(PYTHON) $(VENV) 2>/dev/null; } \
	  || { rm -rf $(VENV); echo "cannot make a virtual environment: this Python has no venv module with pip. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing Carillon into $(VENV)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing Carillon and its development tools into $(VENV)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $(VENV)/.installed $@

# --- programs of others, in Node.js: only `make test-outside` wants them ---------------------------------------

$(NODE)/.installed: tests/outside/node/package-lock.json
	@if command -v npm >/dev/null 2>&1; then \
	  echo "installing the npm packages of tests/outside/node" && npm ci --prefix tests/outside/node --silent --no-audit --no-fund --ignore-scripts && touch $@; \
	else echo "npm is not installed; tests that need its packages say so. On Debian and Ubuntu: apt-get install nodejs npm" >&2; fi
