"""Properties that the distributions of torch_struct and supar compute once: also with the gradient that is wanted later."""

from __future__ import annotations

import contextlib

import pytest
import torch
from cases import generator
from compare import assert_close
from structops.compat import torch_struct as ts
from structops.compat.supar import structs
from torch import Tensor

KINDS = {
    "ts.DependencyCRF": (ts.DependencyCRF, (2, 4, 4), "partition"),
    "ts.LinearChainCRF": (ts.LinearChainCRF, (2, 3, 2, 2), "partition"),
    "ts.SemiMarkovCRF": (ts.SemiMarkovCRF, (2, 3, 2, 2, 2), "partition"),
    "ts.AlignmentCRF": (ts.AlignmentCRF, (1, 2, 3, 3), "partition"),
    "supar.DependencyCRF": (structs.DependencyCRF, (2, 4, 4), "log_partition"),
    "supar.MatrixTree": (structs.MatrixTree, (2, 4, 4), "log_partition"),
    "supar.SemiMarkovCRF": (structs.SemiMarkovCRF, (2, 3, 3, 2), "log_partition"),
    "supar.BiLexicalizedConstituencyCRF": (lambda s: structs.BiLexicalizedConstituencyCRF([s, 2 * s]), (2, 4, 4), "log_partition"),
}


def gradient(of: Tensor | tuple, scores: Tensor) -> Tensor:
    parts = of if isinstance(of, tuple) else (of,)
    return torch.autograd.grad(sum(t.square().sum() for t in parts), scores)[0]


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("query", ["partition", "marginals", "max", "entropy"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_after_a_look_without(kind: str, query: str, off) -> None:
    make, shape, partition = KINDS[kind]
    query = partition if query == "partition" else query
    grads = []
    for look in (contextlib.nullcontext, off):
        scores = torch.randn(shape, dtype=torch.float64, generator=generator(0)).requires_grad_()
        crf = make(scores)
        with look():
            first = getattr(crf, query)
            assert getattr(crf, query) is first
        again = getattr(crf, query)
        assert (again is first) == (look is contextlib.nullcontext)
        assert getattr(crf, query) is again
        grads.append(gradient(again, scores))
    assert_close(grads[1], grads[0], terms=1)


def test_gradients_within_queries_in_inference_mode() -> None:
    x = torch.randn(1, 2, 3, 3, generator=generator(0))
    chain = torch.randn(1, 3, 4, 4, generator=generator(1))
    draw = lambda: (
        ts.AlignmentCRF(x).topk(2), ts.AlignmentCRF(x).argmax, ts.LinearChain(ts.EntropySemiring).marginals(chain),
    )  # fmt: skip
    want = draw()
    with torch.inference_mode():
        x, chain = x.clone(), chain.clone()
        for a, b in zip(draw(), want, strict=True):
            assert torch.equal(a, b)
