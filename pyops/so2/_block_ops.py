"""The edge block with its derivatives.

Forward and first derivatives are one compiled pass each. The second derivative differentiates the same block composed of the
family's bilinear operators, a chunk of edges at a time, with covariant rotations: their derivative along a direction is the
torque, exact at every direction, and the Hessian is symmetric.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import define, is_transformed
from .._ladder._composed import apart, gradients
from ..kernels.so2.edge_block_ref import edges, gate, scales
from ..kernels.so2.wigner_ref import order
from ._conv_ops import so2_conv
from ._frame_ops import direction, so2_rotate, so2_rotate_back, so2_wigner, so3_torque

CHUNK = 4096  # edges of which the second derivative holds intermediates at a time
LEAVES = 10  # differentiable arguments, from x to bias2
BITS = (1, 1, 2, 8, 8, 4, 8, 8, 8, 8)


def _along(torque: Tensor, vec: Tensor) -> Tensor:
    e, norm = direction(vec)
    return torch.linalg.cross(torque, e) / norm


class _RotateIn(torch.autograd.Function):
    """x -> D x; the derivative in ``vec`` moves x with the frame (right in whatever does not depend on the turn about the edge)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, vec, D, lmax, mmax):
        return so2_rotate(x, D, lmax, mmax)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:3])
        ctx.degrees = inputs[3:]

    @staticmethod
    def backward(ctx, g):
        x, vec, D = ctx.saved_tensors
        back = _RotateOut.apply(g.contiguous(), vec, D, *ctx.degrees)
        d_vec = _along(-so3_torque(back, x, ctx.degrees[0], -1), vec) if ctx.needs_input_grad[1] else None
        return back, d_vec, None, None, None


