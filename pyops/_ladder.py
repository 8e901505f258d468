"""Derivatives of the sparse operators.

Every backward below is written with the entry functions of this file and differentiable torch functions, so derivatives of
any order come from the same few kernels:

    spmm(sum)  <->  spmm on the reversed edges, sddmm        segment_softmax -> segment_softmax_bwd -> spmm, sddmm
    spmm(min, max)  ->  select_bwd  <->  select              scatter -> index_select, select_bwd

No message tensor [E, F] is saved. A structure is the six tensors (rowptr, col, eid, colptr, row_t, eid_t); its reverse swaps
the halves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._dispatch import define
from ._dispatch import is_eager as is_eager
from .kernels import codes as C

# ---- small helpers ---------------------------------------------------------------------------------------------------


def _rows(t: Tensor) -> int:
    return t.shape[0] if t.dim() < 3 else t.shape[1]


def _features(t: Tensor) -> int:
    return 1 if t.dim() == 1 else t.shape[-1]


def _column(t: Tensor, like: Tensor) -> Tensor:
    """A vector over rows, shaped to multiply ``like`` ([rows], [rows, F] or [B, rows, F])."""
    return t if like.dim() == 1 else t[:, None]


def _reverse(s: tuple) -> tuple:
    rowptr, col, eid, colptr, row_t, eid_t = s
    return colptr, row_t, eid_t, rowptr, col, eid


def with_reverse(s: tuple, num_src: int) -> tuple:
    """The structure with its reversed half, built if the caller left it out."""
    rowptr, col, eid, colptr, row_t, eid_t = s
    if colptr is not None:
        return s
    edges = col.numel()
    colptr, position = csr_build(col, num_src)
    rows = torch.arange(rowptr.numel() - 1, dtype=rowptr.dtype, device=rowptr.device)
    row = torch.repeat_interleave(rows, rowptr.diff(), output_size=edges)
    row_t = row[position]
    eid_t = eid[position] if eid is not None else position
    return rowptr, col, eid, colptr, row_t, eid_t


def _spmm(s: tuple, x, e, message: int, reduce: int = C.SUM, bcast=None, unbiased: bool = True) -> Tensor:
    return spmm(x, e, *s, bcast, message, reduce, C.ARG_NONE, C.EMPTY[reduce], False, unbiased)[0]


def _to_edges(s: tuple, t: Tensor, num_edges: int) -> Tensor:
    """Row values t [N, F] copied to the edges of each row."""
    return sddmm(t, None, *s, None, C.EDGE_COPY, C.V, C.V, num_edges, _features(t), 1)


def _edge_dot(s: tuple, x: Tensor, g: Tensor, e: Tensor, bcast) -> Tensor:
    """sum over the features that e broadcasts of x[u] * g[v], as [E, Fe]."""
    Fe, F = _features(e), _features(g)
    table = None
    if bcast is not None and not _consecutive(bcast, Fe):
        order = torch.argsort(bcast[1], stable=True).to(torch.int32)
        table = torch.stack([order, order])
    return sddmm(x, g, *s, table, C.EDGE_MUL, C.U, C.V, _rows(e), Fe, F // Fe)


def _consecutive(bcast: Tensor, Fe: int) -> bool:
    """Whether e broadcasts over runs of neighbouring features, as heads do: then no table is needed."""
    if type(bcast) is not Tensor or bcast.device.type != "cpu" or torch.compiler.is_compiling():
        return False  # values are not to be read while tracing, nor fetched from a GPU
    if torch._C._functorch.maybe_current_level() is not None or torch._C._len_torch_dispatch_stack() > 0:
        return False
    F = bcast.shape[1]
    return F % Fe == 0 and bcast[1].tolist() == [f // (F // Fe) for f in range(F)]


def _reduce_features(t: Tensor, e: Tensor, bcast) -> Tensor:
    """t [.., F] summed over the features that e [.., Fe] broadcasts."""
    if bcast is None:
        return t.sum(-1, keepdim=True) if _features(e) == 1 and _features(t) > 1 else t
    out = t.new_zeros(*t.shape[:-1], _features(e))
    return out.index_add(-1, bcast[1].long(), t)


def _expand(x: Tensor, F: int) -> Tensor:
    return x if _features(x) == F else x.expand(*x.shape[:-1], F).contiguous()


# ---- spmm ------------------------------------------------------------------------------------------------------------


def _out_shape(x, e, N: int, F: int) -> list[int]:
    rank = max(t.dim() for t in (x, e) if t is not None)
    if rank == 1:
        return [N]
    if rank == 2:
        return [N, F]
    return [max(t.shape[0] if t.dim() == 3 else 1 for t in (x, e) if t is not None), N, F]


def _spmm_fake(x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, message, reduce, arg, fill, skip_nan, unbiased):
    x = None if message == C.COPY_E else x
    e = None if message == C.COPY_U else e
    like = x if x is not None else e
    F = bcast.shape[1] if bcast is not None else max(_features(t) for t in (x, e) if t is not None)
    shape = _out_shape(x, e, rowptr.shape[0] - 1, F)
    return like.new_empty(shape), rowptr.new_empty(shape if arg else [0])


def _spmm_setup(ctx, inputs, output):
    x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, message, reduce, arg, _fill, _skip_nan, unbiased = inputs
    out, winners = output
    keep_out = reduce in (C.STD, C.LOGSUMEXP)
    keep_in = reduce not in (C.SUM, C.MEAN) or message in (C.MUL, C.DIV)
    extreme = reduce in (C.MIN, C.MAX)
    if extreme and message in (C.COPY_U, C.COPY_E):
        keep_in = False
    ctx.save_for_backward(
        x if keep_in and message != C.COPY_E else None, e if keep_in and message != C.COPY_U else None,
        rowptr, col, eid, colptr, row_t, eid_t, bcast, out if keep_out else None, winners if extreme else None,
    )  # fmt: skip
    ctx.shapes = tuple(None if t is None else t.shape for t in (x, e))
    ctx.args = (message, reduce, arg, unbiased)
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(winners)
        ctx.set_materialize_grads(False)


def _spmm_backward(ctx, g, _):
    if g is None:
        return (None,) * 15
    x, e, rowptr, col, eid, colptr, row_t, eid_t, bcast, out, winners = ctx.saved_tensors
    message, reduce, arg, unbiased = ctx.args
    if message == C.COPY_U and reduce == C.SUM and colptr is not None:
        dx = _spmm((colptr, row_t, eid_t, rowptr, col, eid), g.contiguous(), None, C.COPY_U)
        return dx, *(None,) * 14
    wants_x = ctx.needs_input_grad[0] and message != C.COPY_E
    wants_e = ctx.needs_input_grad[1] and message != C.COPY_U
    x_shape, e_shape = ctx.shapes
    s = (rowptr, col, eid, colptr, row_t, eid_t)
    if wants_x and reduce not in (C.MIN, C.MAX):
        s = with_reverse(s, x_shape[0] if len(x_shape) < 3 else x_shape[1])
    job = _SpmmGrad(s, x, e, x_shape, e_shape, bcast, message, unbiased, wants_x, wants_e)
    dx, de = job.run(g.contiguous(), reduce, arg, out, winners)
    return dx, de, *(None,) * 13


class _SpmmGrad:
    """The gradient of one spmm: cotangents of the messages, never stored per edge, pushed to x and e."""

    def __init__(self, s, x, e, x_shape, e_shape, bcast, message, unbiased, wants_x, wants_e):
        self.s, self.x, self.e, self.bcast, self.message, self.unbiased = s, x, e, bcast, message, unbiased
        self.x_shape, self.e_shape, self.wants_x, self.wants_e = x_shape, e_shape, wants_x, wants_e

    def run(self, g, reduce, arg, out, winners):
        if reduce == C.SUM:
            return self.linear(g)
        if reduce == C.MEAN:
            count = self.s[0].diff().clamp(min=1).to(g.dtype)
            if self.message == C.COPY_U and g.dim() == 2 and not torch.is_grad_enabled():
                # Weights 1 / n of the rows, read through row_t, spare a scaled copy of g.
                colptr, row_t, *_ = _reverse(self.s)
                return self.fit_x(_spmm((colptr, row_t, row_t, None, None, None), g, 1 / count[:, None], C.MUL)), None
            return self.linear(g / _column(count, g))
        if reduce in (C.MIN, C.MAX):
            return self.extreme(g, arg, winners)
        if reduce == C.PROD:
            return self.product(g)
        if reduce in (C.VAR, C.STD):
            return self.moment(g, reduce, out)
        return self.logsumexp(g, out)

    # Every dx below is [.., Nx, F]; these two sum it to the operand's own shape.
    def fit_x(self, dx):
        return None if dx is None else _as_shape(dx, self.x_shape)

    def fit_e(self, de):
        return None if de is None else _as_shape(de, self.e_shape)

    @property
    def edges(self) -> int:
        return self.e_shape[0] if len(self.e_shape) < 3 else self.e_shape[1]

    def e_like(self, g):
        """An empty tensor with e's feature count: shape carrier for the helpers."""
        return g.new_empty((0, 1 if len(self.e_shape) == 1 else self.e_shape[-1]))

    def linear(self, g):
        """Messages' cotangent is g[v]: the reduction is a plain sum."""
        s, t, m = self.s, _reverse(self.s), self.message
        dx = de = None
        if self.wants_x:
            if m in (C.MUL, C.DIV):
                dx = self.fit_x(_spmm(t, g, self.e, m, bcast=self.bcast))
            else:
                narrow = g.dim() > 1 and (1 if len(self.x_shape) == 1 else self.x_shape[-1]) == 1 and g.shape[-1] > 1
                dx = self.fit_x(_spmm(t, g.sum(-1, keepdim=True) if narrow else g, None, C.COPY_U))
        if self.wants_e:
            if m in (C.MUL, C.DIV):
                x = _expand(self.x, _features(g))
                de = self.fit_e(_edge_dot(s, x, g, self.e, self.bcast))
                if m == C.DIV:
                    de = -de / (self.e * self.e)
            else:
                small = _reduce_features(g, self.e_like(g), self.bcast) if g.dim() > 1 else g
                if len(self.e_shape) < 3 and small.dim() == 3:
                    small = small.sum(0)
                de = self.fit_e(_to_edges(s, small, self.edges))
                if m == C.SUB:
                    de = -de
        return dx, de

    def extreme(self, g, arg, winners):
        """Only the winning message of each output has a cotangent: everything is [N, F]."""
        _, col, eid, *_ = self.s
        m = self.message
        if m in (C.COPY_U, C.COPY_E):
            shape = self.x_shape if m == C.COPY_U else self.e_shape
            index = col if m == C.COPY_U else eid
            done = {C.COPY_U: C.ARG_SOURCE, C.COPY_E: C.ARG_EDGE}[m]
            rows = shape[0] if len(shape) < 3 else shape[1]
            if arg != done and index is not None:
                winners = lookup(index, winners, rows)
            grad = select_bwd(g, winners, rows)
            return (grad, None) if m == C.COPY_U else (None, grad)
        if arg != C.ARG_POSITION:
            raise NotImplementedError("spmm: the gradient of min/max with two operands needs arg = position")
        F, g3 = _features(g), _three(g)
        k = _three(winners)
        B, N, _ = k.shape
        u, j = lookup(col, k, -1), lookup(eid, k, -1) if eid is not None else _masked(k, self.edges)
        x, e = _three(self.x), _three(self.e)
        feature = torch.arange(F, device=g.device)
        fx = (bcast_row(self.bcast, 0) if self.bcast is not None else feature if x.shape[-1] == F else feature * 0)
        fe = (bcast_row(self.bcast, 1) if self.bcast is not None else feature if e.shape[-1] == F else feature * 0)
        ix, ie = _flat_index(u, x, fx), _flat_index(j, e, fe)
        xs = select(x.reshape(-1, 1), ix).reshape(B, N, F)
        es = select(e.reshape(-1, 1), ie).reshape(B, N, F)
        gx = g3 * es if m == C.MUL else g3 / torch.where(j < 0, 1, es) if m == C.DIV else g3
        ge = g3 * xs if m == C.MUL else -g3 * xs / torch.where(j < 0, 1, es * es) if m == C.DIV else -g3 if m == C.SUB else g3
        dx = select_bwd(gx.reshape(-1, 1), ix, x.numel()).reshape(self.x.shape) if self.wants_x else None
        de = select_bwd(ge.reshape(-1, 1), ie, e.numel()).reshape(self.e.shape) if self.wants_e else None
        return dx, de

    def moment(self, g, reduce, out):
        """Messages' cotangent is a[v] (m - mean[v]), a = 2 g / d for var and g / (d std) for std."""
        s, t, m = self.s, _reverse(self.s), self.message
        d = (s[0].diff() - int(self.unbiased)).clamp(min=1).to(g.dtype)
        if reduce == C.STD:
            safe = torch.where(out > 0, out, torch.ones_like(out))
            a = torch.where(out > 0, g / safe, torch.zeros_like(g)) / _column(d, g)
        else:
            a = 2 * g / _column(d, g)
        x, e, bcast, F = self.x, self.e, self.bcast, _features(g)
        if m == C.SUB:
            e = -e
        if m == C.DIV:
            e = 1 / e
        kind = {C.SUB: C.ADD, C.DIV: C.MUL}.get(m, m)
        mean = _spmm(s, x, e, kind, C.MEAN, bcast)
        b = a * mean
        dx = de = None
        if kind == C.COPY_U:
            dx = x * _spmm(t, a, None, C.COPY_U) - _spmm(t, b, None, C.COPY_U)
        elif kind == C.COPY_E:
            de = _to_edges(s, a, self.edges) * (e - _to_edges(s, mean, self.edges))
        else:
            wide = _expand(x, F)
            if self.wants_x and kind == C.ADD:
                dx = wide * _spmm(t, a, None, C.COPY_U) + _spmm(t, a, e, C.MUL, bcast=bcast) - _spmm(t, b, None, C.COPY_U)
            elif self.wants_x:
                dx = wide * _spmm(t, a, e * e, C.MUL, bcast=bcast) - _spmm(t, b, e, C.MUL, bcast=bcast)
            if self.wants_e and kind == C.ADD:
                small = lambda v: _to_edges(s, _reduce_features(v, e, bcast), self.edges)  # noqa: E731
                de = _edge_dot(s, wide, a, e, bcast) + e * small(a) - small(b)
            elif self.wants_e:
                de = e * _edge_dot(s, wide * wide, a, e, bcast) - _edge_dot(s, wide, b, e, bcast)
        if de is not None and m == C.SUB:
            de = -de
        if de is not None and m == C.DIV:
            de = -de * e * e
        return self.fit_x(dx), self.fit_e(de)

    def product(self, g):
        s, m = self.s, self.message
        x, e = self.x, self.e
        if m in (C.COPY_U, C.COPY_E):
            grad = _copy_product_grad(s, m, x if m == C.COPY_U else e, g)
            return (self.fit_x(grad), None) if m == C.COPY_U else (None, self.fit_e(grad))
        if m in (C.MUL, C.DIV):  # the product of x_u e_k is the product of x_u times the product of e_k
            F = _features(g)
            wide_x = _expand(x, F)
            wide_e = 1 / e if m == C.DIV else e
            px = _spmm(s, wide_x, None, C.COPY_U, C.PROD)
            pe = _wide_e(_spmm(s, None, wide_e, C.COPY_E, C.PROD), F, self.bcast)
            dx = _copy_product_grad(s, C.COPY_U, wide_x, g * pe) if self.wants_x else None
            de = None
            if self.wants_e:
                small = _reduce_features(g * px, e, self.bcast)
                if e.dim() < 3 and small.dim() == 3:
                    small = small.sum(0)
                de = _copy_product_grad(s, C.COPY_E, wide_e, small)
                de = -de * wide_e * wide_e if m == C.DIV else de
            return self.fit_x(dx), self.fit_e(de)
        return self.from_edges(lambda messages: _copy_product_grad(s, C.COPY_E, messages, g))

    def logsumexp(self, g, out):
        y = torch.where(out == float("-inf"), torch.zeros_like(out), out)
        edge = lambda v, n: _to_edges(self.s, v, n)  # noqa: E731

        def cotangent(messages):
            n = _rows(messages)
            return torch.exp(messages - edge(y, n)) * edge(g, n)

        return self.from_edges(cotangent)

    def from_edges(self, cotangent):
        """Through messages in memory, [E, F] for the duration of the backward."""
        s, t, m = self.s, _reverse(self.s), self.message
        x, e = self.x, self.e
        if m == C.COPY_E:
            return None, self.fit_e(cotangent(e))
        n = s[1].numel()
        xe = sddmm(x, None, *s, None, C.EDGE_COPY, C.U, C.U, n, _features(x), 1)
        if m == C.COPY_U:
            return self.fit_x(_spmm(t, None, cotangent(xe), C.COPY_E)), None
        F = bcast_row(self.bcast, 1).numel() if self.bcast is not None else max(_features(x), _features(e))
        ee = _wide_e(e, F, self.bcast)
        if xe.dim() == 1 and ee.dim() > 1:
            xe = xe[:, None]
        messages = (xe + ee if m == C.ADD else xe - ee if m == C.SUB else xe * ee if m == C.MUL else xe / ee)
        dm = cotangent(messages.contiguous())
        dx = de = None
        if self.wants_x:
            dxe = dm * ee if m == C.MUL else dm / ee if m == C.DIV else dm
            dx = self.fit_x(_spmm(t, None, dxe.contiguous(), C.COPY_E))
        if self.wants_e:
            dee = dm * xe if m == C.MUL else -dm * xe / (ee * ee) if m == C.DIV else -dm if m == C.SUB else dm
            if e.dim() > 1:
                dee = _reduce_features(dee, e, self.bcast)
            de = self.fit_e(dee)
        return dx, de


