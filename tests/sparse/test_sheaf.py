"""Sheaf Laplacians against the dense coboundary, and inverse square roots."""

from __future__ import annotations

import doctest
import sys

import pytest
import torch
from cases import FLOATS, generator, values
from compare import assert_close
from structops import sparse
from structops.sparse import SheafGraph, inverse_sqrt_psd, sheaf_laplacian
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

N = 7
ENDS = torch.tensor([[0, 1, 2, 3, 0, 1, 5, 0], [1, 2, 3, 4, 4, 4, 0, 1]])  # node 6 isolated, 0-1 twice


def sheaf(order_seed: int = 0) -> tuple[Tensor, SheafGraph]:
    """Both directions of ENDS, shuffled."""
    edges = torch.cat([ENDS, ENDS.flip(0)], 1)
    edges = edges[:, torch.randperm(edges.shape[1], generator=generator(order_seed))]
    return edges, SheafGraph(edges, N)


def matrices(maps: Tensor) -> Tensor:
    return maps[:, None, None] if maps.dim() == 1 else torch.diag_embed(maps) if maps.dim() == 2 else maps


def coboundary(edges: Tensor, pair: Tensor, maps: Tensor) -> Tensor:
    """delta [pairs * m, N * d]: the row of a pair is F_k x_v - F_pair(k) x_u."""
    maps, (E, m, d) = matrices(maps), matrices(maps).shape
    rows = []
    for k in range(E):
        r = int(pair[k])
        if k < r:
            row = maps.new_zeros(m, N, d)
            row = row.index_put((torch.arange(m)[:, None], edges[1, k].expand(1), torch.arange(d)), maps[k], accumulate=True)
            row = row.index_put((torch.arange(m)[:, None], edges[1, r].expand(1), torch.arange(d)), -maps[r], accumulate=True)
            rows.append(row.reshape(m, N * d))
    return torch.cat(rows)


def newton(a: Tensor) -> Tensor:
    """a^-1/2 by the coupled Newton-Schulz iteration, whose derivative does not know of eigenvalues."""
    size = a.square().sum((-2, -1), keepdim=True).sqrt()
    identity = torch.eye(a.shape[-1]).double()
    y, z = a / size, identity.expand_as(a)
    for _ in range(40):
        step = (3 * identity - z @ y) / 2
        y, z = y @ step, step @ z
    return z / size.sqrt()


def dense(edges: Tensor, pair: Tensor, maps: Tensor, normalised: bool, augmented: bool) -> Tensor:
    """L [N * d, N * d], normalised by the roots of its diagonal blocks."""
    delta = coboundary(edges, pair, maps)
    L, d = delta.T @ delta, matrices(maps).shape[2]
    if not normalised:
        return L
    blocks = torch.stack([L[v * d : (v + 1) * d, v * d : (v + 1) * d] for v in range(N)])
    identity = torch.eye(d).double()
    if augmented:
        root = newton(blocks + identity)
    elif torch.linalg.eigvalsh(blocks.detach())[:-1].min() > 1e-9:  # only the isolated node is singular
        root = newton(torch.cat([blocks[:-1], identity[None]]))
    else:
        w, U = torch.linalg.eigh(blocks)
        keep = w > 1e-10
        root = (U * torch.where(keep, torch.where(keep, w, 1.0).rsqrt(), 0.0)[:, None]) @ U.mT
    S = torch.block_diag(*root)
    return S @ L @ S


def apply(L: Tensor, x: Tensor) -> Tensor:
    return (L @ x.reshape(L.shape[0], -1)).reshape(x.shape)


KINDS = {
    "number": ((), ()),
    "diagonal": ((3,), (3,)),
    "square": ((2, 2), (2,)),
    "rectangle": ((3, 2), (2,)),
    "wide": ((1, 4), (4,)),
}