class _RotateOut(torch.autograd.Function):
    """z -> D^T z, likewise."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z, vec, D, lmax, mmax):
        return so2_rotate_back(z, D, lmax, mmax)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:3])
        ctx.degrees = inputs[3:]

    @staticmethod
    def backward(ctx, g):
        z, vec, D = ctx.saved_tensors
        g = g.contiguous()
        d_vec = None
        if ctx.needs_input_grad[1]:
            message = _RotateOut.apply(z, vec, D, *ctx.degrees)
            d_vec = _along(so3_torque(g, message, ctx.degrees[0], -1), vec)
        return _RotateIn.apply(g, vec, D, *ctx.degrees), d_vec, None, None, None


def pairing(grad, leaves, src, dst, j, D, L: int, M: int, H: int, three: bool) -> Tensor:
    """<grad, block> of some edges, differentiable in ``grad`` and every leaf to any order."""
    x, vec, radial, wr, br, env, w1, b1, w2, b2 = leaves
    C = x.shape[2]
    vec = vec[j]
    z = _RotateIn.apply(torch.cat([x[src], x[dst]], 2), vec, D, L, M).flatten(1)
    s = scales(radial if radial is None else radial[j], wr, br, L, M, C)
    z = z if s is None else z * s
    pre = so2_conv(z, w1, b1, L, M, 2 * C, H, L * H, False, three)
    mid = so2_conv(gate(pre, L, M, H), w2, b2, L, M, H, C, 0, False, three)
    if env is not None:
        mid = mid * env[j][:, None]
    message = _RotateOut.apply(mid.reshape(mid.shape[0], len(order(L, M)), C), vec, D, L, M)
    return (grad[dst] * message).sum()


def _fake(x, vec, radial, wr, br, env, w1, b1, w2, b2, rowptr, col, eid, lmax, mmax, hidden, three, keep):
    E, n = col.shape[0], len(order(lmax, mmax))
    if not keep:
        return torch.empty_like(x), x.new_empty(0, 0), x.new_empty(0, 0)
    return torch.empty_like(x), x.new_empty(E, (lmax + n) * hidden), x.new_empty(E, n * x.shape[2])


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:13], *(t.detach() for t in output[1:]))
    ctx.options = inputs[13:17]
    ctx.set_materialize_grads(False)


def _backward(ctx, g, *_):
    *inputs, pre, mid = ctx.saved_tensors
    if g is None:
        return (None,) * 18
    wanted = 0
    for i, t in enumerate(inputs[:LEAVES]):
        if t is not None and ctx.needs_input_grad[i]:
            wanted |= BITS[i]
    found = edge_block_bwd(g.contiguous(), *inputs, pre, mid, *ctx.options, wanted)
    return (*(d if ctx.needs_input_grad[i] else None for i, d in enumerate(found)), *(None,) * 8)


def _bwd_fake(grad, x, vec, radial, wr, br, env, w1, b1, w2, b2, rowptr, col, eid, pre, mid, lmax, mmax, hidden, three, wanted):
    inputs = (x, vec, radial, wr, br, env, w1, b1, w2, b2)
    return tuple(
        x.new_empty(0) if t is None or not wanted & bit else x.new_empty(t.shape) for t, bit in zip(inputs, BITS, strict=True)
    )


def _bwd_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:14])
    ctx.options, ctx.wanted = inputs[16:20], inputs[20]
    ctx.set_materialize_grads(False)


def _bwd_backward(ctx, *cotangents):
    grad, *inputs = ctx.saved_tensors
    leaves, (rowptr, col, eid) = inputs[:LEAVES], inputs[LEAVES:]
    L, M, H, three = ctx.options
    higher = torch.is_grad_enabled()  # a third derivative may follow: keep the graph
    used = [i for i, v in enumerate(cotangents) if v is not None and leaves[i] is not None and ctx.wanted & BITS[i]]
    needed = [i for i in range(LEAVES + 1) if ctx.needs_input_grad[i]]
    if not used or not needed:
        return (None,) * 21
    if is_transformed():
        return *_second(grad, leaves, edges(rowptr, col, eid), used, needed, cotangents, ctx.options), *(None,) * 10

    total: list[Tensor | None] = [None] * (LEAVES + 1)
    src, dst, j = edges(rowptr, col, eid)
    E = col.shape[0]
    step = E if torch.compiler.is_compiling() or higher or E <= CHUNK else CHUNK
    with torch.enable_grad():
        args = [None if t is None else apart(t, higher) for t in (grad, *leaves)]
        for k in range(0, E, max(step, 1)):
            part = slice(k, k + step)
            D = so2_wigner.below(args[2].detach()[j[part]], None, L, M)
            inner = pairing(args[0], args[1:], src[part], dst[part], j[part], D, L, M, H, three)
            first = torch.autograd.grad(inner, [args[1 + i] for i in used], create_graph=True, allow_unused=True)
            scalar = sum((cotangents[i] * f).sum() for i, f in zip(used, first, strict=True) if f is not None)
            if not isinstance(scalar, Tensor) or not scalar.requires_grad:
                continue
            second = torch.autograd.grad(scalar, [args[i] for i in needed], create_graph=higher, allow_unused=True)
            for i, s in zip(needed, second, strict=True):
                if s is not None:
                    total[i] = s if total[i] is None else total[i] + s
    return (*total, *(None,) * 10)


def _second(grad, leaves, ends, used, needed, cotangents, options) -> list[Tensor | None]:
    """The same under torch.func, for all edges at once."""
    src, dst, j = ends

    def first(grad, *leaves):
        def paired(*values):
            given = list(leaves)
            for i, v in zip(used, values, strict=True):
                given[i] = v
            D = so2_wigner(given[1][j], None, *options[:2])
            return pairing(grad, given, src, dst, j, D, *options)

        return torch.func.grad(paired, tuple(range(len(used))))(*(leaves[i] for i in used))

    needs = [i in needed for i in range(LEAVES + 1)]
    return gradients(first, (grad, *leaves), needs, [cotangents[i] for i in used])


edge_block = define("edge_block", _fake, _setup, _backward, tuple(range(LEAVES)))
edge_block_bwd = define("edge_block_bwd", _bwd_fake, _bwd_setup, _bwd_backward, tuple(range(LEAVES + 1)))
