"""Fast feed-forward networks: a binary tree of linear decisions with a small MLP in every leaf.

Hard, a row pays for ``depth`` dot products and one leaf; soft, for training, every leaf is computed and mixed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from .._dispatch import define, wants_derivative
from ..kernels import codes as C

_TORCH = {"identity": lambda v: v, "relu": F.relu, "gelu": F.gelu, "silu": F.silu}


def _descend_fake(x, node_weight, node_bias, depth, strict):
    return x.new_empty(x.shape[0], dtype=torch.int64), x.new_empty(x.shape[0], depth)


def _leaf_fake(x, rowptr, perm, w1, b1, w2, b2, activation):
    return x.new_empty(x.shape[0], w2.shape[2])


def _leaf_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:7])
    ctx.activation = inputs[7]


def _leaf_backward(ctx, g):
    x, rowptr, perm, w1, b1, w2, b2 = ctx.saved_tensors
    d = fff_leaf_bwd(g.contiguous(), x, rowptr, perm, w1, b1, w2, b2, ctx.activation)
    return d[0], None, None, d[1], None if b1 is None else d[2], d[3], None if b2 is None else d[4], None


def _bwd_fake(grad, x, rowptr, perm, w1, b1, w2, b2, activation):
    empty = lambda t: x.new_empty(0) if t is None else torch.empty_like(t)
    return torch.empty_like(x), torch.empty_like(w1), empty(b1), torch.empty_like(w2), empty(b2)


def _bwd_setup(ctx, inputs, output):
    pass


def _bwd_backward(ctx, *grads):
    raise NotImplementedError("structops.binary: hard fast feed-forward networks are differentiable once")


_fff_descend = define("fff_descend", _descend_fake, None, None, ())
fff_leaf = define("fff_leaf", _leaf_fake, _leaf_setup, _leaf_backward, (0, 3, 4, 5, 6))
fff_leaf_bwd = define("fff_leaf_bwd", _bwd_fake, _bwd_setup, _bwd_backward, (0, 1, 4, 5, 6, 7))


def _tree(op: str, x: Any, node_weight: Any, node_bias: Any) -> int:
    check.dense(op, "x", x)
    check.dense(op, "node_weight", node_weight)
    if x.dim() < 1 or node_weight.dim() != 2 or node_weight.shape[1] != x.shape[-1]:
        check.fail(ValueError, op, "node_weight of shape [2 ** depth - 1, features of x]", list(node_weight.shape))
    nodes = node_weight.shape[0]
    depth = (nodes + 1).bit_length() - 1
    if 2**depth - 1 != nodes or depth > 30:
        check.fail(ValueError, op, "2 ** depth - 1 nodes, depth at most 30", nodes)
    if node_bias is not None:
        check.dense(op, "node_bias", node_bias)
        if node_bias.numel() != nodes:
            check.fail(ValueError, op, f"node_bias of {nodes} elements", list(node_bias.shape))
    for name, t in (("node_weight", node_weight), ("node_bias", node_bias)):
        if t is not None and (t.dtype != x.dtype or t.device != x.device):
            check.fail(TypeError, op, f"{name} {x.dtype} on {x.device}, as x", check.describe(t))
    return depth


@autocast.lowers
def fff_descend(x: Tensor, node_weight: Tensor, node_bias: Tensor | None = None, *, tie: str = ">=") -> tuple[Tensor, Tensor]:
    """The leaf that every row reaches, int64 ``[*]``, and the logits of its ``depth`` decisions, ``[*, depth]``.

    Args:
        x: ``[*, I]``. node_weight: ``[2 ** depth - 1, I]`` in breadth-first order; the children of node n are 2n + 1 and 2n + 2.
        tie: go to the second child where the logit is ``>=`` 0 or ``>`` 0. NaN goes to the first.

    Not differentiable. Deterministic.

    >>> import torch, structops
    >>> structops.binary.fff_descend(torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0]]))
    (tensor([1, 0]), tensor([[ 1.],
            [-1.]]))
    """
    op = "fff_descend"
    depth = _tree(op, x, node_weight, node_bias)
    check.choice(op, "tie", tie, (">=", ">"))
    bias = None if node_bias is None else node_bias.detach().reshape(-1).contiguous()
    flat = x.detach().reshape(-1, x.shape[-1]).contiguous()
    leaf, logit = _fff_descend(flat, node_weight.detach().contiguous(), bias, depth, tie == ">")
    return leaf.reshape(x.shape[:-1]), logit.reshape(*x.shape[:-1], depth)


def _leaves(op: str, x: Tensor, w1: Any, b1: Any, w2: Any, b2: Any, leaves: int) -> None:
    for name, t, shape in (
        ("w1", w1, (leaves, x.shape[-1], None)), ("w2", w2, (leaves, w1.shape[-1] if isinstance(w1, Tensor) else None, None)),
    ):  # fmt: skip
        check.dense(op, name, t)
        if t.dim() != 3 or any(n is not None and n != m for n, m in zip(shape, t.shape, strict=True)):
            check.fail(ValueError, op, f"{name} of shape {['*' if n is None else n for n in shape]}", list(t.shape))
    for name, t, n in (("b1", b1, w1.shape[2]), ("b2", b2, w2.shape[2])):
        if t is not None:
            check.dense(op, name, t)
            if tuple(t.shape) != (leaves, n):
                check.fail(ValueError, op, f"{name} of shape {[leaves, n]}", list(t.shape))
    for name, t in (("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2)):
        if t is not None and (t.dtype != x.dtype or t.device != x.device):
            check.fail(TypeError, op, f"{name} {x.dtype} on {x.device}, as x", check.describe(t))


@autocast.lowers
def fff_hard(
    x: Tensor, node_weight: Tensor, node_bias: Tensor | None, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, *,
    activation: str = "relu", tie: str = ">=",
) -> Tensor:  # fmt: skip
    """A fast feed-forward network with hard decisions, for any number of rows.

    Args:
        x: ``[*, I]``. node_weight, node_bias, tie: as in :func:`fff_descend`.
        w1, b1, w2, b2: the leaves, ``[2 ** depth, I, H]``, ``[2 ** depth, H]`` or None, ``[2 ** depth, H, O]``, ``[2 ** depth, O]``
            or None: ``act(x w1 + b1) w2 + b2``.
        activation: identity, relu, gelu or silu.

    Returns:
        ``[*, O]``. Differentiable once in x and the leaves; decisions have no gradient. Rows are grouped by leaf, so that a leaf's
        weights are read once. Deterministic. Saves the operands only.

    Convention of ``fastfeedforward`` (arXiv:2308.14711).

    >>> import torch, structops
    >>> w = torch.tensor([[[1.0]], [[2.0]]])
    >>> structops.binary.fff_hard(torch.tensor([[3.0], [-3.0]]), torch.ones(1, 1), None, w, None, w, None, activation="identity")
    tensor([[12.],
            [-3.]])
    """
    op = "fff_hard"
    depth = _tree(op, x, node_weight, node_bias)
    check.choice(op, "activation", activation, C.ACTIVATIONS)
    _leaves(op, x, w1, b1, w2, b2, 2**depth)
    leaf, _ = fff_descend(x, node_weight, node_bias, tie=tie)
    rowptr, perm = ladder.csr_build(leaf.reshape(-1), 2**depth)
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    fixed = [None if t is None else t.contiguous() for t in (w1, b1, w2, b2)]
    return fff_leaf(flat, rowptr, perm, *fixed, C.ACTIVATIONS[activation]).reshape(*x.shape[:-1], w2.shape[2])


@autocast.lowers
def fff_probabilities(
    x: Tensor, node_weight: Tensor, node_bias: Tensor | None = None, *, region_leak: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The probability of every leaf ``[*, 2 ** depth]`` and of the second child at every node ``[*, 2 ** depth - 1]``.

    A leaf's is the product of ``p`` or ``1 - p`` over its path, p the sigmoid of the node's logit; in training a share
    ``region_leak`` of the probabilities is flipped at random. Differentiable to any order.

    >>> import torch, structops
    >>> structops.binary.fff_probabilities(torch.zeros(1, 2), torch.ones(3, 2))[0]
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    op = "fff_probabilities"
    depth = _tree(op, x, node_weight, node_bias)
    p = torch.sigmoid(F.linear(x, node_weight, None if node_bias is None else node_bias.reshape(-1)))
    if region_leak:
        if not 0 <= region_leak <= 1:
            check.fail(ValueError, op, "region_leak within [0, 1]", region_leak)
        p = torch.where(torch.rand_like(p) < region_leak, 1 - p, p)
    mixture = x.new_ones(*x.shape[:-1], 1)
    for t in range(depth):
        level = p[..., 2**t - 1 : 2 ** (t + 1) - 1]
        mixture = torch.stack([mixture * (1 - level), mixture * level], -1).flatten(-2)
    return mixture, p


@autocast.lowers
def fff_soft(
    x: Tensor, node_weight: Tensor, node_bias: Tensor | None, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, *,
    activation: str = "relu", region_leak: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The mixture of all leaves by :func:`fff_probabilities`, for training: ``(y [*, O], leaf and node probabilities)``.

    Two matrix products over all leaves. Differentiable to any order. Arguments as in :func:`fff_hard`.

    >>> import torch, structops
    >>> w = torch.tensor([[[1.0]], [[2.0]]])
    >>> structops.binary.fff_soft(torch.ones(1, 1), torch.zeros(1, 1), None, w, None, w, None)[0]
    tensor([[2.5000]])
    """
    op = "fff_soft"
    depth = _tree(op, x, node_weight, node_bias)
    check.choice(op, "activation", activation, C.ACTIVATIONS)
    _leaves(op, x, w1, b1, w2, b2, 2**depth)
    mixture, p = fff_probabilities(x, node_weight, node_bias, region_leak=region_leak)
    L, H, O = w2.shape
    hidden = _TORCH[activation](F.linear(x, w1.permute(0, 2, 1).reshape(L * H, -1), None if b1 is None else b1.reshape(-1)))
    weighted = hidden.reshape(*x.shape[:-1], L, H) * mixture[..., None]
    y = weighted.flatten(-2) @ w2.reshape(L * H, O)
    return (y if b2 is None else y + mixture @ b2), mixture, p


