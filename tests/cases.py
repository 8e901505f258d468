"""Random structures and operands, and vectorised or differentiable oracles. Shared by the tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce as fold
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.int32, torch.int64)
MESSAGES = ("copy_u", "copy_e", "add", "sub", "mul", "div")
BINARY = MESSAGES[2:]
REDUCES = ("sum", "mean", "min", "max", "prod", "var", "std", "logsumexp")
FEATURES = (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130, 256, 300)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_coo(num_src: int, num_dst: int, edges: int, seed: int = 0, hub: int = 0) -> Tensor:
    """Unsorted int64 ``[2, edges + hub]``: parallel edges, rows 2 mod 5 empty, the last source isolated, ``hub`` edges into row 1."""
    rng = generator(seed)
    rows = torch.tensor([v for v in range(num_dst) if v % 5 != 2])
    src = torch.randint(max(num_src - 1, 1), (edges + hub,), generator=rng)
    dst = rows[torch.randint(len(rows), (edges + hub,), generator=rng)]
    if hub:
        dst[edges:] = 1
    if edges > 3:
        src[: edges // 4], dst[: edges // 4] = src[edges // 2 : edges // 2 + edges // 4].clone(), dst[edges // 2 : edges // 2 + edges // 4].clone()
    return torch.stack([src, dst])[:, torch.randperm(edges + hub, generator=rng)]


def to_csr(coo: Tensor, num_dst: int, index: torch.dtype = torch.int64) -> tuple[Tensor, Tensor, Tensor]:
    """(rowptr, col, eid) of a COO, by a stable sort."""
    eid = torch.sort(coo[1], stable=True).indices
    rowptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(coo[1], minlength=num_dst).cumsum(0)])
    return rowptr.to(index), coo[0][eid].to(index), eid.to(index)


def values(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Random signs times [0.5, 1.5): far from 0, so that products and quotients of a row stay in every dtype's range.

    Of one seed, float64 and float32 get equal numbers, and so do bfloat16 and float16.
    """
    rng = generator(seed)
    size = torch.rand(*shape, generator=rng, dtype=torch.float64) + 0.5
    signed = size * (torch.randint(2, shape, generator=rng) * 2 - 1)
    return (signed.bfloat16() if dtype in (torch.bfloat16, torch.float16) else signed.float()).to(dtype)


