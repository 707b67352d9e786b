# Two commands do everything: `make demo` runs the main job, `make test` proves it. Both make the environment they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format lint types imports slow bench clean help

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(STAMP)  ## the main job on synthetic CT: make scans, train, segment, judge, report (about 4 minutes on 2 cores)
	$(BIN)/hilum demo --out demo

test: $(STAMP) check  ## style, types, imports and all quick tests
	$(BIN)/python -m pytest

check: lint types imports  ## ruff, mypy and the import rule

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

format: $(STAMP)  ## mend style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

slow: $(STAMP)  ## the tests that take minutes: the demo's scores, real CT
	$(BIN)/python -m pytest -m slow

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# A second call is quick: the stamp is newer than what it depends on. Debian splits venv off Python; root gets it installed.
$(STAMP): pyproject.toml hatch_build.py src/hilum/inference/winograd/native.c
	@if ! test -x $(BIN)/pip; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hilum needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	  $(PYTHON) -c 'import ensurepip' 2>/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; } || \
	    { echo "Python's venv is missing; run: apt-get install python3-venv" >&2; exit 1; }; \
	  $(PYTHON) -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)
