# Everything a person types. `make` alone lists the targets; each explains itself after `##`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint report bench bench-search

PYTHON ?= $(firstword $(shell command -v python3.11) python3)
BIN := .venv/bin
STAMP := .venv/.installed

# `make demo` and `make up` share one home, so that the page shows the demo's search.
ESPALIER_HOME ?= $(CURDIR)/.espalier
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install the pinned dependencies, once

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@PYTHON="$(PYTHON)" tests/install_system_packages.sh setup
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the pinned dependencies into .venv (minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## Run one real search from spec to exported file, in a terminal
	@ESPALIER_HOME="$(ESPALIER_HOME)" $(BIN)/espalier demo

up: $(STAMP) ## Start the service with its workers and web pages
	@ESPALIER_HOME="$(ESPALIER_HOME)" $(BIN)/espalier up

test: $(STAMP) ## Run every test, with real PostgreSQL, Redis and a browser
	@tests/install_system_packages.sh test
	@$(BIN)/python -m pytest

lint: $(STAMP) ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases --follow-imports=silent $(wildcard benchmarks/*.py benchmarks/report/*.py benchmarks/searching/*.py)
	$(BIN)/lint-imports

report: $(STAMP) ## Regenerate docs/report from real trainings, in hours; ARGS=--quick: in minutes, into build/report
	@tests/install_system_packages.sh setup
	@$(BIN)/python -m benchmarks.report $(ARGS)

bench: $(STAMP) ## Measure what the README's figures come from; results go to benchmarks/results
	@for name in $(filter-out budget_gains full_space rungs,$(basename $(notdir $(wildcard benchmarks/*.py)))); do echo "== $$name"; $(BIN)/python -m "benchmarks.$$name"; done

bench-search: $(STAMP) ## Replay every sampler on a recorded table, in minutes; ARGS='--only tpe': that one alone
	@$(BIN)/python -m benchmarks.search $(ARGS)