def near_one(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Values whose product over 10^5 of them stays of the order of 1."""
    return (1 + 0.002 * torch.randn(*shape, generator=generator(seed), dtype=torch.float64)).to(dtype)


def small_integers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Values in -3..3: exact in every dtype, and full of ties."""
    return torch.randint(-3, 4, shape, generator=generator(seed)).to(dtype)


# ---- oracles ---------------------------------------------------------------------------------------------------------


def first_extreme(m: Tensor, largest: bool, skip_nan: bool) -> Tensor:
    """Position over dim 0 of the first extreme of m ``[n, ...]``, n > 0; -1 where everything was skipped."""
    a = m.detach().double().numpy() * (1 if largest else -1)
    nan = np.isnan(a)
    if not skip_nan:
        return torch.as_tensor(np.asarray(a.argmax(0)))
    filled = np.where(nan, -np.inf, a)
    winner = filled.argmax(0)
    # A NaN may stand before an equal -inf.
    first_real = (~nan).argmax(0)
    winner = np.where(np.take_along_axis(filled, winner[None], 0)[0] == -np.inf, first_real, winner)
    return torch.as_tensor(np.where(nan.all(0), -1, winner))


def reduce_group(m: Tensor, reduce: str, unbiased: bool = True, skip_nan: bool = False, fill: float = 0.0) -> Tensor:
    """Differentiable reduction of m ``[n, ...]``, n > 0, over dim 0; conventions as documented by structops."""
    n = m.shape[0]
    if reduce == "sum":
        return m.sum(0)
    if reduce == "mean":
        return m.sum(0) / n
    if reduce == "prod":
        return fold(torch.mul, m.unbind(0)) if m.requires_grad else m.prod(0)
    if reduce == "logsumexp":
        top = m.detach().amax(0)
        top = torch.where(top.isfinite(), top, torch.zeros_like(top))
        total = (m - top).exp().sum(0)
        empty = total == 0
        return torch.where(empty, torch.full_like(total, float("-inf")), torch.where(empty, torch.ones_like(total), total).log() + top)
    if reduce in ("min", "max"):
        at = first_extreme(m, reduce == "max", skip_nan)
        value = m.gather(0, at.clamp(min=0)[None])[0]
        return torch.where(at >= 0, value, torch.full_like(value, fill))
    var = ((m - m.mean(0)) ** 2).sum(0) / max(n - int(unbiased), 1)
    if reduce == "var":
        return var
    flat = var == 0
    return torch.where(flat, torch.zeros_like(var), torch.where(flat, torch.ones_like(var), var).sqrt())


EMPTY = {"prod": 1.0, "logsumexp": float("-inf")}


def reduce_rows(m: Tensor, rowptr: Tensor, reduce: str, fill: float | None = None, **kwargs) -> Tensor:
    """Groups ``m[rowptr[v]:rowptr[v + 1]]`` of dim 0 reduced, differentiable."""
    fill = EMPTY.get(reduce, 0.0) if fill is None else fill
    ptr = rowptr.tolist()
    rows = [
        reduce_group(m[a:b], reduce, fill=fill, **kwargs) if b > a else m.new_full(m.shape[1:], fill)
        for a, b in zip(ptr, ptr[1:], strict=False)
    ]
    return torch.stack(rows) if rows else m.new_empty(0, *m.shape[1:])


def winners(m: Tensor, rowptr: Tensor, largest: bool, none: int, skip_nan: bool = False) -> Tensor:
    """Positions along dim 0 of every group's first extreme; ``none`` where there is none."""
    ptr = rowptr.tolist()
    out = torch.full((len(ptr) - 1, *m.shape[1:]), none)
    for v, (a, b) in enumerate(zip(ptr, ptr[1:], strict=False)):
        if b > a:
            at = first_extreme(m[a:b], largest, skip_nan)
            out[v] = torch.where(at >= 0, at + a, none)
    return out


def message(kind: str, x: Tensor | None, e: Tensor | None) -> Tensor:
    """Message of gathered x ``[E, ...]`` and e ``[E, ...]``."""
    if kind == "copy_u":
        return x
    if kind == "copy_e":
        return e
    return {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}[kind](x, e)


def spmm_oracle(coo: Tensor, num_dst: int, x: Tensor | None, e: Tensor | None, kind: str, reduce: str, **kwargs) -> Tensor:
    """Public ``spmm`` without batch: gather, message, reduce group by group; differentiable to any order."""
    rowptr, _, eid = to_csr(coo, num_dst)
    src = coo[0]
    mx = None if kind == "copy_e" else x[src]
    me = None if kind == "copy_u" else e
    if mx is not None and me is not None:
        rank = max(mx.dim(), me.dim())
        mx = mx.reshape(mx.shape[0], *(1,) * (rank - mx.dim()), *mx.shape[1:])
        me = me.reshape(me.shape[0], *(1,) * (rank - me.dim()), *me.shape[1:])
    return reduce_rows(message(kind, mx, me)[eid], rowptr, reduce, **kwargs)


# ---- references ------------------------------------------------------------------------------------------------------


def identity(thing: object) -> object:
    """Equal for equal arguments, bit for bit; a ``TypeError`` for what cannot be compared so."""
    if isinstance(thing, Tensor) and not thing.requires_grad:
        return thing.dtype, thing.shape, thing.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    if isinstance(thing, tuple | list):
        return tuple(map(identity, thing))
    if thing is None or isinstance(thing, int | float | str | torch.dtype):
        return type(thing), thing
    raise TypeError(type(thing))


def copied(result: object) -> object:
    if isinstance(result, tuple | list):
        return type(result)(map(copied, result))
    return result.clone() if isinstance(result, Tensor) else result


class remembered:
    """A module of references whose functions give the results of earlier calls with equal arguments again.

    Tests that differ in the instruction set alone run one after the other (conftest.py): they share what they are compared with.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.results: dict[object, object] = {}

    def __getattr__(self, name: str) -> Callable:
        function = getattr(self.module, name)

        def call(*args, **kwargs):
            try:
                key = name, identity(args), identity(sorted(kwargs.items()))
            except TypeError:
                return function(*args, **kwargs)
            if key not in self.results:
                if len(self.results) == 200:
                    self.results.clear()
                self.results[key] = function(*args, **kwargs)
            return copied(self.results[key])

        return call
