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
# pip compiles all of torch to bytecode, which takes a minute; what is imported is compiled then, and kept.
unexport PYTHONDONTWRITEBYTECODE
DEMO_OUT ?= tamt-demo
TRAIN_OUT ?= tamt-train-demo
RESULTS ?= results
# What lets torch and MKL take no other instructions.
AVX2 := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
# What make bench runs by default; BENCH=. is everything, and takes about half an hour.
BENCH ?= AgainstScipy|importing|Construction|track_graphs|track_float32_error|Growth|Design

.DEFAULT_GOAL := help
.PHONY: help demo train-demo test test-all test-library test-kernels machines lint format bench microbench compare growth \
	accuracy cpu kernels gpu docs html linkcheck wheel clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile $(addprefix -c ,$(CONSTRAINTS)) -e '.[dev]'
	@touch $@

# The wheels of torchaudio hold libraries for the CUDA build of torch. Without them it imports on the CPU build too, for
# what it has in plain Python, and so does what depends on it. torch_amt says it wants Python 3.14, and runs on 3.11.
$(PEERS_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -e '.[peers]'
	$(PEERS)/bin/python -m pip install --quiet --no-deps --ignore-requires-python torch-amt==0.2.0
	$(PEERS)/bin/python -c 'import torchaudio' 2>/dev/null || rm -f $(PEERS)/lib/python3*/site-packages/torchaudio/lib/*.so
	@touch $@

demo: $(STAMP)  ## filter a synthetic vowel sequence and draw pictures of it
	$(BIN)/tamt demo --out $(DEMO_OUT)

# The work of a step is too little for several threads.
train-demo: $(STAMP)  ## train a small classifier of synthetic sounds, and its cochlea with it, on one core of the CPU
	OMP_NUM_THREADS=1 $(BIN)/python examples/train_classifier.py --device cpu --steps 160 --seconds 0.5 --channels 24 \
		--lr 0.01 --report-every 20 --out $(TRAIN_OUT)

# Every part of the tests runs, whatever becomes of the others, two at a time: some of them have work for one core only.
# $(1) is given to each.
PARTS := test-library test-kernels lint html
define all-parts
	@echo "$(PARTS): two at a time, each is shown when it is over"
	@$(MAKE) --no-print-directory --keep-going --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) $(PARTS) $(1)
	@echo "passed: $(PARTS)"
endef
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(if $(MARKS),-m '$(MARKS)')

test: $(STAMP)  ## lint, type check, run the tests, all but the slow ones, and build the documentation
	$(call all-parts)

test-all: $(STAMP)  ## the same with the slow ones: every target and variant is compiled
	$(call all-parts,MARKS='slow or not slow')

test-library: $(STAMP)  ## the tests but for those of kernels in Triton's interpreter
	$(PYTEST) tests --ignore=tests/interpreter

# Triton reads TRITON_INTERPRET when a kernel is decorated, hence a process of their own.
test-kernels: $(STAMP)  ## the tests of kernels in Triton's interpreter
	@if $(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("triton") is None)'; then \
		TRITON_INTERPRET=1 $(PYTEST) tests/interpreter; \
	else echo "kernels are not tested: there is no triton"; fi

machines: $(STAMP)  ## the tests of numbers as other processors would run them, and what is left of their tolerances
	$(BIN)/python tests/machines.py

lint: $(STAMP)  ## check style, formatting and types
	@failed=0; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/ruff format --check . || failed=1; \
	$(BIN)/mypy || failed=1; \
	exit $$failed

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
	$(PEERS)/bin/python -m asv_bench.comparison.run --out $(RESULTS)/compare-cpu.json

growth: $(STAMP)  ## time and memory of every module over length, batch and channels
	$(BIN)/python -m asv_bench.growth --out $(RESULTS)/growth-cpu.json

accuracy: $(STAMP)  ## errors of every module: against AMT's numbers and published values, float32 against float64
	$(BIN)/python -m asv_bench.accuracy --out $(RESULTS)/accuracy.json
	$(BIN)/python -m asv_bench.published --out $(RESULTS)/published.json

docs: $(STAMP)  ## write the pages with figures, docs/performance.md say, from the results
	$(BIN)/python -m asv_bench.report.pages --results $(RESULTS)

# From scratch: what scripts of the gallery give depends on more than the scripts.
HTML_MADE := docs/_build docs/gallery docs/reference/examples docs/reference/generated
html: $(STAMP)  ## build the documentation into docs/_build/html, running its gallery; warnings are errors
	@rm -rf $(HTML_MADE)
	$(BIN)/python -m sphinx -n -W --keep-going -q -j 2 docs docs/_build/html

linkcheck: $(STAMP)  ## ask other servers whether the links of the documentation to them are right
	$(BIN)/python -m sphinx -b linkcheck -D plot_gallery=0 docs docs/_build/linkcheck

cpu: $(STAMP)  ## measure on the CPU what the README reports
	$(AVX2) $(BIN)/python -m asv_bench.cpu --only GammatoneAgainstScipy --out $(RESULTS)/cpu-avx2.json
	$(BIN)/python -m asv_bench.cpu --judge --out $(RESULTS)/cpu.json

kernels: $(STAMP)  ## compile every GPU kernel at its reference load; registers, code, bytes moved
	$(BIN)/python -m asv_bench.kernels.census --out $(RESULTS)/kernels.json

gpu:  ## test and measure on the GPU, with the torch of PYTHON (default python3)
	$(PYTHON) -m asv_bench.gpu

wheel: $(STAMP)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove everything the commands above have made
	rm -rf $(VENV) $(PEERS) .asv .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	rm -rf $(DEMO_OUT) $(TRAIN_OUT) $(HTML_MADE)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
