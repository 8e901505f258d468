"""The derivative of spmm, reduction by reduction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels import codes as C
from . import _common as common
from . import _difference, _sddmm, _spmm
from ._select import select, select_bwd


class Cotangent:
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
                colptr, row_t, *_ = common.reverse(self.s)
                return self.fit_x(_spmm.aggregate((colptr, row_t, row_t, None, None, None), g, 1 / count[:, None], C.MUL)), None
            return self.linear(g / common.column(count, g))
        if reduce in (C.MIN, C.MAX):
            return self.extreme(g, arg, winners)
        if reduce == C.PROD:
            return self.product(g)
        if reduce in (C.VAR, C.STD):
            return self.moment(g, reduce, out)
        return self.logsumexp(g, out)

    # Every dx below is [.., Nx, F]; these two sum it to the operand's own shape.
    def fit_x(self, dx):
        return None if dx is None else common.as_shape(dx, self.x_shape)

    def fit_e(self, de):
        return None if de is None else common.as_shape(de, self.e_shape)

    @property
    def edges(self) -> int:
        return self.e_shape[0] if len(self.e_shape) < 3 else self.e_shape[1]

    def e_like(self, g):
        """An empty tensor with e's feature count: shape carrier for the helpers."""
        return g.new_empty((0, 1 if len(self.e_shape) == 1 else self.e_shape[-1]))

    def linear(self, g):
        """Messages' cotangent is g[v]: the reduction is a plain sum."""
        s, t, m = self.s, common.reverse(self.s), self.message
        dx = de = None
        if self.wants_x:
            if m in (C.MUL, C.DIV):
                dx = self.fit_x(_spmm.aggregate(t, g, self.e, m, bcast=self.bcast))
            else:
                narrow = g.dim() > 1 and (1 if len(self.x_shape) == 1 else self.x_shape[-1]) == 1 and g.shape[-1] > 1
                dx = self.fit_x(_spmm.aggregate(t, g.sum(-1, keepdim=True) if narrow else g, None, C.COPY_U))
        if self.wants_e:
            if m in (C.MUL, C.DIV):
                x = common.expand(self.x, common.features(g))
                de = self.fit_e(_sddmm.edge_dot(s, x, g, self.e, self.bcast))
                if m == C.DIV:
                    de = -de / (self.e * self.e)
            else:
                small = common.reduce_features(g, self.e_like(g), self.bcast) if g.dim() > 1 else g
                if len(self.e_shape) < 3 and small.dim() == 3:
                    small = small.sum(0)
                de = self.fit_e(_sddmm.to_edges(s, small, self.edges))
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
                winners = common.lookup(index, winners, rows)
            grad = select_bwd(g, winners, rows)
            return (grad, None) if m == C.COPY_U else (None, grad)
        if arg != C.ARG_POSITION:
            raise NotImplementedError("spmm: the gradient of min/max with two operands needs arg = position")
        F, g3 = common.features(g), common.three(g)
        k = common.three(winners)
        B, N, _ = k.shape
        u, j = common.lookup(col, k, -1), common.lookup(eid, k, -1) if eid is not None else common.masked(k, self.edges)
        x, e = common.three(self.x), common.three(self.e)
        feature = torch.arange(F, device=g.device)
        fx = (common.bcast_row(self.bcast, 0) if self.bcast is not None else feature if x.shape[-1] == F else feature * 0)
        fe = (common.bcast_row(self.bcast, 1) if self.bcast is not None else feature if e.shape[-1] == F else feature * 0)
        ix, ie = common.flat_index(u, x, fx), common.flat_index(j, e, fe)
        xs = select(x.reshape(-1, 1), ix).reshape(B, N, F)
        es = select(e.reshape(-1, 1), ie).reshape(B, N, F)
        gx = g3 * es if m == C.MUL else g3 / torch.where(j < 0, 1, es) if m == C.DIV else g3
        ge = g3 * xs if m == C.MUL else -g3 * xs / torch.where(j < 0, 1, es * es) if m == C.DIV else -g3 if m == C.SUB else g3
        dx = select_bwd(gx.reshape(-1, 1), ix, x.numel()).reshape(self.x.shape) if self.wants_x else None
        de = select_bwd(ge.reshape(-1, 1), ie, e.numel()).reshape(self.e.shape) if self.wants_e else None
        return dx, de

    def moment(self, g, reduce, out):
        """Messages' cotangent is a[v] (m - mean[v]), a = 2 g / d for var and g / (d std) for std."""
        s, t, m = self.s, common.reverse(self.s), self.message
        d = (s[0].diff() - int(self.unbiased)).clamp(min=1).to(g.dtype)
        if reduce == C.STD:
            safe = torch.where(out > 0, out, torch.ones_like(out))
            a = torch.where(out > 0, g / safe, torch.zeros_like(g)) / common.column(d, g)
        else:
            a = 2 * g / common.column(d, g)
        x, e, bcast, F = self.x, self.e, self.bcast, common.features(g)
        if m == C.SUB:
            e = -e
        if m == C.DIV:
            e = 1 / e
        kind = {C.SUB: C.ADD, C.DIV: C.MUL}.get(m, m)
        if kind == C.COPY_U:
            return self.fit_x(self.deviations(a, s, t)), None
        # m - mean keeps its digits where sums run over what differs: operands less a constant near them.
        x0 = None if x is None else x - offset(x)
        mean_of = lambda x, e: _spmm.aggregate(s, x, e, kind, C.MEAN, bcast)
        push = lambda v: _spmm.aggregate(t, v, None, C.COPY_U)
        dx = de = None
        if kind == C.COPY_E:
            spread = lambda v: _sddmm.to_edges(s, v, self.edges)
            e0 = e - spread(mean_of(None, e))
            de = spread(a) * (e0 - spread(mean_of(None, e0)))
        elif kind == C.ADD:
            e0 = e - offset(e)
            b = a * mean_of(x0, e0)
            wide = common.expand(x0, F)
            if self.wants_x:
                dx = wide * push(a) + _spmm.aggregate(t, a, e0, C.MUL, bcast=bcast) - push(b)
            if self.wants_e:
                small = lambda v: _sddmm.to_edges(s, common.reduce_features(v, e, bcast), self.edges)
                de = _sddmm.edge_dot(s, wide, a, e, bcast) + e0 * small(a) - small(b)
        else:  # x e less its constant: cx e0 + x0 e
            e0, cx, wide = e - offset(e), offset(x), common.expand(x0, F)
            b = a * (mean_of(x0, e) + cx * common.wide_e(_spmm.aggregate(s, None, e0, C.COPY_E, C.MEAN), F, bcast))
            if self.wants_x:
                push = lambda v, w: _spmm.aggregate(t, v, w, C.MUL, bcast=bcast)
                dx = wide * push(a, e * e) + cx * push(a, e * e0) - push(b, e)
            if self.wants_e:
                dot = lambda v, w: _sddmm.edge_dot(s, v, w, e, bcast)
                full = wide + cx
                de = e * dot(wide * full, a) + e0 * dot(cx * full, a) - dot(full, b)
        if de is not None and m == C.SUB:
            de = -de
        if de is not None and m == C.DIV:
            de = -de * e * e
        return self.fit_x(dx), self.fit_e(de)

    def deviations(self, a, s, t):
        """The sum over every source's edges of a[v] (x[u] - mean[v]).

        The mean is a rounded number and its small rest, so that the differences keep their digits wherever each row lies.
        """
        with torch.no_grad():  # not detach(), which hides from torch that the transform of a tensor has ended
            near = common.beside(_spmm.aggregate(s, self.x, None, C.COPY_U, C.MEAN))
        x, a = common.beside(self.x), common.beside(a)
        count = s[0].diff().clamp(min=1).to(a.dtype)[:, None]
        rest = _difference.difference_rows(x, near, None, None, *s, 1.0, True) / -count
        sums = _difference.difference_rows(near, x, None, a, *t, 1.0, True) - _spmm.aggregate(t, a * rest, None, C.COPY_U)
        if self.x.dim() < 3:
            return sums.reshape(self.x.shape)
        B, n, F = self.x.shape
        return sums.reshape(n, B, F).transpose(0, 1)

    def product(self, g):
        s, m = self.s, self.message
        x, e = self.x, self.e
        if m in (C.COPY_U, C.COPY_E):
            grad = copy_product_grad(s, m, x if m == C.COPY_U else e, g)
            return (self.fit_x(grad), None) if m == C.COPY_U else (None, self.fit_e(grad))
        if m in (C.MUL, C.DIV):  # the product of x_u e_k is the product of x_u times the product of e_k
            F = common.features(g)
            wide_x = common.expand(x, F)
            wide_e = 1 / e if m == C.DIV else e
            px = _spmm.aggregate(s, wide_x, None, C.COPY_U, C.PROD)
            pe = common.wide_e(_spmm.aggregate(s, None, wide_e, C.COPY_E, C.PROD), F, self.bcast)
            dx = copy_product_grad(s, C.COPY_U, wide_x, g * pe) if self.wants_x else None
            de = None
            if self.wants_e:
                small = common.reduce_features(g * px, e, self.bcast)
                if e.dim() < 3 and small.dim() == 3:
                    small = small.sum(0)
                de = copy_product_grad(s, C.COPY_E, wide_e, small)
                de = -de * wide_e * wide_e if m == C.DIV else de
            return self.fit_x(dx), self.fit_e(de)
        return self.from_edges(lambda messages: copy_product_grad(s, C.COPY_E, messages, g))

    def logsumexp(self, g, out):
        y = torch.where(out == float("-inf"), torch.zeros_like(out), out)
        edge = lambda v, n: _sddmm.to_edges(self.s, v, n)

        def cotangent(messages):
            n = common.rows(messages)
            return torch.exp(messages - edge(y, n)) * edge(g, n)

        return self.from_edges(cotangent)

    def from_edges(self, cotangent):
        """Through messages in memory, [E, F] for the duration of the backward."""
        s, t, m = self.s, common.reverse(self.s), self.message
        x, e = self.x, self.e
        if m == C.COPY_E:
            return None, self.fit_e(cotangent(e))
        n = s[1].numel()
        xe = _sddmm.sddmm(x, None, *s, None, C.EDGE_COPY, C.U, C.U, n, common.features(x), 1)
        if m == C.COPY_U:
            return self.fit_x(_spmm.aggregate(t, None, cotangent(xe), C.COPY_E)), None
        F = common.bcast_row(self.bcast, 1).numel() if self.bcast is not None else max(common.features(x), common.features(e))
        ee = common.wide_e(e, F, self.bcast)
        if xe.dim() == 1 and ee.dim() > 1:
            xe = xe[:, None]
        messages = (xe + ee if m == C.ADD else xe - ee if m == C.SUB else xe * ee if m == C.MUL else xe / ee)
        dm = cotangent(messages.contiguous())
        dx = de = None
        if self.wants_x:
            dxe = dm * ee if m == C.MUL else dm / ee if m == C.DIV else dm
            dx = self.fit_x(_spmm.aggregate(t, None, dxe.contiguous(), C.COPY_E))
        if self.wants_e:
            dee = dm * xe if m == C.MUL else -dm * xe / (ee * ee) if m == C.DIV else -dm if m == C.SUB else dm
            if e.dim() > 1:
                dee = common.reduce_features(dee, e, self.bcast)
            de = self.fit_e(dee)
        return dx, de


