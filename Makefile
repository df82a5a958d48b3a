# make demo    install everything into .venv, do the whole study on the embedded model, and write reports/report.html
# make check   install, then lint, types and the fast tests: for every save
# make test    install, then every check
# make smoke   the whole workflow on a study that means nothing: a minute
# make extras  install the tools of the exports and of the documentation site
# make findings  make docs/findings.md, its figures and the README's opening anew from the committed tables
# make docs    build the documentation site in site/, without a warning
# make help    print these lines

.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --profile profiles/demo
# Two workers: while the tests of one wait, those of the other go on. A file's tests share fixtures and a worker.
PYTEST := $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo check test lint types fast smoke findings docs extras packages

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: .venv/installed
	@started=$$(date +%s) && $(SNAKEMAKE) && \
	echo "whole demo: $$(($$(date +%s) - started)) s; the report is at reports/report.html"

check: lint types fast

test: lint types .venv/installed
	$(SNAKEMAKE) --lint
	$(PYTEST)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow

types: .venv/installed
	$(BIN)/mypy

fast: .venv/installed
	$(PYTEST) -m "not slow"

smoke: .venv/installed
	$(BIN)/snakemake --directory .test

findings: .venv/installed
	$(BIN)/python docs/findings/remake.py

docs: .venv/extras
	$(BIN)/zensical build --clean --strict

# The tools that studies are exported to, the documentation site's, and those that check the repository's own files.
extras: .venv/extras

# For root on Debian: a browser and a Slurm for the tests that need them. Where they cannot be had, those are skipped.
packages:
	.ci/packages

.venv/extras: .venv/installed requirements-extras.txt
	$(BIN)/pip install --quiet -r requirements-extras.txt
	@touch $@

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is Python %d.%d; give make PYTHON=<3.11 or later>" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
