"""Derivatives of the symmetric contraction.

The operator is the gradient of D_1 .. D_K F in x, w, g (csrc/so2/symmetric_contraction.h). Its own gradient, for cotangents u, is
that of D_u D_1 .. D_K F: in x, w and g with one direction more; in the parts of direction j with u in the place of j.
"""

from __future__ import annotations

import torch

from .._dispatch import define

ORDERS = 2
DIRECTIONS = 9  # x, w, g, and two directions of each


def _fake(x, w, g, *rest):
    sizes, _, components_last, want_x, want_w, want_g = rest[-6:]
    out = (x.shape[0], x.shape[1], sizes[1]) if components_last else (x.shape[0], sizes[1], x.shape[2])
    return x.new_empty(x.shape if want_x else (0,)), x.new_empty(w.shape if want_w else (0,)), x.new_empty(out if want_g else (0,))


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[: DIRECTIONS + 4])
    ctx.sizes, ctx.order, ctx.components_last, *ctx.wants = inputs[DIRECTIONS + 4 :]
    if isinstance(ctx, torch.autograd.function.FunctionCtx):
        ctx.set_materialize_grads(False)


def _backward(ctx, *cotangents):
    saved = ctx.saved_tensors  # once: torch.utils.checkpoint refuses a second time
    tensors, lists = saved[:DIRECTIONS], saved[DIRECTIONS:]
    parts = [tuple(tensors[i : i + 3]) for i in range(0, DIRECTIONS, 3)]
    u = tuple(t.contiguous() if want and t is not None else None for t, want in zip(cotangents, ctx.wants, strict=True))
    needs = [tuple(ctx.needs_input_grad[i : i + 3]) for i in range(0, DIRECTIONS, 3)]
    grads = [None] * DIRECTIONS
    for j in range(ctx.order + 1):
        # The base gets u as a direction more; direction j gives its place to u.
        if not any(needs[j]) or all(t is None for t in u):
            continue
        others = [parts[i] for i in range(1, ctx.order + 1) if i != j]
        grads[3 * j : 3 * j + 3] = along(parts[0], [*others, u], lists, ctx.sizes, ctx.components_last, needs[j])
    return *grads, *(None,) * 10


def along(base: tuple, directions: list[tuple], lists, sizes, components_last: bool, wants: tuple) -> tuple:
    """The gradient in x, w and g of D_1 D_2 .. F; None where it is zero or not wanted.

    F is linear in w and in g: a derivative along one of them alone puts the direction in its place.
    """
    for n, d in enumerate(directions):
        given = [i for i in range(3) if d[i] is not None]
        if len(given) == 1 and given[0] > 0:
            (at,) = given
            put = lambda parts, value: tuple(value if i == at else t for i, t in enumerate(parts))  # noqa: B023
            others = [put(other, None) for m, other in enumerate(directions) if m != n]
            if any(all(t is None for t in other) for other in others):
                return None, None, None
            return along(put(base, d[at]), others, lists, sizes, components_last, put(wants, False))
    if not any(wants):
        return None, None, None
    if len(directions) > ORDERS:
        raise NotImplementedError(f"symmetric_contraction: expected at most {ORDERS + 1} derivatives, got {len(directions) + 1}")
    parts = [t for d in directions for t in d] + [None] * (3 * (ORDERS - len(directions)))
    found = symmetric_contraction(*base, *parts, *lists, sizes, len(directions), components_last, *wants)
    return tuple(t if want else None for t, want in zip(found, wants, strict=True))


symmetric_contraction = define("symmetric_contraction", _fake, _setup, _backward, tuple(range(DIRECTIONS)))
