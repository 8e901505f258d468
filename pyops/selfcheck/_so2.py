"""Self-check cases of the so2 family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from ..kernels.so2.wigner_ref import order, packed_size
from ..so2._conv_ops import weight_numel
from ._common import DTYPES


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    # tensor products, spherical harmonics
    if op.startswith("spherical_harmonics"):
        return harmonics_cases(op, g)
    if op.startswith("tp_conv"):
        return product_cases(op, g)
    if op == "sparse_bilinear":
        return bilinear_cases(g)
    if op == "symmetric_contraction":
        return contraction_cases(g)

    if op.startswith("eigh_small"):
        return eigh_cases(op, g)

    # frames, Wigner matrices, SO(2) convolutions
    return frame_cases(op, g)


def eigh_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Eigenvalues well apart, so that eigenvectors agree; a diagonal matrix and a zero one; gradients of either or both results."""
    for dtype, n in itertools.product((torch.float32, torch.float64), (2, 3, 4, 7)):
        q = torch.linalg.qr(torch.randn(41, n, n, generator=g, dtype=torch.float64)).Q
        q[0] = torch.eye(n)
        w = torch.arange(1.0, n + 1, dtype=torch.float64) + torch.rand(41, n, generator=g, dtype=torch.float64) / 2
        if op == "eigh_small":
            yield ((q @ torch.diag_embed(w) @ q.mT).to(dtype),)
            yield (torch.zeros(1, n, n, dtype=dtype),)
            continue
        gw, gv = (torch.randn(*t.shape, generator=g).to(dtype) for t in (w, q))
        for pair in ((gw, gv), (None, gv), (gw, None)):
            yield w.to(dtype), q.to(dtype).contiguous(), *pair


def frame_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Edges along and near +-y among random ones, channels with and without a tail, fewer orders than degrees."""
    for dtype in (torch.float32, torch.float64):
        rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: B023
        for L, M, C, H, E in ((2, 2, 16, 8, 90), (3, 1, 5, 7, 19), (4, 2, 3, 2, 12)):
            vec = rand(E, 3)
            vec[:3] = torch.tensor([[0.0, 2.0, 0.0], [0.0, -1.0, 0.0], [1e-3, -1.0, 0.0]]).to(dtype)
            n, S, widths = len(order(L, M)), (L + 1) ** 2, sum((L + 1 - m) * 2 * C for m in range(M + 1))
            D, shape = rand(E, packed_size(L, M)), (L, M, C, H, 3)
            rowptr = torch.tensor([0, 0, 3, 3, E - 4, E], dtype=torch.int32)
            col, eid = torch.randint(0, 5, (E,), generator=g).int(), torch.randperm(E, generator=g).int()
            w1, w2 = rand(weight_numel(L, M, 2 * C, H, L * H)) / (2 * C) ** 0.5, rand(weight_numel(L, M, H, C, 0)) / H**0.5
            block = (
                rand(5, S, C),
                vec,
                rand(E, 4),
                rand(widths, 4),
                rand(widths),
                rand(E),
                w1,
                rand((2 * L + 1) * H),
                w2,
                rand((L + 1) * C),
            )
            if op == "so2_wigner":
                yield vec, None, L, M
                yield vec, rand(E), L, M
            elif op == "so2_rotate":
                yield rand(E, S, C), D, L, M
            elif op == "so2_rotate_back":
                yield rand(E, n, C), D, L, M
            elif op == "so2_rotate_outer":
                yield rand(E, n, C), rand(E, S, C), L, M
            elif op == "so3_turn":
                yield rand(E, S, C), rand(E, 3), L, -1
                yield D, rand(E, 3), L, M
            elif op == "so3_torque":
                yield rand(E, S, C), rand(E, S, C), L, -1
                yield D, rand(*D.shape), L, M
            elif op == "so2_conv":
                w = rand(weight_numel(*shape))
                for three in (False, True):
                    yield rand(E, n * C), w, rand(3 + (L + 1) * H), *shape, False, three
                    yield rand(E, 3 + n * H), w, None, *shape, True, three
            elif op == "so2_conv_wgrad":
                yield rand(E, n * C), rand(E, 3 + n * H), *shape
            elif op == "edge_block":
                for three, keep in ((False, True), (True, False)):
                    yield *block, rowptr, col, eid, L, M, H, three, keep
            elif op == "edge_block_bwd":
                for three in (False, True):
                    yield rand(5, S, C), *block, rowptr, col, eid, None, None, L, M, H, three, 15
            else:
                raise KeyError(op)


def harmonics_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Random points, the poles, and a zero vector."""
    for dtype, (lmax, norm), normalize in itertools.product(DTYPES, ((0, 0), (1, 2), (3, 1), (6, 0)), (True, False)):
        x = torch.randn(37, 3, generator=g, dtype=torch.float64)
        x[0], x[1], x[2] = 0, torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, -2.0, 0.0])
        if not normalize:
            x = x / 2
        x = x.to(dtype)
        if op == "spherical_harmonics":
            yield x, lmax, norm, normalize
        elif op == "spherical_harmonics_bwd":
            yield x[1:], torch.randn(36, (lmax + 1) ** 2, generator=g).to(dtype), lmax, norm, normalize
        elif lmax < 6:
            yield from ((x[1:], lmax, norm, normalize, order) for order in (1, 2))