def fff_load_balance(mixture: Tensor, leaf: Tensor | None = None) -> Tensor:
    """Load-balancing loss: ``sum over leaves of (sum of the mixture) * (rows that reach the leaf)`` (arXiv:2405.16836).

    Args:
        mixture: leaf probabilities ``[*, 2 ** depth]``. leaf: the leaf each row reaches; default the most probable child at each
            node, read from the mixture's halves.

    Differentiable in the mixture.

    >>> import torch, structops
    >>> structops.binary.fff_load_balance(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    tensor(2.)
    """
    op = "fff_load_balance"
    check.dense(op, "mixture", mixture)
    L = mixture.shape[-1]
    flat = mixture.reshape(-1, L)
    if leaf is None:
        part, leaf = flat.detach(), torch.zeros(flat.shape[0], dtype=torch.int64, device=flat.device)
        while part.shape[1] > 1:
            halves = part.reshape(part.shape[0], 2, -1)
            second = halves[:, 1].sum(1) >= halves[:, 0].sum(1)
            leaf = 2 * leaf + second
            part = torch.where(second[:, None], halves[:, 1], halves[:, 0])
    check.index(op, "leaf", leaf, like=mixture)
    count = torch.bincount(leaf.reshape(-1), minlength=L)
    return (flat.sum(0) * count.to(flat.dtype)).sum()


