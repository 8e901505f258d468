"""Tensor products of irreps, alone and fused with the gather and the sum of a graph convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from .._dispatch import is_eager, lasting, wants_derivative
from ..graph import Graph, checked_graph
from ._irreps import Irreps
from ._product import ALONE, Instruction, Spec

__all__ = ["TensorProduct", "channelwise_instructions", "tp_conv"]


class TensorProduct(torch.nn.Module):
    """Tensor product of two rows of irreps along given paths, ``z = sum over paths of w * (x (x) y)``.

    Args:
        irreps_in1, irreps_in2, irreps_out: irreps of x, y and the result.
        instructions: paths ``(i_in1, i_in2, i_out, mode, has_weight[, path_weight])`` into terms of the irreps; mode as in e3nn:
            uvw, uvu, uvv, uuw, uuu, uvuv, uvu<v or u<vw.
        in1_var, in2_var, out_var: variances of the terms; default 1.
        irrep_normalization: component, norm or none. path_normalization: element, path or none.
        shared_weights: one set of weights for all rows (default), else each row has its own.
        internal_weights: whether the module holds the weights as a parameter; default: if they are shared and there are any.
        layout: ``mul_ir`` (e3nn's, components fastest) or ``ir_mul`` (channels fastest, somewhat faster on the CPU).

    ``forward(x, y, weight)`` takes ``[..., irreps_in1.dim]``, ``[..., irreps_in2.dim]`` and, if external, ``[weight_numel]`` or
    ``[..., weight_numel]``. ``conv(graph, x, y, weight)`` is :func:`tp_conv`. float32, float64, bfloat16 or float16 (accumulated in
    float32). Differentiable to any order in x, y and weight; deterministic; saves its arguments only.

    Sparse Clebsch-Gordan coefficients throughout. Mode uvu with weights of its own for each row runs as one kernel; the modes that
    mix channels take the products unweighted from it and mix them by matrix products afterwards.

    Raises:
        TypeError, ValueError, IndexError: bad irreps, instructions, dtypes or shapes, named.

    Source: Geiger and Smidt 2022; conventions and state dict of ``e3nn.o3.TensorProduct``.

    >>> import torch, structops
    >>> cross = structops.so2.TensorProduct("1x1o", "1x1o", "1x1e", [(0, 0, 0, "uuu", False)])
    >>> cross(torch.tensor([[1., 0., 0.]]), torch.tensor([[0., 1., 0.]]))
    tensor([[0.0000, 0.0000, 0.7071]])
    """

    def __init__(self, irreps_in1: Any, irreps_in2: Any, irreps_out: Any, instructions: Sequence[tuple],
                 in1_var: Sequence[float] | None = None, in2_var: Sequence[float] | None = None,
                 out_var: Sequence[float] | None = None, irrep_normalization: str = "component",
                 path_normalization: str = "element", internal_weights: bool | None = None,
                 shared_weights: bool | None = None, layout: str = "mul_ir") -> None:  # fmt: skip
        super().__init__()
        op = type(self).__name__
        if shared_weights is None:
            shared_weights = True
        check.flags(op, shared_weights=shared_weights)
        self.spec = Spec(op, irreps_in1, irreps_in2, irreps_out, instructions, (in1_var, in2_var, out_var),
                         irrep_normalization, path_normalization, layout, shared_weights)  # fmt: skip
        if internal_weights is None:
            internal_weights = shared_weights and self.weight_numel > 0
        check.flags(op, internal_weights=internal_weights)
        if internal_weights and not shared_weights:
            check.fail(ValueError, op, "shared_weights with internal_weights", "weights of each row")
        self.internal_weights, self.shared_weights = internal_weights, shared_weights
        if internal_weights and self.weight_numel > 0:
            self.weight = torch.nn.Parameter(torch.randn(self.weight_numel))
        else:
            self.register_buffer("weight", torch.empty(0))
        reached = {i.i_out for i in self.instructions if i.path_weight != 0 and 0 not in i.path_shape}
        mask = [torch.full((t.mul * t.dim,), float(n in reached)) for n, t in enumerate(self.spec.out)]
        self.register_buffer("output_mask", torch.cat(mask) if mask else torch.ones(0))

    irreps_in1 = property(lambda self: self.spec.in1, doc="Irreps of x.")
    irreps_in2 = property(lambda self: self.spec.in2, doc="Irreps of y.")
    irreps_out = property(lambda self: self.spec.out, doc="Irreps of the result.")
    layout = property(lambda self: self.spec.layout, doc="mul_ir or ir_mul.")
    weight_numel = property(lambda self: self.spec.weight_numel, doc="Number of weights of a row.")

    @property
    def instructions(self) -> list[Instruction]:
        """The paths; ``path_weight`` is the coefficient that multiplies the Wigner 3j symbol."""
        return self.spec.instructions

    @autocast.promotes
    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        op = type(self).__name__
        _operand(op, "x", x, self.spec.in1.dim)
        _operand(op, "y", y, self.spec.in2.dim, x)
        weight = self._weights(op, weight, x)
        shapes = [x.shape[:-1], y.shape[:-1]]
        if weight is not None and not self.shared_weights:
            shapes.append(weight.shape[:-1])
        try:
            batch = torch.broadcast_shapes(*shapes)
        except RuntimeError:
            check.fail(ValueError, op, "leading dimensions of x, y and weight that broadcast", [list(s) for s in shapes])
        # flatten, unlike reshape, takes rows of no columns.
        rows = lambda t: t.expand(*batch, t.shape[-1]).unsqueeze(0).flatten(0, -2).contiguous()
        if weight is not None and not self.shared_weights:
            weight = rows(weight)
        return self.spec.run(rows(x), rows(y), weight, ALONE).reshape(*batch, self.spec.out.dim)

    @autocast.promotes
    def conv(self, graph: Graph, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """:func:`tp_conv` with this product."""
        return tp_conv(graph, x, y, weight, self)

    def weight_view_for_instruction(self, instruction: int, weight: Tensor | None = None) -> Tensor:
        """The weights of one instruction, ``[*path_shape]`` after the dimensions of the rows."""
        if not self.instructions[instruction].has_weight:
            check.fail(ValueError, type(self).__name__, f"instruction {instruction} to have weights", "none")
        return self.spec.weight_of(instruction, self.weight if weight is None else weight)

    def weight_views(self, weight: Tensor | None = None, yield_instruction: bool = False):
        """The weights of every weighted instruction, or ``(index, instruction, weights)``."""
        for n, i in enumerate(self.instructions):
            if i.has_weight:
                view = self.weight_view_for_instruction(n, weight)
                yield (n, i, view) if yield_instruction else view

    def extra_repr(self) -> str:
        irreps = f"{self.irreps_in1} x {self.irreps_in2} -> {self.irreps_out}"
        return f"{irreps}, {len(self.instructions)} paths, {self.weight_numel} weights"

    def _weights(self, op: str, weight: Any, like: Tensor) -> Tensor | None:
        if self.weight_numel == 0:
            return None
        if weight is None:
            if not self.internal_weights:
                check.fail(TypeError, op, "weight: the module holds none of its own", None)
            weight = self.weight
        if isinstance(weight, (list, tuple)):
            kept = (i for i in self.instructions if i.has_weight)
            weight = torch.cat(
                [w.reshape(*w.shape[: w.dim() - len(i.path_shape)], -1) for w, i in zip(weight, kept, strict=True)], -1
            )
        _operand(op, "weight", weight, self.weight_numel, like)
        if self.shared_weights != (weight.dim() == 1):
            shape = "[weight_numel]" if self.shared_weights else "[..., weight_numel]"
            check.fail(ValueError, op, f"weight of shape {shape}", list(weight.shape))
        return weight


@autocast.promotes
def tp_conv(graph: Graph, x: Tensor, y: Tensor, weight: Tensor | None, product: TensorProduct) -> Tensor:
    """Gather, tensor product and segment sum in one pass: ``out[v] = sum over edges e: u -> v of product(x[u], y[e], weight[e])``.

    Args:
        graph: the edges, from senders to receivers.
        x: ``[num_src, irreps_in1.dim]``. y: ``[E, irreps_in2.dim]``, such as spherical harmonics of the edges, in the graph's
            order.
        weight: ``[E, weight_numel]``, or ``[weight_numel]`` where the product's weights are shared; None for internal weights.
        product: the paths; instructions of mode uvu with weights for each edge are fused, see :class:`TensorProduct`.

    Returns ``[num_dst, irreps_out.dim]``; receivers without edges get 0. float32, float64, bfloat16, float16 (accumulated in
    float32). Differentiable to any order in x, y and weight, by the same two kernels; no tensor of edges times paths times
    components exists, forward or backward, and x, y and weight are all that is saved. (Modes that mix channels with weights of each
    edge, and those of paired channels, do hold one row per edge.) Deterministic: a receiver adds its edges in the order of their
    senders, however they are listed (parallel edges in the order given); the gradient of x follows the reversed edges.

    Raises:
        TypeError, ValueError: a wrong graph, dtype, shape or device, before any kernel runs.

    The convolution of Tensor Field Networks, NequIP and MACE (arXiv:1802.08219, 2101.03164, 2206.07697); csrc/so2/tp.h.

    >>> import torch, structops
    >>> graph = structops.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> product = structops.so2.TensorProduct("4x0e", "0e+1o", "4x0e+4x1o", [(0, 0, 0, "uvu", True), (0, 1, 1, "uvu", True)],
    ...                                       shared_weights=False)
    >>> structops.so2.tp_conv(graph, torch.ones(2, 4), torch.ones(2, 4), torch.ones(2, 8), product).shape
    torch.Size([2, 16])
    """
    op = "tp_conv"
    checked_graph(op, graph)
    if not isinstance(product, TensorProduct):
        check.fail(TypeError, op, "product to be a structops.so2.TensorProduct", type(product).__name__)
    spec = product.spec
    for name, t, rows, columns in (("x", x, graph.num_src, spec.in1.dim), ("y", y, graph.num_edges, spec.in2.dim)):
        _operand(op, name, t, columns, x)
        if t.dim() != 2 or t.shape[0] != rows:
            check.fail(ValueError, op, f"{name} of shape [{rows}, {columns}]", list(t.shape))
    weight = product._weights(op, weight, x)
    if weight is not None and not product.shared_weights and weight.shape != (graph.num_edges, spec.weight_numel):
        check.fail(ValueError, op, f"weight of shape [{graph.num_edges}, {spec.weight_numel}]", list(weight.shape))
    check.same_device(op, graph=graph.rowptr, x=x)
    needed = wants_derivative(x, y, weight)
    structure = by_sender(graph, needed or not spec.all_direct)
    contiguous = lambda t: t if t is None else t.contiguous()
    return spec.run(x.contiguous(), y.contiguous(), contiguous(weight), structure, graph)


def by_sender(graph: Graph, reverse: bool) -> tuple:
    """The six tensors of the structure with every receiver's edges sorted by sender, so that sums do not depend on the order in
    which edges were listed (parallel edges keep theirs). Kept with the graph."""
    known = graph.__dict__.get("_by_sender")
    if known is None or (reverse and known[3] is None):
        with lasting():
            rowptr, col, eid = (graph.rowptr, graph.col, graph.eid) if known is None else known[:3]
            if known is None:
                rows = torch.repeat_interleave(
                    torch.arange(graph.num_dst, dtype=torch.int64, device=graph.device), rowptr.diff(), output_size=graph.num_edges
                )
                key = rows * graph.num_src + col
                # Reading values is for eager calls only.
                if not is_eager() or not ladder.index_range(key)[2]:
                    order = torch.sort(key, stable=True).indices
                    col, eid = col[order], (order.to(col.dtype) if eid is None else eid[order])
            known = (rowptr, col, eid, None, None, None)
            if reverse:
                known = ladder.with_reverse(known, graph.num_src)
        if is_eager():
            graph.__dict__["_by_sender"] = known
    return known


def channelwise_instructions(irreps_in1: Any, irreps_in2: Any, filter_out: Any = None) -> tuple[Irreps, list[tuple]]:
    """The irreps and instructions of a channel-wise product: mode uvu, a path for every allowed term, results in
    the order of e3nn's ``Irreps.sort``: by degree, then odd before even.

    Args:
        irreps_in1: irreps of x; irreps_in2: of y, one copy of each term.
        filter_out: irreps to keep among the results; None for all.

    >>> import structops
    >>> irreps, paths = structops.so2.channelwise_instructions("8x0e+8x1o", "0e+1o", "0e+1o")
    >>> irreps, len(paths)
    (8x0e+8x0e+8x1o+8x1o, 4)
    """
    first, second = Irreps(irreps_in1), Irreps(irreps_in2)
    kept = None if filter_out is None else {(t.l, t.p) for t in Irreps(filter_out)}
    found: list[tuple] = []
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            for degree in range(abs(a.l - b.l), a.l + b.l + 1):
                if kept is None or (degree, a.p * b.p) in kept:
                    found.append((degree, a.p * b.p, len(found), a.mul, i, j))
    found.sort()
    irreps = Irreps([(mul, degree, p) for degree, p, _, mul, _, _ in found])
    return irreps, [(i, j, n, "uvu", True) for n, (*_, i, j) in enumerate(found)]


def _operand(op: str, name: str, t: Any, columns: int, like: Tensor | None = None) -> None:
    check.dense(op, name, t)
    if t.dim() < 1 or t.shape[-1] != columns:
        check.fail(ValueError, op, f"{name} of shape [..., {columns}]", list(t.shape))
    if like is not None and t.dtype != like.dtype:
        check.fail(TypeError, op, f"{name} of dtype {like.dtype}, as x", t.dtype)
    if like is not None and t.device != like.device:
        check.fail(ValueError, op, f"{name} on {like.device}, as x", t.device)
