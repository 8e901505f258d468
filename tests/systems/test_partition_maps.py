"""Permutation-equivariant linear maps of order 2 on ragged batches: partition diagrams, and SPEN's subgraph layers."""

from __future__ import annotations

import torch
from agreement import agree, randn
from structops import segment_gather, segment_reduce

SYSTEM = "Partition diagrams; SPEN: subgraph permutation-equivariant networks"
OPERATORS = ("structops.segment_reduce", "structops.segment_gather")
SIZES = (1, 2, 3, 5)
RANK = {1: 1, 2: 8, 3: 14, 4: 15, 5: 15}


def ragged(sizes: tuple[int, ...]):
    """Entries (graph, i, j) in order, with the pointers and index lists that the 15 maps need."""
    row, col, nodes, rows_ptr, start = [], [], [0], [0], 0
    for n in sizes:
        i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        row.append(i.reshape(-1) + start)
        col.append(j.reshape(-1) + start)
        rows_ptr += [rows_ptr[-1] + n * (k + 1) for k in range(n)]
        start += n
        nodes.append(start)
    row, col = torch.cat(row), torch.cat(col)
    return {
        "row": row,
        "col": col,
        "nodes": torch.tensor(nodes),
        "rows": torch.tensor(rows_ptr),
        "flip": torch.argsort(col * start + row)[torch.argsort(torch.argsort(row * start + col))],
        "diagonal": row == col,
    }


def maps(x, s):
    """The 15 results [15, entries, C]: identity and transpose; pooled diagonal, rows, columns, totals, placed everywhere."""
    nodes, row, col, on = s["nodes"], s["row"], s["col"], s["diagonal"][:, None]
    diag = x[s["diagonal"]]
    rows, cols = segment_reduce(x, s["rows"], "sum"), segment_reduce(x[s["flip"]], s["rows"], "sum")
    total, trace = segment_reduce(rows, nodes, "sum"), segment_reduce(diag, nodes, "sum")
    everywhere = [segment_gather(t, nodes)[row] for t in (total, trace)]
    per_node = [*(t[row] for t in (diag, rows, cols)), *(t[col] for t in (diag, rows, cols))]
    on_diagonal = [t[row] * on for t in (diag, rows, cols)]
    return torch.stack([x, x[s["flip"]], *per_node, *on_diagonal, *everywhere, *(t * on for t in everywhere)])


def dense_maps(X):
    """The same of one dense [n, n, C] by explicit sums."""
    n = len(X)
    eye = torch.eye(n, dtype=X.dtype)[..., None]
    diag = torch.einsum("iic->ic", X)
    rows, cols, total, trace = X.sum(1), X.sum(0), X.sum((0, 1)), diag.sum(0)
    wide = lambda t: t[:, None].expand_as(X)
    tall = lambda t: t[None].expand_as(X)
    full = [t.expand_as(X) for t in (total, trace)]
    three = (diag, rows, cols)
    return torch.stack(
        [
            X,
            X.transpose(0, 1),
            *map(wide, three),
            *map(tall, three),
            *(wide(t) * eye for t in three),
            *full,
            *(t * eye for t in full),
        ]
    )


def test_layer_on_ragged_graphs() -> None:
    s = ragged(SIZES)
    counts = [n * n for n in SIZES]

    def dense(x, w):
        parts = [dense_maps(p.reshape(n, n, 2)).reshape(15, n * n, 2) for p, n in zip(x.split(counts), SIZES, strict=True)]
        return torch.einsum("bec,bcd->ed", torch.cat(parts, 1), w)

    agree(lambda x, w: torch.einsum("bec,bcd->ed", maps(x, s), w), dense, randn(sum(counts), 2), randn(15, 2, 3, seed=1))


def test_rank_and_equivariance() -> None:
    """The maps span 1, 8, 14, 15, 15 dimensions for n = 1..5, and commute with permutations."""
    for n, rank in RANK.items():
        s = ragged((n,))
        basis = maps(torch.eye(n * n, dtype=torch.float64), s)  # [15, entries, entries]
        assert torch.linalg.matrix_rank(basis.reshape(15, -1)).item() == rank
        P = torch.randperm(n, generator=torch.Generator().manual_seed(n))
        X = randn(n, n, 1, seed=n)
        turned = maps(X[P][:, P].reshape(n * n, 1), s).reshape(15, n, n)
        torch.testing.assert_close(turned, maps(X.reshape(n * n, 1), s).reshape(15, n, n)[:, P][:, :, P])
