"""Binarized operators that are binary: quantizers with their gradients in bits, and conditional and masked layers.

>>> import torch, structops
>>> structops.binary.sign(torch.tensor([-2.0, 0.0, 3.0]))
tensor([-1.,  1.,  1.])
"""

from ._fff import (
    fff_descend,
    fff_entropy,
    fff_hard,
    fff_load_balance,
    fff_path,
    fff_probabilities,
    fff_soft,
)
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

# Quantizers
__all__ = [
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
