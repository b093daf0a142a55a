"""Benchmarks by operation and module. asv runs them; ``asv_bench/run_device.py`` runs them where there is no asv."""
