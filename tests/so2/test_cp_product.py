"""CPTensorProduct: exact forms, fits, the five modes against einsum, the fused convolution, derivatives, errors."""

from __future__ import annotations

import pytest
import torch
from rotations import act, random_graph, random_rotation
from structops import Graph
from structops.so2 import CPTensorProduct, Irreps, TensorProduct
from structops.so2.cp_product import MODES, coefficients
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

EINSUM = {
    "uvw": "ir,jr,kr,niu,njv,nuvw->nkw",
    "uvu": "ir,jr,kr,niu,njv,nuv->nku",
    "uvv": "ir,jr,kr,niu,njv,nuv->nkv",
    "uuw": "ir,jr,kr,niu,nju,nuw->nkw",
    "uuu": "ir,jr,kr,niu,nju,nu->nku",
}


def draw(*shape: int, dtype=torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64).to(dtype)


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert a.shape == b.shape
    assert not a.numel() or (a - b).abs().max() <= tolerance * b.abs().max()


def operands(mode: str, dims, n: int = 3, U: int = 3, V: int = 2, W: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    V = U if mode in ("uuw", "uuu") else V
    shape = {"uvw": (U, V, W), "uvu": (U, V), "uvv": (U, V), "uuw": (U, W), "uuu": (U,)}[mode]
    return draw(n, dims[0], U), draw(n, dims[1], V, seed=1), draw(n, *shape, seed=2)


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("lmax", [(0, 0, 0), (1, 1, 1), (2, 3, 1), (1, 2, 3)])
def test_full_rank_is_the_tensor_product(lmax: tuple[int, int, int], parity: bool) -> None:
    """All paths of single copies with weights 1, in mode uuu."""
    p = lambda l: (-1) ** l if parity else 1
    irreps = [Irreps([(2, l, p(l)) for l in range(top + 1)]) for top in lmax]
    paths = [
        (a, b, c, "uuu", False)
        for a in range(lmax[0] + 1) for b in range(lmax[1] + 1) for c in range(abs(a - b), min(a + b, lmax[2]) + 1)
        if not parity or (a + b + c) % 2 == 0
    ]  # fmt: skip
    product = TensorProduct(*irreps, paths, layout="ir_mul")
    cp = CPTensorProduct(*lmax, "full", "uuu", parity=parity)
    x, y = draw(4, cp.dims[0], 2), draw(4, cp.dims[1], 2, seed=1)
    close(cp(x, y), product(x.flatten(1), y.flatten(1)).unflatten(1, (cp.dims[2], 2)), 1e-13)
    assert cp.error < 1e-15 and cp.rank <= min(cp.dims[0] * cp.dims[1], cp.dims[1] * cp.dims[2], cp.dims[0] * cp.dims[2])


def test_listed_coefficients_are_exact_and_equivariant() -> None:
    """One column for every coefficient that is not 0."""
    table = torch.from_numpy(coefficients(2, 2, 2, True).copy())
    i, j, k = table.nonzero().T
    eye = torch.eye(9, dtype=torch.float64)
    cp = CPTensorProduct(2, 2, 2, factors=(eye[:, i], eye[:, j], eye[:, k] * table[i, j, k]), parity=True)
    assert cp.rank == len(i) == 83
    x, y = draw(5, 9, 3), draw(5, 9, 1, seed=1)
    out = cp(x, y)
    close(out, torch.einsum("ijk,niu,njv->nku", table, x, y), 1e-13)
    irreps = Irreps.spherical_harmonics(2)
    for inversion in (False, True):
        R = random_rotation(3)
        turn = lambda t: act(irreps, t.mT.flatten(0, 1), R, inversion).reshape(len(t), -1, 9).mT
        close(cp(turn(x), turn(y)), turn(out), 1e-12)


def test_fit() -> None:
    """More columns and more sweeps fit better; the same arguments give the same factors; error is what it says."""
    first, again, longer, other = (
        CPTensorProduct(2, 2, 2, 20, sweeps=s, seed=seed) for s, seed in ((20, 0), (20, 0), (80, 0), (20, 1))
    )
    assert all(torch.equal(a, b) for a, b in zip(first.factors, again.factors, strict=True))
    assert not torch.equal(first.factors[0], other.factors[0])
    wide = CPTensorProduct(2, 2, 2, sweeps=80)
    assert wide.rank == 28 and wide.error < longer.error < first.error < 0.5
    table = torch.from_numpy(coefficients(2, 2, 2, False).copy())
    assert wide.error == pytest.approx(float((torch.einsum("ir,jr,kr->ijk", *wide.factors) - table).norm() / table.norm()), rel=1e-9)
    assert CPTensorProduct(1, 1, 1, 1000).rank == CPTensorProduct(1, 1, 1, "full").rank
    assert CPTensorProduct(1, 1, 1, 7).error < 0.05 and CPTensorProduct(0, 0, 0).error == 0


def test_equivariance_is_bounded_by_the_error() -> None:
    cp = CPTensorProduct(2, 2, 2, sweeps=60)
    norm = cp.error * float(torch.from_numpy(coefficients(2, 2, 2, False).copy()).norm())
    irreps = Irreps.spherical_harmonics(2, 1)
    x, y = draw(50, 9, 1), draw(50, 9, 1, seed=1)
    defects = []
    for seed in range(4):
        R = random_rotation(seed)
        turn = lambda t: act(irreps, t.mT.flatten(0, 1), R).reshape(len(t), -1, 9).mT
        defects.append((turn(cp(x, y)) - cp(turn(x), turn(y))).flatten(1).norm(dim=1))
    bound = 2 * norm * x.flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
    assert all((d <= bound).all() for d in defects) and max(float(d.max()) for d in defects) > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode: str) -> None:
    """Weights of each row, shared, and none; an operand with one row for all; every derivative to second order."""
    cp = CPTensorProduct(1, 2, 1, 5, mode, sweeps=5)
    x, y, w = operands(mode, cp.dims)
    dense = lambda x, y, w: torch.einsum(EINSUM[mode], *cp.factors, x, y, w)
    close(cp(x, y, w), dense(x, y, w), 1e-13)
    close(cp(x, y[:1], w[0]), dense(x, y[:1].expand_as(y), w[:1].expand_as(w)), 1e-13)
    if mode in ("uvw", "uuw"):
        with pytest.raises(TypeError, match="weight of shape"):
            cp(x, y)
    else:
        close(cp(x, y), dense(x, y, torch.ones_like(w)), 1e-13)
    leaves = [t[:2].clone().requires_grad_() for t in (x, y, w)]
    assert gradcheck(cp, leaves) and gradgradcheck(cp, leaves)


