"""Gates, norms and inner products of rows of irreps, and of rows in the edge frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import _autocast as autocast
from .. import _check as check
from .._check import shaped
from ..kernels.so2.wigner_ref import order
from ._shapes import computing, degrees, orders, table
from ._terms import Rows

__all__ = ["gate", "inner_product", "norm", "so2_gate", "so2_norm"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": F.relu, "gelu": F.gelu, "softplus": F.softplus,
    "abs": torch.abs, "identity": lambda t: t,
}  # fmt: skip
ODD = ("tanh", "identity")
KINDS = ("layer_norm", "layer_norm_sh", "rms_norm_sh")


def _act(op: str, name: str, act: Any) -> Callable[[Tensor], Tensor]:
    return act if callable(act) else ACTIVATIONS[check.choice(op, name, act, ACTIVATIONS)]


@autocast.promotes
def gate(
    x: Tensor,
    gates: Tensor,
    irreps: Any,
    *,
    act: str | Callable | Sequence = "silu",
    gate_act: str | Callable = "sigmoid",
    layout: str = "mul_ir",
) -> Tensor:
    """Gated nonlinearity: ``act(x)`` for scalars, ``x * gate_act(gate)`` for every copy of degree l > 0.

    Args:
        x: ``[..., (lmax + 1)^2, C]`` where ``irreps`` is the int lmax, else ``[..., irreps.dim]``; float32, float64, bfloat16 or
            float16.
        gates: ``[..., G]``, one for each copy with l > 0 in the order of the terms: ``G = lmax C`` in order (l, channel) with an
            int; one dtype with x.
        irreps: an int lmax, or irreps such as ``"8x0e+4x1o"``.
        act: of scalars: silu, sigmoid, tanh, relu, gelu, softplus, abs, identity or a function; or a sequence, one for each l = 0
            term. A named one of an odd scalar term (0o) must be odd itself: tanh or identity.
        gate_act: of gates. identity multiplies by the gates as they are.
        layout: mul_ir or ir_mul, of flat rows.

    Returns:
        x's shape and dtype.

    Differentiable to any order; deterministic. Equivariant as long as the gates are invariant.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: e3nn's ``Gate`` (which scales activations to second moment 1: pass such functions) and fairchem's ``GateActivation``.

    >>> import torch, structops
    >>> structops.so2.gate(torch.tensor([[0., 1., 2., 3.]]), torch.zeros(1, 1), "0e+1o")
    tensor([[0.0000, 0.5000, 1.0000, 1.5000]])
    """
    op = "gate"
    rows = Rows(op, "x", irreps, layout, x)
    scalars, gated = [t for t in rows.irreps if t.l == 0], [t for t in rows.irreps if t.l > 0]
    acts = list(act) if isinstance(act, (list, tuple)) else [act] * len(scalars)
    if len(acts) != len(scalars):
        check.fail(ValueError, op, f"act for {len(scalars)} scalar terms", len(acts))
    for a, t in zip(acts, scalars, strict=True):
        _act(op, "act", a)
        if t.p == -1 and isinstance(a, str) and a not in ODD:
            check.fail(ValueError, op, f"act to be odd ({' or '.join(ODD)}, or a function) for {t}", repr(a))
    shaped(op, "gates", gates, (*x.shape[: -1 - rows.stacked], sum(t.mul for t in gated)), x)
    turn = _act(op, "gate_act", gate_act)
    factors, functions = iter(rows.copies(turn(gates), gated)), iter(acts)
    blocks = zip(rows.irreps, rows.split(x), strict=True)
    return rows.join([b * next(factors) if t.l else _act(op, "act", next(functions))(b) for t, b in blocks], x)


@autocast.promotes
def inner_product(x: Tensor, y: Tensor, irreps: Any, *, layout: str = "mul_ir") -> Tensor:
    """Invariant products of copies: ``sum_m x[l, m, u] y[l, m, u]``; with y = x the squared norms.

    Args:
        x, y: ``[..., (lmax + 1)^2, C]`` where ``irreps`` is the int lmax, else ``[..., irreps.dim]``, of one shape and dtype.
        irreps, layout: as in :func:`gate`.

    Returns:
        ``[..., copies]`` in the order of the terms: ``(lmax + 1) C`` with an int.

    Differentiable to any order; deterministic.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> import torch, structops
    >>> x = torch.tensor([2., 1., 2., 3.])
    >>> structops.so2.inner_product(x, x, "0e+1o")
    tensor([ 4., 14.])
    """
    op = "inner_product"
    rows = Rows(op, "x", irreps, layout, x)
    shaped(op, "y", y, tuple(x.shape), x)
    parts = [b.sum(-2) for b in rows.split(x * y)]
    return torch.cat(parts, -1) if parts else x.new_zeros(x.shape)


@autocast.promotes
def norm(
    x: Tensor,
    irreps: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    kind: str = "rms_norm_sh",
    normalization: str = "component",
    balanced: bool = True,
    centered: bool = True,
    eps: float = 1e-5,
    layout: str = "mul_ir",
) -> Tensor:
    """Normalisation of rows of irreps: ``x / sqrt(s + eps) * weight``, with ``bias`` on the even scalars.

    With ``q_t`` the mean of squares over copies and components of term t (``normalization="norm"``: the mean over copies of squared
    norms), s is

    - ``layer_norm``: q_t for every term by itself.
    - ``layer_norm_sh``: q_t for terms with l = 0; the rest share the mean of their q_t.
    - ``rms_norm_sh``: the mean of all q_t.

    With ``balanced=False`` the means over terms weigh each by its components (``norm``: the sums over components are added up);
    ``norm`` sums over terms in any case.

    Args:
        x: ``[..., (lmax + 1)^2, C]`` where ``irreps`` is the int lmax, else ``[..., irreps.dim]``.
        irreps, layout: as in :func:`gate`.
        weight: a factor for every copy: ``[copies]``, or ``[lmax + 1, C]`` with an int.
        bias: ``[scalars]``: of every copy of 0e.
        kind: layer_norm, layer_norm_sh or rms_norm_sh.
        centered: subtract the mean over the copies from every 0e term first.
        eps: > 0 for a gradient at 0.

    Returns:
        x's shape and dtype; 16-bit floats are computed in float32.

    Differentiable to any order; deterministic.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: the norms of Equiformer (arXiv:2206.11990), EquiformerV2 (arXiv:2306.12059) and fairchem, of the same names;
    ``layer_norm_sh`` there takes its scalar row of ``weight`` as that of a ``LayerNorm``.

    >>> import torch, structops
    >>> structops.so2.norm(torch.tensor([[3., 0., 4., 0.]]), "0e+1o", kind="layer_norm", centered=False, eps=1e-9)
    tensor([[1.0000, 0.0000, 1.7321, 0.0000]])
    """
    op = "norm"
    rows = Rows(op, "x", irreps, layout, x)
    check.choice(op, "kind", kind, KINDS)
    by_component = check.choice(op, "normalization", normalization, ("component", "norm")) == "component"
    check.flags(op, balanced=balanced, centered=centered)
    copies, even = rows.irreps.num_irreps, [t for t in rows.irreps if (t.l, t.p) == (0, 1)]
    if weight is not None:
        shape = (len(rows.irreps), x.shape[-1]) if rows.stacked else (copies,)
        shaped(op, "weight", weight, shape, x)
    if bias is not None:
        shaped(op, "bias", bias, (sum(t.mul for t in even),), x)
    given = x.dtype
    x, weight, bias = (t if t is None or t.dtype not in (torch.bfloat16, torch.float16) else t.float() for t in (x, weight, bias))
    is_even = [(t.l, t.p) == (0, 1) for t in rows.irreps]
    blocks = rows.split(x)
    if centered:
        blocks = [b - b.mean(-1, keepdim=True) if e else b for b, e in zip(blocks, is_even, strict=True)]
    scales = _scales(rows, blocks, kind, by_component, balanced, eps)
    blocks = [b * s for b, s in zip(blocks, scales, strict=True)]
    if weight is not None:
        blocks = [b * w for b, w in zip(blocks, rows.copies(weight.reshape(-1)), strict=True)]
    if bias is not None:
        shifts = iter(rows.copies(bias, even))
        blocks = [b + next(shifts) if e else b for b, e in zip(blocks, is_even, strict=True)]
    return rows.join(blocks, x).to(given)


def _scales(rows: Rows, blocks: list[Tensor], kind: str, by_component: bool, balanced: bool, eps: float) -> list[Tensor]:
    """1 / sqrt(s + eps) of every term, ``[..., 1, 1]``."""
    present = [n for n, t in enumerate(rows.irreps) if t.mul]
    squares = {n: blocks[n].square().mean(-1, keepdim=True).sum(-2, keepdim=True) for n in present}
    if kind == "layer_norm":
        groups = [[n] for n in present]
    elif kind == "layer_norm_sh":
        groups = [[n] for n in present if rows.irreps[n].l == 0] + [[n for n in present if rows.irreps[n].l > 0]]
    else:
        groups = [present]
    one = torch.ones((), dtype=blocks[0].dtype, device=blocks[0].device) if blocks else None
    found = [one] * len(blocks)
    for group in filter(None, groups):
        dims = [rows.irreps[n].dim for n in group]
        if by_component and balanced:
            share = [1 / (d * len(group)) for d in dims]
        else:
            share = [1 / sum(dims) if by_component else 1.0] * len(group)
        weighed = [squares[n] * q for n, q in zip(group, share, strict=True)]
        scale = (sum(weighed[1:], weighed[0]) + eps).rsqrt()
        for n in group:
            found[n] = scale
    return found


@autocast.promotes
def so2_gate(
    x: Tensor,
    gates: Tensor,
    *,
    lmax: int,
    mmax: int | None = None,
    per_degree: bool = False,
    act: str | Callable = "silu",
    gate_act: str | Callable = "sigmoid",
) -> Tensor:
    """Gate in the edge frame: ``act(x)`` for every row m = 0, ``x * gate_act(gate)`` for the pairs +m, -m.

    Args:
        x: ``[E, n, C]``, rows in :func:`frame_order`.
        gates: ``[E, P, C]``, one for each of the P = (n - lmax - 1) / 2 pairs, in the order of the rows +m.
        lmax, mmax: lmax <= 8, mmax <= lmax (default lmax).
        per_degree: gates ``[E, lmax, C]`` of the degrees l > 0, shared by all their rows; act for l = 0 only. As :func:`gate` does
            in the global frame.
        act, gate_act: as in :func:`gate`.

    Returns:
        ``[E, n, C]``. Commutes with turns about the edge. Differentiable to any order; deterministic.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: the SO(2) gate of QHNetV2, arXiv:2506.09398; per_degree: fairchem's ``GateActivation`` with ``m_prime``.

    >>> import torch, structops
    >>> structops.so2.so2_gate(torch.ones(1, 4, 1), torch.zeros(1, 1, 1), lmax=1).flatten()
    tensor([0.7311, 0.7311, 0.5000, 0.5000])
    """
    op = "so2_gate"
    lmax, mmax = degrees(op, lmax, mmax)
    rows = order(lmax, mmax)
    check.flags(op, per_degree=per_degree)
    shaped(op, "x", x, (None, len(rows), None))
    count = lmax if per_degree else (len(rows) - lmax - 1) // 2
    shaped(op, "gates", gates, (x.shape[0], count, x.shape[2]), x)
    plain = 1 if per_degree else lmax + 1
    factors = _act(op, "gate_act", gate_act)(gates)[:, _gate_of_row(lmax, mmax, per_degree, x.device)]
    first, rest = x.split([plain, len(rows) - plain], 1)
    return torch.cat([_act(op, "act", act)(first), rest * factors], 1)


@table
def _gate_of_row(lmax: int, mmax: int, per_degree: bool, device: torch.device) -> Tensor:
    rows = order(lmax, mmax)
    pairs = [row for row in rows if row[1] > 0]
    found = [l - 1 for l, _ in rows[1:]] if per_degree else [pairs.index((l, abs(m))) for l, m in rows[lmax + 1 :]]
    return torch.tensor(found, dtype=torch.int64, device=device)


@autocast.promotes
def so2_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    lmax: int,
    mmax: int | None = None,
    centered: bool = True,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm in the edge frame, order by order: ``x_m / sqrt(mean(|x_m|^2) + eps)``, |x_m|^2 = x_+m^2 + x_-m^2, the mean over
    degrees and channels. Order 0 has its mean subtracted first.

    Args:
        x: ``[E, n, C]``, rows in :func:`frame_order`; 16-bit floats are computed in float32.
        weight: ``[(n + lmax + 1) / 2, C]``, a factor for the rows with m >= 0, shared by +m and -m.
        bias: ``[lmax + 1, C]``, of the rows with m = 0.
        lmax, mmax: lmax <= 8, mmax <= lmax (default lmax).
        centered: subtract the mean of order 0.

    Returns:
        ``[E, n, C]``. Commutes with turns about the edge. Differentiable to any order; deterministic.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: the SO(2) layer norm of QHNetV2, arXiv:2506.09398.

    >>> import torch, structops
    >>> structops.so2.so2_norm(torch.tensor([[[1.], [3.], [3.], [4.]]]), lmax=1, eps=1e-9).flatten()
    tensor([-1.0000,  1.0000,  0.6000,  0.8000])
    """
    op = "so2_norm"
    lmax, mmax = degrees(op, lmax, mmax)
    n = len(order(lmax, mmax))
    shaped(op, "x", x, (None, n, None))
    check.flags(op, centered=centered)
    if weight is not None:
        shaped(op, "weight", weight, ((n + lmax + 1) // 2, x.shape[2]), x)
    if bias is not None:
        shaped(op, "bias", bias, (lmax + 1, x.shape[2]), x)
    given = x.dtype
    x, weight, bias = computing(x, weight, bias)
    parts = orders(x, lmax, mmax)
    if centered:
        parts[0] = parts[0] - parts[0].mean((1, 2, 3), keepdim=True)
    parts = [p * (p.square().sum(1, keepdim=True).mean((1, 2, 3), keepdim=True) + eps).rsqrt() for p in parts]
    if weight is not None:
        parts = [p * w for p, w in zip(parts, weight.split([lmax + 1 - m for m in range(mmax + 1)]), strict=True)]
    if bias is not None:
        parts[0] = parts[0] + bias
    return torch.cat([p.flatten(1, 2) for p in parts], 1).to(given)
