"""Backends of the so2 family."""

from __future__ import annotations

# Operator -> stem of the modules here that hold its reference and other backends.
OPS: dict[str, str] = {
    # tensor products, spherical harmonics
    "spherical_harmonics": "sph",
    "spherical_harmonics_bwd": "sph",
    "spherical_harmonics_jet": "sph",
    "tp_conv": "tp",
    "tp_conv_edge": "tp",
    "sparse_bilinear": "bilinear",
    "symmetric_contraction": "symmetric_contraction",
    # frames, Wigner matrices, SO(2) convolutions
    "so2_wigner": "wigner",
    "so2_rotate": "wigner",
    "so2_rotate_back": "wigner",
    "so2_rotate_outer": "wigner",
    "so3_turn": "wigner",
    "so3_torque": "wigner",
    "so2_conv": "so2_conv",
    "so2_conv_wgrad": "so2_conv",
    "edge_block": "edge_block",
    "edge_block_bwd": "edge_block",
    # eigen-decompositions
    "eigh_small": "eigh_small",
    "eigh_small_bwd": "eigh_small",
}

# On a GPU these run in Triton before the compiled CUDA kernels: products on tensor cores.
TRITON_FIRST = ("edge_block", "edge_block_bwd", "so2_conv", "so2_conv_wgrad")