def bcast_row(bcast: Tensor, row: int) -> Tensor:
    return bcast[row].long()


def _wide_e(e: Tensor, F: int, bcast) -> Tensor:
    if bcast is not None:
        return e.index_select(-1, bcast[1].long())
    return _expand(e, F) if e.dim() > 1 else e


def _as_shape(t: Tensor, shape) -> Tensor:
    """``t`` summed over a broadcast batch and broadcast features, in ``shape``."""
    if t.dim() == 3 and (len(shape) < 3 or shape[0] == 1) and t.shape[0] > 1:
        t = t.sum(0, keepdim=True)
    F = 1 if len(shape) == 1 else shape[-1]
    if F == 1 and t.dim() > 1 and t.shape[-1] > 1:
        t = t.sum(-1, keepdim=True)
    return t.reshape(shape)


def _three(t: Tensor) -> Tensor:
    return t[None, :, None] if t.dim() == 1 else t[None] if t.dim() == 2 else t


def _masked(k: Tensor, edges: int) -> Tensor:
    return torch.where(k < edges, k, -1)


def lookup(index: Tensor, k: Tensor, outside: int) -> Tensor:
    """index[k], ``outside`` where k is the sentinel len(index)."""
    if index.numel() == 0:
        return torch.full_like(k, outside)
    inside = k < index.numel()
    return torch.where(inside, index[torch.where(inside, k, 0).long()], outside).to(k.dtype)


