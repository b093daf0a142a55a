"""The operations in plain torch: the oracle, and the path of every device without Triton kernels."""
