"""Benchmarks by operation and module. asv runs them; ``asv_bench/cpu.py`` runs them where there is no asv."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("asv_bench") is None:  # asv knows this folder alone, as "benchmarks"
    sys.path.append(str(Path(__file__).parents[2]))  # at the end, so that tamt is the installed one
