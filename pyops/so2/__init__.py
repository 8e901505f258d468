"""Rotations: equivariant operators on irreducible representations of O(3), in e3nn's conventions."""

# tensor products, spherical harmonics

# frames, Wigner matrices, SO(2) convolutions
from .convolution import edge_block, so2_linear, weight_shapes
from .rotation import edge_order, frame_order, rotate, rotate_back, wigner, wigner_dense

__all__: list[str] = [
    # frames, Wigner matrices, SO(2) convolutions
    "edge_block", "edge_order", "frame_order", "rotate", "rotate_back", "so2_linear", "weight_shapes", "wigner", "wigner_dense",
]  # fmt: skip
