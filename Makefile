# make demo   install everything into .venv and run the whole study on the embedded model
# make check  install, then lint, types and the fast tests: for every save
# make test   install, then every check
# make extras install the tools of the exports and of the documentation site

PYTHON ?= python3
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --profile profiles/demo

.PHONY: demo check test extras

demo: .venv/installed
	@started=$$(date +%s) && $(SNAKEMAKE) && $(SNAKEMAKE) --report reports/report.html && \
	awk 'FNR == 2 { printf "%s: %.0f s, peak memory %.0f MB\n", FILENAME, $$1, $$3 }' \
		logs/train_model/tiny-*.benchmark.tsv logs/rl_run/tiny.benchmark.tsv && \
	echo "whole demo: $$(($$(date +%s) - started)) s" && echo "the report is at reports/report.html"

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -m "not slow"

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SNAKEMAKE) --lint
	$(BIN)/snakefmt --check workflow
	$(BIN)/pytest -q

# The tools that studies are exported to, the documentation site's, and those that check the repository's own files.
extras: .venv/extras

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
