"""Several reductions of the same messages at once (multi_reduce): principal neighbourhood aggregation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import structops
import torch
from torch import Tensor

from . import data
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load

PNA = (
    ("mean", "min", "max", "var"),  # PyG's std differs where it is below sqrt(1e-5)
    ("identity", "amplification", "attenuation"),
)


def cases(level: str) -> Iterator[Case]:
    graphs = at_level(
        level,
        smoke=(data.HPO, data.UNIFORM),
        quick=(data.HPO,),
        default=(data.HPO, data.SKEWED),
        full=(data.HPO, data.SKEWED, data.UNIFORM, data.TINY),
    )
    small = level == "smoke"
    F = 16 if small else 64
    for graph in graphs:
        e = data.edges(graph, small)
        for direction in (FWD, BOTH):
            build = partial(_build, graph, F, direction, small)
            targets = {"PyG aggregation": 15.0} if direction == BOTH and graph != data.TINY else {}
            yield Case("PNA 4 aggregators x 3 scalers", direction, graph, e.shape(F), F, build, _traffic(e, F, direction), targets)


def _traffic(e: data.Edges, F: int, direction: str) -> Traffic:
    """Forward: sources in, twelve results out. Backward: mean and two winners kept, twelve gradients in, two terms gathered."""
    row, index = F * 4, (e.num_edges + e.num_dst) * 4
    forward = Traffic((e.num_src + 12 * e.num_dst) * row + index, (e.num_edges + 12 * e.num_dst) * row + index, e.num_edges * F * 5)
    if direction == FWD:
        return forward
    nodes = ((2 * 3 + 12 + 2 * 2) * e.num_dst + 2 * e.num_src) * row + index
    return forward + Traffic(nodes, nodes + 2 * e.num_edges * row, e.num_edges * F * 2)


def _composed_pna(e: data.Edges, delta: float):
    """One scatter per sum and extreme, as PyG does without its library."""
    degree = e.indptr.diff()

    def run(x: Tensor) -> Tensor:
        m = x.index_select(0, e.src)
        count = degree.clamp(min=1).to(x.dtype)[:, None]
        add = lambda t: t.new_zeros(e.num_dst, t.shape[1]).index_add(0, e.dst, t)
        wide = e.dst[:, None].expand_as(m)
        extreme = lambda how: m.new_zeros(e.num_dst, m.shape[1]).scatter_reduce(0, wide, m, how, include_self=False)
        mean = add(m) / count
        var = add((m - mean.index_select(0, e.dst)) ** 2) / count
        together = torch.cat([mean, extreme("amin"), extreme("amax"), var], 1)
        log = (degree + 1).to(x.dtype).log()[:, None]
        low = (degree.clamp(min=1) + 1).to(x.dtype).log()[:, None]
        return torch.cat([together, together * (log / delta), together * (delta / low)], 1)

    return run


def _build(graph: str, F: int, direction: str, small: bool, device: str) -> Prepared:
    e = data.edges(graph, small, device)
    x, grad = data.features(e.num_src, F, device=device), data.gradient(e.num_dst, F, device=device)
    degree = e.indptr.diff()
    delta = float((degree + 1).double().log().mean())
    wide = grad.repeat(1, 12) * torch.linspace(0.5, 1.5, 12 * F, device=device)
    leaves = (x.detach().requires_grad_(direction == BOTH),)
    do = lambda forward: runner(lambda: forward(*leaves), direction, leaves, wide)
    plan = structops.Graph(torch.stack([e.src, e.dst]), num_src=e.num_src, num_dst=e.num_dst)
    ours = Provider(OURS, do(lambda x: structops.sparse.multi_aggregate(plan, x, *PNA, delta=delta)))
    peers = [Provider("torch composed", do(_composed_pna(e, delta)))]
    aggr, reason = load("torch_geometric.nn.aggr")
    layer = aggr and aggr.DegreeScalerAggregation(list(PNA[0]), list(PNA[1]), torch.bincount(degree.cpu())).to(device)
    if layer is not None:
        layer.avg_deg_log.fill_(delta)
    pyg = layer and do(lambda x: layer(x.index_select(0, e.src), e.dst, dim_size=e.num_dst))
    peers.append(Provider("PyG aggregation", pyg, reason))

    def reference() -> tuple[Tensor, ...]:
        leaf = x.double().requires_grad_()
        out = _composed_pna(e, delta)(leaf)
        return (out.detach(), *torch.autograd.grad(out, (leaf,), wide.double()))

    return Prepared(ours, peers, reference)


def test_multi_reduce(case, bench_case):
    bench_case(case)
