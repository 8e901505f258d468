"""structops.compat.pytorch_crf by enumeration, and against pytorch-crf itself where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import itertools

import pytest
import torch
from compare import assert_close, assert_same
from structops.compat.pytorch_crf import CRF


def case(seed: int = 0, B: int = 3, N: int = 4, T: int = 3):
    g = torch.Generator().manual_seed(seed)
    emissions = torch.randn(B, N, T, generator=g)
    tags = torch.randint(T, (B, N), generator=g)
    mask = torch.arange(N) < torch.tensor([[N - b] for b in range(B)])
    crf = CRF(T, batch_first=True)
    with torch.no_grad():
        for p in crf.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return crf, emissions, tags, mask


def score(crf: CRF, emissions, tags) -> float:
    total = crf.start_transitions[tags[0]] + crf.end_transitions[tags[-1]] + sum(emissions[i, t] for i, t in enumerate(tags))
    return float(total + sum(crf.transitions[a, b] for a, b in itertools.pairwise(tags)))


def test_by_enumeration() -> None:
    crf, emissions, tags, mask = case()
    crf.requires_grad_(False)
    llh, best = crf(emissions, tags, mask, "none"), crf.decode(emissions, mask)
    for b in range(3):
        n = int(mask[b].sum())
        every = {t: score(crf, emissions[b], t) for t in itertools.product(range(3), repeat=n)}
        total = torch.tensor([*every.values()], dtype=torch.float64).logsumexp(0)
        assert_close(llh[b], every[tuple(tags[b, :n].tolist())] - total, torch.float32, terms=64)
        assert best[b] == list(max(every, key=every.get))


def test_reductions_and_layout() -> None:
    crf, emissions, tags, mask = case(1)
    none = crf(emissions, tags, mask, "none")
    assert_same(crf(emissions, tags, mask), none.sum())
    assert_same(crf(emissions, tags, mask, "mean"), none.mean())
    assert_same(crf(emissions, tags, mask, "token_mean"), none.sum() / mask.sum())
    second = CRF(3)
    second.load_state_dict(crf.state_dict())
    assert_same(second(emissions.transpose(0, 1), tags.t(), mask.t(), "none"), none)
    assert second.decode(emissions.transpose(0, 1), mask.t()) == crf.decode(emissions, mask)
    assert {*crf.state_dict()} == {"start_transitions", "end_transitions", "transitions"}
    assert repr(crf) == "CRF(num_tags=3)"


def test_errors() -> None:
    crf, emissions, tags, mask = case()
    hole = mask.clone()
    hole[0, 1] = False
    late = mask.clone()
    late[1, 0] = False
    for text, call in [
        ("invalid number of tags: 0", lambda: CRF(0)),
        ("invalid reduction: x", lambda: crf(emissions, tags, mask, "x")),
        ("emissions must have dimension of 3, got 2", lambda: crf(emissions[0], tags)),
        ("last dimension of emissions is 3, got 2", lambda: crf(emissions[..., :2], tags)),
        ("emissions and tags must match", lambda: crf(emissions, tags[:, :2])),
        ("emissions and mask must match", lambda: crf.decode(emissions, mask[:, :2])),
        ("mask of the first timestep must all be on", lambda: crf(emissions, tags, late)),
        ("prefix", lambda: crf(emissions, tags, hole)),
    ]:
        with pytest.raises(ValueError, match=text):
            call()


@pytest.mark.parametrize("tag", [-100, -1, 3])
def test_tags_that_are_none(tag: int) -> None:
    crf, emissions, tags, mask = case()
    wrong = tags.clone()
    wrong[0, 1] = tag
    with pytest.raises(IndexError, match="tags between 0 and 2"):
        crf(emissions, wrong, mask)
    assert_same(crf(emissions, tags.masked_fill(~mask, tag), mask).detach(), crf(emissions, tags, mask).detach())


@pytest.mark.skipif(importlib.util.find_spec("torchcrf") is None, reason="pytorch-crf is not installed")
@pytest.mark.parametrize("batch_first", [False, True])
def test_against_pytorch_crf(batch_first: bool) -> None:
    theirs = importlib.import_module("torchcrf").CRF(5, batch_first)
    ours = CRF(5, batch_first)
    ours.load_state_dict(theirs.state_dict())
    _, emissions, tags, mask = case(3, B=6, N=9, T=5)
    mask[:, :3] = True
    if not batch_first:
        emissions, tags, mask = emissions.transpose(0, 1), tags.t(), mask.t()
    for reduction in ("none", "sum", "mean", "token_mean"):
        found = []
        for crf in (theirs, ours):
            e = emissions.clone().requires_grad_()
            out = crf(e, tags, mask, reduction=reduction)
            found.append((out, *torch.autograd.grad(out.sum(), (e, *crf.parameters()))))
        for a, b in zip(*found, strict=True):
            assert_close(b, a.double(), torch.float32, terms=200)
    assert_same(ours(emissions, tags).detach(), ours(emissions, tags, torch.ones_like(mask)).detach())
    assert ours.decode(emissions, mask) == theirs.decode(emissions, mask)
