"""Arguments of every raw operator of the tree family, for opcheck. ``leaf(*shape)`` makes a differentiable operand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cases import values


def tree_samples(leaf: Callable) -> dict[str, list[tuple]]:
    parts = (chart_samples, factored_samples, grand_samples, pcfg_samples, spanning_samples, chain_samples)
    return {op: args for part in parts for op, args in part(leaf).items()}


def chart_samples(leaf: Callable) -> dict[str, list[tuple]]:
    """Of every kind of chart; the curvature has no derivative."""
    lengths, found = (
        torch.tensor([3, 0]),
        {"chart_logz": [], "chart_marginals": [], "chart_hvp": [], "chart_best": [], "chart_sample": []},
    )
    found["chart_max_marginals"] = []
    for kind, second in ((0, False), (0, True), (1, True), (2, False)):
        pair = lambda: (leaf(2, 4, 4), leaf(2, 4, 4, 4) if second else None)
        plain = lambda: tuple(None if t is None else t.detach() for t in pair())
        found["chart_logz"].append((*pair(), lengths, kind))
        found["chart_marginals"] += [(*pair(), lengths, None, kind), (*pair(), lengths, leaf(2), kind)]
        found["chart_hvp"].append((*plain(), lengths, values(2), *plain(), kind))
        found["chart_best"].append((*plain(), lengths, kind, 2))
        found["chart_max_marginals"].append((*plain(), lengths, kind))
        found["chart_sample"].append((*plain(), lengths, torch.rand(3, 2, 12, dtype=torch.float64), kind))
    return found


def grand_samples(leaf: Callable) -> dict[str, list[tuple]]:
    """With and without siblings; the curvature has no derivative."""
    lengths, uniform = torch.tensor([3, 0]), torch.rand(3, 2, 12, dtype=torch.float64)
    found: dict[str, list[tuple]] = {}
    for second, multiroot in ((False, False), (True, True)):
        scores = (leaf(2, 4, 4), leaf(2, 4, 4, 4), leaf(2, 4, 4, 4) if second else None)
        plain = tuple(None if t is None else t.detach() for t in scores)
        for op, args in {
            "grand_logz": (*scores, lengths),
            "grand_marginals": (*scores, lengths, leaf(2) if second else None),
            "grand_hvp": (*plain, lengths, values(2), *plain),
            "grand_best": (*plain, lengths, multiroot, 2),
            "grand_sample": (*plain, lengths, uniform),
            "grand_max_marginals": (*plain, lengths),
        }.items():
            found.setdefault(op, []).append(args if op == "grand_best" else (*args, multiroot))
    return found


def pcfg_samples(leaf: Callable) -> dict[str, list[tuple]]:
    """Rules of every sentence and shared ones; the curvature has no derivative."""
    lengths, uniform = torch.tensor([3, 0]), torch.rand(3, 2, 6, dtype=torch.float64)
    found: dict[str, list[tuple]] = {}
    for shared in (False, True):
        scores = (leaf(2, 3, 2), leaf(1 if shared else 2, 2, 4, 4), leaf(2, 2))
        plain = tuple(t.detach() for t in scores)
        span = None if shared else leaf(2, 4, 4, 2)
        fixed = None if shared else span.detach()
        for op, args in {
            "pcfg_logz": (*scores, span, lengths),
            "pcfg_marginals": (*scores, span, lengths, None if shared else leaf(2)),
            "pcfg_hvp": (*plain, fixed, lengths, values(2), *plain, fixed),
            "pcfg_max_marginals": (*plain, fixed, lengths),
            "pcfg_best": (*plain, fixed, lengths, 2),
            "pcfg_sample": (*plain, fixed, lengths, uniform),
        }.items():
            found.setdefault(op, []).append(args)
    return found


def factored_samples(leaf: Callable) -> dict[str, list[tuple]]:
    lengths, found = torch.tensor([3, 0]), {"factored_logz": [], "factored_marginals": [], "factored_hvp": []}
    given = lambda: (leaf(2, 4, 4), *(leaf(2, 4, 3) for _ in range(3)))
    plain = lambda: tuple(t.detach() for t in given())
    for kind in (0, 1):
        found["factored_logz"].append((*given(), lengths, kind))
        found["factored_marginals"] += [(*given(), lengths, None, kind), (*given(), lengths, leaf(2), kind)]
        found["factored_hvp"].append((*plain(), lengths, values(2), *plain(), kind))
    return found


def spanning_samples(leaf: Callable) -> dict[str, list[tuple]]:
    """In both root modes; the curvature has no derivative."""
    lengths, seed = torch.tensor([3, 0]), torch.tensor([[1, 2], [3, 4], [5, 6]])
    found = {"tree_check": [(torch.tensor([[0, 2, 0, 1], [0, 0, 0, 0]]), lengths)]}
    for multiroot in (True, False):
        for op, args in {
            "matrix_tree_logz": (leaf(2, 4, 4), lengths),
            "matrix_tree_marginals": (leaf(2, 4, 4), lengths, leaf(2)),
            "matrix_tree_hvp": (values(2, 4, 4), lengths, values(2), values(2, 4, 4)),
            "matrix_tree_sample": (values(2, 4, 4), lengths, seed),
            "arborescence": (values(2, 4, 4), lengths),
            "arborescence_max_marginals": (values(2, 4, 4), lengths),
            "arborescence_kbest": (values(2, 4, 4), lengths),
        }.items():
            found.setdefault(op, []).append((*args, multiroot, *([3] if op == "arborescence_kbest" else [])))
    found["matrix_tree_marginals"].append((leaf(2, 4, 4), lengths, None, True))
    return found


def chain_samples(leaf: Callable) -> dict[str, list[tuple]]:
    lengths = torch.tensor([3, 2])
    linear = (leaf(2, 3, 4), None, None, leaf(4, 4), leaf(4), leaf(4), lengths)
    semi = (leaf(2, 3, 2), leaf(2, 3, 2, 2), leaf(2, 2), leaf(2, 2, 2, 2, 2), leaf(2), None, lengths)
    v = [None if t is None else values(*t.shape, seed=5) for t in (*linear[:6], *semi[:6])]
    fixed = lambda args: tuple(None if t is None else t.detach() for t in args)  # third derivatives are refused
    uniform = torch.rand(2, 2, 6, dtype=torch.float64)
    return {
        "chain_logz": [linear, semi],
        "chain_marginals": [(*linear, leaf(2)), (*semi, None)],
        "chain_hvp": [(*fixed(linear), None, *v[:6]), (*fixed(semi), None, *v[6:])],
        "chain_best": [(*linear, 2), (*semi, 1)],
        "chain_max_marginals": [fixed(linear), fixed(semi)],
        "chain_sample": [(*linear, uniform[..., :3].contiguous()), (*semi, uniform)],
    }
