"""PPGN++: products of the matrices of graphs of different sizes, and invariant polynomials of the adjacency from its edges.

Products run on rows of all graphs and channels at once, padded in their columns to the largest graph.
"""

from __future__ import annotations

import networkx as nx
import torch
from agreement import agree, randn
from structops import Graph, sddmm, segment_reduce, sparse, spmm

SYSTEM = "PPGN++: equivariant polynomials, products of ragged matrices by channel, contractions of motifs"
OPERATORS = ("structops.sparse.segment_matmul", "structops.segment_reduce", "structops.sddmm", "structops.spmm")
SIZES, C, W = (4, 1, 6, 3), 3, 6  # graphs, channels, the largest graph
ENTRIES = sum(n * n for n in SIZES)
# Rows (graph, channel, i): of the flat entries (graph, i, j) the place in the padded row, and the segments of one matrix.
ROW_PTR = torch.tensor([0, *(n for n in SIZES for _ in range(C))]).cumsum(0)


def places():
    """Of every entry (graph, i, j) and channel its row and column in the padded rows, and (matrix, row) of the right factor."""
    rows, cols, matrices, inner, start = [], [], [], [], 0
    for g, n in enumerate(SIZES):
        i, j = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
        c = torch.arange(C)
        rows.append(start + c * n + i[:, None])
        cols.append(j[:, None].expand(n * n, C))
        matrices.append((g * C + c).expand(n * n, C))
        inner.append(i[:, None].expand(n * n, C))
        start += n * C
    return torch.cat(rows), torch.cat(cols), torch.cat(matrices), torch.cat(inner)


ROWS, COLS, MATRIX, INNER = places()
DIAGONAL = torch.cat([torch.eye(n).reshape(-1) > 0 for n in SIZES])
NODE_PTR, ENTRY_PTR = torch.tensor([0, *SIZES]).cumsum(0), torch.tensor([0, *(n * n for n in SIZES)]).cumsum(0)
FLIP = torch.cat([torch.arange(n * n).reshape(n, n).T.reshape(-1) + s for n, s in zip(SIZES, ENTRY_PTR, strict=False)])


def product(a, b):
    """a_g,c b_g,c of all graphs and channels: entries ``[ENTRIES, C]``."""
    left = a.new_zeros(int(ROW_PTR[-1]), W).index_put((ROWS, COLS), a)
    right = b.new_zeros(len(SIZES) * C, W, W).index_put((MATRIX, INNER, COLS), b)
    return sparse.segment_matmul(left, ROW_PTR, right)[ROWS, COLS]


def pooled(y):
    """Mean of the diagonal and of the rest, by graph (0 for the rest of one node)."""
    diagonal = segment_reduce(y[DIAGONAL], NODE_PTR)
    n = torch.tensor(SIZES, dtype=y.dtype)[:, None]
    return torch.cat([diagonal / n, (segment_reduce(y, ENTRY_PTR) - diagonal) / (n * (n - 1)).clamp(min=1)], 1)


def block(x, w1, w2, skip, *, product=product, pool=pooled):
    """Y = MLP1([X; X^T]) MLP2(X), a skip connection, pooling."""
    y = product(torch.tanh(torch.cat([x, x[FLIP]], 1) @ w1), torch.tanh(x @ w2))
    return pool(torch.cat([x, y], 1) @ skip)


def loop(a, b):
    parts = zip(SIZES, a.split([n * n for n in SIZES]), b.split([n * n for n in SIZES]), strict=True)
    return torch.cat(
        [torch.einsum("ijc,jkc->ikc", x.reshape(n, n, C), y.reshape(n, n, C)).reshape(n * n, C) for n, x, y in parts]
    )


def loop_pool(y):
    rows = []
    for n, part in zip(SIZES, y.split([n * n for n in SIZES]), strict=True):
        eye = torch.eye(n).reshape(-1) > 0
        rows.append(torch.cat([part[eye].mean(0), part[~eye].sum(0) / max(n * (n - 1), 1)]))
    return torch.stack(rows)


