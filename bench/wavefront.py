"""Charts as batched torch operations, one round per span width: the usual implementation, differentiable by autograd.

The float64 reference of the tree benchmarks, and in float32 a peer of its own. ``best``: maxima in place of sums.
Arcs are [B, N, N] as [sentence, dependent, head], position 0 the root; a chart is a list over widths of [B, spans].
"""

from __future__ import annotations

import torch
from torch import Tensor

NEVER = -1e6  # in place of -inf, whose sums have no gradient in torch


def _sum(terms: list[Tensor], best: bool) -> Tensor:
    stack = torch.stack(terms, -1)
    return stack.amax(-1) if best else stack.logsumexp(-1)


def _splits(left: list[Tensor], right: list[Tensor], w: int, widths: range, gap: int, best: bool) -> Tensor:
    """Over k: left[i, i+k] + right[i+k+gap, i+w] for every span of width w."""
    spans = left[0].shape[1] - w
    return _sum([left[k][:, :spans] + right[w - k - gap][:, k + gap : k + gap + spans] for k in widths], best)


def dependency(arc: Tensor, lengths: Tensor, sib: Tensor | None = None, multiroot: bool = False, best: bool = False) -> Tensor:
    """Log-partition (or best score) of projective dependency trees, [B]."""
    B, N = arc.shape[:2]
    zero, never = arc.new_zeros(B, N), arc.new_full((), -torch.inf)
    cl, cr, il, ir, s = [zero], [zero], [zero], [zero], [zero]  # width 0 of the last three is never read
    for w in range(1, N):
        i = torch.arange(N - w, device=arc.device)
        s.append(_splits(cr, cl, w, range(w), 1, best))
        to_left, to_right = s[w], s[w]
        if sib is not None:
            spans, inner = N - w, range(1, w)
            row, split = i[:, None], i[:, None] + torch.arange(1, w, device=arc.device)
            to_head, from_head = sib[:, row, row + w, split].unbind(-1), sib[:, row + w, row, split].unbind(-1)
            lefts = [cr[w - 1][:, :spans]]
            lefts += [s[k][:, :spans] + il[w - k][:, k : k + spans] + to_head[k - 1] for k in inner]
            rights = [cl[w - 1][:, 1 : 1 + spans]]
            rights += [ir[k][:, :spans] + s[w - k][:, k : k + spans] + from_head[k - 1] for k in inner]
            if not multiroot and w > 1:
                rights = [rights[0], *(torch.where(i == 0, never, r) for r in rights[1:])]
            to_left, to_right = _sum(lefts, best), _sum(rights, best)
        il.append(to_left + arc[:, i, i + w])
        ir.append(to_right + arc[:, i + w, i])
        cl.append(_splits(cl, il, w, range(w), 0, best))
        complete = _splits(ir, cr, w, range(1, w + 1), 0, best)
        if not multiroot and sib is None:
            complete = torch.where((i == 0) & (lengths[:, None] != w), never, complete)
        cr.append(complete)
    whole = torch.stack([c[:, 0] for c in cr], 1)
    return whole.gather(1, lengths[:, None]).squeeze(1)


def span(score: Tensor, lengths: Tensor, best: bool = False) -> Tensor:
    """Log-partition (or best score) of binary bracketings, [B]. Scores [B, N, N] of [left, right] posts."""
    B, N = score.shape[:2]
    v = [score.new_zeros(B, N)]
    for w in range(1, N):
        i = torch.arange(N - w, device=score.device)
        own = score[:, i, i + w]
        v.append(own + _splits(v, v, w, range(1, w), 0, best) if w > 1 else own)
    return torch.stack([c[:, 0] for c in v], 1).gather(1, lengths[:, None]).squeeze(1)


def heads_of(arc: Tensor, lengths: Tensor, multiroot: bool = False) -> Tensor:
    """Best heads [B, N] as the gradient of the best score; 0 at the root and past the sentence."""
    arc = arc.detach().requires_grad_()
    (chosen,) = torch.autograd.grad(dependency(arc, lengths, None, multiroot, best=True).sum(), arc)
    return chosen.argmax(-1) * (chosen.amax(-1) > 0)


