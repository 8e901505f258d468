"""The tensor product of all degrees in CP form: three factor matrices in place of the Clebsch-Gordan coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._dispatch import wants_derivative
from ..graph import Graph, checked_graph
from ._cg import wigner_3j_dense
from ._harmonics import degree
from ._plan import Block, Path, build
from ._product import ALONE
from ._shapes import Constants, computing, table
from ._tp_ops import tp_conv as conv_op
from .tensor_product import by_sender

__all__ = ["CPTensorProduct"]

MODES = ("uvw", "uvu", "uvv", "uuw", "uuu")


class CPTensorProduct(torch.nn.Module):
    """The tensor product of all paths up to given degrees, with one weight for all paths and its coefficients of rank R:
    ``out = C ((A^T x) * (B^T y) * w)``.

    The coefficients are those of :class:`TensorProduct` with every path ``(l1, l2, l3)`` of single copies and weights 1: Wigner 3j
    symbols times ``sqrt((2 l3 + 1) / paths into l3)``.

    Args:
        lmax1, lmax2, lmax_out: degrees of x, y and the result, up to 12; D1, D2, D3 below are ``(lmax + 1)^2``.
        rank: R; default ``7 L^2`` for the largest degree L (the paper's; at most the full rank). ``"full"`` lists the coefficients
            instead: exact, at most ``D1 D2`` columns.
        mode: which channels meet, as in e3nn: uvu (default), uvw, uvv, uuw or uuu.
        parity: keep only paths of even ``l1 + l2 + l3``, for which degree l has parity (-1)^l throughout.
        factors: ``(A [D1, R], B [D2, R], C [D3, R])`` to use instead of fitting any.
        sweeps, seed: of the fit, alternating least squares in float64 from random factors. It takes well under a second for degree
            2 and some seconds for 4, once for equal arguments.

    Attributes:
        rank, error: R; the relative error of the coefficients, ``||M' - M|| / ||M||``.
        factors: ``(A, B, C)``, float64, not parameters. They are in the state dict and stay float64 whatever the module is cast to.

    ``forward(x, y, weight)`` takes ``[..., D1, U]`` and ``[..., D2, V]`` and returns ``[..., D3, channels]``. The weight is
    ``[..., U, V, W]`` (uvw), ``[..., U, V]`` (uvu, uvv), ``[..., U, W]`` (uuw) or ``[..., U]`` (uuu), without leading dimensions if
    all rows share it; None stands for ones (not with W). Leading dimensions broadcast.

    Equivariant up to the error: ``||D M'(x, y) - M'(D x, D y)|| <= 2 ||M' - M|| ||x|| ||y||``. float32 and float64, 16-bit floats
    through float32. Differentiable to any order; deterministic. In mode uvu with one channel of y the three factors are multiplied
    out beforehand and nothing of R numbers a row exists; other modes are matrix products that keep ``[..., R, channels]``.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: Tensor Decomposition Networks (arXiv:2507.01131).

    >>> import torch, structops
    >>> product = structops.so2.CPTensorProduct(1, 1, 1, "full")
    >>> product(torch.tensor([[0.], [1.], [0.], [0.]]), torch.tensor([[0.], [0.], [1.], [0.]])).flatten()
    tensor([0.0000, 0.0000, 0.0000, 0.4082])
    """

    def __init__(self, lmax1: int, lmax2: int, lmax_out: int, rank: int | str | None = None, mode: str = "uvu", *,
                 parity: bool = False, factors: Sequence[Any] | None = None, sweeps: int = 200, seed: int = 0) -> None:  # fmt: skip
        super().__init__()
        op = "CPTensorProduct"
        self.lmax = tuple(degree(op, name, l) for name, l in (("lmax1", lmax1), ("lmax2", lmax2), ("lmax_out", lmax_out)))
        self.dims = tuple((l + 1) ** 2 for l in self.lmax)
        self.mode = check.choice(op, "mode", mode, MODES)
        check.flags(op, parity=parity)
        self.parity = parity
        if factors is not None:
            if rank is not None:
                check.fail(ValueError, op, "rank or factors", "both")
            found = self._given(factors)
        elif rank == "full":
            found = listed(*self.lmax, parity)
        else:
            rank = 7 * max(self.lmax) ** 2 if rank is None else check.size(op, "rank", rank)
            sizes = check.size(op, "sweeps", sweeps), check.size(op, "seed", seed)
            if rank is not None and not rank and any(self.lmax):
                check.fail(ValueError, op, "rank >= 1", rank)
            exact = listed(*self.lmax, parity)
            found = exact if rank >= exact[0].shape[1] or not rank else fitted(*self.lmax, parity, rank, *sizes)
        self._set(found)

    def _given(self, factors: Any) -> tuple[np.ndarray, ...]:
        op = "CPTensorProduct"
        if not isinstance(factors, Sequence) or len(factors) != 3:
            check.fail(TypeError, op, "factors (A, B, C)", type(factors).__name__)
        found = tuple(np.asarray(f.detach().cpu() if isinstance(f, Tensor) else f, np.float64) for f in factors)
        rank = found[0].shape[-1] if found[0].ndim == 2 else 0
        for name, f, d in zip("ABC", found, self.dims, strict=True):
            if f.shape != (d, rank) or not rank:
                check.fail(ValueError, op, f"{name} of shape [{d}, {rank or 'R'}]", list(f.shape))
        return found

    def _set(self, factors: tuple[np.ndarray, ...]) -> None:
        self._constants = Constants(*map(np.array, factors))
        self.rank = factors[0].shape[1]
        exact = coefficients(*self.lmax, self.parity)
        product = multiplied(factors)
        self.error = float(np.linalg.norm(product - exact) / np.linalg.norm(exact))
        self._bytes = b"".join(f.tobytes() for f in factors)
        # Products at the edges: one for each pair (i, k) of the multiplied table, two for each column of the factors.
        self._direct = int(product.any(1).sum()) <= 2 * self.rank

    @property
    def factors(self) -> tuple[Tensor, ...]:
        """A, B and C of every degree, float64."""
        return self._constants.tensors

    def get_extra_state(self) -> dict[str, Any]:
        return {"factors": list(self.factors)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._set(self._given(state["factors"]))

    def extra_repr(self) -> str:
        return f"degrees {self.lmax}, rank {self.rank}, {self.mode}, error {self.error:.1e}"

    # ---- evaluation ----

    @autocast.promotes
    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        op = "CPTensorProduct"
        self._operands(op, x, y, weight)
        U, V, dtype = x.shape[-1], y.shape[-1], x.dtype
        kernel = self._weight_shape(op, weight, U, V)
        own = weight is not None and weight.dim() > len(kernel)
        shapes = [x.shape[:-2], y.shape[:-2], *([weight.shape[: -len(kernel)]] if own else [])]  # type: ignore[union-attr]
        try:
            batch = torch.broadcast_shapes(*shapes)
        except RuntimeError:
            check.fail(ValueError, op, "leading dimensions of x, y and weight that broadcast", [list(s) for s in shapes])
        x, y, weight = computing(x, y, weight)  # type: ignore[assignment]
        if self.mode == "uvu" and V == 1:
            rows = lambda t: t.expand(*batch, *t.shape[-2:]).reshape(batch.numel(), t.shape[-2] * t.shape[-1]).contiguous()
            w = rows(weight) if own else None
            plan = _plan(self._bytes, self.dims, self.rank, U, 1, own, True, x.device)
            out = conv_op(rows(x), rows(y), w, *ALONE, *plan, False)
            out = out.reshape(*batch, self.dims[2], U)
            return (out if own or weight is None else out * weight.squeeze(-1)).to(dtype)
        A, B, C = self._factors(x)
        p, q = A.T @ x, B.T @ y
        if self.mode == "uvu":
            z = p * (q.sum(-1, keepdim=True) if weight is None else q @ weight.mT)
        elif self.mode == "uvv":
            z = q * (p.sum(-1, keepdim=True) if weight is None else p @ weight)
        elif self.mode == "uvw":
            z = (p[..., :, None] * q[..., None, :]).flatten(-2) @ weight.flatten(-3, -2)  # type: ignore[union-attr]
        elif self.mode == "uuw":
            z = (p * q) @ weight
        else:
            z = p * q if weight is None else p * q * weight.unsqueeze(-2)
        return (C @ z).to(dtype)

    @autocast.promotes
    def conv(self, graph: Graph, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Gather, product and segment sum: ``out[v] = sum over edges e: u -> v of forward(x[u], y[e], weight[e])``, mode uvu.

        Args:
            graph: the edges, from senders to receivers.
            x: ``[num_src, D1, U]``. y: ``[E, D2, V]``, such as spherical harmonics of the edges (V = 1), in the graph's order.
            weight: ``[E, U, V]``, ``[U, V]`` or None.

        Returns ``[num_dst, D3, U]``; receivers without edges get 0.

        A and C are applied at the nodes, B at the edges: a channel of an edge takes 2 R operations, and nothing of edges times
        channels times R exists. (Where multiplying the factors out beforehand takes fewer operations, that is done.) Saves x, y
        and weight, and their projections. Deterministic, whatever the order in which edges are listed.

        Raises:
            TypeError, ValueError: a wrong graph, dtype, shape or device, before any kernel runs; another mode.
        """
        op = "CPTensorProduct.conv"
        if self.mode != "uvu":
            check.fail(ValueError, op, "mode uvu", self.mode)
        checked_graph(op, graph)
        self._operands(op, x, y, weight)
        for name, t, rows in (("x", x, graph.num_src), ("y", y, graph.num_edges)):
            if t.dim() != 3 or t.shape[0] != rows:
                check.fail(ValueError, op, f"{name} of shape [{rows}, {t.shape[-2]}, channels]", list(t.shape))
        U, V, E, dtype = x.shape[2], y.shape[2], graph.num_edges, x.dtype
        self._weight_shape(op, weight, U, V)
        if weight is not None and weight.dim() != 2 and weight.shape[:-2] != (E,):
            check.fail(ValueError, op, f"weight of shape [{E}, {U}, {V}] or [{U}, {V}]", list(weight.shape))
        check.same_device(op, graph=graph.rowptr, x=x)
        x, y, weight = computing(x, y, weight)  # type: ignore[assignment]
        if not self._direct:
            A, B, C = self._factors(x)
            x, y = A.T @ x, B.T @ y
        w = None if weight is None else weight.expand(E, U, V).reshape(E, U * V).contiguous()
        needed = wants_derivative(x, y, w)
        plan = _plan(self._bytes, self.dims, self.rank, U, V, w is not None, self._direct, x.device)
        out = conv_op(x.flatten(1).contiguous(), y.flatten(1).contiguous(), w, *by_sender(graph, needed), *plan, False)
        out = out.unflatten(1, (self.dims[2] if self._direct else self.rank, U))
        return (out if self._direct else C @ out).to(dtype)

    def _operands(self, op: str, x: Any, y: Any, weight: Any) -> None:
        for name, t, dim in (("x", x, self.dims[0]), ("y", y, self.dims[1])):
            check.dense(op, name, t)
            if t.dim() < 2 or t.shape[-2] != dim:
                check.fail(ValueError, op, f"{name} of shape [..., {dim}, channels]", list(t.shape))
        if weight is not None:
            check.dense(op, "weight", weight)
        for name, t in (("y", y), ("weight", weight)):
            if t is not None and t.dtype != x.dtype:
                check.fail(TypeError, op, f"{name} of dtype {x.dtype}, as x", t.dtype)
        check.same_device(op, x=x, y=y, weight=weight)
        if self.mode in ("uuw", "uuu") and x.shape[-1] != y.shape[-1]:
            check.fail(ValueError, op, f"y with {x.shape[-1]} channels, as x", y.shape[-1])

    def _weight_shape(self, op: str, weight: Tensor | None, U: int, V: int) -> tuple[int | str, ...]:
        """The last dimensions of a weight, checked."""
        shape = {"uvw": (U, V, "W"), "uvu": (U, V), "uvv": (U, V), "uuw": (U, "W"), "uuu": (U,)}[self.mode]
        if weight is None:
            if "W" in shape:
                check.fail(TypeError, op, f"weight of shape [..., {', '.join(map(str, shape))}]", None)
            return shape
        last = weight.shape[max(weight.dim() - len(shape), 0) :]
        if len(last) != len(shape) or any(a not in (b, "W") for a, b in zip(shape, last, strict=True)):
            check.fail(ValueError, op, f"weight of shape [..., {', '.join(map(str, shape))}]", list(weight.shape))
        return shape

    def _factors(self, like: Tensor) -> tuple[Tensor, ...]:
        return tuple(f.to(like.dtype) for f in self._constants.on(like.device))


@table
def _plan(factors: bytes, dims: tuple[int, ...], rank: int, U: int, V: int, weighted: bool, direct: bool,
          device: torch.device) -> tuple[Tensor, Tensor, list[int]]:  # fmt: skip
    """The plan of the multiplied table, or the product of R numbers with R numbers, for U channels and V copies of y."""
    d1, d2, d3 = dims if direct else (rank,) * 3
    r = np.arange(rank)
    terms: np.ndarray | tuple[np.ndarray, ...] = (r, r, r, np.ones(rank))
    if direct:
        rows = np.frombuffer(factors).reshape(-1, rank)
        terms = multiplied(np.split(rows, np.cumsum(dims)[:2]))
    w = (lambda v: (v, V)) if weighted else (lambda v: (-1, 0))
    paths = [Path(0, 0, tuple(range(v, d2 * V, V)), terms, *w(v)) for v in range(V)]
    side = lambda d: [Block(U, d, 0, 1, U)]
    return build(side(d1), side(d3), paths, d1 * U, d2 * V, d3 * U, U * V if weighted else 0).on(device)


def multiplied(factors: Sequence[np.ndarray]) -> np.ndarray:
    """``[D1, D2, D3]``, rounding errors of zeros dropped."""
    found = np.einsum("ir,jr,kr->ijk", *factors, optimize=True)
    found[np.abs(found) <= 1e-14 * np.abs(found).max()] = 0
    return found


@lru_cache(maxsize=32)
def coefficients(l1: int, l2: int, l3: int, parity: bool) -> np.ndarray:
    """``[D1, D2, D3]`` float64: 3j symbols of all paths times ``sqrt((2 l3 + 1) / paths into l3)``; read-only."""
    paths = [
        (a, b, c) for a in range(l1 + 1) for b in range(l2 + 1) for c in range(abs(a - b), min(a + b, l3) + 1)
        if not parity or (a + b + c) % 2 == 0
    ]  # fmt: skip
    found = np.zeros(((l1 + 1) ** 2, (l2 + 1) ** 2, (l3 + 1) ** 2))
    part = lambda l: slice(l * l, (l + 1) ** 2)
    for a, b, c in paths:
        into = sum(p[2] == c for p in paths)
        found[part(a), part(b), part(c)] = wigner_3j_dense(a, b, c) * ((2 * c + 1) / into) ** 0.5
    found.flags.writeable = False
    return found


@lru_cache(maxsize=32)
def listed(l1: int, l2: int, l3: int, parity: bool) -> tuple[np.ndarray, ...]:
    """Exact factors: a column for every pair of components of two operands that meet; the pair with the fewest is taken."""
    exact = coefficients(l1, l2, l3, parity)
    last = min(range(3), key=lambda n: int(exact.any(n).sum()))
    moved = np.moveaxis(exact, last, 2)
    a, b = np.nonzero(moved.any(2))
    found = [np.eye(moved.shape[0])[:, a], np.eye(moved.shape[1])[:, b]]
    found.insert(last, moved[a, b].T.copy())
    return tuple(found)


@lru_cache(maxsize=32)
def fitted(l1: int, l2: int, l3: int, parity: bool, rank: int, sweeps: int, seed: int) -> tuple[np.ndarray, ...]:
    """Factors by alternating least squares, with a ridge that keeps nearly parallel columns bounded; columns of equal norms."""
    exact = coefficients(l1, l2, l3, parity)
    random = np.random.default_rng(seed)
    factors: list[np.ndarray] = [random.standard_normal((d, rank)) for d in exact.shape]
    unfolded = [np.moveaxis(exact, n, 0).reshape(d, -1) for n, d in enumerate(exact.shape)]
    for _ in range(sweeps):
        for n in range(3):
            a, b = (factors[m] for m in range(3) if m != n)
            gram = (a.T @ a) * (b.T @ b)
            gram[np.diag_indices(rank)] += 1e-9 * np.trace(gram) / rank
            product = (a[:, None] * b[None]).reshape(prod((len(a), len(b))), rank)
            factors[n] = np.linalg.solve(gram, (unfolded[n] @ product).T).T
        norms = [np.maximum(np.linalg.norm(f, axis=0), 1e-300) for f in factors]
        equal = np.cbrt(norms[0] * norms[1] * norms[2])
        factors = [f / n * equal for f, n in zip(factors, norms, strict=True)]
    return tuple(factors)