def _flat_index(rows: Tensor, operand: Tensor, feature: Tensor) -> Tensor:
    """Positions in operand.reshape(-1) of (batch, rows, feature) [B, N, F]; -1 where rows < 0."""
    B, n, F = operand.shape
    batch = torch.arange(rows.shape[0], device=rows.device)[:, None, None] * (n * F if B > 1 else 0)
    flat = batch + rows.long() * F + feature
    return torch.where(rows < 0, -1, flat).reshape(-1, 1)


def _copy_product_grad(s: tuple, message: int, h: Tensor, g: Tensor) -> Tensor:
    """Gradient of the row products of h, exact at zeros and twice differentiable there.

    With P the product of a row's non-zero entries, Z and Q the sum and the sum of squares of its zero entries (zero in value,
    not in derivative) and n0 their number, the row product is P, P Z or P (Z^2 - Q) / 2 for n0 = 0, 1, 2, and has neither a
    first nor a second derivative beyond.
    """
    forward = (lambda v: _spmm(s, v, None, message)) if message == C.COPY_U else (lambda v: _spmm(s, None, v, message))
    zero = h == 0
    rest = torch.where(zero, torch.ones_like(h), h)
    P = _spmm(s, *((rest, None) if message == C.COPY_U else (None, rest)), message, C.PROD)
    zeros = torch.where(zero, h, torch.zeros_like(h))
    n0 = forward(zero.to(h.dtype))
    Z, Q = forward(zeros), forward(zeros * zeros)
    none = torch.zeros_like(P)
    value = torch.where(n0 == 0, P, torch.where(n0 == 1, P * Z, torch.where(n0 == 2, P * (Z * Z - Q) / 2, none)))
    one, two = torch.where(n0 == 1, P, none), torch.where(n0 == 2, P, none)
    if message == C.COPY_U:
        push = lambda v: _spmm(_reverse(s), v, None, C.COPY_U)  # noqa: E731
    else:
        push = lambda v: _to_edges(s, v, _rows(h))  # noqa: E731
    return torch.where(zero, push(g * (one + two * Z)) - h * push(g * two), push(g * value) / rest)


