"""Self-check cases of the tree family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from ._common import DTYPES


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    if op.startswith("chart_"):
        return chart_cases(op, g)
    if op.startswith("grand_"):
        return grand_cases(op, g)
    if op.startswith("pcfg_"):
        return pcfg_cases(op, g)
    if op.startswith("factored_"):
        return factored_cases(op, g)
    return chain_cases(op, g) if op.startswith("chain_") else spanning_cases(op, g)


def chart_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Arguments of the chart operators: every kind of chart, ragged lengths, some arcs and spans forbidden."""
    B, N = 22, 9
    lengths = torch.tensor([8, 0, 5, 1, 7, 3, *[8, 7] * 8])  # enough of like lengths to be parsed together
    for dtype, (kind, second) in itertools.product(DTYPES, ((0, False), (0, True), (1, False), (1, True), (2, False))):
        wide = torch.float64 if dtype == torch.float64 else torch.float32

        def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return (torch.randint(-8, 9, shape, generator=g) / 4).to(dtype)

        score = torch.where(torch.rand(B, N, N, generator=g) < 0.1, float("-inf"), draw(B, N, N))
        sib = draw(B, N, N, N) if second else None
        weight = draw(B, dtype=wide)
        if op == "chart_logz":
            yield score, sib, lengths, kind
        elif op == "chart_marginals":
            yield score, sib, lengths, None, kind
            yield score, sib, lengths, weight, kind
        elif op == "chart_hvp":
            yield score, sib, lengths, weight, draw(B, N, N), draw(B, N, N, N) if second else None, kind
        elif op == "chart_max_marginals":
            yield score, sib, lengths, kind
        elif op == "chart_best":  # multiples of 1/4: sums are exact, and ties abound
            yield score, sib, lengths, kind, 1
        elif dtype == torch.float64:
            yield score, sib, lengths, torch.rand(3, B, 3 * N, dtype=torch.float64, generator=g), kind


def grand_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Arguments of the grandparent charts, with and without siblings, some arcs forbidden."""
    B, N = 5, 8
    lengths = torch.tensor([7, 0, 4, 1, 6])
    for dtype, multiroot, second in itertools.product(DTYPES, (True, False), (False, True)):
        wide = torch.float64 if dtype == torch.float64 else torch.float32

        def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return (torch.randint(-8, 9, shape, generator=g) / 4).to(dtype)

        arc = torch.where(torch.rand(B, N, N, generator=g) < 0.1, float("-inf"), draw(B, N, N))
        scores = (arc, draw(B, N, N, N), draw(B, N, N, N) if second else None)
        if op in ("grand_logz", "grand_max_marginals"):
            yield *scores, lengths, multiroot
        elif op == "grand_marginals":
            yield *scores, lengths, None, multiroot
            yield *scores, lengths, draw(B, dtype=wide), multiroot
        elif op == "grand_hvp":
            v = (draw(B, N, N), draw(B, N, N, N), draw(B, N, N, N) if second else None)
            yield *scores, lengths, draw(B, dtype=wide), *v, multiroot
        elif op == "grand_best":
            yield *scores, lengths, multiroot, 1
        elif dtype == torch.float64:
            yield *scores, lengths, torch.rand(3, B, 3 * N, dtype=torch.float64, generator=g), multiroot


def pcfg_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Arguments of the grammar charts: few symbols, and more than a vector holds with shared rules; some rules forbidden."""
    B, N = 4, 6
    lengths = torch.tensor([6, 0, 3, 1])
    for dtype, (shared, NT, T) in itertools.product(DTYPES, ((False, 2, 3), (True, 3, 18))):
        wide = torch.float64 if dtype == torch.float64 else torch.float32

        def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return (torch.randint(-8, 9, shape, generator=g) / 4).to(dtype)

        def grammar(draw=draw, shared: bool = shared, NT: int = NT, T: int = T) -> tuple[Tensor, Tensor, Tensor]:
            return draw(B, N, T), draw(1 if shared else B, NT, NT + T, NT + T), draw(B, NT)

        term, rule, root = grammar()
        rule = torch.where(torch.rand(rule.shape, generator=g) < 0.1, float("-inf"), rule)
        span = None if shared else draw(B, N + 1, N + 1, NT)
        given = (term, rule, root, span, lengths)
        if op in ("pcfg_logz", "pcfg_max_marginals"):
            yield given
        elif op == "pcfg_best":
            yield *given, 1
            yield *given, 5
        elif op == "pcfg_marginals":
            yield *given, None
            yield *given, draw(B, dtype=wide)
        elif op == "pcfg_hvp":
            yield *given, draw(B, dtype=wide), *grammar(), None if shared and dtype == torch.float64 else draw(B, N + 1, N + 1, NT)
        elif dtype == torch.float64:
            yield *given, torch.rand(3, B, 2 * N, dtype=torch.float64, generator=g)


