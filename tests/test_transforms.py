"""torch.func and forward mode: Jacobians forward, Hessians by either nesting, and nothing of a transform left behind in caches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import structops
import torch
import torch.autograd.forward_ad as forward_ad
from cases import generator
from structops import binary, so2, sparse, tree
from torch import Tensor

SOURCES, TARGETS = [0, 1, 2, 0, 1, 3], [1, 0, 1, 2, 2, 0]
EDGES, NODES, ROWS = 6, 4, 3
PTR, INDEX, LENGTHS = torch.tensor([0, 2, 3, 6]), torch.tensor([0, 2, 2, 1, 0, 1]), torch.tensor([3, 2])
TYPES = torch.tensor([0, 1, 1, 0, 1, 0])
H = (4, 2, 3)  # rows of two heads
BLOCK = dict(L=1, M=1, C=2, H=2)


def graph() -> structops.Graph:
    return structops.Graph(torch.tensor([SOURCES, TARGETS]), num_nodes=NODES)


def relations() -> sparse.RelationalGraph:
    return sparse.RelationalGraph(torch.tensor([SOURCES, TARGETS]), TYPES, num_relations=2, num_nodes=NODES)


def edge_block() -> tuple:
    L, M, C, hidden = BLOCK.values()
    sizes = so2.weight_shapes(L, M, 2 * C, hidden, L * hidden), so2.weight_shapes(L, M, hidden, C)
    w1, w2 = (torch.randn(sum(a * b for a, b in s), generator=generator(7), dtype=torch.float64) for s in sizes)
    b1, b2 = torch.zeros((2 * L + 1) * hidden, dtype=torch.float64), torch.zeros((L + 1) * C, dtype=torch.float64)
    return w1, b1, w2, b2


WEIGHTS = edge_block()

# name -> (a function of a graph, which has cached nothing yet, and of tensors; their shapes)
CASES: dict[str, tuple[Callable, tuple]] = {
    "spmm mul sum": (lambda g, x, e: structops.spmm(g, x, e, "mul"), ((NODES, 2), (EDGES, 2))),
    **{
        f"spmm {reduce}": (lambda g, x, reduce=reduce: structops.spmm(g, x, reduce=reduce)[:ROWS], ((NODES, 2),))
        for reduce in ("mean", "max", "std", "prod", "logsumexp")
    },
    "spmm mul max": (lambda g, x, e: structops.spmm(g, x, e, "mul", "max"), ((NODES, 2), (EDGES, 2))),
    "spmm mul var": (lambda g, x, e: structops.spmm(g, x, e, "mul", "var"), ((NODES, 2), (EDGES, 2))),
    "sddmm": (lambda g, x, y: structops.sddmm(g, x, y), ((NODES, 2), (NODES, 2))),
    **{
        f"segment {reduce}": (lambda g, x, reduce=reduce: structops.segment_reduce(x, PTR, reduce), ((EDGES, 2),))
        for reduce in ("sum", "max", "var")
    },
    **{
        f"scatter {reduce}": (lambda g, x, reduce=reduce: structops.scatter_reduce(x, INDEX, ROWS, reduce), ((EDGES, 2),))
        for reduce in ("sum", "min", "prod", "std")
    },
    "segment_softmax": (lambda g, x: structops.segment_softmax(x, PTR), ((EDGES, 2),)),
    "gat": (lambda g, v, s, d: sparse.gat_attention(g, v, s, d), (H, H[:2], H[:2])),
    "dot_attention": (lambda g, q, k, v: sparse.dot_attention(g, q, k, v), (H, H, H)),
    "add_act_reduce": (lambda g, x, y: sparse.add_act_reduce(g, x, y, activation="silu"), ((NODES, 2), (NODES, 2))),
    "multi_aggregate": (lambda g, x: sparse.multi_aggregate(g, x, ["mean", "max", "std"]), ((NODES, 2),)),
    "relational_spmm": (lambda g, r, x: sparse.relational_spmm(relations(), r, x), ((2, 2), (NODES, 2))),
    "typed_matmul": (lambda g, x, w: sparse.typed_matmul(x, w, TYPES), ((EDGES, 2), (2, 2, 3))),
    "polynomial_filter": (lambda g, x, c: sparse.polynomial_filter(g, x, c), ((NODES, 2), (3,))),
    "spherical_harmonics": (lambda g, x: so2.spherical_harmonics([0, 1, 2], x, True), ((3, 3),)),
    "wigner": (lambda g, x: so2.wigner(x, 2), ((3, 3),)),
    "edge_block": (
        lambda g, x, v: so2.edge_block(x, v, g, *WEIGHTS, lmax=1, mmax=1), ((NODES, 4, 2), (EDGES, 3)),
    ),
    "clifford": (lambda g, x, y: so2.CliffordAlgebra((2,)).geometric_product(x, y), ((3, 4), (3, 4))),
    "dependency": (lambda g, s: tree.DependencyCRF(s, LENGTHS).log_partition, ((2, 4, 4),)),
    "siblings": (lambda g, s, b: tree.DependencyCRF(s, LENGTHS, sib=b).log_partition, ((2, 4, 4), (2, 4, 4, 4))),
    "grandparents": (lambda g, s, b: tree.DependencyCRF(s, LENGTHS, grand=b).log_partition, ((2, 4, 4), (2, 4, 4, 4))),
    "spans": (lambda g, s: tree.SpanCRF(s, LENGTHS).log_partition, ((2, 4, 4),)),
    "grammar": (lambda g, t, r, o: tree.PCFG(t, r, o, LENGTHS).log_partition, ((2, 3, 2), (2, 1, 3, 3), (2, 1))),
    "chain": (lambda g, e, t: tree.LinearChainCRF(e, t, lengths=LENGTHS).log_partition, ((2, 3, 2), (2, 2))),
    "spanning trees": (lambda g, s: tree.MatrixTreeCRF(s, LENGTHS).log_partition, ((2, 4, 4),)),
}  # fmt: skip


def inputs(name: str) -> tuple[Tensor, ...]:
    return tuple(torch.randn(*s, generator=generator(i), dtype=torch.float64) for i, s in enumerate(CASES[name][1]))


@pytest.mark.parametrize("name", CASES)
def test_forward_mode(name: str) -> None:
    """Against differences, with and without gradients wanted, and under torch.func."""
    fn, x = partial(CASES[name][0], graph()), inputs(name)
    torch.autograd.gradcheck(fn, tuple(t.clone().requires_grad_() for t in x), check_forward_ad=True)
    v = tuple(torch.randn(t.shape, generator=generator(9), dtype=t.dtype) for t in x)
    want = torch.autograd.functional.jvp(fn, x, v)[1]
    with forward_ad.dual_level():
        got = forward_ad.unpack_dual(fn(*map(forward_ad.make_dual, x, v))).tangent
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.func.jvp(fn, x, v)[1], want)


@pytest.mark.parametrize("name", CASES)
def test_hessian(name: str) -> None:
    """Forward over reverse and reverse over reverse, both of which run the backward under vmap, and first in the life of its caches."""
    fn, x = partial(CASES[name][0], graph()), inputs(name)
    every = tuple(range(len(x)))
    scalar = lambda *t: fn(*t).sin().sum()
    forward = torch.func.hessian(scalar, every)(*x)
    reverse = torch.func.jacrev(torch.func.jacrev(scalar, every), every)(*x)
    want = torch.autograd.functional.hessian(scalar, x)
    for i in every:
        for j in every:
            torch.testing.assert_close(forward[i][j], want[i][j])
            torch.testing.assert_close(reverse[i][j], want[i][j])
    torch.testing.assert_close(torch.func.grad(scalar, every)(*x), torch.autograd.functional.jacobian(scalar, x))


@pytest.mark.parametrize("wanted", [False, True])
def test_binary_layers_refuse_forward_mode(wanted: bool) -> None:
    """They have no forward derivative: an error, never the tangent of a constant."""
    x, w, image = torch.randn(3, 8), torch.randn(5, 8), torch.randn(1, 8, 3, 3)
    for fn, t in ((lambda t: binary.binary_linear(t, w), x), (lambda t: binary.binary_conv2d(t, w.reshape(5, 8, 1, 1)), image)):
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
            fn(forward_ad.make_dual(t.clone().requires_grad_(wanted), torch.ones_like(t)))
        with pytest.raises(RuntimeError, match="functorch"):
            torch.func.jvp(fn, (t,), (torch.ones_like(t),))


def test_traced_winners_can_be_differentiated() -> None:
    """A trace made without gradients records what the gradient of an extreme needs."""
    from torch.fx.experimental.proxy_tensor import make_fx

    g, x = graph(), torch.randn(NODES, 2, generator=generator(1), dtype=torch.float64)
    traced = make_fx(lambda t: structops.spmm(g, t, reduce="max"))(x)
    leaf = x.clone().requires_grad_()
    traced(leaf).sum().backward()
    want = torch.autograd.functional.jacobian(lambda t: structops.spmm(g, t, reduce="max").sum(), x)
    torch.testing.assert_close(leaf.grad, want)