spmm = define("spmm", _spmm_fake, _spmm_setup, _spmm_backward, (0, 1))


class CopySum(torch.autograd.Function):
    """The sum of copied sources in eager mode, the most frequent call: the structure travels as one argument, so that a small
    graph does not pay for fifteen. The same kernel and the same derivative as ``spmm``."""

    @staticmethod
    def forward(ctx, x, structure):
        ctx.structure = structure
        return _spmm(structure, x, None, C.COPY_U)

    @staticmethod
    def backward(ctx, g):
        g, back = g.contiguous(), _reverse(ctx.structure)
        return (CopySum.apply(g, back) if torch.is_grad_enabled() else _spmm(back, g, None, C.COPY_U)), None


# ---- sddmm -----------------------------------------------------------------------------------------------------------


def _sddmm_fake(
    lhs, rhs, rowptr, col, eid, colptr, row_t, eid_t, bcast, op, lhs_target, rhs_target, num_edges, out_features, reduce_features
):  # fmt: skip
    return lhs.new_empty(_out_shape(lhs, rhs if op != C.EDGE_COPY else None, num_edges, out_features))


def _sddmm_setup(ctx, inputs, output):
    lhs, rhs, *structure = inputs[:8]
    bcast, op = inputs[8], inputs[9]
    both = op in (C.EDGE_MUL, C.EDGE_DIV)
    ctx.save_for_backward(lhs if both else None, rhs if both else None, *structure, bcast)
    ctx.meta = (lhs.shape, None if rhs is None else rhs.shape)
    ctx.args = inputs[9:]