def factored_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Arguments of the charts with factored siblings: factors narrower and wider than a vector, sentences alone and together."""
    B, N = 20, 8
    lengths = torch.tensor([7, 0, 5, 1, 2, 3, *[7, 6] * 7])
    for dtype, kind, D in itertools.product((torch.float32, torch.float64), (0, 1), (3, 17)):
        draw = lambda *shape: (torch.randint(-4, 5, shape, generator=g) / 4).to(dtype)  # noqa: B023
        score = torch.where(torch.rand(B, N, N, generator=g) < 0.1, float("-inf"), draw(B, N, N))
        given = (score, draw(B, N, D), draw(B, N, D), draw(B, N, D), lengths)
        if op == "factored_logz":
            yield *given, kind
        elif op == "factored_marginals":
            yield *given, draw(B) if D == 3 else None, kind
        else:
            yield *given, draw(B), *(draw(*t.shape) for t in given[:4]), kind


def spanning_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Short sentences: the reference of the matrix-tree operators takes steps in N^5 and more."""
    B, N = 4, 5
    lengths = torch.tensor([4, 0, 1, 3])
    if op == "tree_check":
        yield torch.randint(0, N, (200, N), generator=g), torch.randint(0, N, (200,), generator=g)
        return
    for dtype, multiroot, scale in itertools.product(DTYPES, (True, False), (1, 100)):
        score, v = (torch.randn(2, B, N, N, generator=g, dtype=torch.float64) * 4 * scale).round().div(4).to(dtype)
        if op == "matrix_tree_hvp":  # no trees that certain: its result would be rounding alone
            score = score / scale
        score[0, 1, 2] = float("-inf")
        weight = torch.rand(B, generator=g, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        if op == "matrix_tree_marginals":
            yield score, lengths, None, multiroot
            yield score, lengths, weight, multiroot
        elif op == "matrix_tree_hvp":
            yield score, lengths, weight, v, multiroot
        elif op == "matrix_tree_sample":
            yield score, lengths, torch.randint(-(2**63), 2**63 - 1, (5, B), generator=g), multiroot
        elif op.startswith("arborescence"):  # no ties, so that the trees agree too
            yield torch.randn(B, N, N, generator=g).to(dtype), lengths, multiroot, *([5] if op.endswith("kbest") else [])
        else:
            yield score, lengths, multiroot


def chain_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the chain operators: linear and segmental chains, with forbidden transitions and short sentences."""
    B, N = 4, 6
    lengths = torch.tensor([N, 1, 0, 4])
    for dtype, K, rank in itertools.product(DTYPES, (0, 3), (0, 2, 3, 4, 5)):
        for T in (3, 18):
            if (rank == 5 and K == 0) or (T > 3 and rank > 3):
                continue
            scores = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: B023
            sizes = {0: (), 2: (T, T), 3: (B, T, T), 4: (B, N - 1, T, T), 5: (B, N - 1, K, T, T)}[rank]
            trans = scores(*sizes) if rank else None
            if trans is not None:
                trans = torch.where(torch.rand(sizes, generator=g) < 0.1, float("-inf"), trans)
            segment, duration = (scores(B, N, K, T), scores(K, T)) if K else (None, None)
            given = (scores(B, N, T), segment, duration, trans, scores(T), None)
            weight = scores(B).to(torch.float64 if dtype == torch.float64 else torch.float32)
            if op in ("chain_logz", "chain_max_marginals"):
                yield *given, lengths
            elif op == "chain_marginals":
                yield *given, lengths, weight
            elif op == "chain_hvp":
                yield *given, lengths, weight, *(None if t is None else scores(*t.shape) for t in given)
            elif op == "chain_best":
                yield *given, lengths, 3
            else:
                yield *given, lengths, torch.rand(2, B, 2 * N if K else N, generator=g, dtype=torch.float64)
