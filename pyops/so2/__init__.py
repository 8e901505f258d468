"""Rotations: equivariant operators on irreducible representations of O(3), in e3nn's conventions."""

from ._clifford import CliffordAlgebra
from ._egnn import egnn_step
from ._frames import Frames, eigh3, frame_average, frames
from ._harmonics import spherical_harmonics, spherical_harmonics_derivatives, wigner_3j
from ._irreps import Irrep, Irreps
from ._vector_harmonics import VectorSphericalProduct
from .contraction import SymmetricContraction, SymmetricContractionPlan, symmetric_contraction
from .convolution import edge_block, so2_linear, weight_shapes
from .gaunt import gaunt_product
from .rotation import edge_order, frame_order, rotate, rotate_back, wigner, wigner_dense
from .tensor_product import TensorProduct, channelwise_instructions, tp_conv

__all__ = [
    "CliffordAlgebra", "Frames", "Irrep", "Irreps", "SymmetricContraction", "SymmetricContractionPlan", "TensorProduct",
    "VectorSphericalProduct", "channelwise_instructions", "edge_block", "edge_order", "egnn_step", "eigh3", "frame_average",
    "frame_order", "frames", "gaunt_product", "rotate", "rotate_back", "so2_linear", "spherical_harmonics",
    "spherical_harmonics_derivatives", "symmetric_contraction", "tp_conv", "weight_shapes", "wigner", "wigner_3j",
    "wigner_dense",
]  # fmt: skip
