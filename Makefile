# All set-up happens here: nothing but Python 3.11, make, bash and the package index is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_VENV := .venv-demo
RAY_VENV := .venv-ray

.PHONY: demo test check format soak simulate images bench bench-quality bench-phantoms clean

demo: $(DEMO_VENV)/ready  ## the real worker on sample recordings, with its own MongoDB and Whisper
	$(DEMO_VENV)/bin/python stt.py demo

test: $(VENV)/ready  ## the whole test suite, in two processes: much of it is waiting
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/ready  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

soak: $(VENV)/ready $(RAY_VENV)/ready  ## hundreds of kills and failovers; takes a while
	$(BIN)/python -m pytest tests/soak --soak

images:  ## the worker's and the server's container image, with docker, podman or buildah
	deploy/docker/build.sh

SEEDS ?= 1000
simulate: $(VENV)/ready  ## whole runs in virtual time under faults, each decided by a seed
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

bench: $(VENV)/ready  ## speed, memory and load on MongoDB, beside a bare loop of requests.post
	$(BIN)/python -m tests.benchmarks

bench-quality: $(VENV)/ready  ## word error rates beside the model on the whole recording
	$(BIN)/python -m tests.benchmarks.quality

bench-phantoms: $(VENV)/ready  ## what the filter leaves of noise, and what it costs of speech
	$(BIN)/python -m tests.benchmarks.phantoms

$(VENV)/ready: requirements.txt requirements-local.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(DEMO_VENV)/ready: requirements.txt requirements-local.txt
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-local.txt
	touch $@

$(RAY_VENV)/ready: requirements.txt requirements-local.txt requirements-ray.txt
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-ray.txt
	touch $@

clean:  ## forget the environments and the local data
	rm -rf $(VENV) $(DEMO_VENV) $(RAY_VENV) .stt
