"""eigh3 and its derivative, which differentiable functions of its results write: so every order is there."""

from __future__ import annotations

import torch

from .._dispatch import define


def _fake(a):
    return a.new_empty(a.shape[:2]), torch.empty_like(a)


def _setup(ctx, inputs, output):
    if isinstance(ctx, torch.autograd.function.FunctionCtx):  # functorch's has no such method
        ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _backward(ctx, gw, gv):
    """v (diag(gw) + P) v', P[i, j] = (G - G')[i, j] / 2 (w[j] - w[i]), G = v' gv."""
    w, v = ctx.saved_tensors
    middle = None if gw is None else torch.diag_embed(gw)
    if gv is not None:
        G = v.mT @ gv
        diagonal = torch.eye(w.shape[1], dtype=torch.bool, device=w.device)
        gap = (w[:, None, :] - w[:, :, None]).masked_fill(diagonal, 1)
        P = (G - G.mT) / (2 * gap)
        middle = P if middle is None else middle + P
    return None if middle is None else v @ middle @ v.mT


eigh3 = define("eigh3", _fake, _setup, _backward, (0,))
