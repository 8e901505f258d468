"""Frames, Wigner matrices and rotations: the operators with their derivatives.

    so2_wigner -> so3_torque <-> so3_turn          so2_rotate <-> so2_rotate_back <-> so2_rotate_outer

Each of the two groups is closed under differentiation, so every order is there. The derivative of a Wigner matrix is
dD = D (w . G) with w = de x e + k e: the first part turns the direction, k is the turn of the frame about it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._dispatch import Entry, define
from ..kernels.so2.wigner_ref import SEAM, order, packed_size


def direction(vec: Tensor) -> tuple[Tensor, Tensor]:
    """(unit vectors, lengths [E, 1]), differentiable."""
    norm = torch.linalg.vector_norm(vec, dim=1, keepdim=True)
    return vec / norm, norm


def frame_turn(e: Tensor) -> Tensor:
    """k with de -> k . de, the turn about the edge that comes with a change of direction in the fixed frames."""
    x, y, z = e.unbind(1)
    below = y < SEAM
    # Both branches are finite where they are used; the other one must not put its infinity into the derivative.
    near = 1 / (1 + torch.where(below, torch.zeros_like(y), y))
    far = -1 / (1 - torch.where(below, y, torch.zeros_like(y)))
    t = torch.where(below, far, near)
    return torch.stack([z * t, torch.zeros_like(t), -x * t], 1)


def _wigner_fake(vec, gamma, lmax, mmax):
    return vec.new_empty(vec.shape[0], packed_size(lmax, mmax))


def _wigner_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], output)
    ctx.degrees = inputs[2:]


def _wigner_backward(ctx, g):
    vec, D = ctx.saved_tensors
    e, norm = direction(vec)
    T = so3_torque(g.contiguous(), D, *ctx.degrees)
    grad = torch.linalg.cross(e, T) + (e * T).sum(1, keepdim=True) * frame_turn(e)
    return grad / norm, None, None, None


def _rotate_fake(x, wigner, lmax, mmax):
    return x.new_empty(x.shape[0], len(order(lmax, mmax)), x.shape[2])


def _back_fake(z, wigner, lmax, mmax):
    return z.new_empty(z.shape[0], (lmax + 1) ** 2, z.shape[2])


def _outer_fake(z, x, lmax, mmax):
    return z.new_empty(z.shape[0], packed_size(lmax, mmax))


def _turn_fake(x, v, lmax, mmax):
    return torch.empty_like(x)


def _torque_fake(grad, x, lmax, mmax):
    return x.new_empty(x.shape[0], 3)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.degrees = inputs[2:]


def _bilinear(first, second):
    """The backward of an operator that is linear in both operands: first(ctx, g, a, b), second(ctx, g, a, b)."""

    def backward(ctx, g):
        a, b = ctx.saved_tensors
        g = g.contiguous()
        da = first(g, a, b, *ctx.degrees) if ctx.needs_input_grad[0] else None
        db = second(g, a, b, *ctx.degrees) if ctx.needs_input_grad[1] else None
        return da, db, None, None

    return backward


so2_wigner = define("so2_wigner", _wigner_fake, _wigner_setup, _wigner_backward, (0,))
so2_rotate = define(
    "so2_rotate", _rotate_fake, _setup,
    _bilinear(lambda g, x, D, *d: so2_rotate_back(g, D, *d), lambda g, x, D, *d: so2_rotate_outer(g, x, *d)), (0, 1),
)  # fmt: skip
so2_rotate_back: Entry = define(
    "so2_rotate_back", _back_fake, _setup,
    _bilinear(lambda g, z, D, *d: so2_rotate(g, D, *d), lambda g, z, D, *d: so2_rotate_outer(z, g, *d)), (0, 1),
)  # fmt: skip
so2_rotate_outer: Entry = define(
    "so2_rotate_outer", _outer_fake, _setup,
    _bilinear(lambda g, z, x, *d: so2_rotate(x, g, *d), lambda g, z, x, *d: so2_rotate_back(z, g, *d)), (0, 1),
)  # fmt: skip
so3_turn: Entry = define(
    "so3_turn", _turn_fake, _setup,
    _bilinear(lambda g, x, v, *d: -so3_turn(g, v, *d), lambda g, x, v, *d: so3_torque(g, x, *d)), (0, 1),
)  # fmt: skip
so3_torque: Entry = define(
    "so3_torque", _torque_fake, _setup,
    _bilinear(lambda h, g, x, *d: so3_turn(x, h, *d), lambda h, g, x, *d: -so3_turn(g, h, *d)), (0, 1),
)  # fmt: skip
