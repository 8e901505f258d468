"""eigh_small and its derivative. Higher orders go through differentiable functions of the results."""

from __future__ import annotations

import torch

from .._dispatch import define
from ..kernels.so2.eigh_small_ref import gradient
from ._composed import gradients


def _fake(a):
    return a.new_empty(a.shape[:2]), torch.empty_like(a)


def _setup(ctx, inputs, output):
    if isinstance(ctx, torch.autograd.function.FunctionCtx):  # functorch's has no such method
        ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _backward(ctx, gw, gv):
    if gw is None and gv is None:
        return None
    return eigh_small_bwd(*ctx.saved_tensors, *(None if g is None else g.contiguous() for g in (gw, gv)))


eigh_small = define("eigh_small", _fake, _setup, _backward, (0,))


def _bwd_fake(w, v, gw, gv):
    return torch.empty_like(v)


def _bwd_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _bwd_backward(ctx, g):
    return tuple(gradients(gradient, ctx.saved_tensors, ctx.needs_input_grad, [g]))


eigh_small_bwd = define("eigh_small_bwd", _bwd_fake, _bwd_setup, _bwd_backward, (0, 1, 2, 3))