@pytest.mark.parametrize("normalised, augmented", [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind: str, normalised: bool, augmented: bool) -> None:
    edges, graph = sheaf()
    m, s = KINDS[kind]
    maps, x = values(16, *m).requires_grad_(), values(N, *s, 5, seed=1).requires_grad_()
    ours = sheaf_laplacian(graph, maps, x, normalised, augmented)
    theirs = apply(dense(edges, graph.pair, maps, normalised, augmented), x)
    assert_close(ours, theirs.detach(), terms=200)
    if kind == "wide" and normalised and not augmented:
        return  # singular blocks: no derivative is claimed there
    c = values(*x.shape, seed=2)
    a = torch.autograd.grad((ours * c).sum(), (maps, x), create_graph=True)
    b = torch.autograd.grad((theirs * c).sum(), (maps, x), create_graph=True)
    for i, j in zip(a, b, strict=True):
        assert_close(i, j.detach(), terms=2000)
    a = torch.autograd.grad(a[0].sin().sum() + a[1].sin().sum(), (maps, x))
    b = torch.autograd.grad(b[0].sin().sum() + b[1].sin().sum(), (maps, x))
    for i, j in zip(a, b, strict=True):
        assert_close(i, j, terms=20_000, magnitude=16.0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", ["number", "diagonal", "square"])
def test_dtypes(kind: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    edges, graph = sheaf(1)
    m, s = KINDS[kind]
    maps, x = values(16, *m, dtype=dtype), values(N, *s, 20, dtype=dtype, seed=1)
    out = on_threads(lambda: sheaf_laplacian(graph, maps, x))
    want = apply(dense(edges, graph.pair, maps.double(), True, True), x.double())
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 0.06)  # 16-bit maps, roots and blocks are rounded on the way
    assert out.dtype == dtype and (out.double() - want).abs().max() < tolerance


def test_spectrum() -> None:
    """Symmetric, positive semidefinite, at most 2, by applying the operator to the identity."""
    _, graph = sheaf()
    for m in ((2, 2), (3, 3)):
        d = m[1]
        maps = values(16, *m)
        L = sheaf_laplacian(graph, maps, torch.eye(N * d).double().reshape(N, d, N * d)).reshape(N * d, N * d)
        assert (L - L.T).abs().max() < 1e-12
        w = torch.linalg.eigvalsh(L)
        assert w.min() > -1e-12 and w.max() < 2


def test_trivial_sheaf_is_the_graph_laplacian() -> None:
    edges, graph = sheaf()
    x = values(N, 4)
    A = torch.zeros(N, N).double().index_put((edges[1], edges[0]), torch.ones(16).double(), accumulate=True)
    degree = A.sum(1)
    root = torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0.0)
    assert_close(sheaf_laplacian(graph, torch.ones(16).double(), x, False), (torch.diag(degree) - A) @ x, terms=32)
    want = ((degree > 0).double()[:, None] * x) - (root[:, None] * A * root) @ x
    assert_close(sheaf_laplacian(graph, torch.ones(16).double(), x, True, False), want, terms=32)


def test_pairs() -> None:
    edges, graph = sheaf(2)
    pair = graph.pair.long()
    assert torch.equal(pair[pair], torch.arange(16)) and torch.equal(edges[:, pair], edges.flip(0))
    assert SheafGraph(torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]])).pair.tolist() == [2, 3, 0, 1]  # by occurrence
    assert SheafGraph(torch.zeros(2, 0, dtype=torch.int64), 3).pair.shape == (0,)
    for bad in ([[0, 1, 1], [1, 0, 2]], [[0, 0, 1], [1, 1, 0]], [[0, 1, 2], [1, 0, 2]]):
        with pytest.raises(ValueError, match="SheafGraph"):
            SheafGraph(torch.tensor(bad), 3)


def test_zero_sizes(poison: None) -> None:
    empty = SheafGraph(torch.zeros(2, 0, dtype=torch.int64), 3)
    for maps, x in (
        (torch.zeros(0), torch.ones(3, 2)),
        (torch.zeros(0, 2), torch.ones(3, 2, 2)),
        (torch.zeros(0, 2, 2), torch.ones(3, 2, 2)),
    ):
        assert torch.equal(sheaf_laplacian(empty, maps, x), torch.zeros_like(x))
    _, graph = sheaf()
    assert sheaf_laplacian(graph, torch.zeros(16, 2, 2), torch.ones(N, 2, 0)).shape == (N, 2, 0)