def offset(t: Tensor) -> Tensor:
    """The mean of every feature, a constant: [1], [1, F] or [B, 1, F]; 0 where it is not finite."""
    with torch.no_grad():
        mean = t.mean(0 if t.dim() == 1 else -2, keepdim=True)
    return torch.where(mean.isfinite(), mean, 0)


def copy_product_grad(s: tuple, message: int, h: Tensor, g: Tensor) -> Tensor:
    """Gradient of the row products of h, exact at zeros and twice differentiable there.

    With P the product of a row's non-zero entries, Z and Q the sum and the sum of squares of its zero entries (zero in value,
    not in derivative) and n0 their number, the row product is P, P Z or P (Z^2 - Q) / 2 for n0 = 0, 1, 2, and has neither a
    first nor a second derivative beyond.
    """

    def forward(v: Tensor, reduce: int = C.SUM) -> Tensor:
        x, e = (v, None) if message == C.COPY_U else (None, v)
        return _spmm.aggregate(s, x, e, message, reduce)

    zero = h == 0
    rest = torch.where(zero, torch.ones_like(h), h)
    P = forward(rest, C.PROD)
    zeros = torch.where(zero, h, torch.zeros_like(h))
    n0 = forward(zero.to(h.dtype))
    Z, Q = forward(zeros), forward(zeros * zeros)
    none = torch.zeros_like(P)
    value = torch.where(n0 == 0, P, torch.where(n0 == 1, P * Z, torch.where(n0 == 2, P * (Z * Z - Q) / 2, none)))
    one, two = torch.where(n0 == 1, P, none), torch.where(n0 == 2, P, none)
    if message == C.COPY_U:
        push = lambda v: _spmm.aggregate(common.reverse(s), v, None, C.COPY_U)
    else:
        push = lambda v: _sddmm.to_edges(s, v, common.rows(h))
    return torch.where(zero, push(g * (one + two * Z)) - h * push(g * two), push(g * value) / rest)
