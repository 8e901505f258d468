"""Several aggregations at once: against loops and PyG, with large offsets, empty rows and every gradient."""

from __future__ import annotations

import pytest
import torch
from cases import generator, random_coo
from structops import Graph
from structops.sparse import multi_aggregate
from structops.sparse._multi import AGGREGATORS, SCALERS
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

N, M = 17, 13
COO = torch.unique(random_coo(M, N, 60), dim=1)  # without parallel edges, whose extremes tie
E = COO.shape[1]
GRAPH = Graph(COO, num_src=M, num_dst=N)
DEGREE = torch.bincount(COO[1], minlength=N).double()[:, None]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def dense(x, x_dst, edge, aggregators, scalers, log: float, lin: float, eps: float = 1e-5) -> Tensor:
    m = x[COO[0]]
    m = m if x_dst is None else m + x_dst[COO[1]]
    m = m if edge is None else m + edge
    rows = []
    for v in range(N):
        part = m[v == COO[1]]
        zero, any_edge = torch.zeros_like(m[0]), len(part) > 0
        var = part.var(0, unbiased=False) if any_edge else zero
        value = {
            "sum": part.sum(0), "mean": part.mean(0) if any_edge else zero, "min": part.amin(0) if any_edge else zero,
            "max": part.amax(0) if any_edge else zero, "var": var, "std": (var + eps).sqrt(),
        }  # fmt: skip
        rows.append(torch.cat([value[a] for a in aggregators]))
    out = torch.stack(rows)
    low = DEGREE.clamp(min=1)
    scale = {
        "identity": 1, "amplification": (DEGREE + 1).log() / log, "attenuation": log / (low + 1).log(),
        "linear": DEGREE / lin, "inverse_linear": lin / low,
    }  # fmt: skip
    return torch.cat([out * scale[s] for s in scalers], 1)


@pytest.mark.parametrize("extra", ["none", "x_dst", "edge", "both"])
def test_values_and_gradients(extra: str) -> None:
    x = randn(M, 3).requires_grad_()
    x_dst = randn(N, 3, seed=1).requires_grad_() if extra in ("x_dst", "both") else None
    edge = randn(E, 3, seed=2).requires_grad_() if extra in ("edge", "both") else None
    for aggregators in (AGGREGATORS, ("std", "sum")):
        got = multi_aggregate(GRAPH, x, aggregators, SCALERS, delta={"log": 1.3, "lin": 2.5}, x_dst=x_dst, edge=edge)
        want = dense(x, x_dst, edge, aggregators, SCALERS, 1.3, 2.5)
        torch.testing.assert_close(got, want)
        leaves = [t for t in (x, x_dst, edge) if t is not None]
        weight = randn(*want.shape, seed=7)
        for a, b in zip(torch.autograd.grad((got * weight).sum(), leaves), torch.autograd.grad((want * weight).sum(), leaves), strict=True):
            torch.testing.assert_close(a, b)


def test_higher_orders() -> None:
    x = randn(M, 2).requires_grad_()
    function = lambda x: multi_aggregate(GRAPH, x, ("mean", "min", "max", "std"), ("identity", "attenuation"))
    assert gradcheck(function, (x,), fast_mode=True) and gradgradcheck(function, (x,), fast_mode=True)


def test_large_offsets() -> None:
    """Deviations of float32 messages near 10^4 keep their digits, which E[x^2] - E[x]^2 loses."""
    x = randn(M, 4).float()
    want = multi_aggregate(GRAPH, x.double(), ("std",))
    got = multi_aggregate(GRAPH, x + 1e4, ("std",)).double()
    shifted = multi_aggregate(GRAPH, (x + 1e4).double(), ("std",))
    torch.testing.assert_close(got, shifted, atol=2e-3, rtol=0)  # of a mean with a spacing of 1e-3
    torch.testing.assert_close(got, want, atol=1e-2, rtol=1e-2)


def test_order_of_pyg() -> None:
    aggr = pytest.importorskip("torch_geometric.nn.aggr")
    degrees = torch.bincount(DEGREE[:, 0].long())
    names, scalers = ["mean", "min", "max", "std", "var", "sum"], list(SCALERS)
    layer = aggr.DegreeScalerAggregation(names, scalers, degrees)
    x = randn(M, 3).float()
    delta = {"log": float(layer.avg_deg_log), "lin": float(layer.avg_deg_lin)}
    want = layer(x[COO[0]], COO[1], dim_size=N)
    got = multi_aggregate(GRAPH, x, names, scalers, delta=delta)
    full = DEGREE[:, 0] > 1  # PyG masks the deviation of constant groups
    torch.testing.assert_close(got[full], want[full], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda: multi_aggregate(COO, torch.ones(M, 2)), TypeError, "graph"),
        (lambda: multi_aggregate(GRAPH, torch.ones(M)), ValueError, "x of shape"),
        (lambda: multi_aggregate(GRAPH, torch.ones(M, 2), "mean"), ValueError, "aggregators"),
        (lambda: multi_aggregate(GRAPH, torch.ones(M, 2), ("median",)), ValueError, "aggregators"),
        (lambda: multi_aggregate(GRAPH, torch.ones(M, 2), scalers=("squared",)), ValueError, "scalers"),
        (lambda: multi_aggregate(GRAPH, torch.ones(M, 2), scalers=("linear",), delta={"log": 1.0}), ValueError, "delta"),
        (lambda: multi_aggregate(GRAPH, torch.ones(M, 2), x_dst=torch.ones(N, 3)), ValueError, "x_dst"),
    ],
)
def test_bad_input(call, kind, text: str) -> None:
    with pytest.raises(kind, match=text):
        call()