def _sddmm_backward(ctx, g):
    lhs, rhs, *structure, bcast = ctx.saved_tensors
    op, lhs_target, rhs_target, num_edges, Fo, R = ctx.args
    l_shape, r_shape = ctx.meta
    s = tuple(structure)
    wants_l = ctx.needs_input_grad[0]
    wants_r = ctx.needs_input_grad[1] and op != C.EDGE_COPY
    if (wants_l and lhs_target == C.U) or (wants_r and rhs_target == C.U):
        shape = l_shape if lhs_target == C.U else r_shape
        s = with_reverse(s, shape[0] if len(shape) < 3 else shape[1])
    F = Fo * R
    g = g.contiguous()
    if bcast is not None:  # operands as the table reads them; their gradients are added back at the end
        lhs = None if lhs is None else lhs.index_select(-1, bcast[0].long())
        rhs = None if rhs is None else rhs.index_select(-1, bcast[1].long())
    if op == C.EDGE_DIV:
        inverse = 1 / rhs
    table = None  # feature f reads other[f] and g[f // R]
    if R > 1 and Fo > 1:
        order = torch.arange(F, dtype=torch.int32, device=g.device)
        table = torch.stack([order, order // R])

    def toward(target: int, other: Tensor | None, other_target: int) -> Tensor:
        """sum over the edges at each row of ``target`` of g times ``other`` (1 if None), as [.., rows, F]."""
        way = _reverse(s) if target == C.U else s
        if target == C.E:
            if other is None:
                return g
            if table is None:
                return sddmm(_expand_edge(g, F), other, *s, None, C.EDGE_MUL, C.E, other_target, num_edges, F, 1)
            return sddmm(g, other, *s, torch.stack([table[1], table[0]]), C.EDGE_MUL, C.E, other_target, num_edges, F, 1)
        if other is None:
            return _spmm(way, None, g, C.COPY_E)
        if other_target == C.E:
            wide = g.index_select(-1, table[1].long()) if table is not None else g
            return _spmm(way, None, (wide * other).contiguous(), C.COPY_E)
        if other_target == target:  # both operands at the same end: the sum of g, times the other
            wide = _spmm(way, None, g, C.COPY_E)
            return (wide.index_select(-1, table[1].long()) if table is not None else wide) * other
        return _spmm(way, other, g, C.MUL, bcast=table)

    def fold(d: Tensor, row: int, shape) -> Tensor:
        if bcast is not None:
            wide = d if _features(d) == F else d.expand(*d.shape[:-1], F)
            d = wide.new_zeros(*wide.shape[:-1], shape[-1]).index_add(-1, bcast[row].long(), wide)
        return _as_shape(d, shape)

    dl = dr = None
    if wants_l:
        other = {C.EDGE_MUL: rhs, C.EDGE_DIV: inverse if op == C.EDGE_DIV else None}.get(op)
        dl = fold(toward(lhs_target, other, rhs_target), 0, l_shape)
    if wants_r:
        other = lhs if op in (C.EDGE_MUL, C.EDGE_DIV) else None
        dr = toward(rhs_target, other, lhs_target)
        if op == C.EDGE_SUB:
            dr = -dr
        if op == C.EDGE_DIV:
            dr = -dr * inverse * inverse
        dr = fold(dr, 1, r_shape)
    return dl, dr, *(None,) * 13


def _expand_edge(g: Tensor, F: int) -> Tensor:
    return g if _features(g) == F else g.expand(*g.shape[:-1], F).contiguous()


sddmm = define("sddmm", _sddmm_fake, _sddmm_setup, _sddmm_backward, (0, 1))


# ---- segment_softmax -------------------------------------------------------------------------------------------------


def _softmax_fake(src, rowptr, eid, log):
    return torch.empty_like(src)


def _softmax_setup(ctx, inputs, output):
    ctx.save_for_backward(output, inputs[1], inputs[2])
    ctx.log = inputs[3]


def _softmax_backward(ctx, g):
    out, rowptr, eid = ctx.saved_tensors
    return segment_softmax_bwd(out, g.contiguous(), rowptr, eid, ctx.log), None, None, None


def _softmax_bwd_fake(out, grad, rowptr, eid, log):
    return torch.empty_like(out)


def _softmax_bwd_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])
    ctx.log = inputs[4]


