"""Triton kernels and their launchers, one stem per operation. The only place in tamt that imports triton."""
