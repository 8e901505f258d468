"""Attention over edges: what GAT, GATv2 and TransformerConv do between their linear maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import structops
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from . import data
from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import dgl_cached, load

SCORES = ("GAT", "GATv2", "dot")
HEADS = {"smoke": (2, 8)}


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[(g, s) for g in (data.HPO, data.UNIFORM) for s in SCORES],
        quick=[(data.HPO, "GAT")],
        default=[(g, s) for g in (data.HPO, data.SKEWED) for s in SCORES[:2]] + [(data.HPO, "dot")],
        full=[(g, s) for g in (data.HPO, data.SKEWED, data.UNIFORM, data.TINY) for s in SCORES],
    )
    for graph, score in grid:
        for direction in (FWD, BOTH):
            H, D = HEADS.get(level, (4, 32))
            e = data.edges(graph, level == "smoke")
            target = {"GAT": 12.0, "GATv2": 25.0}.get(score)
            targets = {"PyG layer": target} if target and graph != data.TINY else {}
            build = partial(_build, graph, score, H, D, direction, level == "smoke")
            yield Case(
                f"attention {score}",
                direction,
                graph,
                e.shape(f"{H}x{D}"),
                H * D,
                build,
                _traffic(e, H, D, score, direction),
                targets,
            )


def _traffic(e: data.Edges, H: int, D: int, score: str, direction: str) -> Traffic:
    """Least: every operand and result once. Most: a gather of the sources' rows (and, back, of the destinations') per edge."""
    wide, passes = (1 if score == "GAT" else D), 1 if direction == FWD else 3
    nodes = (e.num_src * (D + wide) + e.num_dst * (D + wide)) * H * 4
    index = (e.num_edges + e.num_dst) * 4
    gathered = e.num_edges * H * (D + (wide if score == "GAT" else 0)) * 4
    flops = e.num_edges * H * (2 * D + 3 * wide + 10) * (1 if direction == FWD else 4)
    return Traffic(passes * nodes + index * (2 if passes > 1 else 1), passes * gathered + nodes, flops)


@lru_cache(maxsize=1)
def _inputs(graph: str, score: str, H: int, D: int, small: bool, device: str):
    e = data.edges(graph, small, device)
    make = lambda rows, F: data.features(rows, F, device=device)
    x, y = make(e.num_src, H * D).view(-1, H, D), make(e.num_dst, H * D).view(-1, H, D).flip(2)
    att = torch.linspace(-1, 1, H * D, device=device).view(H, D)
    operands = (x, (x * att).sum(2), (y * att).sum(2)) if score == "GAT" else (x, y, att) if score == "GATv2" else (x, y)
    return e, tuple(t.contiguous() for t in operands), data.gradient(e.num_dst, H * D, device=device).view(-1, H, D)


def composed(score: str, src: Tensor, dst: Tensor, N: int, softmax: Callable) -> Callable:
    """The layer's core by gathers, a softmax over edges and a scattered sum: what PyG's message passing does."""

    def run(x, y, att=None):
        if score == "GAT":
            logit = leaky_relu(y.index_select(0, src) + att.index_select(0, dst), 0.2)
        elif score == "GATv2":
            logit = (leaky_relu(x.index_select(0, src) + y.index_select(0, dst), 0.2) * att).sum(2)
        else:
            logit = (x.index_select(0, src) * y.index_select(0, dst)).sum(2) / x.shape[2] ** 0.5
        weight = softmax(logit, dst, N)
        return x.new_zeros(N, *x.shape[1:]).index_add(0, dst, weight[..., None] * x.index_select(0, src))

    return run


def _plain_softmax(logit: Tensor, dst: Tensor, N: int) -> Tensor:
    wide = dst[:, None].expand_as(logit)
    top = logit.new_zeros(N, logit.shape[1]).scatter_reduce(0, wide, logit.detach(), "amax", include_self=False)
    e = (logit - top.index_select(0, dst)).exp()
    return e / e.new_zeros(N, logit.shape[1]).index_add(0, dst, e).index_select(0, dst)


@lru_cache(maxsize=1)
def _reference(graph: str, score: str, H: int, D: int, small: bool, device: str):
    e, operands, grad = _inputs(graph, score, H, D, small, device)
    leaves = [t.double().requires_grad_() for t in operands]
    out = composed(score, e.src, e.dst, e.num_dst, _plain_softmax)(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, grad.double()))


def _pyg(score: str, H: int, D: int, e: data.Edges) -> tuple[Callable | None, str]:
    """PyG's own layer, its linear maps left out."""
    nn, reason = load("torch_geometric.nn")
    if nn is None:
        return None, reason
    edge_index = torch.stack([e.src, e.dst])
    if score == "GAT":
        layer = nn.GATConv((1, 1), D, heads=H, add_self_loops=False, bias=False)

        def run(x, a, b):
            alpha = layer.edge_updater(edge_index, alpha=(a, b), edge_attr=None, size=(e.num_src, e.num_dst))
            return layer.propagate(edge_index, x=(x, None), alpha=alpha, size=(e.num_src, e.num_dst))

    elif score == "GATv2":
        layer = nn.GATv2Conv((1, 1), D, heads=H, add_self_loops=False, bias=False)

        def run(x, y, att):
            layer.__dict__["att"] = att[None]
            layer._parameters.pop("att", None)
            alpha = layer.edge_updater(edge_index, x=(x, y), edge_attr=None, size=(e.num_src, e.num_dst))
            return layer.propagate(edge_index, x=(x, y), alpha=alpha, size=(e.num_src, e.num_dst))

    else:
        layer = nn.TransformerConv((1, 1), D, heads=H, root_weight=False, bias=False)

        def run(x, y):
            return layer.propagate(edge_index, query=y, key=x, value=x, edge_attr=None, size=(e.num_src, e.num_dst))

    return run, ""


