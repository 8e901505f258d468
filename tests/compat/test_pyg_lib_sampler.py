"""The samplers of structops.compat.pyg_lib: every edge is one of the graph, every count that of its hop; PyG's loaders on them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from structops.compat import pyg_lib
from torch import Tensor

N = 40


def graph(rows: int = N, columns: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pointers and indices of a random graph with rows of 0 to 5 entries."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.randint(0, 6, (rows,), generator=generator)
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
    return ptr, torch.randint(0, columns, (int(ptr[-1]),), generator=generator)


def check_edges(ptr, col, near, far, edge) -> None:
    """Entry ``edge`` of row ``near`` leads to ``far``, by global numbers."""
    assert torch.equal(col[edge], far)
    assert ((ptr[near] <= edge) & (edge < ptr[near + 1])).all()


@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize(("neighbors", "replace"), [([-1, -1], False), ([2, 3, 1], False), ([3, 2], True)])
@pytest.mark.parametrize("call", [pyg_lib.sampler.neighbor_sample, torch.ops.pyg.neighbor_sample])
def test_neighbor_sample(call, neighbors, replace, csc) -> None:
    ptr, col = graph()
    seed = torch.tensor([3, 17, 5])
    row, column, node, edge, nodes, edges = call(ptr, col, seed, neighbors, csc=csc, replace=replace)
    far, near = (row, column) if csc else (column, row)
    check_edges(ptr, col, node[near], node[far], edge)
    assert torch.equal(node[:3], seed) and node.unique().numel() == node.numel()
    assert len(nodes) == len(neighbors) + 1 and sum(nodes) == node.numel() and nodes[0] == 3
    assert len(edges) == len(neighbors) and sum(edges) == edge.numel()
    first = near[: edges[0]]
    count = torch.bincount(first, minlength=3)
    degree = ptr.diff()[seed]
    k = neighbors[0]
    want = degree if k < 0 else k * (degree > 0) if replace else degree.clamp(max=k)
    assert torch.equal(count, want) and (first < 3).all()
    assert ((near[edges[0] :] >= 3) & (near[edges[0] :] < sum(nodes[:-1]))).all()


@pytest.mark.parametrize("csc", [False, True])
def test_hetero_neighbor_sample(csc) -> None:
    types = [("a", "to", "b"), ("b", "of", "a"), ("a", "by", "a")]
    sizes = {"a": 30, "b": 20}
    structures = {}
    for n, (source, name, destination) in enumerate(types):
        near, far = (destination, source) if csc else (source, destination)
        structures[f"{source}__{name}__{destination}"] = graph(sizes[near], sizes[far], n)
    ptrs, cols = ({k: s[i] for k, s in structures.items()} for i in range(2))
    seed = {"a": torch.tensor([4, 2])}
    row, column, node, edge, nodes, edges = torch.ops.pyg.hetero_neighbor_sample(
        ["a", "b"], types, ptrs, cols, seed, {k: [2, 3] for k in ptrs}, None, None, None, None, csc
    )
    for source, name, destination in types:
        key = f"{source}__{name}__{destination}"
        a, b = node[source][row[key]], node[destination][column[key]]
        check_edges(ptrs[key], cols[key], *((b, a) if csc else (a, b)), edge[key])
        assert len(edges[key]) == 2 and sum(edges[key]) == edge[key].numel()
    assert torch.equal(node["a"][:2], seed["a"]) and nodes["a"][0] == 2 and nodes["b"][0] == 0
    assert all(sum(n) == node[t].numel() and len(n) == 3 for t, n in nodes.items())


def test_subgraph_and_walks() -> None:
    ptr, col = graph()
    chosen = torch.tensor([7, 1, 30, 2, 9, 11, 12])
    out, local, edge = torch.ops.pyg.subgraph(ptr, col, chosen, True)
    dense = torch.zeros(N, N, dtype=torch.int64)
    row = torch.arange(N).repeat_interleave(ptr.diff())
    dense.index_put_((row, col), torch.ones_like(col), accumulate=True)
    near = torch.arange(chosen.numel()).repeat_interleave(out.diff())
    check_edges(ptr, col, chosen[near], chosen[local], edge)
    assert edge.numel() == dense[chosen][:, chosen].sum()
    walk = torch.ops.pyg.random_walk(ptr, col, chosen, 4, 1.0, 1.0)
    assert torch.equal(walk[:, 0], chosen)
    ends = ptr.diff()[walk[:, :-1]] == 0
    assert ((dense[walk[:, :-1], walk[:, 1:]] > 0) | (ends & (walk[:, :-1] == walk[:, 1:]))).all()


def test_loaders_of_pyg() -> None:
    """Homogeneous and heterogeneous NeighborLoader, LinkNeighborLoader and Node2Vec, with pyg_lib alone installed."""
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    program = """
    import torch, structops
    structops.compat.install("pyg_lib")
    import torch_geometric.typing
    from torch_geometric.data import Data, HeteroData
    from torch_geometric.loader import LinkNeighborLoader, NeighborLoader
    from torch_geometric.nn import Node2Vec
    assert torch_geometric.typing.WITH_PYG_LIB and not torch_geometric.typing.WITH_TORCH_SPARSE
    torch.manual_seed(0)
    edges = torch.randint(0, 50, (2, 300))
    data = Data(x=torch.arange(50.0)[:, None], edge_index=edges)
    pairs = set(map(tuple, edges.t().tolist()))
    seen = 0
    for batch in NeighborLoader(data, [3, 2], batch_size=8):
        seen += batch.batch_size
        assert set(map(tuple, batch.n_id[batch.edge_index].t().tolist())) <= pairs
        assert torch.equal(edges[:, batch.e_id], batch.n_id[batch.edge_index])
        assert sum(batch.num_sampled_nodes) == batch.num_nodes and sum(batch.num_sampled_edges) == batch.num_edges
        assert torch.equal(batch.x[:, 0].long(), batch.n_id)
    assert seen == 50
    next(iter(LinkNeighborLoader(data, [3], batch_size=8, neg_sampling_ratio=1.0)))
    hetero = HeteroData()
    hetero["a"].x, hetero["b"].x = torch.arange(50.0)[:, None], torch.arange(50.0)[:, None]
    hetero["a", "to", "b"].edge_index, hetero["b", "of", "a"].edge_index = edges, edges.flip(0)
    for batch in NeighborLoader(hetero, [3, 2], input_nodes="a", batch_size=16):
        for kind in hetero.edge_types:
            s, d = (batch[t].x[i, 0].long() for t, i in zip((kind[0], kind[2]), batch[kind].edge_index))
            assert torch.equal(hetero[kind].edge_index[:, batch[kind].e_id], torch.stack([s, d]))
    walks = next(iter(Node2Vec(edges, 8, 5, 3, num_nodes=50).loader(batch_size=4)))
    print("passed")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=600)
    assert done.stdout.endswith("passed\n"), done.stderr[-3000:]
