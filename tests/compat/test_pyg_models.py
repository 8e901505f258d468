"""PyG's layers over the drop-ins for torch_scatter and torch_sparse, against the same layers without any.

Each side runs in a process of its own, since PyG chooses its backends while it is imported.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch_geometric") is None, reason="torch_geometric is not installed")

LAYERS = (
    "GCN", "GCN max", "GAT", "GAT edge", "GATv2", "GIN", "SAGE", "SAGE max", "SAGE softmax", "PNA", "RGCN", "RGCN blocks", "HGT",
    "Cheb", "NN", "Transformer", "EdgeConv",
)  # fmt: skip
# Layers that take a SparseTensor in the place of edge_index.
SPARSE = ("GCN", "GCN max", "GAT", "GAT edge", "GATv2", "GIN", "SAGE", "SAGE max", "SAGE softmax", "PNA", "RGCN", "NN", "Transformer")  # fmt: skip


def build(name: str):
    """The layer and its other inputs, by a fixed seed."""
    import torch_geometric.nn as gnn
    from torch.nn import Linear, ReLU, Sequential

    torch.manual_seed(1)
    layer = {
        "GCN": lambda: gnn.GCNConv(8, 6),
        "GCN max": lambda: gnn.GCNConv(8, 6, aggr="max", normalize=False),
        "GAT": lambda: gnn.GATConv(8, 6, heads=3),
        "GAT edge": lambda: gnn.GATConv(8, 6, heads=2, edge_dim=4, add_self_loops=False),
        "GATv2": lambda: gnn.GATv2Conv(8, 6, heads=3),
        "GIN": lambda: gnn.GINConv(Sequential(Linear(8, 8), ReLU(), Linear(8, 6))),
        "SAGE": lambda: gnn.SAGEConv(8, 6),
        "SAGE max": lambda: gnn.SAGEConv(8, 6, aggr="max"),
        "SAGE softmax": lambda: gnn.SAGEConv(8, 6, aggr="softmax"),
        "PNA": lambda: gnn.PNAConv(
            8, 6, ["mean", "min", "max", "std", "var", "sum"], ["identity", "amplification", "attenuation"], torch.tensor([1, 4, 9, 5])
        ),
        "RGCN": lambda: gnn.RGCNConv(8, 6, 3),
        "RGCN blocks": lambda: gnn.RGCNConv(8, 6, 3, num_blocks=2, aggr="max"),
        "HGT": lambda: gnn.HGTConv({"a": 8, "b": 5}, 6, (["a", "b"], [("a", "x", "b"), ("b", "y", "a"), ("a", "z", "a")]), 2),
        "Cheb": lambda: gnn.ChebConv(8, 6, 3),
        "NN": lambda: gnn.NNConv(8, 6, Linear(4, 48), aggr="mean"),
        "Transformer": lambda: gnn.TransformerConv(8, 6, heads=2, edge_dim=4),
        "EdgeConv": lambda: gnn.EdgeConv(Linear(16, 6), aggr="max"),
    }[name]()
    return layer.double().eval()


def inputs(N: int = 20):
    g = torch.Generator().manual_seed(2)
    row, col = (torch.rand(N, N, generator=g) < 0.2).nonzero(as_tuple=True)
    E = row.numel()
    return {
        "x": torch.randn(N, 8, generator=g, dtype=torch.float64), "edge_index": torch.stack([col, row]),
        "edge_attr": torch.randn(E, 4, generator=g, dtype=torch.float64), "edge_type": torch.randint(0, 3, (E,), generator=g),
    }  # fmt: skip


def run(name: str, sparse: bool, compiled: str = ""):
    """Output, gradient of the features and of every weight."""
    layer, data = build(name), inputs()
    x, edge_index = data["x"].requires_grad_(), data["edge_index"]
    extra = {"RGCN": "edge_type", "RGCN blocks": "edge_type", "NN": "edge_attr", "Transformer": "edge_attr", "GAT edge": "edge_attr"}.get(name)  # fmt: skip
    call = torch.compile(layer, fullgraph=compiled == "fullgraph", backend="aot_eager") if compiled else layer
    if name == "HGT":
        nodes = {"a": x, "b": x[:, :5]}
        out = call(nodes, {t: edge_index for t in layer.edge_types})
        out = torch.cat([out["a"], out["b"]])
    elif sparse:
        from torch_sparse import SparseTensor

        value = data[extra] if extra else None
        adj = SparseTensor(row=edge_index[1], col=edge_index[0], value=value, sparse_sizes=(len(x), len(x)))
        out = call(x, adj)
    else:
        out = call(x, edge_index, data[extra]) if extra else call(x, edge_index)
    weights = [w for w in layer.parameters() if w.requires_grad]
    grads = torch.autograd.grad(out.sin().sum(), [x, *weights], allow_unused=True)
    return [out, *grads]


def produce(path: str, replaced: bool) -> None:
    """Every layer's results, or the error as text, written to ``path``."""
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {}
    if replaced:
        import structops

        structops.compat.install("torch_scatter", "torch_sparse")
    import torch_geometric.typing as pyg

    found["backends"] = [pyg.WITH_TORCH_SCATTER, pyg.WITH_TORCH_SPARSE, pyg.SparseTensor.__module__]
    jobs = [(name, False, "") for name in LAYERS]
    if replaced:
        jobs += [(name, True, "") for name in SPARSE]
        jobs += [(name, False, "fullgraph") for name in ("GCN", "GAT")] + [(name, True, "breaks") for name in ("GCN", "GAT")]
    for job in jobs:
        try:
            found[job] = [None if t is None else t.detach() for t in run(*job)]
        except Exception as error:
            found[job] = f"{type(error).__name__}: {error}"
    torch.save(found, path)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pyg")
    sides = []
    for replaced in (True, False):
        path = str(folder / f"{replaced}.pt")
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_pyg_models as t; t.produce({path!r}, {replaced})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        sides.append(torch.load(path))
    return sides


def compare(ours, theirs):
    assert not isinstance(theirs, str), theirs
    assert not isinstance(ours, str), ours
    assert len(ours) == len(theirs) > 1
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_pyg_takes_the_drop_ins(results):
    ours, theirs = results
    assert ours["backends"] == [True, True, "structops.compat.torch_sparse.tensor"]
    assert theirs["backends"][1] is False or "structops" not in theirs["backends"][2]


@pytest.mark.parametrize("name", LAYERS)
def test_layer(results, name):
    compare(results[0][name, False, ""], results[1][name, False, ""])


@pytest.mark.parametrize("name", SPARSE)
def test_layer_with_sparse_tensor(results, name):
    compare(results[0][name, True, ""], results[1][name, False, ""])


@pytest.mark.parametrize("name", ["GCN", "GAT"])
@pytest.mark.parametrize("sparse, how", [(False, "fullgraph"), (True, "breaks")])
def test_compiled_layer(results, name, sparse, how):
    compare(results[0][name, sparse, how], results[1][name, False, ""])
