"""Kernels behind the operators: one stem per operator, one file per backend."""
