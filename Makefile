# Everything here runs on a fresh machine with Python >= 3.10, a C compiler and make; `make help` lists it.
#
#   VENV    folder of the virtual environment. Empty (`make gpu-check VENV= PYTHON=python3`): nothing is created or
#           installed, PYTHON runs as it is with this folder on its path. For machines that bring their own packages.
#   PYTHON  interpreter that makes the environment; by default the first one on the path that is new enough.
#   TORCH   what `pip install` is asked for before anything else. pip prefers a `+cpu` build of that version where it
#           sees one; TORCH_FLAGS='--index-url URL' points it to the index of CPU builds where it does not.

VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_FLAGS ?=
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
WORKERS ?= auto
ARGS ?=

ifeq ($(strip $(VENV)),)
PY = $(PYTHON)
compile :=
dev :=
peers :=
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
else
PY := $(VENV)/bin/python
compile := $(VENV)/.compile
dev := $(VENV)/.dev
peers := $(VENV)/.peers
endif

PIP := $(PY) -m pip --disable-pip-version-check install --quiet
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint format bench gpu-check oldest parser clean distclean

help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(compile)  ## Export the shipped model, prove it, run it event by event, and time it.
	$(PY) -m benchmarks.demo $(ARGS)

test: $(dev)  ## Run the tests that take seconds each.
	$(PYTEST) -n $(WORKERS) --maxprocesses 4 $(ARGS)

test-slow: $(dev)  ## Run the tests that take minutes each: long streams, training.
	$(PYTEST) -m slow $(ARGS)

lint: $(dev)  ## Check style, formatting and types; changes nothing.
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(dev)  ## Put every file into the house format.
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(peers)  ## Time single events against other stacks and the floor; ARGS=--quick for a short look.
	$(PY) -m benchmarks.step_latency $(ARGS)

gpu-check: $(compile)  ## Run everything that needs a CUDA device and report what held.
	$(PY) -m benchmarks.gpu_check $(ARGS)

oldest:  ## Give the tests a Python 3.10 with nothing but numpy, where there is one.
	@set -e; if test -e .venv-3.10/.numpy; then exit 0; fi; \
	for p in python3.10 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.10.*/bin/python; do \
	  if $$p -c '' 2>/dev/null; then \
	    $$p -m venv .venv-3.10; \
	    .venv-3.10/bin/python -m pip --disable-pip-version-check install --quiet numpy; \
	    touch .venv-3.10/.numpy; exit 0; \
	  fi; \
	done; echo 'no Python 3.10 here: the tests check the syntax of runtime for it, not its imports'

parser: $(dev)  ## Give the tests TensorRT for RTX (95 MB), which reads and builds trt graphs without a GPU.
	@$(PIP) --no-build-isolation --editable '.[trt-check]' || { \
	  echo 'TensorRT for RTX does not install here: the tests that need it are skipped, and say so'; exit 1; }

clean:  ## Remove caches and build products; the environments stay.
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean  ## Remove the environments too.
	rm -rf .venv-3.10 $(VENV)

# The environment. Each stamp is one installation that succeeded; a change of pyproject.toml checks them again, and
# what is already installed is neither fetched nor built again.
ifneq ($(strip $(VENV)),)
$(VENV)/bin/pip:
	@test -n '$(PYTHON)' || { echo 'error: no Python >= 3.10 found; install one or say make PYTHON=/path/to/python3' >&2; exit 2; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo 'error: python3 cannot make environments here; on Debian: apt install python3-venv' >&2; exit 2; }

$(VENV)/.torch: | $(VENV)/bin/pip
	@echo 'installing $(TORCH)'
	@$(PIP) 'setuptools>=77'
	@$(PY) -m pip show --quiet torch 2>/dev/null || $(PIP) $(TORCH_FLAGS) '$(TORCH)'
	@touch $@

$(VENV)/.compile $(VENV)/.dev: $(VENV)/.%: pyproject.toml $(VENV)/.torch
	@echo 'installing neurocompile[$*]'
	@$(PIP) --no-build-isolation --editable '.[$*]'
	@touch $@

# One by one: what does not install here is left out, and the report says so.
$(VENV)/.peers: $(VENV)/.compile
	@$(PY) -I -c 'from importlib.metadata import requires; print(*(r.split(";")[0].strip() for r in requires("neurocompile") if "peers" in r.partition(";")[2]), sep="\n")' \
	  | while read -r peer; do echo "installing $$peer"; $(PIP) "$$peer" || echo "$$peer does not install here"; done
	@touch $@
endif