def _build(graph: str, score: str, H: int, D: int, direction: str, small: bool, device: str) -> Prepared:
    e, operands, grad = _inputs(graph, score, H, D, small, device)
    leaves = tuple(t.detach().requires_grad_(direction == BOTH) for t in operands)
    do = lambda forward: runner(lambda: forward(*leaves), direction, leaves, grad)
    plan = structops.Graph(torch.stack([e.src, e.dst]), num_src=e.num_src, num_dst=e.num_dst)
    mine = {
        "GAT": lambda x, a, b: structops.sparse.gat_attention(plan, x, a, b),
        "GATv2": lambda x, y, att: structops.sparse.gatv2_attention(plan, x, y, att),
        "dot": lambda x, y: structops.sparse.dot_attention(plan, y, x, x),
    }[score]
    peers = []
    layer, reason = _pyg(score, H, D, e)
    peers.append(Provider("PyG layer", layer and do(layer), reason))
    peers.append(Provider("torch composed", do(composed(score, e.src, e.dst, e.num_dst, _plain_softmax))))
    module, reason = load("torch_scatter")
    scattered = module and composed(score, e.src, e.dst, e.num_dst, lambda s, d, n: module.scatter_softmax(s, d, 0, dim_size=n))
    peers.append(Provider("torch_scatter", scattered and do(scattered), reason))
    dgl, cached, dgl_plan, reason = dgl_cached(e)

    def with_dgl(x, y, att=None):
        if score == "dot":
            logit = dgl.ops.u_dot_v(cached, x, y) / x.shape[2] ** 0.5
        elif score == "GAT":
            logit = leaky_relu(dgl.ops.u_add_v(cached, y, att), 0.2)[..., None]
        else:
            logit = (leaky_relu(dgl.ops.u_add_v(cached, x, y), 0.2) * att).sum(2, keepdim=True)
        return dgl.ops.u_mul_e_sum(cached, x, dgl.ops.edge_softmax(cached, logit))

    peers.append(Provider("DGL", dgl and do(with_dgl), reason, dgl_plan and (lambda: dgl_plan(direction == BOTH))))
    return Prepared(Provider(OURS, do(mine)), peers, lambda: _reference(graph, score, H, D, small, device))


def test_attention(case, bench_case):
    bench_case(case)