@pytest.mark.parametrize("channels", [1, 3, 48, 257])
@pytest.mark.parametrize("rank", ["full", 12])
def test_one_channel_of_harmonics(rank, channels: int, isa: str) -> None:
    cp = CPTensorProduct(2, 2, 1, rank, sweeps=5)
    x, y, w = draw(7, 9, channels), draw(7, 9, 1, seed=1), draw(7, channels, 1, seed=2)
    dense = lambda w: torch.einsum(EINSUM["uvu"], *cp.factors, x, y, w)
    close(cp(x, y, w), dense(w), 1e-13)
    close(cp(x, y, w[0]), dense(w[:1].expand_as(w)), 1e-13)
    close(cp(x, y), dense(torch.ones_like(w)), 1e-13)
    assert cp(x[:0], y[:0], w[:0]).shape == (0, 4, channels)


@pytest.mark.parametrize("channels, copies", [(1, 1), (5, 1), (48, 1), (3, 2)])
@pytest.mark.parametrize("rank", ["full", 6])
def test_convolution(rank, channels: int, copies: int, isa: str) -> None:
    """Both ways to evaluate it, against edge by edge; nodes without edges, parallel edges, no edges at all."""
    cp = CPTensorProduct(2, 1, 2, rank, sweeps=5)
    assert cp._direct == (rank == "full")
    for N, E in ((6, 30), (1, 0), (1, 3)):
        graph = random_graph(N, E)
        src, dst = graph.edge_index()
        x, y, w = draw(N, 9, channels), draw(E, 4, copies, seed=1), draw(E, channels, copies, seed=2)
        for weight in (w, draw(channels, copies), None):
            messages = torch.einsum(EINSUM["uvu"], *cp.factors, x[src], y, w * 0 + (1 if weight is None else weight))
            want = torch.zeros(N, 9, channels, dtype=torch.float64).index_add_(0, dst, messages)
            close(cp.conv(graph, x, y, weight), want, 1e-12)


@pytest.mark.parametrize("rank", ["full", 6])
def test_derivatives_of_the_convolution(rank) -> None:
    cp, graph = CPTensorProduct(1, 1, 1, rank, sweeps=5), random_graph(3, 5)
    args = [t.requires_grad_() for t in (draw(3, 4, 2), draw(5, 4, 1, seed=1), draw(5, 2, 1, seed=2))]
    f = lambda *a: cp.conv(graph, *a)
    assert gradcheck(f, args) and gradgradcheck(f, args)
    assert gradcheck(lambda x, y: cp.conv(graph, x, y, args[2][0].detach()), args[:2])


