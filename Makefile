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
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "make %-21s %s\n", $$1, $$2 }'

.PHONY: demo
demo: .venv/.installed ## exactly once, shown: a million records through a job that is killed three times
	$(BIN)/headrace demo $(ARGS)

# Where a crash of the interpreter in a test is told of, which is shown at the end of the output.
CRASH := build/crash.txt
KEPT := HEADRACE_TEST_CRASH=$(CRASH)

# Both Kafka clients are tested: everything with the native one, and what speaks Kafka again with the pure one, but for
# what stands on what is tested there anyway: commands, lanes, and how a start decides. With ARGS, or with
# HEADRACE_CLIENT=pure or native, there is one run, of everything.
.PHONY: test
test: .venv/.installed ## all tests but the long ones: unit, on real Kafka, a selection of crashes, the docs' snippets
ifneq ($(ARGS)$(HEADRACE_CLIENT),)
	$(BIN)/pytest $(ARGS)
else
	@mkdir -p build; rm -f $(CRASH)
	@if $(BIN)/python -c 'from headrace.kafka.client.native import NativeClient; NativeClient()' 2>/dev/null; then \
		set -x; $(KEPT) HEADRACE_CLIENT=native $(BIN)/pytest && \
		$(KEPT) HEADRACE_CLIENT=pure $(BIN)/pytest tests/kafka tests/crash \
			$(addprefix --ignore tests/kafka/test_,native.py broker.py check.py demo.py dlq.py kafka_cli.py) \
			$(addprefix --ignore tests/crash/test_,kafka_cli.py lanes.py markers.py replays.py starts.py); \
	else \
		echo 'The native Kafka client is not built here (is there a C compiler?): only the pure one is tested.'; \
		$(KEPT) HEADRACE_CLIENT=pure $(BIN)/pytest; \
	fi || { status=$$?; set +x; ! grep -qs '^Fatal' $(CRASH) || \
		{ head -n 2 $(CRASH); grep -v 'site-packages\|^Extension' $(CRASH) | tail -n 24; }; exit $$status; }
endif

HANGS := -o faulthandler_timeout=7200

.PHONY: test-crash
test-crash: .venv/.installed ## the whole crash suite: every crash point and a hundred random moments (long)
	$(BIN)/pytest tests/crash -m 'full or not full' $(HANGS) $(ARGS)

.PHONY: test-long
test-long: .venv/.installed ## the other long tests: the model's larger worlds, 200 starts and stops, 100,000,000 records
	$(BIN)/pytest tests --ignore tests/crash -m full $(HANGS) $(ARGS)

SANITIZED := build/sanitized
SANITIZERS := -fsanitize=address,undefined

.PHONY: test-native-sanitized
test-native-sanitized: .venv/.installed ## the native client under AddressSanitizer and UndefinedBehaviorSanitizer (Linux, GCC)
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -R src pyproject.toml README.md LICENSE $(SANITIZED)
	rm -f $(SANITIZED)/src/headrace/kafka/client/native/_librdkafka.*.so $(SANITIZED)/src/headrace/common/_row.*.so
	cd $(SANITIZED) && CFLAGS='$(SANITIZERS) -fno-omit-frame-pointer -g -O1' LDFLAGS='$(SANITIZERS)' \
		../../$(BIN)/python -W ignore -c 'from setuptools import setup; setup()' -q build_ext --inplace
	LD_PRELOAD=$$(gcc -print-file-name=libasan.so):$$(gcc -print-file-name=libubsan.so) \
		ASAN_OPTIONS=detect_leaks=0:handle_segv=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		PYTHONMALLOC=malloc PYTHONPATH=$(SANITIZED)/src $(BIN)/python -m pytest -p no:cacheprovider \
		tests/kafka/test_native.py tests/kafka/test_client.py tests/unit/common/test_row_base.py \
		-k 'not memory_is_flat and not pure' $(ARGS)

.PHONY: matrix
matrix: .venv/.installed ## what there is of Flink's Kafka connector, each row with its tests, as docs/matrix.md
	$(BIN)/python tools/matrix.py > docs/matrix.md.new
	mv docs/matrix.md.new docs/matrix.md
	@cat docs/matrix.md

.PHONY: wheel
wheel: .venv/.installed ## a wheel for this platform, with the native client in it, and its test in an environment of its own
	rm -rf dist build/lib* build/bdist* build/wheel
	$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist
	$(UV) venv --quiet --python .uv/bin/python build/wheel
	$(UV) pip sync --quiet --require-hashes --python build/wheel/bin/python requirements/dev.txt
	$(UV) pip install --quiet --no-deps --python build/wheel/bin/python dist/*.whl
	build/wheel/bin/python -c 'import headrace.common._row'
	HEADRACE_CLIENT=native build/wheel/bin/python -m pytest -p no:cacheprovider tests/kafka/test_native.py \
		tests/kafka/test_sink.py $(ARGS)

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

NATIVE := src/headrace/kafka/client/native

.venv/.installed: .venv/.requirements pyproject.toml $(NATIVE)/_librdkafka.pyx $(NATIVE)/librdkafka.h src/headrace/common/_row.pyx
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@