def _softmax_bwd_backward(ctx, h):
    """With y the softmax: D_j = y_j (g_j - <y, g>);  with y its logarithm: D_j = g_j - exp(y_j) sum(g)."""
    y, g, rowptr, eid = ctx.saved_tensors
    h = h.contiguous()
    s, n = (rowptr, None, eid, None, None, None), _rows(y)
    total = lambda v: _to_edges(s, _spmm(s, None, v.contiguous(), C.COPY_E), n)  # noqa: E731
    dy = dg = None
    if ctx.log:
        p = y.exp()
        if ctx.needs_input_grad[0]:
            dy = -h * p * total(g)
        if ctx.needs_input_grad[1]:
            dg = h - total(h * p)
    else:
        if ctx.needs_input_grad[0]:
            dy = h * (g - total(y * g)) - g * total(h * y)
        if ctx.needs_input_grad[1]:
            dg = segment_softmax_bwd(y, h, rowptr, eid, False)
    return dy, dg, None, None, None


segment_softmax = define("segment_softmax", _softmax_fake, _softmax_setup, _softmax_backward, (0,))
segment_softmax_bwd = define("segment_softmax_bwd", _softmax_bwd_fake, _softmax_bwd_setup, _softmax_bwd_backward, (0, 1))


# ---- scatter ---------------------------------------------------------------------------------------------------------


