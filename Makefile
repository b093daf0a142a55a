# The commands of the project. Those that need packages build .venv first; `make gpu` uses the Python it is given.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
WORKERS ?= 2
# Versions that pip installs; empty: the newest of everything.
CONSTRAINTS ?= constraints.txt
DEMO_OUT ?= tamt-demo
RESULTS ?= results
# What make bench runs by default; BENCH=. is everything, and takes about half an hour.
BENCH ?= AgainstScipy|importing|Construction|track_graphs|track_float32_error|Growth|Design

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench microbench compare growth accuracy cpu kernels gpu docs wheel clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(addprefix -c ,$(CONSTRAINTS)) -e '.[dev]'
	@touch $@

# The wheels of torchaudio hold libraries for the CUDA build of torch. Without them it imports on the CPU build too, for
# what it has in plain Python, and so does what depends on it.
$(PEERS_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -e '.[peers]'
	$(PEERS)/bin/python -c 'import torchaudio' 2>/dev/null || rm -f $(PEERS)/lib/python3*/site-packages/torchaudio/lib/*.so
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

bench: $(STAMP)  ## run the benchmarks on this machine with asv, and make pages of all runs
	$(BIN)/asv machine --yes >/dev/null
	$(BIN)/asv run --python=same --set-commit-hash=$$(git rev-parse HEAD) --show-stderr -a rounds=1 -a repeat=5 -a warmup_time=0 --bench '$(BENCH)'
	$(BIN)/asv publish

microbench: $(STAMP)  ## time the operators with pytest-benchmark
	$(BIN)/python -m pytest -c asv_bench/microbench/pytest.ini asv_bench/microbench

compare: $(PEERS_STAMP)  ## tamt beside its peers on this machine: table, result file and plot in results/
	PYTHONPATH=. $(PEERS)/bin/python asv_bench/compare.py --out $(RESULTS)/compare-cpu.json
	@if $(PEERS)/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		PYTHONPATH=. $(PEERS)/bin/python asv_bench/compare.py --device cuda --out $(RESULTS)/compare-cuda.json; fi

growth: $(STAMP)  ## time and memory of every module over length, batch and channels
	PYTHONPATH=. $(BIN)/python asv_bench/growth.py --out $(RESULTS)/growth-cpu.json

accuracy: $(STAMP)  ## errors of every module: against AMT's numbers, float32 against float64
	PYTHONPATH=. $(BIN)/python asv_bench/accuracy.py --out $(RESULTS)/accuracy.json

docs: $(STAMP)  ## write docs/performance.md and docs/accuracy.md from the results
	PYTHONPATH=. $(BIN)/python asv_bench/report.py --results $(RESULTS)

cpu: $(STAMP)  ## measure on the CPU what the README reports
	PYTHONPATH=. $(BIN)/python asv_bench/run_device.py --device cpu --out $(RESULTS)/cpu.json

kernels: $(STAMP)  ## compile every GPU kernel at its reference load; registers, code, bytes moved
	PYTHONPATH=. $(BIN)/python asv_bench/kernels.py --out $(RESULTS)/kernels.json

gpu:  ## test and measure on the GPU, with the torch of PYTHON (default python3)
	PYTHONPATH=. $(PYTHON) -m pytest tests --ignore=tests/interpreter -m gpu
	PYTHONPATH=. $(PYTHON) asv_bench/run_device.py --out $(RESULTS)/device-$$(date -u +%Y%m%dT%H%M%SZ).json
	PYTHONPATH=. $(PYTHON) asv_bench/compare.py --device cuda --out $(RESULTS)/compare-cuda.json
	PYTHONPATH=. $(PYTHON) asv_bench/growth.py --device cuda --out $(RESULTS)/growth-cuda.json

wheel: $(STAMP)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove everything the commands above have made
	rm -rf $(VENV) $(PEERS) .asv .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist $(DEMO_OUT)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