def test_bad_input() -> None:
    _, graph = sheaf()
    maps, x = torch.zeros(16, 2, 2), torch.zeros(N, 2, 3)
    for bad in ((maps[1:], x), (maps, x[1:]), (maps, x[:, :1]), (maps[..., None], x), (maps[..., 0], x[:, 0])):
        with pytest.raises(ValueError, match="sheaf_laplacian"):
            sheaf_laplacian(graph, *bad)
    for bad in ((graph.graph, maps, x), (graph, maps.double(), x), (graph, maps.int(), x), (graph, maps, x, 1)):
        with pytest.raises(TypeError, match="sheaf_laplacian"):
            sheaf_laplacian(*bad)
    with pytest.raises(ValueError, match="inverse_sqrt_psd"):
        inverse_sqrt_psd(torch.zeros(2, 3))
    with pytest.raises(TypeError, match="inverse_sqrt_psd"):
        inverse_sqrt_psd(torch.zeros(2, 2, dtype=torch.int64))


def spd(*shape: int, seed: int = 0) -> Tensor:
    a = values(*shape, shape[-1], seed=seed)
    return a @ a.mT + torch.eye(shape[-1]).double()


def test_inverse_square_root() -> None:
    for d in (1, 2, 3, 5):
        a = spd(6, d)
        s = inverse_sqrt_psd(a)
        assert_close(s @ a @ s, torch.eye(d).double().expand(6, d, d), terms=200)
        assert_close(s, s.mT, terms=8)
    assert inverse_sqrt_psd(torch.zeros(0, 3, 3)).shape == (0, 3, 3) and inverse_sqrt_psd(torch.zeros(2, 0, 0)).shape == (2, 0, 0)
    singular = torch.diag(torch.tensor([4.0, 0.0])).double()
    assert_close(inverse_sqrt_psd(singular), torch.diag(torch.tensor([0.5, 0.0])).double(), terms=4)
    assert_close(
        inverse_sqrt_psd(spd(2, 3).bfloat16()).double(),
        inverse_sqrt_psd(spd(2, 3).bfloat16().double()).bfloat16().double(),
        terms=8,
    )


def test_inverse_square_root_gradients() -> None:
    """With repeated eigenvalues too: multiples of the identity, and one plane of equal ones."""
    plane = spd(1, 3)
    _, U = torch.linalg.eigh(plane)
    plane = (U * torch.tensor([2.0, 2.0, 3.0]).double()) @ U.mT
    for a in (spd(2, 3), 2 * torch.eye(3).double()[None], plane):
        a = a.clone().requires_grad_()
        assert gradcheck(inverse_sqrt_psd, (a,))
        assert gradgradcheck(inverse_sqrt_psd, (a,))


def test_compile() -> None:
    _, graph = sheaf()
    graph.graph.reversed_structure  # noqa: B018
    fn = lambda maps, x: sheaf_laplacian(graph, maps, x).square().sum() + sparse.total_variation(graph.graph, x, maps[:, 0, 0], 1.5)
    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    results = []
    for f in (fn, compiled):
        leaves = [values(16, 2, 2).requires_grad_(), values(N, 2, 3, seed=1).requires_grad_()]
        out = f(*leaves)
        out.backward()
        results.append([out.detach(), *(t.grad for t in leaves)])
    torch._dynamo.reset()
    for a, b in zip(*results, strict=True):
        assert_close(b, a, terms=256, magnitude=8.0)


@pytest.mark.parametrize("name", ["SheafGraph", "block_spmm", "total_variation"])
def test_docstring_examples(name: str) -> None:
    """Of the modules of sheaves, blocks and differences."""
    outcome = doctest.testmod(sys.modules[getattr(sparse, name).__module__])
    assert outcome.attempted > 0 and outcome.failed == 0


@pytest.mark.parametrize("d", [1, 3, 8, 9])
def test_inverse_sqrt_of_strided_matrices(d: int) -> None:
    """Inside and outside the sizes of eigh_small, in any layout."""
    a = torch.randn(4, d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
    m = a @ a.mT + torch.eye(d, dtype=torch.float64)
    for strided in (m.mT, m.permute(1, 2, 0).contiguous().permute(2, 0, 1), torch.stack([m, m], 3)[..., 0]):
        root = inverse_sqrt_psd(strided)
        assert torch.allclose(root @ m @ root, torch.eye(d, dtype=torch.float64).expand(4, d, d), atol=1e-10)
