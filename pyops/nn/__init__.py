"""Modules on the operators of :mod:`structops.binary`: thin, with the names and parameters that users expect.

>>> import torch, structops
>>> structops.nn.BinaryLinear(8, 3)(torch.randn(2, 8)).shape
torch.Size([2, 3])
"""

from ._binary import (
    FFF,
    BinaryConv1d,
    BinaryConv2d,
    BinaryEmbedding,
    BinaryEmbeddingBag,
    BinaryLinear,
    RPReLU,
    RSign,
    SparseLinear,
)

__all__ = [
    "FFF",
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryEmbedding",
    "BinaryEmbeddingBag",
    "BinaryLinear",
    "RPReLU",
    "RSign",
    "SparseLinear",
]
