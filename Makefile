# Needs nothing but Python 3.11 or later, make, bash and the package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RAY_VENV := .venv-ray
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
SEEDS ?= 1000

.DEFAULT_GOAL := help
.PHONY: help install demo test check format docs simulate soak images bench bench-material bench-quality bench-phantoms clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/local  ## install the worker and the embedded stack into .venv, for your own recordings

demo: $(VENV)/local  ## transcribe sample recordings with an embedded MongoDB and Whisper server
	$(BIN)/python stt.py demo

test: $(VENV)/ready  ## run the test suite, in four processes because much of it is waiting
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

check: $(VENV)/ready  ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/ready  ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/ready  ## generate docs/configuration.md
	$(BIN)/python -m docs.generate > docs/configuration.md

simulate: $(VENV)/ready  ## simulate runs under faults: make simulate SEEDS=20000
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

soak: $(VENV)/ready $(RAY_VENV)/ready  ## hundreds of kills and failovers on the real parts; takes up to an hour
	$(BIN)/python -m pytest tests/soak --soak -n 2 --dist worksteal

images:  ## build the images of the worker and the server with docker, podman or buildah
	deploy/docker/build.sh

bench: $(VENV)/ready  ## measure speed, memory and load on MongoDB beside a bare loop of requests
	$(BIN)/python -m tests.benchmarks

bench-material: $(VENV)/ready  ## bring real recordings for the two benchmarks below (1 GB)
	$(BIN)/python -m tests.benchmarks.material --bring

bench-quality: $(VENV)/ready  ## measure word error rates beside the model on the whole recording
	$(BIN)/python -m tests.benchmarks.quality

bench-phantoms: $(VENV)/ready  ## measure what the hallucination filter drops of noise and of speech
	$(BIN)/python -m tests.benchmarks.phantoms

clean:  ## remove the virtual environments and the data of the demo
	rm -rf $(VENV) $(RAY_VENV) .stt/demo

# One environment for the demo and for your own recordings; the tests add their packages to it.

$(VENV)/local: requirements.txt requirements-local.txt | $(BIN)/python
	@echo "Installing the worker and the embedded stack into $(VENV) (once, about 1 GB) …"
	$(INSTALL) -r requirements-local.txt
	touch $@

$(VENV)/ready: requirements.txt requirements-local.txt requirements-dev.txt | $(BIN)/python
	@echo "Installing everything that the tests need into $(VENV) …"
	$(INSTALL) --quiet -r requirements-dev.txt
	touch $@ $(VENV)/local

$(RAY_VENV)/ready: requirements.txt requirements-local.txt requirements-ray.txt
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-ray.txt
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is required: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
