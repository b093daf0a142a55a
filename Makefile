# The commands of the project. Those that need packages build .venv first; `make gpu` uses the Python it is given.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
DEMO_OUT ?= tamt-demo
RESULTS ?= results

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench cpu kernels gpu wheel clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## filter a synthetic vowel sequence and draw pictures of it
	$(BIN)/tamt demo --out $(DEMO_OUT)

test: lint  ## lint, type check and run all tests
	$(BIN)/python -m pytest tests --ignore=tests/interpreter -n $(WORKERS)
	@# Triton reads TRITON_INTERPRET when a kernel is decorated, hence a process of its own.
	if [ -d tests/interpreter ]; then TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/interpreter -n $(WORKERS); fi

lint: $(STAMP)  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## put the source into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## run the benchmarks on this machine with asv
	$(BIN)/asv machine --yes >/dev/null
	$(BIN)/asv run --python=same --set-commit-hash=$$(git rev-parse HEAD) --show-stderr

cpu: $(STAMP)  ## measure on the CPU what the README reports
	PYTHONPATH=. $(BIN)/python asv_bench/run_device.py --device cpu --out $(RESULTS)/cpu.json

kernels: $(STAMP)  ## compile every GPU kernel at its reference load; registers, code, bytes moved
	PYTHONPATH=. $(BIN)/python asv_bench/kernels.py --out $(RESULTS)/kernels.json

gpu:  ## test and measure on the GPU, with the torch of PYTHON (default python3)
	PYTHONPATH=. $(PYTHON) -m pytest tests --ignore=tests/interpreter -m gpu
	PYTHONPATH=. $(PYTHON) asv_bench/run_device.py --out $(RESULTS)/device-$$(date -u +%Y%m%dT%H%M%SZ).json

wheel: $(STAMP)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove everything the commands above have made
	rm -rf $(VENV) .asv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist $(DEMO_OUT)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
