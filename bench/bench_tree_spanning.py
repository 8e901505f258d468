"""Non-projective trees: log-partition, entropy and their gradients, samples, maximum spanning trees, max-marginals, tree checks.

Operators: matrix_tree_logz, matrix_tree_marginals, matrix_tree_hvp, matrix_tree_sample, arborescence, arborescence_kbest,
arborescence_max_marginals, tree_check. The usual way to the log-partition is the determinant of the Laplacian; where the weights of
a sentence span many orders of magnitude it is wrong, and is reported so.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from structops.kernels.tree import arborescence_ref, matrix_tree_ref
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load

KBEST = "spanning trees, 8 best"
SUM, ENTROPY, SAMPLE = "matrix-tree", "matrix-tree entropy", "matrix-tree sample"
BEST, CHECK, THROUGH = "spanning tree", "tree check", "spanning tree max-marginals"


def cases(level: str) -> Iterator[Case]:
    for B, n in at_level(
        level,
        smoke=[(3, 6)],
        quick=[(128, 40)],
        default=[(128, 40), (16, 100)],
        full=[(B, n) for n in (10, 20, 40, 100, 256) for B in (1, 16, 128)],
    ):
        yield _case(SUM, BOTH, B, n, 1.0)
        yield _case(SUM, FWD, B, n, 30.0)
        yield _case(ENTROPY, BOTH, B, n, 1.0)
        yield _case(SAMPLE, FWD, B, n, 1.0)
        yield _case(BEST, FWD, B, n, 1.0)
        yield _case(CHECK, FWD, B, n, 1.0)
    for B, n in at_level(level, smoke=[(3, 6)], quick=[(16, 20)], default=[(16, 40)], full=[(16, 40), (16, 100)]):
        yield _case(THROUGH, FWD, B, n, 1.0)
    yield _case(KBEST, FWD, 16 if level != "smoke" else 3, 12 if level != "smoke" else 6, 1.0)


def _case(what: str, direction: str, B: int, n: int, scale: float) -> Case:
    scores = B * (n + 1) ** 2 * 4
    moved = B * (n + 1) * 8 if what == CHECK else scores * (2 if direction == BOTH else 1)
    step = {SUM: 5 if direction == BOTH else 1, ENTROPY: 13, SAMPLE: 1}.get(what, 0)  # n^3 multiplications and additions, halves
    flops = B * n**3 * step // 2
    title = f"B={B}, n={n}" + (f", scores x {scale:g}" if what == SUM else "")
    build = partial(_build, what, direction, B, n, scale)
    return Case(what, direction, "dense", title, n, build, Traffic(moved, moved, flops))


@lru_cache(maxsize=1)
def _scores(B: int, n: int, scale: float, device: str) -> Tensor:
    return (scale * torch.randn(B, n + 1, n + 1, generator=torch.Generator().manual_seed(B + n))).to(device)


def _by_determinant(score: Tensor) -> Tensor:
    """log det of the Laplacian, several roots allowed, in float64; each word's largest score is taken out first."""
    dtype, score = score.dtype, score[:, 1:].double()
    top = score.detach().amax(2, keepdim=True)
    w = (score - top).exp()
    words = w[:, :, 1:] * (1 - torch.eye(w.shape[1], dtype=w.dtype, device=w.device))
    laplacian = torch.diag_embed(words.sum(2) + w[:, :, 0]) - words
    return (torch.linalg.slogdet(laplacian)[1] + top.sum((1, 2))).to(dtype)


def _entropy_by_determinant(score: Tensor) -> Tensor:
    leaf = score if score.requires_grad else score.detach().requires_grad_()
    total = _by_determinant(leaf)
    (post,) = torch.autograd.grad(total.sum(), leaf, create_graph=True)
    return total - (post * leaf).sum((1, 2))


@lru_cache(maxsize=2)
def _reference(direction: str, B: int, n: int, scale: float, device: str) -> tuple[Tensor, ...]:
    """Elimination in the log domain; the gradient is taken at small scale only, where autograd's cancellations are harmless."""
    score = _scores(B, n, scale, device).double().requires_grad_(direction == BOTH)
    own = torch.eye(n + 1, dtype=torch.bool, device=score.device)[1:]
    s = score[:, 1:].masked_fill(own, float("-inf"))
    total = s.new_zeros(B)
    for k in range(n - 1, -1, -1):
        D = s[:, k, : k + 1].logsumexp(1)
        total = total + D
        s = torch.logaddexp(s[:, :k, : k + 1], s[:, :k, k + 1 : k + 2] + (s[:, k, : k + 1] - D[:, None])[:, None])
        s = s.masked_fill(own[:k, : k + 1], -1e9)
    if direction == FWD:
        return (total,)
    return (total.detach(), *torch.autograd.grad(total.sum(), score))


