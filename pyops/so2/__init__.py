"""Rotations: equivariant operators on irreducible representations of O(3), in e3nn's conventions."""

# tensor products, spherical harmonics
from ._harmonics import spherical_harmonics, spherical_harmonics_derivatives, wigner_3j
from ._irreps import Irrep, Irreps
from .tensor_product import TensorProduct, channelwise_instructions, tp_conv

# frames, Wigner matrices, SO(2) convolutions
from .convolution import edge_block, so2_linear, weight_shapes
from .rotation import edge_order, frame_order, rotate, rotate_back, wigner, wigner_dense

__all__ = [
    # tensor products, spherical harmonics
    "Irrep", "Irreps", "TensorProduct", "channelwise_instructions", "spherical_harmonics", "spherical_harmonics_derivatives",
    "tp_conv", "wigner_3j",
    # frames, Wigner matrices, SO(2) convolutions
    "edge_block", "edge_order", "frame_order", "rotate", "rotate_back", "so2_linear", "weight_shapes", "wigner", "wigner_dense",
]  # fmt: skip
