# Every target sets the environment up first if that is not done yet; `make` alone lists the targets.

# cpu or gpu: which of the two locks the environment holds. What is installed stays chosen.
ACCELERATOR ?= $(if $(wildcard .venv/.locked-gpu),gpu,cpu)
# The interpreter the environment is made from: the first of these that is CPython 3.11.
PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell $(name) -c '$(IS_311) and print("$(name)")' $(QUIET))))
# Where torch's CPU build is looked for when the configured package sources do not have it.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# Processes that share the tests out by file. More want 8 GB each: a test may start two engines.
TEST_PROCESSES ?= 2
# Of the 16 of the shipped sweep, that `make bench` measures with; all of them take two minutes more.
SWEEP_TRIALS ?= 12

QUIET := 2>/dev/null
IS_311 := import sys; sys.version_info[:2] == (3, 11)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCK := requirements/$(ACCELERATOR).txt
TORCH_CPU = $(shell grep '^torch==.*+cpu$$' $(LOCK))
PEER_PIP := .venv-peer/bin/python -m pip --disable-pip-version-check
PEER_LOCK := requirements/peer.txt
PEER_TORCH = $(shell grep '^torch==' $(PEER_LOCK))
# Two stamps, each written last: what an interrupted set-up leaves behind is never taken for an environment.
LOCKED := .venv/.locked-$(ACCELERATOR)
READY := .venv/.ready-$(ACCELERATOR)
PEER_READY := .venv-peer/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint format lock bench bench-peer clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## create .venv from the pinned requirements (ACCELERATOR=gpu for CUDA)

demo: $(READY) ## run the embedded experiment: two arms, a table, a report
	$(BIN)/evenkeel demo

test: $(READY) ## run the tests, without those marked long
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

test-long: $(READY) ## run the tests that take an hour
	$(BIN)/python -m pytest -m long

lint: $(READY) ## check format, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(READY) ## format, and fix what can be fixed
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: $(READY) ## resolve requirements/*.in into the locks again
	$(BIN)/python requirements/lock.py || PIP_EXTRA_INDEX_URL=$(TORCH_CPU_INDEX) $(BIN)/python requirements/lock.py

bench: $(READY) ## measure speed against the bare parts, all but the peer: a quarter of an hour or less
	for name in metrics decide memory sync step staleness; do $(BIN)/evenkeel bench $$name --json runs/bench/$$name.json || exit; done
	$(BIN)/evenkeel bench sweep --trials $(SWEEP_TRIALS) --json runs/bench/sweep.json

bench-peer: $(READY) $(PEER_READY) ## time a step beside TRL's, which gets an environment of its own
	$(BIN)/evenkeel bench peer

clean: ## remove the environment and the caches; runs/ stays
	rm -rf .venv .venv-peer .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock is a full closure, so nothing is resolved; --clear, so that nothing of an earlier try survives.
$(LOCKED): $(LOCK)
	@$(if $(PYTHON),$(PYTHON),false) -c '$(IS_311) or sys.exit(1)' $(QUIET) || \
		{ echo 'Evenkeel needs CPython 3.11: install it, or name it with make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Setting up .venv from $(LOCK): a few minutes and some GB, once.'
	$(PYTHON) -m venv --clear .venv
	$(if $(TORCH_CPU),$(PIP) install --no-deps $(TORCH_CPU) || \
		$(PIP) install --no-deps --extra-index-url $(TORCH_CPU_INDEX) $(TORCH_CPU))
	$(PIP) install --no-deps -r $(LOCK)
	touch $@

$(READY): $(LOCKED) pyproject.toml
	$(PIP) install -qq --no-deps --no-build-isolation --editable .
	touch $@

# Like the other, but for a program that is only compared with.
$(PEER_READY): $(PEER_LOCK)
	@echo 'Setting up .venv-peer from $(PEER_LOCK): a few minutes and 2 GB, once.'
	$(PYTHON) -m venv --clear .venv-peer
	$(PEER_PIP) install --no-deps $(PEER_TORCH) || \
		$(PEER_PIP) install --no-deps --extra-index-url $(TORCH_CPU_INDEX) $(PEER_TORCH)
	$(PEER_PIP) install --no-deps -r $(PEER_LOCK)
	touch $@
