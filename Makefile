# The doors of the project.  What they need is installed by name from PyPI, into .venv
# (.venv-X.Y for an interpreter chosen with PYTHON=); what they build lies in build/.
#
#   make demo            build, install, and show what it is about
#   make test            the C tests, the Python tests, CPython's pickle tests, the checks of the tree
#   make conformance     CPython's own suites through kinfolk
#   make bench           kinfolk and its peers, side by side in one run
#   make bench-pickle    kinfolk.pickle beside pickle, cloudpickle and MessagePack
#   make lint            clang-format, clang-tidy, ruff, mypy
#   make dev             a quick build; prints the PYTHONPATH that runs it
#   make libkin-test     the C tests alone: no Python headers needed
#   make model           the queue's protocols, searched by spin; ARGS=--long for more
#   make sanitize        the C tests under ASan+UBSan, then under TSan
#   make fuzz-python     hostile pickles for the Unpickler, under ASan, for a minute
#   make fuzz            libFuzzer (clang) on the reader of pickles; ARGS="-max_total_time=3600"
#
#   make test PYTHON=python3.13 ARGS="tests/api -k queue"

PYTHON ?= python3
ARGS ?=

IDENTITY := $(shell $(PYTHON) -c 'import sys; print(sys.base_prefix, *sys.version_info[:3])')
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(VERSION))
BIN := $(CURDIR)/$(VENV)/bin
SOURCES := $(shell find libkin/include libkin/src ext src -type f ! -name '*.pyc') \
    $(shell find . -maxdepth 3 -name meson.build -not -path './build/*') meson.options pyproject.toml
export PATH := $(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test conformance bench bench-pickle lint format dev wheel libkin-test model sanitize fuzz fuzz-python clean FORCE

help:
	@sed -n '/^#   make/s/^# //p' Makefile

# Another interpreter under the same name makes the environment anew.
$(VENV)/.python: FORCE
	@[ "$$(cat $@ 2>/dev/null)" = "$(IDENTITY)" ] || { \
	    rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && echo "$(IDENTITY)" >$@; }

$(VENV)/.tools: $(VENV)/.python tools/requirements.txt
	$(BIN)/pip install -q -r tools/requirements.txt
	@touch $@

$(VENV)/.lint: $(VENV)/.tools tools/requirements-lint.txt
	$(BIN)/pip install -q -r tools/requirements-lint.txt
	@touch $@

# A real wheel, really installed: never editable (see tools/dev for quick builds).
$(VENV)/.wheel: $(VENV)/.tools $(SOURCES)
	@mkdir -p build/wheel-$(VERSION)
	$(BIN)/pip install -q . --no-deps --no-build-isolation --force-reinstall \
	    --config-settings=build-dir=build/wheel-$(VERSION)
	@touch $@

wheel: $(VENV)/.wheel

demo: wheel
	$(BIN)/python examples/demo.py $(ARGS)

test: wheel
	$(BIN)/python tools/run_tests.py $(ARGS)

conformance: wheel
	$(BIN)/python tools/conformance.py $(ARGS)

$(VENV)/.bench: $(VENV)/.tools bench/requirements.txt
	$(BIN)/pip install -q -r bench/requirements.txt
	@touch $@

bench: wheel $(VENV)/.bench
	$(BIN)/python bench/run.py $(ARGS)

bench-pickle: wheel $(VENV)/.bench
	$(BIN)/python bench/pickling.py $(ARGS)

lint: $(VENV)/.lint wheel
	$(BIN)/python tools/lint.py $(ARGS)

format: $(VENV)/.lint
	$(BIN)/python tools/lint.py --fix

dev:
	@tools/dev $(PYTHON)

libkin-test: $(VENV)/.tools
	tools/libkin-test build/libkin $(ARGS)

model: $(VENV)/.python
	$(BIN)/python tools/model $(ARGS)

sanitize: $(VENV)/.tools
	tools/libkin-test build/asan -Db_sanitize=address,undefined
	tools/libkin-test build/tsan -Db_sanitize=thread

fuzz:
	tools/fuzz read_pickle $(ARGS)

$(VENV)/.fuzz: $(VENV)/.tools tests/fuzz/requirements.txt
	$(BIN)/pip install -q -r tests/fuzz/requirements.txt
	@touch $@

fuzz-python: $(VENV)/.fuzz
	tests/fuzz/run $(BIN)/python -max_total_time=60 $(ARGS)

clean:
	rm -rf build .venv .venv-*
