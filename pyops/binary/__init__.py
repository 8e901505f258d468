"""Binarised operators that compute on bits, in inference and in training.

>>> import torch
>>> from structops import binary
>>> layer = binary.PackedWeight(torch.randn(10, 100))
>>> binary.binary_linear(torch.randn(4, 100), layer).shape
torch.Size([4, 10])
"""

from ._bits import BitTensor, hamming, pack, popcount, unpack
from ._conv import binary_conv1d, binary_conv2d
from ._fold import fold_batch_norm, fold_threshold, power_of_two
from ._import import from_bitorch_engine, from_bnn_lab, from_larq
from ._linear import binary_linear, bit_matmul, packed_linear
from ._weight import PackedWeight

__all__ = [
    "BitTensor", "PackedWeight", "binary_conv1d", "binary_conv2d", "binary_linear", "bit_matmul", "fold_batch_norm",
    "fold_threshold", "from_bitorch_engine", "from_bnn_lab", "from_larq", "hamming", "pack", "packed_linear", "popcount",
    "power_of_two", "unpack",
]  # fmt: skip
