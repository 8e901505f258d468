"""float64 references on the same inputs. Written per feature block so that no [E, F] float64 tensor is ever whole."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .data import Edges

_BLOCK = 1 << 26  # entries of a message block


def _blocks(E: int, F: int):
    step = max(1, min(F, _BLOCK // max(E, 1)))
    return ((f, min(F, f + step)) for f in range(0, F, step))


def reduce_groups(
    messages, index: Tensor, N: int, F: int, reduce: str, grad: Tensor | None, push, indptr: Tensor | None = None
) -> Tensor:
    """Reduce ``messages(f0, f1) -> [E, f]`` (float64) by ``index``; ``push(f0, f1, d_messages)`` gets the gradients.

    ``indptr``: the pointer of the groups, where ``index`` ascends.
    """
    out = torch.zeros(N, F, dtype=torch.float64, device=index.device)
    count = torch.bincount(index, minlength=N).clamp(min=1).double()[:, None]
    for a, b in _blocks(index.numel(), F):
        m = messages(a, b)
        part = out[:, a:b]
        if reduce in ("sum", "mean"):
            part.index_add_(0, index, m)
            if reduce == "mean":
                part /= count
        else:
            if indptr is None:
                part.scatter_reduce_(0, index[:, None].expand_as(m), m, f"a{reduce}", include_self=False)
            else:
                part[:] = torch.segment_reduce(m, reduce, offsets=indptr, axis=0, unsafe=True)
                part[indptr.diff() == 0] = 0
        if grad is not None:
            g = grad[:, a:b].double()
            g = g / count if reduce == "mean" else g
            d = g[index]
            push(a, b, d if reduce in ("sum", "mean") else d * (m == part[index]))
    return out


def _product(edges: Edges, x: Tensor, reduce: str, grad: Tensor) -> tuple[Tensor, ...]:
    """(out, dx) as a product with SciPy's matrix."""
    from scipy.sparse import csr_array

    values = torch.ones(edges.num_edges, dtype=torch.float64)
    if reduce == "mean":
        values /= edges.indptr.diff().clamp(min=1)[edges.dst]
    parts = (values.numpy(), edges.src.numpy(), edges.indptr.numpy())
    matrix = csr_array(parts, shape=(edges.num_dst, edges.num_src))
    product = lambda m, t: torch.from_numpy(m @ t.detach().double().numpy())
    return product(matrix, x), product(matrix.T.tocsr(), grad)


def spmm(edges: Edges, x: Tensor, reduce: str, w: Tensor | None = None, grad: Tensor | None = None) -> tuple[Tensor, ...]:
    """(out, dx[, dw]) of the reduced messages ``x[src] * w``."""
    F, src, dst = x.shape[1], edges.src, edges.dst
    if w is None and reduce in ("sum", "mean") and not x.is_cuda:
        return _product(edges, x, reduce, grad)
    dx = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    dw = None if w is None else torch.zeros(w.shape[0], dtype=torch.float64, device=x.device)

    def messages(a, b):
        m = x[:, a:b].double()[src]
        return m if w is None else m.mul_(w.double()[:, None])

    def push(a, b, d):
        if w is not None:
            dw.add_((d * x[:, a:b].double()[src]).sum(1))
            d = d * w.double()[:, None]
        dx[:, a:b].index_add_(0, src, d)

    out = reduce_groups(messages, dst, edges.num_dst, F, reduce, grad, push, edges.indptr)
    return (out, dx) if w is None else (out, dx, dw)


def scatter(src: Tensor, index: Tensor, N: int, reduce: str, grad: Tensor | None = None) -> tuple[Tensor, ...]:
    """(out, d_src) of reducing the rows of ``src``."""
    d_src = None if grad is None else torch.empty(src.shape, dtype=torch.float64, device=src.device)
    push = lambda a, b, d: d_src[:, a:b].copy_(d)
    out = reduce_groups(lambda a, b: src[:, a:b].double(), index, N, src.shape[1], reduce, grad, push)
    return (out,) if grad is None else (out, d_src)


def sddmm(edges: Edges, x: Tensor, y: Tensor, grad: Tensor | None = None) -> tuple[Tensor, ...]:
    """(out, dx, dy) of the dot products over the edges."""
    out = torch.zeros(edges.num_edges, dtype=torch.float64, device=x.device)
    dx, dy = torch.zeros_like(x, dtype=torch.float64), torch.zeros_like(y, dtype=torch.float64)
    for a, b in _blocks(edges.num_edges, x.shape[1]):
        u, v = x[:, a:b].double()[edges.src], y[:, a:b].double()[edges.dst]
        out += (u * v).sum(1)
        if grad is not None:
            g = grad.double().reshape(-1, 1)
            dx[:, a:b].index_add_(0, edges.src, g * v)
            dy[:, a:b].index_add_(0, edges.dst, g * u)
    return (out, dx, dy)


def softmax(src: Tensor, index: Tensor, N: int, grad: Tensor | None = None) -> tuple[Tensor, ...]:
    """(out, d_src) of the softmax over the rows that share an index."""
    s, wide = src.double(), index[:, None].expand_as(src)
    top = s.new_full((N, src.shape[1]), -math.inf).scatter_reduce_(0, wide, s, "amax")
    e = (s - top[index]).exp()
    out = e / torch.zeros_like(top).index_add_(0, index, e)[index]
    if grad is None:
        return (out,)
    og = out * grad.double()
    return out, og - out * torch.zeros_like(top).index_add_(0, index, og)[index]
