# Set-up, the main job and the tests. Every target that needs the environment makes it first.
#
#   make quickstart                 train the embedded base model on this machine, a few minutes on two cores
#   make quickstart ARGS="seed=1"   the same with overrides
#   make install                    only set up
#   make test                       lint, types and tests
#   make lint                       style and types only
#   make format                     write the style that lint asks for
#   make hooks                      let git run the lint before each commit
#   make lock                       write the installed versions to requirements-dev.lock
#   make check-wheel                build a wheel and use it outside the checkout
#   make clean                      remove the environment and build outputs
#
# PIP_ARGS goes to pip. Without an NVIDIA GPU, PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# fetches the much smaller CPU build of torch; PIP_ARGS="-c requirements-dev.lock" takes the locked versions.

PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/zero_rl/tiny.yaml
ARGS ?=
# Processes of the tests, each with one thread: together they keep the cores busy without waiting for each other.
JOBS ?= 2
PIP_ARGS ?=

PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.DELETE_ON_ERROR:
.PHONY: help install quickstart test lint format hooks lock check-wheel clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -15

install: $(INSTALLED)

quickstart: $(INSTALLED)
	$(PY) -m r1rl grpo $(RECIPE) $(ARGS)

test: export OMP_NUM_THREADS = 1
test: lint
	$(PY) -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

lint: $(INSTALLED_DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(INSTALLED_DEV)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

hooks: $(INSTALLED_DEV)
	$(PY) -m pre_commit install

lock: $(INSTALLED_DEV)
	$(PY) scripts/write_lock.py

check-wheel: $(INSTALLED_DEV)
	$(PY) -m pytest -q -m "slow or not slow" tests/test_packaging.py $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'r1rl needs Python 3.11 or newer, and $(PYTHON) is not: run "make $(MAKECMDGOALS) PYTHON=python3.11" (or newer).' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml setup.py | $(PY)
	$(PY) -m pip install --quiet $(PIP_ARGS) -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml setup.py | $(PY)
	$(PY) -m pip install --quiet $(PIP_ARGS) -e ".[dev]"
	@touch $@ $(INSTALLED)
