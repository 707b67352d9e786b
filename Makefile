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

# A second call is quick: the stamp is newer than pyproject.toml. Debian splits venv and pip off Python, so both ways in
# are tried before asking for the package.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python -a -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); $(PYTHON) -m virtualenv -q $(VENV); } || \
	  { rm -rf $(VENV); echo "No virtual environment could be made; run: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)
