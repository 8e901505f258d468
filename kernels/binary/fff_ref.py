"""Reference of fast feed-forward networks: the specification of csrc/binary/fff.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS = (lambda v: v, F.relu, F.gelu, F.silu)


def _wide(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]


def fff_descend(x, node_weight, node_bias, depth, strict):
    """Same signature and results as torch.ops.structops.fff_descend."""
    x, w, bias = _wide(x, node_weight, node_bias)
    dtype = node_weight.dtype
    leaf = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    logit = torch.empty(x.shape[0], depth, dtype=x.dtype, device=x.device)
    for b in range(x.shape[0]):
        node = 0
        for t in range(depth):
            z = (x[b] * w[node]).sum() + (0 if bias is None else bias[node])
            logit[b, t] = z
            node = 2 * node + 1 + int(z > 0 if strict else z >= 0)
        leaf[b] = node - (2**depth - 1)
    return leaf, logit.to(dtype)


def fff_leaf(x, rowptr, perm, w1, b1, w2, b2, activation):
    """Same signature and results as torch.ops.structops.fff_leaf."""
    out = torch.zeros(x.shape[0], w2.shape[2], dtype=x.dtype, device=x.device)
    v, u1, c1, u2, c2 = _wide(x, w1, b1, w2, b2)
    for leaf in range(w1.shape[0]):
        rows = perm[rowptr[leaf] : rowptr[leaf + 1]]
        hidden = ACTIVATIONS[activation](v[rows] @ u1[leaf] + (0 if b1 is None else c1[leaf]))
        out[rows] = (hidden @ u2[leaf] + (0 if b2 is None else c2[leaf])).to(x.dtype)
    return out


def fff_leaf_bwd(grad, x, rowptr, perm, w1, b1, w2, b2, activation):
    """Same signature and results as torch.ops.structops.fff_leaf_bwd."""
    with torch.enable_grad():
        leaves = [None if t is None else t.detach().requires_grad_() for t in _wide(x, w1, b1, w2, b2)]
        out = fff_leaf(leaves[0], rowptr, perm, *leaves[1:], activation)
        found = torch.autograd.grad(out, [t for t in leaves if t is not None], grad.to(out.dtype), allow_unused=True)
    result, it = [], iter(found)
    for leaf, like in zip(leaves, (x, w1, b1, w2, b2), strict=True):
        g = None if leaf is None else next(it)
        result.append(x.new_empty(0) if leaf is None else torch.zeros_like(like) if g is None else g.to(like.dtype))
    return tuple(result)