def _scatter_fake(src, index, dim_size, reduce, return_arg, fill, skip_nan):
    shape = list(src.shape)
    shape[0 if src.dim() < 3 else 1] = dim_size
    return src.new_empty(shape), index.new_empty(shape if return_arg else [0], dtype=torch.int64)


def _scatter_setup(ctx, inputs, output):
    src, index, dim_size, reduce, return_arg, *_ = inputs
    extreme = reduce in (C.MIN, C.MAX)
    ctx.save_for_backward(index, output[1] if extreme else None)
    ctx.args = (dim_size, reduce, return_arg, src.shape[0 if src.dim() < 3 else 1])
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)


def _scatter_backward(ctx, g, _):
    if g is None:
        return (None,) * 7
    index, winners = ctx.saved_tensors
    dim_size, reduce, return_arg, edges = ctx.args
    if reduce in (C.MIN, C.MAX):
        if not return_arg:
            raise NotImplementedError("scatter: the gradient of min and max needs return_arg = True")
        return select_bwd(g.contiguous(), winners, edges), *(None,) * 6
    if reduce == C.PROD:
        raise NotImplementedError("scatter: prod is differentiated through csr_build and spmm, see structops.scatter_reduce")
    if reduce == C.MEAN:
        count = scatter(torch.ones(edges, dtype=torch.int64, device=g.device), index, dim_size, C.SUM, False, 0.0, False)[0]
        g = g / _column(count.clamp(min=1).to(g.dtype), g)
    return g.index_select(0 if g.dim() < 3 else 1, index), *(None,) * 6