def test_dtypes() -> None:
    cp, graph = CPTensorProduct(2, 2, 2, 20, sweeps=5), random_graph(6, 30)
    x, y, w = draw(6, 9, 20), draw(30, 9, 1, seed=1), draw(30, 20, 1, seed=2)
    want = cp.conv(graph, x, y, w)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        out = cp.conv(graph, x.to(dtype), y.to(dtype), w.to(dtype))
        assert out.dtype == dtype and (out.double() - want).abs().max() < tolerance * want.abs().max()
        assert cp(x.to(dtype), y[:6].to(dtype)).dtype == dtype


def test_order_of_edges_does_not_matter() -> None:
    cp, (N, E) = CPTensorProduct(2, 2, 2, 20, sweeps=5), (8, 40)
    keys = torch.randperm(N * N, generator=torch.Generator().manual_seed(0))[:E]
    index = torch.stack([keys // N, keys % N])
    x, y, w = (draw(*s, dtype=torch.float32) for s in ((N, 9, 5), (E, 9, 1), (E, 5, 1)))
    order = torch.randperm(E, generator=torch.Generator().manual_seed(1))
    a, b = cp.conv(Graph(index, num_nodes=N), x, y, w), cp.conv(Graph(index[:, order], num_nodes=N), x, y[order], w[order])
    assert torch.equal(a, b)


def test_state() -> None:
    """Factors travel in the state dict, in float64."""
    a, b = CPTensorProduct(1, 1, 1, 5, sweeps=10), CPTensorProduct(1, 1, 1, 6, sweeps=3)
    x = draw(2, 4, 3)
    b(x, x[..., :1])
    b.load_state_dict(a.float().state_dict())
    assert b.rank == 5 and b.error == a.error and b.factors[0].dtype == torch.float64
    assert torch.equal(b(x, x[..., :1]), a(x, x[..., :1]))
    assert "rank 5" in repr(b)


def test_compile() -> None:
    torch._dynamo.reset()
    cp, graph = CPTensorProduct(1, 1, 1, 5, sweeps=5), random_graph(4, 9)
    x, y = draw(4, 4, 3), draw(9, 4, 1)
    f = torch.compile(lambda x, y: cp.conv(graph, x, y), backend="aot_eager", fullgraph=True)
    close(f(x, y), cp.conv(graph, x, y), 1e-13)


def test_errors() -> None:
    cp, graph = CPTensorProduct(1, 1, 1, 5, sweeps=2), random_graph(4, 9)
    x, y = draw(4, 4, 3), draw(9, 4, 1)
    eye = torch.eye(4)
    for error, message, call in (
        (ValueError, "lmax2 in 0..12", lambda: CPTensorProduct(1, 13, 1)),
        (ValueError, "mode to be one of", lambda: CPTensorProduct(1, 1, 1, mode="uvuv")),
        (ValueError, "rank >= 1", lambda: CPTensorProduct(1, 1, 1, 0)),
        (TypeError, "rank to be an int", lambda: CPTensorProduct(1, 1, 1, "quadratic")),
        (TypeError, "parity to be", lambda: CPTensorProduct(1, 1, 1, parity=1)),
        (ValueError, "rank or factors", lambda: CPTensorProduct(1, 1, 1, 4, factors=(eye, eye, eye))),
        (TypeError, r"factors \(A, B, C\)", lambda: CPTensorProduct(1, 1, 1, factors=(eye, eye))),
        (ValueError, r"B of shape \[9, 4\]", lambda: CPTensorProduct(1, 2, 1, factors=(eye, eye, eye))),
        (ValueError, r"x of shape \[..., 4, channels\]", lambda: cp(x[:, :3], x)),
        (TypeError, "y of dtype torch.float64", lambda: cp(x, x.float())),
        (TypeError, "weight of dtype torch.float64", lambda: cp(x, x, x.float())),
        (ValueError, r"weight of shape \[..., 3, 3\]", lambda: cp(x, x, x)),
        (ValueError, "broadcast", lambda: cp(x, x[:3])),
        (ValueError, "y with 3 channels", lambda: CPTensorProduct(1, 1, 1, 5, "uuu", sweeps=1)(x, x[..., :1])),
        (ValueError, "mode uvu", lambda: CPTensorProduct(1, 1, 1, 5, "uuu", sweeps=1).conv(graph, x, y)),
        (ValueError, r"y of shape \[9, 4, channels\]", lambda: cp.conv(graph, x, y[:4])),
        (ValueError, r"weight of shape \[9, 3, 1\]", lambda: cp.conv(graph, x, y, draw(4, 3, 1))),
        (TypeError, "graph", lambda: cp.conv(None, x, y)),
    ):
        with pytest.raises(error, match=message):
            call()