def bilinear_cases(g: torch.Generator) -> Iterator[tuple]:
    """Every role, both layouts, channels with and without tails, one row for all, sums over the rows."""
    from ..so2._bilinear import Table

    dims, terms = (5, 7, 6), 40
    i, j, k = (torch.randint(0, d - 1, (terms,), generator=g).tolist() for d in dims)
    table = Table(i, j, k, torch.randn(terms, generator=g).tolist(), dims)
    for dtype, last, C, role in itertools.product(DTYPES, (False, True), (3, 70), range(3)):
        for a_rows, b_rows, total in ((9, 9, False), (1, 9, False), (9, 1, True), (9, 9, True)):
            shapes = [(n, C, d) if last else (n, d, C) for n, d in ((a_rows, dims[role - 2]), (b_rows, dims[role - 1]))]
            a, b = ((torch.randn(*s, generator=g) / 2).to(dtype) for s in shapes)
            yield a, b, *table.on(a.device), role, last, total


def contraction_cases(g: torch.Generator) -> Iterator[tuple]:
    """Up to two directions, whole and in part, both layouts, an element without nodes, channels with and without tails."""
    from ..so2 import SymmetricContractionPlan

    plan = SymmetricContractionPlan("0e+1o", "0e+1o", 3)
    N, D, O = 7, plan.irreps_in.dim, plan.irreps_out.dim
    ptr, nodes = torch.tensor([0, 4, 4, 7]), torch.randperm(N, generator=g)
    for dtype, last, C, K in itertools.product(DTYPES, (False, True), (3, 33), range(3)):
        shapes = [(N, C, D) if last else (N, D, C), (3, plan.num_paths, C), (N, C, O) if last else (N, O, C)]
        parts = [(torch.randn(*s, generator=g) / 2).to(dtype) for _ in range(K + 1) for s in shapes] + [None] * (6 - 3 * K)
        yield *parts, ptr, nodes, *plan.on(nodes.device), K, last, True, True, True
        if K:
            parts[4] = None
            yield *parts, ptr.int(), nodes.int(), *plan.on(nodes.device), K, last, True, False, True


def product_cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Both layouts, channels with and without tails, edges in and out of order, with and without a graph and weights."""
    from ..graph import Graph
    from ..so2._product import Spec
    from ..so2.tensor_product import channelwise_instructions

    N, E = 6, 17
    index = torch.stack([torch.randint(0, N, (E,), generator=g), torch.randint(0, N - 1, (E,), generator=g)])
    graph = Graph(index, num_nodes=N)
    s, alone = (*graph.structure[:3], *graph.reversed_structure), (None,) * 6
    for dtype, layout, muls in itertools.product(DTYPES, ("mul_ir", "ir_mul"), ((70, 1), (3, 33))):
        irreps = [(muls[0], 0, 1), (muls[1], 1, -1), (muls[0], 2, 1)]
        out, paths = channelwise_instructions(irreps, "0e+1o+2e+3o", "0e+1o+2e")
        weighted = muls[1] == 1
        paths = [(*p[:4], weighted) for p in paths]
        spec = Spec("tp", irreps, "0e+1o+2e+3o", out, paths, (None,) * 3, "component", "element", layout, False)
        plan = (spec.weighted or spec.plain).on(torch.device("cpu"))
        draw = lambda *shape: (torch.randn(*shape, generator=g) / 4).to(dtype)  # noqa: B023
        for structure, rows, receivers in ((s, N, N), (alone, E, E)):
            y, w = draw(E, spec.in2.dim), draw(E, spec.weight_numel) if weighted else None
            x, out_row = draw(rows, spec.in1.dim), draw(receivers, spec.out.dim)
            if op == "tp_conv":
                yield x, y, w, *structure, *plan, False
                yield out_row, y, w, *(*structure[3:], *structure[:3]), *plan, True
            else:
                yield x, out_row, y, w, *structure, *plan, True, weighted