def grand(arc: Tensor, table: Tensor, lengths: Tensor) -> Tensor:
    """Log-partition [B] of single-root trees with grandparent scores [B, N, N, N]: a chart is a list of [B, spans, grandparent]."""
    B, N = arc.shape[:2]
    g = torch.arange(N, device=arc.device)
    cells = arc[..., None] + table
    cells = torch.cat([cells[:, :, :1].clone().index_fill_(3, g[1:], NEVER), cells[:, :, 1:]], 2)
    cells = torch.where((g == 0) & (g[:, None] == 0), arc[..., None], cells)  # the root's arcs sit at [dep, 0, 0]
    start = arc.new_zeros(B, N, N)
    cl, cr, il, ir = [start], [start], [start], [start]
    of_head = lambda t, i: t.gather(2, i[:, None].expand(B, len(i), 1))  # the lane of the head, [B, spans, 1]
    for w in range(1, N):
        i = torch.arange(N - w, device=arc.device)
        j, spans = i + w, N - w
        outside = torch.where(i[:, None] > 0, (g < i[:, None]) | (g > j[:, None]), g == 0)
        forbid = lambda t: torch.where(outside, t, NEVER)
        left = lambda t, k: t[k][:, :spans]
        right = lambda t, k, gap: t[w - k - gap][:, k + gap : k + gap + spans]
        ir.append(forbid(_sum([left(cr, k) + of_head(right(cl, k, 1), i) for k in range(w)], False) + cells[:, j, i]))
        il.append(forbid(_sum([of_head(left(cr, k), j) + right(cl, k, 1) for k in range(w)], False) + cells[:, i, j]))
        cl.append(forbid(_sum([of_head(left(cl, k), j) + right(il, k, 0) for k in range(w)], False)))
        done = forbid(_sum([left(ir, k) + of_head(right(cr, k, 0), i) for k in range(1, w + 1)], False))
        cr.append(torch.where((i[:, None] == 0) & (lengths[:, None, None] != w), NEVER, done))
    whole = torch.stack([c[:, 0, 0] for c in cr], 1)
    return whole.gather(1, lengths[:, None]).squeeze(1)


def pcfg(term: Tensor, rule: Tensor, root: Tensor, lengths: Tensor) -> Tensor:
    """Log-partition [B] of grammars in Chomsky normal form: term [B, N, T], rule [B, NT, S, S], root [B, NT]."""
    B, N = term.shape[:2]
    NT, S = rule.shape[1:3]
    v = [term, term]  # by width; width 0 is never read
    for w in range(2, N + 1):
        spans = N + 1 - w
        pairs = term.new_full((B, spans, S, S), NEVER)
        symbols = lambda k: slice(NT, S) if k == 1 else slice(0, NT)
        inner = [v[k][:, :spans, :, None] + v[w - k][:, k : k + spans, None, :] for k in range(2, w - 1)]
        if inner:
            pairs[:, :, :NT, :NT] = _sum(inner, False)
        for k in {1, w - 1}:
            pairs[:, :, symbols(k), symbols(w - k)] = v[k][:, :spans, :, None] + v[w - k][:, k : k + spans, None, :]
        v.append(torch.stack([(pairs + rule[:, None, a]).flatten(2).logsumexp(2) for a in range(NT)], 2))
    whole = torch.stack([v[w][:, 0] for w in range(2, N + 1)], 1)
    at = (lengths - 2)[:, None, None].expand(B, 1, NT)
    return (whole.gather(1, at)[:, 0] + root).logsumexp(1)


def pcfg_best(term: Tensor, rule: Tensor, root: Tensor, lengths: Tensor, k: int) -> Tensor:
    """Scores [B, k] of the k best parses: lists [B, spans, symbols, k] by width, the best of all pairs of two lists."""
    B, N = term.shape[:2]
    NT, S = rule.shape[1:3]

    def best(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, max(k - x.shape[-1], 0)), value=NEVER).topk(k).values

    word = torch.nn.functional.pad(term[..., None], (0, k - 1), value=NEVER)
    v = [word, word]
    symbols = lambda width: slice(NT, S) if width == 1 else slice(0, NT)
    for w in range(2, N + 1):
        spans = N + 1 - w
        pairs = term.new_full((B, spans, S, S, k), NEVER)
        both = lambda j: (v[j][:, :spans, :, None, :, None] + v[w - j][:, j : j + spans, None, :, None, :]).flatten(4)
        inner = [both(j) for j in range(2, w - 1)]
        if inner:
            pairs[:, :, :NT, :NT] = best(torch.cat(inner, -1))
        for j in {1, w - 1}:
            pairs[:, :, symbols(j), symbols(w - j)] = best(both(j))
        v.append(torch.stack([best((pairs + rule[:, None, a, :, :, None]).flatten(2)) for a in range(NT)], 2))
    whole = torch.stack([v[w][:, 0] for w in range(2, N + 1)], 1)
    at = (lengths - 2)[:, None, None, None].expand(B, 1, NT, k)
    return best((whole.gather(1, at)[:, 0] + root[..., None]).flatten(1))
