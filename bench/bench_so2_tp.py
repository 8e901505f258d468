"""Channel-wise tensor products on the edges of real structures: gather, product, sum. Operators: tp_conv, tp_conv_edge.

The peer is e3nn as models run it: gather, TensorProduct, index_add. The double backward is that of training on forces: gradients of
the gradients in x and y, with respect to everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import structops
import torch
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .peers import load
from .structures import PROBLEMS, available, structure

CONV, SECOND = "tp_conv", "tp_conv_twice"  # forward and backward; the backward of the backward
TARGETS = {FWD: 25.0, BOTH: 25.0, SECOND: 15.0}


def cases(level: str) -> Iterator[Case]:
    problems = at_level(
        level,
        smoke=[("sevennet-0", "copper", 4), ("sevennet-0", "g2", 1)],
        quick=[("mace-large", "copper", 4)],
        default=[("mace-large", "copper", 4), ("sevennet-0", "copper", 4), ("mace-large", "water", 4), ("mace-large", "g2", 1)],
        full=[(name, "copper", 6) for name in PROBLEMS] + [(name, "water", 5) for name in PROBLEMS] + [("mace-large", "g2", 1)],
    )
    for name, kind, size in (p for p in problems if available(p[1])):
        muls = 8 if level == "smoke" else 1
        for op, direction in ((CONV, FWD), (CONV, BOTH), (SECOND, FWD)):
            product, atoms = _product(name, muls), structure(kind, size)
            title = f"{name}{'/8' if muls > 1 else ''}, {atoms.title}"
            target = {"e3nn": TARGETS[SECOND if op == SECOND else direction]}
            channels = product.irreps_in1[0].mul
            build = partial(_build, op, direction, name, muls, kind, size)
            passes = 10 if op == SECOND else 1 if direction == FWD else 3
            traffic = _traffic(product, atoms.num_nodes, atoms.num_edges, passes)
            yield Case(f"{op} {name}", direction, f"{kind} {atoms.num_nodes}", title, channels, build, traffic, targets=target)


def _traffic(product, N: int, E: int, passes: int) -> Traffic:
    """Weights, harmonics and rows once for each pass; the rows of senders again for each edge at worst."""
    plan = product.spec.weighted
    rows = 4 * N * (product.irreps_in1.dim + product.irreps_out.dim)
    edges = 4 * E * (product.weight_numel + product.irreps_in2.dim)
    flops = 0
    for i in product.instructions:
        a, c = product.irreps_in1[i.i_in1], product.irreps_out[i.i_out]
        table = structops.so2.wigner_3j(a.l, product.irreps_in2[i.i_in2].l, c.l)
        flops += 2 * E * a.mul * (int((table != 0).any(1).sum()) + c.dim)
    assert plan is not None
    return Traffic(passes * (rows + edges), passes * (edges + rows + 4 * E * product.irreps_in1.dim), passes * flops)


@lru_cache(maxsize=4)
def _product(name: str, muls: int) -> structops.so2.TensorProduct:
    nodes, edges, keep = PROBLEMS[name]
    nodes = [(t.mul // muls, t.l, t.p) for t in structops.so2.Irreps(nodes)]
    out, paths = structops.so2.channelwise_instructions(nodes, edges, keep)
    return structops.so2.TensorProduct(nodes, edges, out, paths, shared_weights=False)


@lru_cache(maxsize=1)
def _inputs(name: str, muls: int, kind: str, size: int, device: str):
    """(graph, edge index, x, y, w, g, vx, vy)."""
    product = _product(name, muls)
    _, index, vectors, N = structure(kind, size)
    y = structops.so2.spherical_harmonics(range(product.irreps_in2.lmax + 1), vectors.float(), True, "component")
    g = torch.Generator().manual_seed(0)
    E = index.shape[1]
    draw = lambda *s: torch.randn(*s, generator=g).to(device)
    graph = structops.Graph(index.to(device), num_nodes=N)
    x, w, out = draw(N, product.irreps_in1.dim), draw(E, product.weight_numel), draw(N, product.irreps_out.dim)
    return graph, index.to(device), x, y.to(device), w, out, draw(*x.shape), draw(*y.shape)


class Dense:
    """The three products of the form T(x, y, w, g), path by path with dense float64 tables."""

    def __init__(self, product, index: Tensor):
        self.product, (self.src, self.dst) = product, index

    def _paths(self):
        p, at = self.product, 0
        for i in p.instructions:
            a, b, c = p.irreps_in1[i.i_in1], p.irreps_in2[i.i_in2], p.irreps_out[i.i_out]
            table = structops.so2.wigner_3j(a.l, b.l, c.l, torch.float64, self.src.device) * i.path_weight
            yield (
                table,
                p.irreps_in1.slices()[i.i_in1],
                p.irreps_in2.slices()[i.i_in2],
                p.irreps_out.slices()[i.i_out],
                slice(at, at + a.mul),
                a.mul,
            )
            at += a.mul

    def conv(self, x, y, w, transpose: bool = False):
        p = self.product
        out = x.new_zeros(x.shape[0], (p.irreps_in1 if transpose else p.irreps_out).dim)
        here, there = (self.src, self.dst) if transpose else (self.dst, self.src)
        for table, xs, ys, os, ws, mul in self._paths():
            M = torch.einsum("zj,ijk->zik", y[:, ys], table)
            source, target = (os, xs) if transpose else (xs, os)
            t = x[there, source].reshape(len(there), mul, -1) @ (M.transpose(1, 2) if transpose else M)
            out[:, target].index_add_(0, here, (t * w[:, ws, None]).flatten(1))
        return out

    def edge(self, x, g, y, w):
        gy, gw = torch.zeros_like(y), w.new_zeros(w.shape)
        for table, xs, ys, os, ws, mul in self._paths():
            M = torch.einsum("zj,ijk->zik", y[:, ys], table)
            xe, ge = x[self.src, xs].reshape(len(self.src), mul, -1), g[self.dst, os].reshape(len(self.src), mul, -1)
            gw[:, ws] = ((xe @ M) * ge).sum(2)
            gy[:, ys] += torch.einsum("zik,ijk->zj", (xe * w[:, ws, None]).transpose(1, 2) @ ge, table)
        return gy, gw


@lru_cache(maxsize=1)
def _reference(op: str, direction: str, name: str, muls: int, kind: str, size: int, device: str) -> tuple[Tensor, ...]:
    _, index, *tensors = _inputs(name, muls, kind, size, device)
    x, y, w, g, vx, vy = (t.detach().double() for t in tensors)
    dense = Dense(_product(name, muls), index)
    if op == SECOND:
        dx = dense.conv(g, vy, w, True)
        gy, _ = dense.edge(vx, g, y, w)
        _, by_x = dense.edge(vx, g, y, w)
        _, by_y = dense.edge(x, g, vy, w)
        return dx, gy, by_x + by_y, dense.conv(vx, y, w) + dense.conv(x, vy, w)
    out = dense.conv(x, y, w)
    if direction == FWD:
        return (out,)
    return out, dense.conv(g, y, w, True), *dense.edge(x, g, y, w)


def _build(op: str, direction: str, name: str, muls: int, kind: str, size: int, device: str) -> Prepared:
    product = _product(name, muls).to(device)
    graph, (src, dst), *tensors = _inputs(name, muls, kind, size, device)
    graded = op == SECOND or direction == BOTH
    x, y, w, g, vx, vy = (t.detach().requires_grad_(graded and n < 4) for n, t in enumerate(tensors))
    ours = lambda: structops.so2.tp_conv(graph, x, y, w, product)
    module, reason = load("e3nn")
    theirs = None
    if module:
        from e3nn import o3

        paths = [(*i[:5],) for i in product.instructions]
        irreps = map(str, (product.irreps_in1, product.irreps_in2, product.irreps_out))
        peer = o3.TensorProduct(*irreps, paths, shared_weights=False, internal_weights=False).to(device)
        theirs = lambda: x.new_zeros(x.shape[0], product.irreps_out.dim).index_add(0, dst, peer(x[src], y, w))

    def second(forward):
        def run():
            gx, gy = torch.autograd.grad(forward(), (x, y), g, create_graph=True)
            return torch.autograd.grad((gx, gy), (x, y, w, g), (vx, vy))

        return run

    make = second if op == SECOND else lambda f: runner(f, direction, (x, y, w), g.detach())
    peers = [Provider("e3nn", make(theirs) if theirs else None, reason)]
    return Prepared(Provider(OURS, make(ours)), peers, lambda: _reference(op, direction, name, muls, kind, size, device))


def test_tp(case, bench_case):
    bench_case(case)
