"""Rotations: equivariant operators on irreducible representations of O(3), in e3nn's conventions."""

from ._clifford import CliffordAlgebra
from ._egnn import egnn_step
from ._frames import Frames, eigh_small, frame_average, frames
from ._harmonics import spherical_harmonics, spherical_harmonics_derivatives, wigner_3j
from ._irreps import Irrep, Irreps
from ._vector_harmonics import VectorSphericalProduct
from .attention import irreps_attention
from .contraction import SymmetricContraction, SymmetricContractionPlan, symmetric_contraction
from .convolution import edge_block, so2_linear, weight_shapes
from .cp_product import CPTensorProduct
from .frame_product import so2_product_paths, so2_tensor_product
from .gate_norm import gate, inner_product, norm, so2_gate, so2_norm
from .gaunt import gaunt_product
from .hamiltonian import OrbitalBasis, hamiltonian_blocks, hamiltonian_features, hamiltonian_irreps
from .rotation import edge_order, frame_order, rotate, rotate_back, wigner, wigner_dense
from .s2_activation import s2_activation
from .tensor_product import TensorProduct, channelwise_instructions, tp_conv

__all__ = [
    "CPTensorProduct",
    "CliffordAlgebra",
    "Frames",
    "Irrep",
    "Irreps",
    "OrbitalBasis",
    "SymmetricContraction",
    "SymmetricContractionPlan",
    "TensorProduct",
    "VectorSphericalProduct",
    "channelwise_instructions",
    "edge_block",
    "edge_order",
    "egnn_step",
    "eigh_small",
    "frame_average",
    "frame_order",
    "frames",
    "gate",
    "gaunt_product",
    "hamiltonian_blocks",
    "hamiltonian_features",
    "hamiltonian_irreps",
    "inner_product",
    "irreps_attention",
    "norm",
    "rotate",
    "rotate_back",
    "s2_activation",
    "so2_gate",
    "so2_linear",
    "so2_norm",
    "so2_product_paths",
    "so2_tensor_product",
    "spherical_harmonics",
    "spherical_harmonics_derivatives",
    "symmetric_contraction",
    "tp_conv",
    "weight_shapes",
    "wigner",
    "wigner_3j",
    "wigner_dense",
]
