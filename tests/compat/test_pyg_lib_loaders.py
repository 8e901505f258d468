"""PyG's NeighborLoader and LinkNeighborLoader by time, by weight and disjoint, on structops.compat.pyg_lib alone."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")

HEAD = """
import torch, structops
structops.compat.install("pyg_lib")
import torch_geometric.typing
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import LinkNeighborLoader, NeighborLoader
assert torch_geometric.typing.WITH_PYG_LIB and not torch_geometric.typing.WITH_TORCH_SPARSE
torch.manual_seed(0)
N, E = 50, 500
edges = torch.randint(0, N, (2, E))
node_time, edge_time = torch.randint(0, 30, (N,)), torch.randint(0, 30, (E,))
weight = torch.rand(E) * (torch.rand(E) < 0.6)
seed_time = torch.randint(5, 30, (N,))


def latest(times, limit, k):
    return sorted(t for t in times.tolist() if t <= limit)[-k:]


def check(ids, tree, index, e_id, edges, far_tree=None, far_ids=None):
    # `e_id` are edges of the graph between the nodes of one tree
    far_tree, far_ids = (tree, ids) if far_ids is None else (far_tree, far_ids)
    assert e_id.numel() > 0
    assert torch.equal(edges[:, e_id], torch.stack([far_ids[index[0]], ids[index[1]]]))
    assert torch.equal(far_tree[index[0]], tree[index[1]])