scatter = define("scatter", _scatter_fake, _scatter_setup, _scatter_backward, (0,))


# ---- select ----------------------------------------------------------------------------------------------------------


def _select_fake(src, idx):
    return src.new_empty(idx.shape)


def _select_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])
    ctx.rows = _rows(inputs[0])


def _select_backward(ctx, g):
    return select_bwd(g.contiguous(), ctx.saved_tensors[0], ctx.rows), None


def _select_bwd_fake(grad, idx, rows):
    shape = list(grad.shape)
    shape[0 if grad.dim() < 3 else 1] = rows
    return grad.new_empty(shape)


def _select_bwd_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _select_bwd_backward(ctx, g):
    return select(g.contiguous(), ctx.saved_tensors[0]), None, None


select = define("select", _select_fake, _select_setup, _select_backward, (0,))
select_bwd = define("select_bwd", _select_bwd_fake, _select_bwd_setup, _select_bwd_backward, (0,))


# ---- structure -------------------------------------------------------------------------------------------------------


def _csr_build_fake(index, num_groups):
    return index.new_empty([num_groups + 1]), torch.empty_like(index)


def _index_range_fake(index):
    ctx = torch.library.get_ctx()
    return ctx.new_dynamic_size(), ctx.new_dynamic_size(), True


csr_build = define("csr_build", _csr_build_fake, None, None, ())
index_range = define("index_range", _index_range_fake, None, None, ())
