"""Sparse aggregation kernels: references, numba and Triton paths."""
