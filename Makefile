# Two commands for a fresh machine: `make train` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# For example --extra-index-url https://download.pytorch.org/whl/cpu, for torch without CUDA.
PIP_OPTIONS ?=
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_OPTIONS)
# Tests run in this many processes.
JOBS ?= 2

.PHONY: help train test lint types check clean

help:
	@echo "make train   fine-tune the packaged checkpoint on the bundled sample"
	@echo "make test    run the tests"
	@echo "make check   run the tests, lint and strict types"
	@echo "make clean   remove the environment and the caches (not runs/)"

# The constraints file pins what was tested.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[starter,dev]'
	touch $@

train: $(VENV)/installed
	$(BIN)/textune train --data sample --model starter --epochs 8 $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

check: test lint types

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