@lru_cache(maxsize=1)
def _sample_reference(B: int, n: int, scale: float, device: str) -> Tensor:
    lengths, seed = torch.full((B,), n), torch.arange(B)[None]
    return matrix_tree_ref.matrix_tree_sample(_scores(B, n, scale, device).detach(), lengths, seed, True).double()


def _build(what: str, direction: str, B: int, n: int, scale: float, device: str) -> Prepared:
    score = _scores(B, n, scale, device).requires_grad_(direction == BOTH)
    if what == SUM:
        grad = torch.ones(B, device=device)
        do = lambda f: runner(f, direction, (score,), grad)
        ours = Provider(OURS, do(lambda: structops.tree.MatrixTreeCRF(score, multiroot=True).log_partition))
        peers = [Provider("torch.linalg.slogdet", do(lambda: _by_determinant(score)))]
        return Prepared(ours, peers, lambda: _reference(direction, B, n, scale, device))
    if what == ENTROPY:
        grad = torch.ones(B, device=device)
        wide = score.detach().double().requires_grad_()
        do = lambda f, leaf: runner(f, direction, (leaf,), grad.to(leaf.dtype))
        ours = Provider(OURS, do(lambda: structops.tree.MatrixTreeCRF(score, multiroot=True).entropy(), score))
        peers = [Provider("torch.linalg.slogdet", do(lambda: _entropy_by_determinant(score), score))]
        return Prepared(ours, peers, do(lambda: _entropy_by_determinant(wide), wide))
    lengths = torch.full((B,), n, device=device)
    if what == SAMPLE:
        seed = torch.arange(B, device=device)[None]
        ours = Provider(OURS, lambda: (torch.ops.structops.matrix_tree_sample(score, lengths, seed, True),))
        return Prepared(ours, [], lambda: (_sample_reference(B, n, scale, device),))
    if what == THROUGH:
        finite = lambda through: (through.clamp(min=-1e6),)
        ours = Provider(OURS, lambda: finite(torch.ops.structops.arborescence_max_marginals(score.detach(), lengths, True)))
        each = lambda s: finite(_by_trees(s, lengths))
        peers = [Provider("a spanning tree for every arc", lambda: each(score.detach()))]
        return Prepared(ours, peers, lambda: each(score.detach().double()))
    if what == KBEST:
        values = lambda f: lambda: (f(score.detach(), lengths, True, 8)[0],)
        ours = Provider(OURS, values(torch.ops.structops.arborescence_kbest))
        python = values(arborescence_ref.arborescence_kbest)
        return Prepared(ours, [Provider("Python recursion", python)], lambda: (python()[0].double(),))
    heads = structops.tree.maximum_spanning_tree(score.detach(), multiroot=True)[1]
    if what == CHECK:
        heads[::2, 1] = n  # about half of them close a cycle
        ours = Provider(OURS, lambda: (structops.tree.is_tree(heads).long(),))
        reference = lambda: (arborescence_ref.tree_check(heads, lengths) & 1,)
        return Prepared(ours, [Provider("Python loops", reference)], lambda: (reference()[0].double(),))
    ours = Provider(OURS, lambda: structops.tree.maximum_spanning_tree(score, multiroot=True))
    module, reason = load("ufal.chu_liu_edmonds")
    ufal = module and (lambda: _ufal(module.chu_liu_edmonds, score))
    python = lambda: arborescence_ref.arborescence(score, lengths, True)
    peers = [Provider("ufal.chu_liu_edmonds", ufal, reason), Provider("Python recursion", python)]
    return Prepared(ours, peers, lambda: tuple(t.double() for t in python()))


def _by_trees(score: Tensor, lengths: Tensor) -> Tensor:
    """Max-marginals by our maximum spanning tree of the scores without the other arcs to a word, for every arc."""
    B, N, _ = score.shape
    through, own = torch.full_like(score, float("-inf")), torch.eye(N, dtype=torch.bool, device=score.device)
    for dep in range(1, N):
        held = score[:, None].repeat(1, N, 1, 1)  # [b, head, N, N]
        held[:, :, dep] = torch.where(own, held[:, :, dep], float("-inf"))
        value, _ = torch.ops.structops.arborescence(held.flatten(0, 1), lengths.repeat_interleave(N), True)
        through[:, dep] = torch.where(own[dep], float("-inf"), value.reshape(B, N))
    return through


def _ufal(solve, score: Tensor) -> tuple[Tensor, Tensor]:
    """Sentence by sentence, on arrays of float64."""
    found = [solve(s) for s in score.double().cpu().numpy()]
    heads = torch.tensor([h for h, _ in found])
    heads[:, 0] = -1
    return torch.tensor([v for _, v in found]), heads


def test_spanning(case, bench_case):
    bench_case(case)
