"""Message passing with an edge network, gated updates and the set2set readout."""

from __future__ import annotations

import torch
from agreement import agree, graph_and_matrix, randn
from cases import generator
from structops import Graph, segment_reduce, segment_softmax, spmm
from structops.sparse import edge_conditioned_matmul, typed_matmul
from torch import Tensor

SYSTEM = "MPNN: neural message passing for quantum chemistry (edge network, GRU, set2set)"
OPERATORS = (
    "structops.sparse.edge_conditioned_matmul",
    "structops.sparse.typed_matmul",
    "structops.segment_softmax",
    "structops.segment_reduce",
)

N, E, D, F, J = 11, 34, 5, 3, 6
GRAPH, (SRC, DST), INCIDENCE = graph_and_matrix(N, N, E, seed=3)
PTR = torch.tensor([0, 4, 4, 11])  # graphs of the readout, one without nodes


def gru(h: Tensor, m: Tensor, w_in: Tensor, w_h: Tensor) -> Tensor:
    (r, z, n), (hr, hz, hn) = (m @ w_in).chunk(3, 1), (h @ w_h).chunk(3, 1)
    z = torch.sigmoid(z + hz)
    return (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h


def ours(h, e, w1, w2, b2, w_in, w_h):
    """The edge network's last map [J, D * D] is the weight; nothing of the size E * D * D is made."""
    phi = torch.relu(e @ w1)
    for _ in range(2):
        h = gru(h, edge_conditioned_matmul(GRAPH, h, phi, w2.view(J, D, D), b2.view(D, D)), w_in, w_h)
    return h


def dense(h, e, w1, w2, b2, w_in, w_h):
    A = (torch.relu(e @ w1) @ w2 + b2).view(E, D, D)
    for _ in range(2):
        h = gru(h, torch.einsum("vue,ui,eij->vj", INCIDENCE, h, A), w_in, w_h)
    return h


def test_layers() -> None:
    sizes = (N, D), (E, F), (F, J), (J, D * D), (D * D,), (D, 3 * D), (D, 3 * D)
    agree(ours, dense, *(randn(*s, seed=k) / 2 for k, s in enumerate(sizes)))


def test_segment_outer_products() -> None:
    """S_v = sum of phi_e h_u, then one product."""
    h, phi, w = randn(N, D), randn(E, J, seed=1), randn(J, D, D, seed=2)
    outer = (phi[:, :, None] * h[SRC][:, None, :]).flatten(1)
    want = spmm(GRAPH, None, outer) @ w.flatten(0, 1)
    torch.testing.assert_close(edge_conditioned_matmul(GRAPH, h, phi, w), want, atol=1e-12, rtol=1e-12)


def test_discrete_edges_are_types() -> None:
    """GGNN's A_type h_w is the edge network of one-hot features."""
    kind = torch.randint(0, J, (E,), generator=generator(1))
    h, w = randn(N, D), randn(J, D, D, seed=2)
    one_hot = edge_conditioned_matmul(GRAPH, h, torch.nn.functional.one_hot(kind, J).double(), w)
    torch.testing.assert_close(one_hot, spmm(GRAPH, None, typed_matmul(h, w, kind, SRC)), atol=1e-12, rtol=1e-12)


def test_node_order() -> None:
    order = torch.randperm(N, generator=generator(4))
    place = torch.argsort(order)
    h, phi, w = randn(N, D), randn(E, J, seed=1), randn(J, D, D, seed=2)
    moved = edge_conditioned_matmul(Graph(torch.stack([place[SRC], place[DST]]), num_nodes=N), h[order], phi, w)
    torch.testing.assert_close(moved, edge_conditioned_matmul(GRAPH, h, phi, w)[order], atol=1e-12, rtol=1e-12)


def step(q: Tensor, w: Tensor) -> Tensor:
    return torch.tanh(q @ w)


def set2set(h: Tensor, w: Tensor) -> Tensor:
    q = h.new_zeros(len(PTR) - 1, 2 * D)
    graph_of = torch.repeat_interleave(torch.arange(len(PTR) - 1), PTR.diff())
    for _ in range(3):
        q = step(q, w)
        a = segment_softmax((h * q[graph_of]).sum(1), PTR)
        q = torch.cat([q, segment_reduce(a[:, None] * h, PTR, "sum")], 1)
    return q


def set2set_by_graph(h: Tensor, w: Tensor) -> Tensor:
    rows = []
    for a, b in zip(PTR.tolist(), PTR.tolist()[1:], strict=False):
        q = h.new_zeros(1, 2 * D)
        for _ in range(3):
            q = step(q, w)
            q = torch.cat([q, (h[a:b] @ q[0]).softmax(0)[None] @ h[a:b]], 1)
        rows.append(q)
    return torch.cat(rows)


def test_readout() -> None:
    agree(set2set, set2set_by_graph, randn(N, D), randn(2 * D, D, seed=1))
