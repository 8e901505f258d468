"""Both directions of one structure, complex phases, changed edges: directed-graph surveys, BiSAGE, GRNFormer, gossip mixing."""

from __future__ import annotations

import torch
from agreement import agree, graph_and_matrix, randn, simple_graph
from cases import generator
from structops import Graph, spmm

SYSTEM = "Directed aggregation and magnetic Laplacians; BiSAGE; GRNFormer edge perturbation; MultigraphFL mixing"
OPERATORS = ("structops.spmm",)


def test_both_directions() -> None:
    graph, A = simple_graph(15, 4.0, symmetric=False)
    agree(
        lambda x, a, b: spmm(graph, x) @ a + spmm(graph.reverse(), x) @ b,
        lambda x, a, b: A @ x @ a + A.T @ x @ b,
        *(randn(15, 4), randn(4, 3, seed=1), randn(4, 3, seed=2)),
    )


def magnetic(A: torch.Tensor, q: float):
    """Graph of the symmetrised edges and the real and imaginary parts of D^-1/2 A_s D^-1/2 exp(2 pi i q (A - A^T))."""
    sym = (A + A.T) / 2
    dst, src = sym.nonzero(as_tuple=True)
    scale = sym.sum(1).clamp(min=1e-300) ** -0.5
    weight = (scale[:, None] * sym * scale)[dst, src]
    phase = 2 * torch.pi * q * (A - A.T)[dst, src]
    return Graph(torch.stack([src, dst]), num_nodes=len(A)), weight * phase.cos(), weight * phase.sin()


def test_magnetic_laplacian() -> None:
    _, A = simple_graph(15, 4.0, symmetric=False)
    for q in (0.0, 0.25):
        graph, real, imag = magnetic(A, q)

        def apply(x, y, graph=graph, real=real[:, None], imag=imag[:, None]):
            return torch.stack([x - spmm(graph, x, real) + spmm(graph, y, imag), y - spmm(graph, y, real) - spmm(graph, x, imag)])

        eye, zero = torch.eye(15, dtype=torch.float64), torch.zeros(15, 15, dtype=torch.float64)
        L = torch.complex(*apply(eye, zero))
        assert torch.allclose(L, L.mH, atol=1e-12)
        spectrum = torch.linalg.eigvalsh(L)
        assert spectrum.min() > -1e-12 and spectrum.max() < 2 + 1e-12
        z = torch.complex(randn(15, 3), randn(15, 3, seed=1))
        torch.testing.assert_close(torch.complex(*apply(z.real.contiguous(), z.imag.contiguous())), L @ z)
        if q == 0:
            assert float(L.imag.abs().max()) == 0


def test_dual_bipartite_aggregation() -> None:
    """h' = mean(w l) W_l + h W_r and l' = mean(w h) W_l + l W_r in one product on [l || h]."""
    graph, _, incidence = graph_and_matrix(11, 11, 30, seed=2)
    count = incidence.sum((1, 2)).clamp(min=1)[:, None]

    def ours(h, l, w, wl, wr):
        both = spmm(graph, torch.cat([l, h], 1), w[:, None], reduce="mean")
        return torch.cat([both[:, :4] @ wl + h @ wr, both[:, 4:] @ wl + l @ wr], 1)

    def dense(h, l, w, wl, wr):
        W = torch.einsum("vue,e->vu", incidence, w) / count
        return torch.cat([W @ l @ wl + h @ wr, W @ h @ wl + l @ wr], 1)

    agree(ours, dense, randn(11, 4), randn(11, 4, seed=1), randn(30, seed=2), randn(4, 4, seed=3), randn(4, 4, seed=4))


def test_perturbed_edges() -> None:
    """Dropped and added edges by a mask and a second list equal a rebuilt graph."""
    graph, coo, _ = graph_and_matrix(11, 11, 30, seed=5)
    keep = torch.rand(30, generator=generator(1)) < 0.7
    extra = torch.randint(11, (2, 6), generator=generator(2))
    x = randn(11, 4)
    perturbed = spmm(graph, x, keep.double()[:, None]) + spmm(Graph(extra, num_nodes=11), x)
    rebuilt = spmm(Graph(torch.cat([coo[:, keep], extra], 1), num_nodes=11), x)
    torch.testing.assert_close(perturbed, rebuilt, atol=1e-12, rtol=1e-12)


def test_gossip_mixing() -> None:
    """Doubly stochastic mixing of flat parameters keeps their mean; an isolated silo keeps its own."""
    graph, A = simple_graph(9, 3.0)
    dst, src = A.nonzero(as_tuple=True)
    degree = A.sum(1)
    weight = 1 / (1 + torch.maximum(degree[dst], degree[src]))
    own = 1 - spmm(graph, None, weight)
    theta = randn(9, 20)
    mixed = own[:, None] * theta + spmm(graph, theta, weight[:, None])
    torch.testing.assert_close(mixed.mean(0), theta.mean(0), atol=1e-12, rtol=1e-12)
    assert torch.equal(mixed[-1], theta[-1])
