"""Arguments of the raw quantizers, masks and conditional networks, for opcheck. ``leaf(*shape)`` makes a differentiable operand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from structops.kernels import codes as C


def quantize_samples(leaf: Callable) -> dict[str, list[tuple]]:
    constant = lambda *shape: leaf(*shape).detach()
    clip = (3, 2, C.SIGN, C.CLIP, 1.0, 0.0, 1.0, 1.0, 0, 1, True)
    poly = (1, 1, C.SIGN, C.POLY, 1.0, 0.0, 1.0, 1.0, 0, 0, False)
    prelu = (3, 2, C.PRELU_FORWARD, C.PRELU, 1.0, 0.0, 1.0, 1.0, 0, 0, False)
    codes = torch.ops.structops.quantize(constant(4, 3, 2), *(None,) * 4, *clip, False, False)[1]
    return {
        "quantize": [
            (leaf(4, 3, 2), leaf(3), None, leaf(3), None, *clip, False, False),
            (leaf(4, 3, 2), None, None, None, None, *poly, False, False),
            (leaf(4, 3, 2), leaf(3), None, leaf(3), leaf(3), *prelu, False, False),
        ],
        "quantize_bwd": [
            (leaf(4, 3, 2), None, codes, None, constant(3), None, None, *clip, False, False, False, False, False),
            (leaf(4, 3, 2), leaf(4, 3, 2), None, None, None, None, None, *poly, False, False, False, False, False),
            (leaf(4, 3, 2), leaf(4, 3, 2), None, leaf(3), None, leaf(3), constant(3), *prelu, False, False, True, True, True),
        ],
    }


def layer_samples(leaf: Callable) -> dict[str, list[tuple]]:
    rowptr, perm, bits = (
        torch.tensor([0, 2, 2, 3, 5]),
        torch.tensor([3, 0, 1, 4, 2]),
        torch.tensor([0b10110110, 1], dtype=torch.uint8),
    )
    full = (leaf(5, 3), rowptr, perm, leaf(4, 3, 2), leaf(4, 2), leaf(4, 2, 3), leaf(4, 3), 2)
    bare = (leaf(5, 3), rowptr, perm, leaf(4, 3, 2), None, leaf(4, 2, 3), None, 1)
    fixed = lambda args: tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in args)
    return {
        "topk_mask": [(leaf(3, 4), 5, True)],
        "mask_apply": [(leaf(3, 3), bits)],
        "fff_descend": [fixed((leaf(5, 3), leaf(3, 3), leaf(3), 2, False)), fixed((leaf(5, 3), leaf(3, 3), None, 2, True))],
        "fff_leaf": [full, bare],
        "fff_leaf_bwd": [(leaf(5, 3).detach(), *fixed(full)), (leaf(5, 3).detach(), *fixed(bare))],  # the second order is refused
    }


def plain_samples() -> dict[str, list[tuple]]:
    x = torch.randn(4, 3, 2)
    return {"channel_stats": [(x, None, None, 3, 2), (x, x, torch.zeros(3), 3, 2)]}
