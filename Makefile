# On a fresh machine two commands do everything: `make demo` and `make test`. Both build $(VENV) when it is missing or
# older than what it is built from, so the second time they start at once. Any of these may be given on the command line:
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PIP_FLAGS ?=

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)
# One thread per worker: two workers with a thread for each core would fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)
CODE := $(wildcard src tests benchmarks)

.PHONY: help demo test check lint format picture reference coverage clean

help:
	@echo "make demo      train a small model on the built-in world and let it tell a story"
	@echo "make test      every test, the slow ones too"
	@echo "make check     before a commit: lint and the quick tests, about a minute"
	@echo "make lint      formatting, lint rules and types"
	@echo "make format    format the code"
	@echo "make picture   the longest import chain, and the sizes of files and functions"
	@echo "make reference write docs/settings.md from the settings"
	@echo "make coverage  write docs/coverage.md: what works, and which test says so"
	@echo "make clean     remove $(VENV) and what tools left behind; runs/ stays"

demo: $(VENV)/.core
	$(BIN)/groundup demo

test: $(VENV)/.dev
	$(PYTEST)

check: lint
	$(PYTEST) -q -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

picture: $(VENV)/.core
	$(BIN)/python tests/house/picture.py

reference: $(VENV)/.core
	$(BIN)/python tests/house/reference.py

coverage: $(VENV)/.core
	$(BIN)/python tests/house/capabilities.py

# torch comes first and alone: with it in place, pip has no reason to look for another build of it. setuptools then builds
# groundup without a second, hidden environment.
$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "groundup needs Python 3.11 or newer; $(PYTHON) is older or missing -> make PYTHON=python3.12 ..."; exit 2; }
	@echo "building $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) torch setuptools
	@$(PIP_INSTALL) --quiet --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "adding what the tests need to $(VENV)"
	@$(PIP_INSTALL) --quiet --no-build-isolation -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
