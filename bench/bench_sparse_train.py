"""A training step of three-layer GCN, GAT and PNA (spmm, attention, multi_aggregate) against PyG, with the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial

import structops
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import data
from .case import OURS, Case, Prepared, Provider, at_level
from .models import Traffic
from .peers import load

WIDTH = {"GCN": 64, "GAT": 64, "PNA": 32}
HEADS, CLASSES, LAYERS = 4, 10, 3
TARGET = {"GCN": 4.0, "GAT": 6.0, "PNA": 10.0}
AGGREGATORS, SCALERS = ["mean", "min", "max", "var"], ["identity", "amplification", "attenuation"]


def cases(level: str) -> Iterator[Case]:
    for model in at_level(level, smoke=TARGET, quick=(), default=TARGET, full=TARGET):
        small = level == "smoke"
        edges = _edges(small, "cpu")
        N, E, F = int(edges.max()) + 1, edges.shape[1], WIDTH[model]
        traffic = Traffic(LAYERS * 3 * (2 * N * F * 4 + E * 4), LAYERS * 3 * E * F * 4, LAYERS * 3 * E * F * 2)
        build = partial(_build, model, small)
        shape = f"HPO both ways, {data.short(N)} nodes, {data.short(E)} edges, {F} hidden"
        yield Case(f"training step, {model}", "fwd+bwd", data.HPO, shape, F, build, traffic, {"PyG": TARGET[model]})


@cache
def _edges(small: bool, device: str) -> Tensor:
    """The bipartite graph as an undirected one."""
    e = data.edges(data.HPO, small, device)
    there = torch.stack([e.src, e.dst + e.num_src])
    return torch.cat([there, there.flip(0)], 1)


class _Gcn(nn.Module):
    def __init__(self, conv, graph: structops.Graph):
        super().__init__()
        self.conv, self.graph = conv, graph
        self.scale = (graph.in_degrees() + 1).to(conv.lin.weight.dtype).rsqrt()[:, None]

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv.lin(x) * self.scale
        return (structops.spmm(self.graph, h) + h) * self.scale + self.conv.bias


class _Gat(nn.Module):
    def __init__(self, conv, graph: structops.Graph):
        super().__init__()
        self.conv, self.graph = conv, graph

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv.lin(x).view(-1, HEADS, self.conv.out_channels)
        src, dst = (h * self.conv.att_src).sum(-1), (h * self.conv.att_dst).sum(-1)
        return structops.sparse.gat_attention(self.graph, h, src, dst).flatten(1) + self.conv.bias


class _Pna(nn.Module):
    def __init__(self, conv, graph: structops.Graph):
        super().__init__()
        self.conv, self.graph = conv, graph
        self.delta = float(conv.aggr_module.avg_deg_log)

    def forward(self, x: Tensor) -> Tensor:
        pre, F = self.conv.pre_nns[0][0], x.shape[1]
        own, other = functional.linear(x, pre.weight[:, :F], pre.bias), functional.linear(x, pre.weight[:, F:])
        m = structops.sparse.multi_aggregate(self.graph, other, AGGREGATORS, SCALERS, delta=self.delta, x_dst=own)
        return self.conv.lin(self.conv.post_nns[0](torch.cat([x, m], 1)))


def _layers(model: str, degrees: Tensor) -> list[nn.Module]:
    from torch_geometric import nn as pyg

    F = WIDTH[model]
    if model == "GCN":
        return [pyg.GCNConv(F, F, cached=True) for _ in range(LAYERS)]
    if model == "GAT":
        return [pyg.GATConv(F, F // HEADS, heads=HEADS, add_self_loops=False) for _ in range(LAYERS)]
    return [pyg.PNAConv(F, F, AGGREGATORS, SCALERS, degrees) for _ in range(LAYERS)]


def _step(layers: list[Callable], head: Tensor, x: Tensor, label: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
    h = x
    for layer in layers:
        h = functional.elu(layer(h))
    loss = functional.cross_entropy(h @ head, label)
    return (loss.detach(), *torch.autograd.grad(loss, parameters))


def _build(model: str, small: bool, device: str) -> Prepared:
    edges = _edges(small, device)
    N, F = int(edges.max()) + 1, WIDTH[model]
    torch.manual_seed(0)
    x, head = data.features(N, F, device=device), torch.randn(F, CLASSES, device=device) / math.sqrt(F)
    label = torch.arange(N, device=device) % CLASSES
    graph = structops.Graph(edges, num_nodes=N)
    module, reason = load("torch_geometric.nn")
    if module is None:
        return Prepared(Provider(OURS, lambda: (x,)), [Provider("PyG", None, reason)], lambda: (x,))
    histogram = torch.bincount(torch.bincount(edges[1].cpu(), minlength=N))
    theirs = [layer.to(device) for layer in _layers(model, histogram)]
    parameters = [p for layer in theirs for p in layer.parameters()]
    mine = [{"GCN": _Gcn, "GAT": _Gat, "PNA": _Pna}[model](layer, graph) for layer in theirs]

    def reference() -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        exact = [layer.to(device).double() for layer in _layers(model, histogram)]
        for to, source in zip(exact, theirs, strict=True):
            to.load_state_dict(source.state_dict())
        own = [type(m)(layer, graph) for m, layer in zip(mine, exact, strict=True)]
        # The float64 step of ours; a layer of PyG in float64 would take minutes on a CPU, so the smoke level checks it against PyG.
        layers = [partial(layer, edge_index=edges) for layer in exact] if small else own
        wide = [p for layer in exact for p in layer.parameters()]
        return _step(layers, head.double(), x.double(), label, wide)

    ours = Provider(OURS, lambda: _step(mine, head, x, label, parameters))
    peer = Provider("PyG", lambda: _step([partial(layer, edge_index=edges) for layer in theirs], head, x, label, parameters))
    return Prepared(ours, [peer], reference, tolerance=1e-3)


def test_train(case, bench_case):
    bench_case(case)
