"""segment_order: top-k and medians of segments."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from structops.sparse import segment_median, segment_topk

from . import data, models
from .case import FWD, OURS, Case, Prepared, Provider, at_level
from .peers import load


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[(g, k) for g in (data.HPO, data.UNIFORM) for k in (0, 4)],
        quick=[(data.HPO, 4)],
        default=[(data.HPO, 4), (data.HPO, 0)],
        full=[(g, k) for g in (data.HPO, data.SKEWED, data.UNIFORM) for k in (0, 1, 4, 100)],
    )
    for graph, k in grid:
        e = data.edges(graph, level == "smoke")
        what = f"top {k}" if k else "median"
        traffic = models.segment(e.num_edges, e.num_dst * max(k, 1), 1)
        yield Case(f"segment {what}", FWD, graph, e.shape(1), 1, partial(_build, graph, k, level == "smoke"), traffic)


def _sorted_topk(src: torch.Tensor, dst: torch.Tensor, indptr: torch.Tensor, k: int) -> torch.Tensor:
    """Two stable sorts of everything, then the first k of every group."""
    order = torch.sort(src, descending=True, stable=True).indices
    order = order[torch.sort(dst[order], stable=True).indices]
    at = indptr[:-1, None] + torch.arange(k, device=src.device)
    inside = at < indptr[1:, None]
    return torch.where(inside, src[order][at.clamp(max=src.numel() - 1)], 0)


def _padded_topk(src: torch.Tensor, dst: torch.Tensor, indptr: torch.Tensor, k: int) -> torch.Tensor:
    count = indptr.diff()
    table = src.new_full((count.numel(), max(int(count.max()), k)), float("-inf"))
    table[dst, torch.arange(src.numel(), device=src.device) - indptr[dst]] = src
    best = table.topk(k).values
    return torch.where(best == float("-inf"), 0, best)


def _build(graph: str, k: int, small: bool, device: str) -> Prepared:
    e = data.edges(graph, small, device)
    src = data.features(e.num_edges, 1, device=device)[:, 0].contiguous()
    if k:
        ours = Provider(OURS, lambda: (segment_topk(src, e.indptr, k)[0],))
        peers = [Provider("torch sorts", lambda: (_sorted_topk(src, e.dst, e.indptr, k),))]
        cells = e.num_dst * int(e.indptr.diff().max())
        padded = (lambda: (_padded_topk(src, e.dst, e.indptr, k),)) if cells < 2**28 else None
        peers.append(Provider("torch padded topk", padded, f"{cells} cells" if padded is None else ""))
        return Prepared(ours, peers, lambda: (_sorted_topk(src.double(), e.dst, e.indptr, k),))
    ours = Provider(OURS, lambda: (segment_median(src, e.indptr),))
    module, reason = load("torch_geometric")
    run = None
    if module:
        from torch_geometric.nn.aggr import MedianAggregation

        aggr = MedianAggregation()
        run = lambda: (aggr(src[:, None], e.dst, dim_size=e.num_dst)[:, 0],)
    peers = [Provider("PyG", run, reason)]

    def reference():
        ptr = e.indptr.tolist()
        groups = (src[a:b].double() for a, b in zip(ptr, ptr[1:], strict=False))
        return (torch.stack([g.median() if g.numel() else g.new_zeros(()) for g in groups]),)

    return Prepared(ours, peers, reference)


def test_segment_order(case, bench_case):
    bench_case(case)
