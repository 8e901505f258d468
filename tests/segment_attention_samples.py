"""opcheck arguments of attention within segments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import values
from structops.kernels.sparse import segment_attention_ref


def segment_attention_samples(leaf: Callable) -> dict[str, list[tuple]]:
    qptr, kptr, offset = torch.tensor([0, 2, 2, 5]), torch.tensor([0, 3, 4, 6]), torch.tensor([0, 6, 6, 12])
    H, K, D = 2, 3, 4
    forward, backward = [], []
    for bias in ((12, H), None):
        operands = [None if s is None else leaf(*s) for s in ((5, H, K), (6, H, K), (6, H, D), bias)]
        tail = qptr, kptr, offset if bias else None, 0.5
        forward.append((*operands, *tail))
        plain = [None if t is None else t.detach() for t in operands]
        out, lse = segment_attention_ref.segment_attention(*plain, *tail)
        backward.append((*plain, out, lse, values(5, H, D, seed=5), *tail))
    return {"segment_attention": forward, "segment_attention_bwd": backward}
