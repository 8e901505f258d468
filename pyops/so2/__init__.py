"""Rotations: equivariant operators on irreducible representations of O(3), in e3nn's conventions."""

from ._harmonics import spherical_harmonics, spherical_harmonics_derivatives, wigner_3j
from ._irreps import Irrep, Irreps
from .attention import irreps_attention
from .convolution import edge_block, so2_linear, weight_shapes
from .frame_product import so2_product_paths, so2_tensor_product
from .gate_norm import gate, inner_product, norm, so2_gate, so2_norm
from .hamiltonian import OrbitalBasis, hamiltonian_blocks, hamiltonian_features, hamiltonian_irreps
from .rotation import edge_order, frame_order, rotate, rotate_back, wigner, wigner_dense
from .s2_activation import s2_activation
from .tensor_product import TensorProduct, channelwise_instructions, tp_conv

__all__ = [
    "Irrep", "Irreps", "OrbitalBasis", "TensorProduct", "channelwise_instructions", "edge_block", "edge_order", "frame_order",
    "gate", "hamiltonian_blocks", "hamiltonian_features", "hamiltonian_irreps", "inner_product", "irreps_attention", "norm",
    "rotate", "rotate_back", "s2_activation", "so2_gate", "so2_linear", "so2_norm", "so2_product_paths", "so2_tensor_product",
    "spherical_harmonics", "spherical_harmonics_derivatives", "tp_conv", "weight_shapes", "wigner", "wigner_3j", "wigner_dense",
]  # fmt: skip
