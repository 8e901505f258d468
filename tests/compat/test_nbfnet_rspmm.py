"""structops.compat.nbfnet against loops, with the stated differences."""

from __future__ import annotations

import doctest

import pytest
import torch
from cases import random_coo, values
from compare import assert_close
from structops.compat import nbfnet
from structops.compat.nbfnet import generalized_rspmm

N, R, E = 9, 3, 40
EDGES, KIND = random_coo(N, N, E, seed=8).flip(0), torch.arange(E) % R


def loops(weight, relation, x, sum_: str, mul: str):
    fill = {"add": 0.0, "min": torch.finfo(x.dtype).max, "max": torch.finfo(x.dtype).min}[sum_]
    rows = []
    for v in range(N):
        at = (EDGES[0] == v).nonzero()[:, 0]
        if at.numel() == 0:
            rows.append(torch.full_like(x[0], fill))
            continue
        r, u = relation[KIND[at]], x[EDGES[1, at]]
        m = weight[at][:, None] * (r * u if mul == "mul" else r + u)
        rows.append({"add": m.sum(0), "min": m.amin(0), "max": m.amax(0)}[sum_])
    return torch.stack(rows)


@pytest.mark.parametrize("mul", ["mul", "add"])
@pytest.mark.parametrize("sum_", ["add", "min", "max"])
def test_as_loops(sum_: str, mul: str) -> None:
    weight, relation, x = values(E, seed=1) + torch.linspace(0, 0.1, E), values(R, 5, seed=2), values(N, 5)
    leaves = [t.double().requires_grad_() for t in (weight, relation, x)]
    ours, theirs = generalized_rspmm(EDGES, KIND, *leaves, sum_, mul), loops(*leaves, sum_, mul)
    assert_close(ours, theirs, terms=64)
    grad = values(N, 5, seed=4)
    for a, b in zip(*(torch.autograd.grad(o, leaves, grad) for o in (ours, theirs)), strict=True):
        assert_close(a, b, terms=256)


def test_ties_differ() -> None:
    edges, kind, x = torch.tensor([[0, 0], [1, 2]]), torch.tensor([0, 0]), torch.ones(3, 1, requires_grad=True)
    generalized_rspmm(edges, kind, torch.ones(2), torch.ones(1, 1), x, "max").sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 0]


def test_unknown_names() -> None:
    args = (EDGES, KIND, values(E), values(R, 2), values(N, 2))
    for wrong in ({"sum": "pna"}, {"mul": "rotate"}):
        with pytest.raises(ValueError, match="expected"):
            generalized_rspmm(*args, **wrong)


def test_docstring_examples() -> None:
    outcome = doctest.testmod(nbfnet)
    assert outcome.attempted and not outcome.failed
