"""Plan building: CSR from an unsorted index, whole graphs, and the index checks of every raw-tensor call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import structops
import torch
from structops import _ladder as ladder

from . import data, models, peers
from .bench_sparse_spmm import our_plan
from .case import FWD, OURS, PLAN, Case, Prepared, Provider, at_level

SIZES = {False: (1_000_000, 100_000), True: (5_000, 600)}
ALL = (data.HPO, data.SKEWED, data.UNIFORM, data.TINY)


def cases(level: str) -> Iterator[Case]:
    small = level == "smoke"
    E, N = SIZES[small]
    if level != "quick":
        shape = f"{data.short(E)} → {data.short(N)}, int64"
        yield Case("csr_build", PLAN, "random index", shape, 0, partial(_csr_build, E, N), models.csr(E, N))
        read = models.Traffic(E * 8, E * 8, E)
        yield Case("index_range", FWD, "random index", shape, 0, partial(_index_range, E, N), read)
        yield Case("ScatterPlan", PLAN, "random index", shape, 0, partial(_scatter_plan, E, N), models.csr(E, N))
    graphs = at_level(level, smoke=ALL, quick=(data.HPO,), default=(data.HPO,), full=ALL)
    for graph in graphs:
        for backward in (False, True):
            yield _graph_case(graph, backward, small)


def _sorted_csr(index: torch.Tensor, N: int) -> tuple[torch.Tensor, torch.Tensor]:
    count = torch.bincount(index, minlength=N)
    return torch.cat([count.new_zeros(1), count.cumsum(0)]), torch.sort(index, stable=True).indices


def _csr_build(E: int, N: int, device: str) -> Prepared:
    index = data.random_index(E, N, device=device)
    peer = Provider("torch stable sort", lambda: _sorted_csr(index, N))
    return Prepared(Provider(OURS, lambda: ladder.csr_build(index, N)), [peer], lambda: _doubles(_sorted_csr(index, N)), 0.0)


def _scatter_plan(E: int, N: int, device: str) -> Prepared:
    index = data.random_index(E, N, device=device)

    def ours():
        plan = structops.ScatterPlan(index, N)
        return plan.indptr, plan.perm

    peer = Provider("torch stable sort", lambda: _sorted_csr(index, N))
    return Prepared(Provider(OURS, ours), [peer], lambda: _doubles(_sorted_csr(index, N)), 0.0)


def _index_range(E: int, N: int, device: str) -> Prepared:
    index = data.random_index(E, N, device=device)

    def native():
        low, high = torch.aminmax(index)
        return int(low), int(high), bool((index.diff() >= 0).all())

    as_tensor = lambda f: lambda: (torch.tensor([float(v) for v in f()], dtype=torch.float64),)
    ours = Provider(OURS, as_tensor(lambda: ladder.index_range(index)))
    return Prepared(ours, [Provider("torch aminmax + diff", as_tensor(native))], as_tensor(native), 0.0)


def _doubles(parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(t.double() for t in parts)


def _graph_case(graph: str, backward: bool, small: bool) -> Case:
    e = data.edges(graph, small)
    traffic = models.csr(e.num_edges, e.num_dst)
    if backward:
        traffic += models.csr(e.num_edges, e.num_src)
    build = partial(_graph_build, graph, backward, small)
    title = "Graph + reversed" if backward else "Graph"
    return Case(title, PLAN, graph, f"{e.title} {data.short(e.num_edges)} unsorted edges", 0, build, traffic)


def _graph_build(graph: str, backward: bool, small: bool, device: str) -> Prepared:
    """Checked through the CSR pointer that each structure holds."""
    e = data.edges(graph, small, device)
    plan = our_plan(e, backward)

    def ours():
        made = plan()
        return (made[0] if backward else made.rowptr,)

    torch_csr, torch_sparse, dgl = peers.csr_plan(e), peers.torch_sparse_plan(e), peers.dgl_plan(e)

    def native():
        made = torch_csr(backward)
        return (made.t().to_sparse_csr() if backward else made).crow_indices()

    def sparse_tensor():
        made = torch_sparse(backward)
        return made.storage.colptr() if backward else made.storage.rowptr() if hasattr(made, "storage") else made[0]

    def degrees():
        made = dgl(backward)
        count = made.out_degrees() if backward else made.in_degrees()
        return torch.cat([count.new_zeros(1), count.cumsum(0)])

    def reference():
        count = torch.bincount(e.src if backward else e.dst, minlength=e.num_src if backward else e.num_dst)
        return (torch.cat([count.new_zeros(1), count.cumsum(0)]).double(),)

    others = [
        Provider("torch COO→CSR", lambda: (native(),)),
        Provider("torch_sparse", torch_sparse and (lambda: (sparse_tensor(),)), peers.load("torch_sparse")[1]),
        Provider("DGL", dgl and (lambda: (degrees(),)), peers.load("dgl")[1]),
    ]
    return Prepared(Provider(OURS, ours), others, reference, 0.0)


def test_csr(case, bench_case):
    bench_case(case)
