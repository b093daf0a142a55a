"""The staged run on a GPU, part by part: see :mod:`asv_bench.gpu`."""
