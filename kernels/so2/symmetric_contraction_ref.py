"""Reference of symmetric_contraction: the sum over terms in float64; derivatives along directions and gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def _form(x: Tensor, w: Tensor, g: Tensor, element: Tensor, terms: list, by_path: list) -> Tensor:
    """F of csrc/so2/symmetric_contraction.h; x [N, D, C], g [N, O, C]."""
    total = x[:0].sum() + w[:0].sum() + g[:0].sum()  # 0, and differentiable without terms
    for (o, variables), entries in zip(terms, by_path, strict=True):
        u = sum(c * w[:, p] for p, c in entries)[element]
        product = u * g[:, o]
        for v in variables:
            product = product * x[:, v]
        total = total + product.sum()
    return total


def _read(lists: Tensor, coef: Tensor, sizes: list[int]) -> tuple[list, list]:
    """(output component, variables) of each term, and its (path, coefficient)s."""
    _, O, _, T, pairs, entries, _ = sizes
    data, at = lists.tolist(), O + 1 + 2 * T
    variables, term_out, at = data[at : at + 4 * T], data[at + 4 * T : at + 5 * T], at + 5 * T + 2 * pairs
    ptr, path, value = data[at : at + T + 1], data[at + T + 1 : at + T + 1 + entries], coef[0].tolist()
    terms = [(term_out[t], [v for v in variables[4 * t : 4 * t + 4] if v >= 0]) for t in range(T)]
    return terms, [[(path[e], value[e]) for e in range(ptr[t], ptr[t + 1])] for t in range(T)]


def symmetric_contraction(x, w, g, x1, w1, g1, x2, w2, g2, ptr, nodes, lists, coef, sizes, order, components_last,
                          want_x, want_w, want_g) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    turned = lambda t: t.transpose(1, 2) if components_last else t
    element = torch.empty(x.shape[0], dtype=torch.long, device=x.device)
    element[nodes.long()] = torch.repeat_interleave(torch.arange(w.shape[0], device=x.device), ptr.long().diff())
    terms, by_path = _read(lists, coef, sizes)
    shape = (x.shape[0], sizes[1], turned(x).shape[2])
    with torch.inference_mode(False), torch.enable_grad():
        read = lambda t, like: torch.zeros(like, dtype=torch.float64, device=x.device) if t is None else t.detach().double()
        base = [turned(read(x, x.shape)), read(w, w.shape), read(g, shape) if g is None else turned(read(g, g.shape))]
        base = [t.clone().requires_grad_() for t in base]
        steps = [torch.zeros((), dtype=torch.float64, device=x.device, requires_grad=True) for _ in range(order)]
        moved = list(base)
        for step, parts in zip(steps, ((x1, w1, g1), (x2, w2, g2)), strict=False):
            for i, part in enumerate(parts):
                if part is not None:
                    moved[i] = moved[i] + step * (part.detach().double() if i == 1 else turned(part.detach().double()))
        value = _form(moved[0], moved[1], moved[2], element, terms, by_path)
        for step in steps:
            (value,) = torch.autograd.grad(value, step, create_graph=True, allow_unused=True, materialize_grads=True)
        found = torch.autograd.grad(value, base, allow_unused=True, materialize_grads=True)
    empty = lambda: x.new_empty(0)
    gx, gw, gg = (turned(found[0]), found[1], turned(found[2]))
    return tuple(t.to(x.dtype).contiguous() if want else empty() for t, want in ((gx, want_x), (gw, want_w), (gg, want_g)))  # type: ignore[return-value]
