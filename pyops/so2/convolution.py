"""SO(2) linear maps and the fused edge-wise eSCN block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._check import shaped
from .._dispatch import wants_derivative
from ..graph import Graph, checked_graph
from ..kernels.so2.wigner_ref import order
from . import _block_ops as block
from ._conv_ops import so2_conv, weight_numel
from ._shapes import computing, degrees


def weight_shapes(lmax: int, mmax: int, in_channels: int, out_channels: int, extra: int = 0) -> list[tuple[int, int]]:
    """Shapes of W_0, then of [W1; W2] for m = 1..mmax.

    >>> import structops
    >>> structops.so2.weight_shapes(2, 1, 8, 4, extra=3)
    [(15, 24), (16, 16)]
    """
    return [
        ((2 if m else 1) * (lmax + 1 - m) * out_channels + (0 if m else extra), (lmax + 1 - m) * in_channels)
        for m in range(mmax + 1)
    ]


def _flat(
    op: str, name: str, weight: Tensor | Sequence[Tensor], like: Tensor, L: int, M: int, Cin: int, Cout: int, extra: int
) -> Tensor:
    """Weights of all orders one after another; packing for the kernels is theirs, at every call."""
    if isinstance(weight, Tensor):
        return shaped(op, name, weight, (weight_numel(L, M, Cin, Cout, extra),), like)
    wanted = weight_shapes(L, M, Cin, Cout, extra)
    weight = list(weight)
    if len(weight) != len(wanted):
        check.fail(ValueError, op, f"{name} for {len(wanted)} orders m = 0..{M}", f"{len(weight)} matrices")
    for m, (w, s) in enumerate(zip(weight, wanted, strict=True)):
        shaped(op, f"{name}[{m}]", w, s, like)
    return torch.cat([w.reshape(-1) for w in weight])


@autocast.promotes
def so2_linear(
    x: Tensor,
    weight: Tensor | Sequence[Tensor],
    bias: Tensor | None = None,
    *,
    lmax: int,
    mmax: int | None = None,
    out_channels: int,
    extra: int = 0,
    three_products: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """A linear map of edge-frame features that commutes with turns about the edge.

    For m = 0 ``y = W_0 x + b``; for m > 0 the complex product ``y+ = W1 x+ - W2 x-``, ``y- = W1 x- + W2 x+``.

    Args:
        x: ``[E, n, Cin]``, rows in :func:`frame_order`; float32, float64, or 16-bit floats (computed in float32).
        weight: matrices of :func:`weight_shapes`, W_0 ``[extra + (lmax + 1) Cout, (lmax + 1) Cin]`` and [W1; W2] of every m > 0,
            inputs and outputs in order (l, channel); or all of them flattened and concatenated. The layout of fairchem.
        bias: ``[extra + (lmax + 1) Cout]`` for m = 0.
        lmax, mmax: lmax <= 8, mmax <= lmax (default lmax).
        extra: additional outputs of m = 0; they come first in W_0.
        three_products: the complex product by three real ones: a quarter fewer operations for m > 0, about one bit less accurate.

    Returns:
        ``[E, n, Cout]``, and ``[E, extra]`` first if ``extra``.

    Differentiable to any order; saves x and the weight. Deterministic. Weights are packed inside the call and never stale.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: eSCN, arXiv:2302.03655; the layout of fairchem's ``SO2_Convolution``.

    >>> import torch, structops
    >>> w = [torch.randn(s) for s in structops.so2.weight_shapes(2, 1, 8, 4)]
    >>> structops.so2.so2_linear(torch.randn(5, 7, 8), w, lmax=2, mmax=1, out_channels=4).shape
    torch.Size([5, 7, 4])
    """
    op = "so2_linear"
    lmax, mmax = degrees(op, lmax, mmax)
    n = len(order(lmax, mmax))
    shaped(op, "x", x, (None, n, None))
    E, _, Cin = x.shape
    Cout, extra = check.size(op, "out_channels", out_channels), check.size(op, "extra", extra)
    check.flags(op, three_products=three_products)
    flat = _flat(op, "weight", weight, x, lmax, mmax, Cin, Cout, extra)
    if bias is not None:
        shaped(op, "bias", bias, (extra + (lmax + 1) * Cout,), x)
    rows, flat, bias = computing(x.reshape(E, n * Cin), flat, bias)
    y = so2_conv(rows, flat, bias, lmax, mmax, Cin, Cout, extra, False, three_products).to(x.dtype)
    out = y[:, extra:].reshape(E, n, Cout)
    return (y[:, :extra], out) if extra else out


@autocast.promotes
def edge_block(
    x: Tensor,
    vec: Tensor,
    graph: Graph,
    weight1: Tensor | Sequence[Tensor],
    bias1: Tensor,
    weight2: Tensor | Sequence[Tensor],
    bias2: Tensor,
    *,
    lmax: int,
    mmax: int | None = None,
    radial: Tensor | None = None,
    radial_weight: Tensor | None = None,
    radial_bias: Tensor | None = None,
    envelope: Tensor | None = None,
    three_products: bool = False,
    keep: bool = False,
) -> Tensor:
    """The edge-wise eSCN block in one pass: gather both ends, rotate into the edge frame, scale, SO(2) convolution, gate, second
    convolution, envelope, rotate back, sum over the edges of every destination.

    Args:
        x: ``[N, (lmax + 1)^2, C]`` node features, l-primary; float32, float64, or 16-bit floats (computed in float32).
        vec: ``[E, 3]`` edge vectors in the caller's edge order. A zero-length edge makes its destination NaN.
        graph: :class:`structops.Graph` of N nodes, ``src -> dst``.
        weight1, bias1: first convolution, 2C to H channels with lmax H gates first (:func:`so2_linear`'s layout); H follows from
            ``bias1 [(2 lmax + 1) H]``. Its input is [source | destination].
        weight2, bias2: second convolution, H to C channels, ``bias2 [(lmax + 1) C]``.
        radial: ``[E, sum_m (lmax + 1 - m) 2C]``, a scale of the first convolution's input, shared by +m and -m; or ``[E, K]``
            together with radial_weight ``[sum.., K]`` and radial_bias ``[sum..]``, the last layer of a radial network, fused.
        envelope: ``[E]`` factor of every message.
        three_products: as in :func:`so2_linear`.
        keep: with gradients, keep the pre-activations and second results of every edge, ``E ((lmax + n) H + n C)`` numbers, so
            that the backward repeats neither convolution. Otherwise nothing of size E is saved beyond the inputs.

    Returns:
        ``[N, (lmax + 1)^2, C]``; 0 for nodes without edges.

    Differentiable to any order in x, vec, radial, envelope, weights and biases. The direction's gradient is the torque between
    messages and features, exact at every direction including +y and -y, with a symmetric Hessian; no Wigner matrix is stored. The
    second derivative holds intermediates of at most 4096 edges. Deterministic; independent of the number of threads.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: eSCN, arXiv:2302.03655; the edge-wise layer of EquiformerV2 and UMA (``Edgewise`` with gate activation).

    >>> import torch, structops
    >>> from structops import so2
    >>> graph = structops.Graph(torch.tensor([[0, 1, 2], [1, 0, 0]]), num_nodes=3)
    >>> C, H = 4, 5
    >>> w1 = [torch.randn(s) for s in so2.weight_shapes(1, 1, 2 * C, H, extra=H)]
    >>> w2 = [torch.randn(s) for s in so2.weight_shapes(1, 1, H, C)]
    >>> x, vec = torch.randn(3, 4, C), torch.randn(3, 3)
    >>> so2.edge_block(x, vec, graph, w1, torch.zeros(3 * H), w2, torch.zeros(2 * C), lmax=1).shape
    torch.Size([3, 4, 4])
    """
    op = "edge_block"
    lmax, mmax = degrees(op, lmax, mmax)
    shaped(op, "x", x, (None, (lmax + 1) ** 2, None))
    N, _, C = x.shape
    checked_graph(op, graph)
    if graph.num_src != N or graph.num_dst != N:
        check.fail(ValueError, op, f"graph of {N} nodes, as x", f"{graph.num_src} sources, {graph.num_dst} destinations")
    if graph.device != x.device:
        check.fail(ValueError, op, f"graph on {x.device}", graph.device)
    E = graph.num_edges
    shaped(op, "vec", vec, (E, 3), x)
    shaped(op, "bias1", bias1, (None,), x)
    if bias1.shape[0] % (2 * lmax + 1):
        check.fail(ValueError, op, f"bias1 of a multiple of 2 lmax + 1 = {2 * lmax + 1} numbers", bias1.shape[0])
    H = bias1.shape[0] // (2 * lmax + 1)
    w1 = _flat(op, "weight1", weight1, x, lmax, mmax, 2 * C, H, lmax * H)
    w2 = _flat(op, "weight2", weight2, x, lmax, mmax, H, C, 0)
    shaped(op, "bias2", bias2, ((lmax + 1) * C,), x)
    widths = sum((lmax + 1 - m) * 2 * C for m in range(mmax + 1))
    if radial is None and radial_weight is not None:
        check.fail(ValueError, op, "radial together with radial_weight", "no radial")
    if radial_weight is None and radial_bias is not None:
        check.fail(ValueError, op, "radial_weight together with radial_bias", "no radial_weight")
    if radial is not None:
        shaped(op, "radial", radial, (E, None if radial_weight is not None else widths), x)
    if radial_weight is not None:
        shaped(op, "radial_weight", radial_weight, (widths, radial.shape[1]), x)
    if radial_bias is not None:
        shaped(op, "radial_bias", radial_bias, (widths,), x)
    if envelope is not None:
        shaped(op, "envelope", envelope, (E,), x)
    check.flags(op, three_products=three_products, keep=keep)
    operands = computing(x, vec, radial, radial_weight, radial_bias, envelope, w1, bias1, w2, bias2)
    keep = keep and wants_derivative(*operands)
    out = block.edge_block(*operands, graph.rowptr, graph.col, graph.eid, lmax, mmax, H, three_products, keep)[0]
    return out.to(x.dtype)
