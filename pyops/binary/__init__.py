"""Binarised operators that compute on bits, in inference and in training.

>>> import torch
>>> from structops import binary
>>> layer = binary.PackedWeight(torch.randn(10, 100))
>>> binary.binary_linear(torch.randn(4, 100), layer).shape
torch.Size([4, 10])
"""

from ._attention import binary_attention
from ._bits import BitTensor, hamming, pack, popcount, unpack
from ._conv import binary_conv1d, binary_conv2d
from ._embedding import binary_embedding, binary_embedding_bag
from ._fff import (
    fff_descend,
    fff_entropy,
    fff_hard,
    fff_load_balance,
    fff_path,
    fff_probabilities,
    fff_soft,
)
from ._fold import fold_batch_norm, fold_threshold, power_of_two
from ._import import from_bitorch_engine, from_bnn_lab, from_larq, to_bitorch_engine, to_bnn_lab, to_larq
from ._linear import binary_linear, bit_matmul, packed_linear
from ._masks import biprop, edge_popup, masked, recycle_weights, topk_mask
from ._signs import (
    approx_sign,
    fda_sign,
    heaviside,
    progressive_sign,
    q_prelu,
    recu_activation,
    rprelu,
    rsign,
    sign,
    swish_sign,
)
from ._sparse import block_sparse_linear, hebbian_score, mask_graph, prune_regrow, sparse_linear
from ._weight import PackedWeight
from ._weights import (
    biper_weight,
    bwn,
    dorefa,
    elastic,
    irnet_weight,
    magnitude_aware_sign,
    recu_weight,
    ternary,
    xnor_activation,
    xnor_weight,
    xnorpp_scale,
)

__all__ = [
    "BitTensor", "PackedWeight", "binary_conv1d", "binary_conv2d", "binary_linear", "bit_matmul", "fold_batch_norm",
    "fold_threshold", "from_bitorch_engine", "from_bnn_lab", "from_larq", "hamming", "pack", "packed_linear", "popcount",
    "power_of_two", "to_bitorch_engine", "to_bnn_lab", "to_larq", "unpack",
]  # fmt: skip
# Quantizers
__all__ += [
    "approx_sign",
    "biper_weight",
    "bwn",
    "dorefa",
    "elastic",
    "fda_sign",
    "heaviside",
    "irnet_weight",
    "magnitude_aware_sign",
    "progressive_sign",
    "q_prelu",
    "recu_activation",
    "recu_weight",
    "rprelu",
    "rsign",
    "sign",
    "swish_sign",
    "ternary",
    "xnor_activation",
    "xnor_weight",
    "xnorpp_scale",
]
# Masks and fast feed-forward networks
__all__ += [
    "biprop", "edge_popup", "fff_descend", "fff_entropy", "fff_hard", "fff_load_balance", "fff_path", "fff_probabilities",
    "fff_soft", "masked", "recycle_weights", "topk_mask",
]  # fmt: skip
# Attention, embeddings and masked linear layers
__all__ += [
    "binary_attention", "binary_embedding", "binary_embedding_bag", "block_sparse_linear", "hebbian_score", "mask_graph",
    "prune_regrow", "sparse_linear",
]  # fmt: skip
