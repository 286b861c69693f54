# `make` lists the targets. Each does the set-up it needs by itself, from Python 3.11 and make alone; what was set up
# is used again until the locks in requirements/ change. Works with GNU make 3.81 (macOS) and later.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first Python that is new enough; `make PYTHON=...` chooses another.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
ARGS ?=
PEERS ?=

BIN := .venv/bin
UV := UV_PYTHON_DOWNLOADS=never .uv/bin/uv
LOCK := UV_CUSTOM_COMPILE_COMMAND='make lock' $(UV) pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "make %-11s %s\n", $$1, $$2 }'

.PHONY: demo
demo: .venv/.installed ## exactly once, shown: a million records through a job that is killed three times
	$(BIN)/headrace demo $(ARGS)

.PHONY: test
test: .venv/.installed ## all tests but the long ones: unit, on real Kafka, a selection of crashes, the docs' snippets
	$(BIN)/pytest $(ARGS)

.PHONY: test-crash
test-crash: .venv/.installed ## the whole crash suite: every crash point and a hundred random moments (long)
	$(BIN)/pytest tests/crash -m 'full or not full' $(ARGS)

.PHONY: lint
lint: .venv/.installed ## style, formatting, and which package may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

.PHONY: types
types: .venv/.installed ## mypy, strict
	$(BIN)/mypy

.PHONY: bench
bench: .venv/.installed ## ratios to a hand-written loop; PEERS=all compares with PyFlink and Flink too
	$(BIN)/python bench/bench.py $(if $(PEERS),--peers $(PEERS)) $(ARGS)

.PHONY: docs
docs: .venv/.installed ## run every snippet of the README and the docs
	$(BIN)/pytest tests/docs $(ARGS)

.PHONY: lock
lock: .uv/.installed ## choose the versions anew and pin them by hash: Python packages, and Kafka's jars
	$(LOCK) --upgrade requirements/uv.in -o requirements/uv.txt
	$(LOCK) --upgrade --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(MAKE) .venv/.installed
	$(BIN)/python tools/lock_kafka.py

# Each stamp is written last, so that a set-up that was interrupted is done again.
.uv/.installed: requirements/uv.txt
	@test -n "$(PYTHON)" || { echo 'Headrace needs Python 3.11 or newer: install it, or name it with make PYTHON=...' >&2; exit 1; }
	$(PYTHON) -m venv --clear .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.requirements: .uv/.installed requirements/dev.txt
	$(UV) venv --quiet --clear --python .uv/bin/python .venv
	$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements/dev.txt
	@touch $@

.venv/.installed: .venv/.requirements pyproject.toml
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@