def fff_entropy(p: Tensor) -> Tensor:
    """Mean entropy in nats of the node probabilities: the hardening loss. Differentiable to any order.

    >>> import torch, structops
    >>> structops.binary.fff_entropy(torch.tensor([0.5]))
    tensor(0.6931)
    """
    check.dense("fff_entropy", "p", p)
    tiny = torch.finfo(p.dtype).tiny
    return -(p * p.clamp(min=tiny).log() + (1 - p) * (1 - p).clamp(min=tiny).log()).mean()


@autocast.lowers
def fff_path(x: Tensor, w_in: Tensor, b_in: Tensor | None, w_out: Tensor, *, activation: str = "gelu", tie: str = ">") -> Tensor:
    """Every visited node is a neuron: ``sum over the path of act(logit) * w_out[node]`` (UltraFastBERT, arXiv:2311.10770).

    Args:
        x: ``[*, I]``. w_in: ``[2 ** (depth + 1) - 1, I]``. w_out: ``[2 ** (depth + 1) - 1, O]``.

    Returns:
        ``[*, O]``. Differentiable in all operands through the visited neurons; decisions have no gradient.

    >>> import torch, structops
    >>> structops.binary.fff_path(torch.ones(1, 1), torch.ones(3, 1), None, torch.eye(3), activation="identity")
    tensor([[1., 0., 1.]])
    """
    op = "fff_path"
    levels = _tree(op, x, w_in, b_in)
    check.choice(op, "activation", activation, C.ACTIVATIONS)
    check.dense(op, "w_out", w_out)
    if w_out.dim() != 2 or w_out.shape[0] != w_in.shape[0]:
        check.fail(ValueError, op, f"w_out of shape [{w_in.shape[0]}, O]", list(w_out.shape))
    leaf, logit = fff_descend(x, w_in, b_in, tie=tie)
    flat, levels_down = x.reshape(-1, x.shape[-1]), torch.arange(levels, 0, -1, device=x.device)
    nodes = ((leaf.reshape(-1, 1) + 2**levels) >> levels_down) - 1
    logit = logit.reshape(-1, levels)
    if wants_derivative(x, w_in, b_in):
        logit = torch.einsum("bi,bti->bt", flat, w_in[nodes])
        logit = logit if b_in is None else logit + b_in.reshape(-1)[nodes]
    if w_out.dtype in (torch.float32, torch.float64):
        y = F.embedding_bag(nodes, w_out, per_sample_weights=_TORCH[activation](logit), mode="sum")
    else:
        y = torch.einsum("bt,bto->bo", _TORCH[activation](logit), w_out[nodes])
    return y.reshape(*x.shape[:-1], w_out.shape[1])
