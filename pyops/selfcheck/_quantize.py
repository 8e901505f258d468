"""Self-check cases of quantizers, masks and fast feed-forward networks."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..kernels import codes as C
from ._common import DTYPES

# (forward, slope, zero, t, p, q, terms, vectors)
PAIRS = (
    (C.SIGN, C.CLIP, 1.0, 0.0, 0.75, 1.0, 0, ""), (C.SIGN, C.POLY, -1.0, 0.0, 1.0, 1.0, 0, "shift"),
    (C.SIGN, C.SWISH, 0.0, 0.0, 5.0, 1.0, 0, ""), (C.SIGN, C.BELL, 1.0, 0.0, 1.5, 2.0, 0, "gain scale"),
    (C.SIGN, C.FOURIER, 1.0, 0.0, 0.1, 1.0, 9, ""), (C.SQUARE, C.COSINE, 1.0, 3.0, 3.0, 1.0, 0, ""),
    (C.HEAVISIDE, C.CLIP_STRICT, 0.0, 0.0, 1.0, 1.0, 0, "scale"), (C.LEVELS, C.BOX, 0.0, 3.0, 1.0, 1.0, 0, "gain scale"),
    (C.TERNARY, C.CLIP, 1.0, 0.4, 1.0, 1.0, 0, "extra"), (C.PRELU_FORWARD, C.PRELU, 0.0, 0.0, 0.0, 1.0, 0, "shift scale extra"),
    (C.TANH_LEVELS, C.BELL, 0.0, 3.0, 1.0, 1.0, 0, "scale"), (C.HARDTANH, C.IDENTITY, 0.0, 0.0, 1.0, 1.0, 0, "gain"),
    (C.SINE, C.COSINE, 0.0, 2.0, 2.0, 1.0, 0, ""),
)  # fmt: skip


def _steady(u: torch.Tensor) -> torch.Tensor:
    """Multiples of 1/64 moved off them: no rounding of an accumulator decides on which side of a threshold a value lies."""
    return (torch.round(u * 64) + 0.25) / 64


def layer_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Of masks and fast feed-forward networks. Decisions are taken on small integers, whose sums are exact."""
    for dtype in DTYPES:
        rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: B023
        if op in ("topk_mask", "mask_apply"):
            score = torch.randint(-40, 40, (3001,), generator=g).to(dtype)
            for keep in (0, 1000, 3001):
                bits = torch.randint(0, 256, (376,), generator=g).to(torch.uint8)
                yield (score, keep, keep != 1000) if op == "topk_mask" else (score, bits)
            continue
        for depth, I, H, O, rows in ((0, 5, 3, 2, 9), (3, 33, 16, 40, 100)):
            n, L = 2**depth - 1, 2**depth
            if op == "fff_descend":
                small = lambda *shape: torch.randint(-2, 3, shape, generator=g).to(dtype)  # noqa: B023
                yield small(rows, I), small(n, I), small(n), depth, False
                yield small(rows, I), small(n, I), None, depth, True
                continue
            leaf = torch.randint(0, L, (rows,), generator=g)
            rowptr = torch.cat([leaf.new_zeros(1), torch.bincount(leaf, minlength=L).cumsum(0)])
            perm = torch.sort(leaf, stable=True).indices
            args = (rand(rows, I), rowptr, perm, rand(L, I, H), rand(L, H), rand(L, H, O), rand(L, O), 1 + depth % 3)
            yield args if op == "fff_leaf" else (rand(rows, O), *args)


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    if op not in ("quantize", "quantize_bwd", "channel_stats"):
        yield from layer_cases(op, g)
        return
    for dtype in DTYPES:
        acc = torch.float64 if dtype == torch.float64 else torch.float32
        for shape, channels, inner in (((3000,), 1, 1), ((37, 5, 9), 5, 9), ((61, 33), 33, 1)):
            x = _steady(2 * torch.rand(shape, generator=g, dtype=torch.float64) - 1).to(dtype)
            grad = torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
            if op == "channel_stats":
                yield x, None, None, channels, inner
                yield x, grad, torch.rand(channels, generator=g).to(acc), channels, inner
                continue
            for forward, slope, zero, t, p, q, terms, names in PAIRS:
                v = {
                    n: (0.5 * torch.randint(1, 4, (channels,), generator=g)).to(acc) if n in names else None
                    for n in ("shift", "gain", "scale", "extra")
                }
                vectors = tuple(v.values())
                exact = slope in (C.CLIP, C.CLIP_STRICT, C.BOX, C.PRELU)
                for bits in (0, 1) if exact else (0,):
                    static = (channels, inner, forward, slope, zero, t, p, q, terms, bits)
                    signs = bits == 1 and forward in (C.SIGN, C.HEAVISIDE)
                    if op == "quantize":
                        yield x, *vectors, *static, signs, False, False
                        continue
                    from ..kernels.binary.quantize_ref import quantize

                    args: tuple = (x, *vectors, *static, signs, False, False)
                    codes = quantize(*args)[1] if bits or signs else None
                    scale, extra = v["scale"] is not None and forward != C.TANH_LEVELS, forward == C.PRELU_FORWARD
                    yield grad, x, codes, *vectors, *static, signs, scale and not extra, False, True, scale, extra
