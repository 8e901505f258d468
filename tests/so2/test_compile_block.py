"""torch.compile and export of the rotation functions: one graph, the same values and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from compare import assert_close
from so2_block_cases import directions, problem
from structops import so2

P = problem(2, 1, 2, 3, N=4, E=9)


def around(x: torch.Tensor, vec: torch.Tensor) -> torch.Tensor:
    D = so2.wigner(vec, 2, 1)
    return so2.rotate_back(so2.rotate(x, D, 2, 1).sin(), D, 2, 1)


FUNCTIONS = {
    "block": (lambda x, vec: replace(P, x=x, vec=vec).call(), P.x, P.vec),
    "kept": (lambda x, vec: replace(P, x=x, vec=vec).call(keep=True, three_products=True), P.x, P.vec),
    "rotations": (around, torch.randn(9, 9, 2, dtype=torch.float64), directions(9)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compile(name: str) -> None:
    fn, *inputs = FUNCTIONS[name]
    results = []
    for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = f(*leaves)
        results.append([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)])
    torch._dynamo.reset()
    for a, b in zip(*results, strict=True):
        assert_close(b, a, terms=256, magnitude=8.0)


def test_export() -> None:
    class Block(torch.nn.Module):
        def forward(self, x, vec):
            return replace(P, x=x, vec=vec).call()

    program = torch.export.export(Block(), (P.x, P.vec), strict=False)
    assert "structops.edge_block.default" in {str(n.target) for n in program.graph.nodes}
    assert_close(program.module()(P.x, P.vec), P.call(), terms=64)
