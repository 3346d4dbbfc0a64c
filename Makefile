# Each command sets up what it needs: one virtual environment, .venv, made anew when the
# declared packages change. Behind `make` stands `python -m workbench`, which has --help.

PYTHON ?= python3
PROFILE ?= smoke
NOTEBOOKS ?=
SEED ?= 0

BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers

.PHONY: help setup run test lab bench figures clean
.DEFAULT_GOAL := help

help:
	@echo "make run      run the notebook series headless and print the report card"
	@echo "              (PROFILE=full for the numbers in the texts, NOTEBOOKS=\"06 07\" for some, SEED=0)"
	@echo "make test     lint, types and the test suite"
	@echo "make lab      JupyterLab on the series, for this machine only"
	@echo "make bench    every benchmark side by side"
	@echo "make figures  draw figures/*.json as PNG (needs a Chrome or Chromium)"
	@echo "make setup    only the virtual environment (PYTHON=python3.12 to choose the interpreter)"
	@echo "make clean    remove build/ and caches (the environment: rm -r .venv)"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: '$(PYTHON)' is $$($(PYTHON) --version 2>&1); the workbench needs Python 3.11 or newer:" \
	    "make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv with $$($(PYTHON) --version) (once, some minutes)"
	@$(PYTHON) -m venv .venv || { \
	  echo "make: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,figures]"
	@touch $@

run: $(READY)
	@$(BIN)/python -m workbench run --profile "$(PROFILE)" --notebooks "$(NOTEBOOKS)" --seed "$(SEED)"

# One thread each: two test processes that each take every core would only wait for one another.
test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lab: $(READY)
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 notebooks/00_start_here.ipynb

bench: $(PEERS)
	$(BIN)/python -m benchmarks

$(PEERS): $(READY)
	@echo "adding the packages that the benchmarks stand beside to .venv (once, some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@touch $@

figures: $(READY)
	@$(BIN)/python -m workbench figures

clean:
	rm -rf build .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -r {} +