def test_block() -> None:
    shapes = (ENTRIES, C), (2 * C, C), (C, C), (2 * C, C)
    args = [randn(*s, seed=i) for i, s in enumerate(shapes)]
    agree(product, loop, args[0], randn(ENTRIES, C, seed=9))
    agree(block, lambda *t: block(*t, product=loop, pool=loop_pool), *args)


# Motifs as contractions of the adjacency; a free index is an output.
MOTIFS = (
    "ab,bc,ca->", "ab,bc,ca->a", "ab,bc,ca->ab", "ab,bc,cd,da->ab", "ab,bc,ca,cd->d", "ab,bc,ca,ad,db->ab", "ab,bc,ca,cd,de,ec->c",
    "ab,ac,ad->a",
)  # fmt: skip


def polynomials(graph, w):
    """The same on the weighted edges alone, as SDDMM and SpMM; values of edges in the graph's order."""
    n = graph.num_dst
    src, dst = graph.edge_index()
    rows = torch.zeros(n, n, dtype=w.dtype).index_put((dst, src), w)  # the adjacency's rows; the patterns below are its edges
    at_edge = w * sddmm(graph, rows, rows, "dot")[:, 0]
    at_node = spmm(graph, None, at_edge)
    cubes = spmm(graph, spmm(graph, rows, w[:, None]), w[:, None])
    square = at_edge / w
    return {
        "ab,bc,ca->": at_node.sum(), "ab,bc,ca->a": at_node, "ab,bc,ca->ab": at_edge, "ab,bc,cd,da->ab": w * cubes[dst, src],
        "ab,bc,ca,cd->d": spmm(graph, at_node, w), "ab,bc,ca,ad,db->ab": w * square * square,
        "ab,bc,ca,cd,de,ec->c": at_node * at_node, "ab,ac,ad->a": spmm(graph, None, w) ** 3,
    }  # fmt: skip


def test_motifs() -> None:
    """Values and gradients to the weights of undirected edges."""
    A = torch.from_numpy(nx.to_numpy_array(nx.gnp_random_graph(10, 0.4, seed=2)))
    dst, src = A.nonzero(as_tuple=True)
    graph = Graph(torch.stack([src, dst]), num_nodes=10)
    low, high = torch.minimum(src, dst), torch.maximum(src, dst)
    _, pair = torch.unique(low * 10 + high, return_inverse=True)
    weights = torch.rand(int(pair.max()) + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5

    for motif in MOTIFS:
        inputs, free = motif.split("->")

        def dense(w, motif=motif, inputs=inputs, free=free):
            full = torch.zeros(10, 10, dtype=w.dtype).index_put((dst, src), w[pair])
            out = torch.einsum(motif, *[full] * (inputs.count(",") + 1))
            return out[dst, src] if len(free) == 2 else out

        agree(lambda w, m=motif: polynomials(graph, w[pair])[m], dense, weights)


def test_counts_and_relabelling() -> None:
    """Triangles of strongly regular graphs; another order of nodes permutes the results."""
    g = nx.convert_node_labels_to_integers(nx.cartesian_product(nx.complete_graph(4), nx.complete_graph(4)))
    index = torch.tensor(list(g.edges)).T
    graph = Graph(torch.cat([index, index.flip(0)], 1), num_nodes=16)
    one = torch.ones(graph.num_edges, dtype=torch.float64)
    found = polynomials(graph, one)
    assert int(found["ab,bc,ca->"]) == 6 * 32 and (found["ab,bc,ca->ab"] == 2).all()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    moved = polynomials(Graph(torch.argsort(order)[graph.edge_index()], num_nodes=16), one)
    torch.testing.assert_close(moved["ab,bc,ca,cd->d"], found["ab,bc,ca,cd->d"][order])