"""

PROGRAMS = {
    "node time": """
    for strategy in ("uniform", "last"):
        data = Data(x=torch.arange(N), edge_index=edges, time=node_time)
        for given in (None, seed_time):
            loader = NeighborLoader(data, [4, 3], input_nodes=torch.arange(N), input_time=given, time_attr="time", batch_size=16,
                                    temporal_strategy=strategy)
            seen = 0
            for batch in loader:
                ids, limit = batch.n_id, (node_time if given is None else given)[batch.n_id[: batch.batch_size]]
                check(ids, batch.batch, batch.edge_index, batch.e_id, edges)
                assert (node_time[ids[batch.batch_size :]] <= limit[batch.batch[batch.batch_size :]]).all()
                first = batch.edge_index[:, : batch.num_sampled_edges[0]]
                for i in range(batch.batch_size):
                    sources = edges[0, edges[1] == ids[i]]
                    got = sorted(node_time[ids[first[0, first[1] == i]]].tolist())
                    want = latest(node_time[sources], limit[i], 4)
                    assert len(got) == len(want) and (strategy == "uniform" or got == want)
                seen += batch.batch_size
            assert seen == N
    """,
    "edge time": """
    for strategy in ("uniform", "last"):
        data = Data(x=torch.arange(N), edge_index=edges, when=edge_time, weight=weight)
        for name in (None, "weight"):
            loader = NeighborLoader(data, [4, 3], input_nodes=torch.arange(N), input_time=seed_time, time_attr="when", batch_size=16,
                                    temporal_strategy=strategy, weight_attr=name)
            for batch in loader:
                limit = seed_time[batch.n_id[: batch.batch_size]]
                check(batch.n_id, batch.batch, batch.edge_index, batch.e_id, edges)
                assert torch.equal(batch.when, edge_time[batch.e_id])
                assert (batch.when <= limit[batch.batch[batch.edge_index[1]]]).all()
                assert name is None or (weight[batch.e_id] > 0).all()
                first = slice(0, batch.num_sampled_edges[0])
                for i in range(batch.batch_size):
                    got = sorted(batch.when[first][batch.edge_index[1, first] == i].tolist())
                    want = latest(edge_time[edges[1] == batch.n_id[i]], limit[i], 4)
                    assert name or (len(got) == len(want) and (strategy == "uniform" or got == want))
    """,
    "weights and disjoint": """
    data = Data(x=torch.arange(N), edge_index=edges, weight=weight)
    drawn = torch.zeros(E)
    for disjoint in (False, True):
        for replace in (False, True):
            for _ in range(100):
                for batch in NeighborLoader(data, [2], weight_attr="weight", batch_size=N, disjoint=disjoint, replace=replace):
                    tree = batch.batch if disjoint else torch.zeros_like(batch.n_id)
                    check(batch.n_id, tree, batch.edge_index, batch.e_id, edges)
                    assert disjoint or batch.n_id.unique().numel() == batch.num_nodes
                    drawn += torch.bincount(batch.e_id, minlength=E) * replace
    assert (drawn[weight == 0] == 0).all() and drawn.sum() > 15000
    total = torch.zeros(N).index_add_(0, edges[1], weight)[edges[1]]
    share = torch.where(weight > 0, weight / total, weight)
    rows = torch.zeros(N).index_add_(0, edges[1], drawn)[edges[1]]
    free = (weight > 0).sum() - (total.new_zeros(N).index_add_(0, edges[1], weight) > 0).sum()

    def distance(share):
        return float(((drawn - rows * share) ** 2 / (rows * share))[weight > 0].sum())

    uniform = torch.where(weight > 0, 1 / torch.zeros(N).index_add_(0, edges[1], (weight > 0).float())[edges[1]], 0)
    bound = float(free + 5 * (2 * free) ** 0.5)  # chi-square, five deviations
    assert distance(share) < bound < distance(uniform) / 5
    """,
    "links": """
    data = Data(x=torch.arange(N), edge_index=edges, time=node_time)
    when = torch.maximum(node_time[edges[0]], node_time[edges[1]])
    for options in (dict(neg_sampling_ratio=1.0), dict(neg_sampling="triplet"), {}):
        for batch in LinkNeighborLoader(data, [3, 2], edge_label_index=edges, edge_label_time=when, time_attr="time", batch_size=32,
                                        temporal_strategy="last", **options):
            limit = when[batch.input_id]
            check(batch.n_id, batch.batch, batch.edge_index, batch.e_id, edges)
            assert (node_time[batch.n_id] <= limit[batch.batch]).all()
            if not options:
                assert torch.equal(batch.n_id[batch.edge_label_index], edges[:, batch.input_id])
    data = Data(x=torch.arange(N), edge_index=edges, weight=weight)
    for batch in LinkNeighborLoader(data, [3, 2], edge_label_index=edges, weight_attr="weight", disjoint=True, batch_size=32):
        check(batch.n_id, batch.batch, batch.edge_index, batch.e_id, edges)
        assert (weight[batch.e_id] > 0).all()
    """,
    "heterogeneous": """
    def graph(**attributes):
        data = HeteroData()
        data["a"].x, data["b"].x = torch.arange(N), torch.arange(N)
        data["a", "to", "b"].edge_index, data["b", "of", "a"].edge_index = edges, edges.flip(0)
        if "time" in attributes:
            data["a"].time, data["b"].time = node_time, node_time.flip(0)
        for kind in data.edge_types:
            for name in attributes.keys() - {"time"}:
                data[kind][name] = attributes[name]
        return data

    def check_all(data, batch):
        for kind in data.edge_types:
            source, destination = batch[kind[0]], batch[kind[2]]
            check(destination.n_id, destination.batch, batch[kind].edge_index, batch[kind].e_id, data[kind].edge_index,
                  source.batch, source.n_id)

    for strategy in ("uniform", "last"):
        data = graph(time=True)
        for batch in NeighborLoader(data, [3, 2], input_nodes="a", input_time=seed_time, time_attr="time", batch_size=16,
                                    temporal_strategy=strategy):
            check_all(data, batch)
            size = batch["a"].batch_size
            limit = seed_time[batch["a"].n_id[:size]]
            assert (batch["a"].time[size:] <= limit[batch["a"].batch[size:]]).all()
            assert (batch["b"].time <= limit[batch["b"].batch]).all()
            first = batch["b", "of", "a"].edge_index[:, : batch["b", "of", "a"].num_sampled_edges[0]]
            for i in range(size):
                got = sorted(batch["b"].time[first[0, first[1] == i]].tolist())
                want = latest(data["b"].time[edges[1, edges[0] == batch["a"].n_id[i]]], limit[i], 3)
                assert len(got) == len(want) and (strategy == "uniform" or got == want)
        data = graph(when=edge_time, weight=weight)
        for batch in NeighborLoader(data, [3, 2], input_nodes=("b", torch.arange(N)), input_time=seed_time, time_attr="when",
                                    weight_attr="weight", batch_size=16, temporal_strategy=strategy):
            check_all(data, batch)
            limit = seed_time[batch["b"].n_id[: batch["b"].batch_size]]
            for kind in data.edge_types:
                tree = batch[kind[2]].batch[batch[kind].edge_index[1]]
                assert (batch[kind].when <= limit[tree]).all() and (batch[kind].weight > 0).all()
                assert torch.equal(batch[kind].when, edge_time[batch[kind].e_id])
    data = graph(time=True)
    when = torch.maximum(data["a"].time[edges[0]], data["b"].time[edges[1]])
    for batch in LinkNeighborLoader(data, [3, 2], edge_label_index=(("a", "to", "b"), edges), edge_label_time=when, time_attr="time",
                                    batch_size=32, neg_sampling_ratio=1.0):
        check_all(data, batch)
        limit = when[batch["a", "to", "b"].input_id]
        assert all((batch[t].time <= limit[batch[t].batch]).all() for t in ("a", "b"))
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_loaders(name) -> None:
    program = HEAD + textwrap.dedent(PROGRAMS[name]) + "\nprint('passed')\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=600)
    assert done.stdout.endswith("passed\n"), done.stderr[-3000:]
