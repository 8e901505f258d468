"""GRAFENNE: feature nodes beside graph nodes, attention both ways over the features that are there, sampled features."""

from __future__ import annotations

import torch
from agreement import agree, randn, simple_graph
from cases import generator
from structops import Graph, sparse, spmm

SYSTEM = "GRAFENNE: graphs with heterogeneous feature sets, attention between feature nodes and graph nodes"
OPERATORS = ("structops.sparse.gat_attention", "structops.spmm", "structops.sparse.segment_topk")
N, F, H, D = 10, 6, 2, 3
MASK = torch.rand(N, F, generator=generator(1)) < 0.5
MASK[3] = False  # a node without features
NODE, FEATURE = MASK.nonzero(as_tuple=True)
TO_NODES = Graph(torch.stack([FEATURE, NODE]), num_src=F, num_dst=N)
TO_FEATURES = Graph(torch.stack([NODE, FEATURE]), num_src=N, num_dst=F)
NODES, A = simple_graph(N, 3.0, seed=2)
SHAPES = ((H * D, H, D), (H * D, H, D), (H, D), (H, D), (1, H))  # W of sources, W of targets, a_s, a_t, a_e W_e


def attend(graph, sources, targets, edge, w_src, w_dst, a_src, a_dst, a_edge):
    """softmax_j(leaky_relu(a_s W h_j + a_t W h_i + a_e W_e x_ij)), the sum of W h_j so weighted."""
    value, score = torch.einsum("ni,ihd->nhd", sources, w_src), torch.einsum("ni,ihd->nhd", targets, w_dst)
    return sparse.gat_attention(graph, value, (value * a_src).sum(2), (score * a_dst).sum(2), edge @ a_edge).flatten(1)


def dense_attend(there, sources, targets, edge, w_src, w_dst, a_src, a_dst, a_edge):
    """there, edge: ``[targets, sources]`` and its edges' values in row order."""
    value, score = torch.einsum("ni,ihd->nhd", sources, w_src), torch.einsum("ni,ihd->nhd", targets, w_dst)
    full = torch.zeros(*there.shape, edge.shape[1], dtype=edge.dtype).masked_scatter(there[..., None], edge)
    logits = (score * a_dst).sum(2)[:, None] + (value * a_src).sum(2)[None] + full @ a_edge
    logits = torch.nn.functional.leaky_relu(logits, 0.2).masked_fill(~there[..., None], float("-inf"))
    alpha = torch.where(there.any(1)[:, None, None], logits.softmax(1).nan_to_num(0), 0)
    return torch.einsum("tsh,shd->thd", alpha, value).flatten(1)


def layer(h, f, e, w_nodes, w_edge, *p, up, around, down):
    """Features to nodes, nodes to nodes (GraphSAGE), nodes to features, new edge values, features to nodes again."""
    h = h + up(f, h, e, *p[:5])
    h = torch.relu(around(h) @ w_nodes + h)
    f = f + down(h, f, e, *p[5:10])
    e = torch.tanh(torch.cat([e, h[NODE], f[FEATURE]], 1) @ w_edge)
    return torch.cat([h + up(f, h, e, *p[10:]), f])


def test_layer() -> None:
    """Two heads, rows without features, values of edges learned; columns in the order of the features' own list."""
    order = torch.argsort(FEATURE * N + NODE)  # entries of the transposed mask by rows
    ours = lambda *t: layer(
        *t,
        up=lambda f, h, e, *p: attend(TO_NODES, f, h, e, *p),
        around=lambda h: spmm(NODES, h, reduce="mean"),
        down=lambda h, f, e, *p: attend(TO_FEATURES, h, f, e, *p),
    )
    dense = lambda *t: layer(
        *t,
        up=lambda f, h, e, *p: dense_attend(MASK, f, h, e, *p),
        around=lambda h: A @ h / A.sum(1, keepdim=True).clamp(min=1),
        down=lambda h, f, e, *p: dense_attend(MASK.T, h, f, e[order], *p),
    )
    E = len(NODE)
    first = [randn(N, H * D), randn(F, H * D, seed=1), randn(E, 1, seed=2)]
    first += [randn(H * D, H * D, seed=3) / 2, randn(1 + 2 * H * D, 1, seed=4)]
    agree(ours, dense, *first, *(randn(*s, seed=10 + 5 * k + i) / 2 for k in range(3) for i, s in enumerate(SHAPES)))


def sample(weights: torch.Tensor, ptr: torch.Tensor, k: int, g: torch.Generator) -> torch.Tensor:
    """Positions of k entries of every row, drawn without replacement in proportion to weights: the largest Gumbel keys."""
    noise = -torch.rand(len(weights), generator=g, dtype=torch.float64).log().neg().log()
    return sparse.segment_topk(weights.log() + noise, ptr, k)[1]


def test_sampled_features() -> None:
    """Only entries that are there, none twice, rows with fewer in full; frequencies those of successive weighted draws."""
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), MASK.sum(1).cumsum(0)])
    weights, g = torch.rand(len(NODE), generator=generator(5), dtype=torch.float64) + 0.1, generator(6)
    drawn = sample(weights, ptr, 3, g)
    for v in range(N):
        row = [int(p) for p in drawn[v] if p >= 0]
        assert len(set(row)) == len(row) == min(3, int(MASK[v].sum())) and all(NODE[p] == v for p in row)
    w = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    share = w / w.sum()
    exact = share + sum(share[j] * w / (w.sum() - w[j]) * (torch.arange(4) != j) for j in range(4))  # in the first two draws
    T = 4000
    repeated = sample(w.repeat(T), torch.arange(T + 1) * 4, 2, g) % 4
    seen = torch.bincount(repeated.flatten(), minlength=4)
    assert ((seen - T * exact).abs() < 5 * (T * exact * (1 - exact)).sqrt()).all()
