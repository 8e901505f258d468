"""relational_spmm and RelationalGraph: values, gradients of two orders, masks, ties, batches, errors."""

from __future__ import annotations

import doctest
import itertools
import pickle
import sys

import pytest
import torch
from cases import FLOATS, INTEGERS, random_coo, reduce_rows, remembered, small_integers, to_csr, values
from compare import assert_close, assert_same
from structops.kernels import codes as C
from structops.kernels.sparse import rspmm_ref
from structops.sparse import RelationalGraph, relational_spmm
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

rspmm_ref = remembered(rspmm_ref)

raw, raw_bwd = torch.ops.structops.relational_spmm, torch.ops.structops.relational_spmm_bwd
N, R, E = 13, 4, 70
COO = random_coo(N, N, E, seed=5)
KIND = torch.randint(R, (E,), generator=torch.Generator().manual_seed(1))
MASK = torch.rand(E, generator=torch.Generator().manual_seed(2)) < 0.6
MULS = tuple(C.REL_MULS)
REDUCES = tuple(C.REL_REDUCES)


def graph(index: torch.dtype = torch.int64) -> RelationalGraph:
    return RelationalGraph(COO.to(index), KIND.to(index), N, R)


def combined(mul: str, rel: Tensor | None, x: Tensor) -> Tensor:
    if mul == "copy":
        return x
    if mul == "rotate":
        H = x.shape[-1] // 2
        z = torch.complex(x[..., :H], x[..., H:]) * torch.complex(rel[..., :H], rel[..., H:])
        return torch.cat([z.real, z.imag], -1)
    return {"mul": torch.mul, "add": torch.add, "min": torch.minimum}[mul](rel, x)


def oracle(rel, x, weight=None, mask=None, mul="mul", reduce="sum", fill=None):
    """Dense, differentiable; in the caller's edge order within a row. x [.., N, D]."""
    keep = torch.arange(E) if mask is None else mask.nonzero()[:, 0]
    coo = COO[:, keep]
    rowptr, _, eid = to_csr(coo, N)
    m = combined(mul, None if rel is None else rel[..., KIND[keep], :], x[..., coo[0], :])
    if weight is not None:
        m = m * weight[keep][:, None]
    m = m.movedim(-2, 0)[eid]
    if reduce == "pna":
        var = reduce_rows(m, rowptr, "var", unbiased=False).movedim(0, -2)
        flat = var == 0
        std = torch.where(flat, torch.zeros_like(var), torch.where(flat, torch.ones_like(var), var).sqrt())
        return (*(reduce_rows(m, rowptr, r).movedim(0, -2) for r in ("mean", "max", "min")), std)
    return reduce_rows(m, rowptr, reduce, fill=fill).movedim(0, -2)


def operands(D: int, batch: tuple = (), dtype: torch.dtype = torch.float64, mul: str = "mul"):
    rel = None if mul == "copy" else values(*batch, R, D, dtype=dtype, seed=1)
    return rel, values(*batch, N, D, dtype=dtype), values(E, dtype=dtype, seed=2)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("mul", MULS)
def test_raw_values(isa: str, mul: str, reduce: str, poison: None, on_threads) -> None:
    """Every operation in every dtype, around the widths of the tiles, against the reference in float64."""
    for n, (dtype, D) in enumerate(itertools.product(FLOATS, (2, 34, 70))):
        batch = (2,) if n % 3 == 1 else ()
        g = graph(INTEGERS[n % 2])
        g.reversed_structure  # noqa: B018
        rel, x, weight = operands(D, batch, dtype, mul)
        weight = weight if n % 2 else None
        mask = MASK if n % 4 > 1 else None
        args = (x, rel, weight, mask, *g.structure, C.REL_MULS[mul], C.REL_REDUCES[reduce], 0.25)
        out, arg, rest = on_threads(lambda: raw(*args))
        wide = [None if t is None else t.double() for t in args[:3]]
        want, winners, _ = rspmm_ref.relational_spmm(*wide, *args[3:])
        assert_close(out, want, dtype, terms=32, magnitude=8.0, what=(mul, reduce, D))
        exact = dtype == torch.float64
        if exact:
            assert_same(arg, winners)
        grad = values(*out.shape, dtype=dtype, seed=3)
        got = on_threads(lambda: raw_bwd(grad, x, rel, weight, mask, out, arg, rest, *args[4:-1], 7))
        if reduce in ("min", "max", "pna", "logsumexp") and not exact:
            continue  # winners and results rounded to the dtype: compared through float64 above
        back = rspmm_ref.relational_spmm_bwd(grad.double(), *wide, mask, None, None, None, *args[4:-1], 7)
        for a, b in zip(got, back, strict=True):
            if b.numel():
                assert_close(a, b, dtype, terms=64 * D, magnitude=8.0, what=(mul, reduce, D))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("reduce", REDUCES)
def test_hub_row(isa: str, reduce: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Row 1 holds nearly all edges: its parts are merged in order, those that the mask empties do not count, the first of equals wins."""
    size, nodes = 2500, 12
    coo = torch.cat([torch.stack([torch.arange(size) % nodes, torch.ones(size, dtype=torch.int64)]), random_coo(nodes, nodes, 60)], 1)
    edges = coo.shape[1]
    g = RelationalGraph(coo, torch.arange(edges) % R, nodes, R)
    make = lambda *s, seed: small_integers(*s, dtype=dtype, seed=seed)
    k = torch.arange(edges)
    random = torch.rand(edges, generator=torch.Generator().manual_seed(2)) < 0.5
    # all edges; every other one, none of several parts; one in the middle; none of the hub
    for n, mask in enumerate((None, random & ((k > 600) & (k < 1100) | (k > 1900)), (k == 1333) | (k >= size), k >= size)):
        for mul, D in zip(MULS, (34, 5, 70, 16, 2), strict=True):
            batch = (2,) if n % 2 else ()
            x, rel = make(*batch, nodes, D, seed=1), None if mul == "copy" else make(*batch, R, D, seed=2)
            weight = make(edges, seed=3) if D != 16 else None
            args = (x, rel, weight, mask, *g.structure, C.REL_MULS[mul], C.REL_REDUCES[reduce], 0.25)
            out, arg, _ = on_threads(lambda: raw(*args))
            wide = [None if t is None else t.double() for t in args[:3]]
            want, winners, _ = rspmm_ref.relational_spmm(*wide, *args[3:])
            assert_close(out, want, dtype, terms=500, magnitude=50.0 if reduce == "pna" else 8.0, what=(mul, n))
            assert_same(arg, winners, (mul, n))


@pytest.mark.parametrize("reduce", REDUCES)
def test_hub_row_of_special_values(isa: str, reduce: str, on_threads) -> None:
    """NaN and infinities in parts of a row that is cut: the first NaN wins, whatever follows in a later part."""
    size = 2000
    g = RelationalGraph(torch.stack([torch.arange(size), torch.zeros(size, dtype=torch.int64)]), torch.zeros(size, dtype=torch.int64), size, 1)
    x = values(size, 4)
    x[[700, 1500], 0] = float("nan")
    x[900, 1] = float("inf")
    x[:, 2] = -float("inf")
    x[:1000, 3] = -float("inf")
    args = (x, None, None, None, *g.structure, C.REL_MULS["copy"], C.REL_REDUCES[reduce], 0.0)
    out, arg, _ = on_threads(lambda: raw(*args))
    want, winners, _ = rspmm_ref.relational_spmm(*args)
    assert_same(arg, winners)
    if reduce == "pna":  # mean and variance of infinities are NaN or infinite
        assert not out[:2, 0].isfinite().any()
        out, want = out[2:], want[2:]
    assert_close(out[..., 0, :], want[..., 0, :], terms=2000)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("mul", MULS)
def test_public_against_dense(mul: str, reduce: str, poison: None) -> None:
    for batch, mask, weighted in (((), None, False), ((2,), MASK, True)):
        tensors = [t if t is None else t.requires_grad_() for t in operands(4, batch, mul=mul)]
        rel, x, weight = tensors[0], tensors[1], tensors[2] if weighted else None
        leaves = [t for t in (rel, x, weight) if t is not None]
        ours = relational_spmm(graph(), rel, x, weight, mask, mul, reduce)
        theirs = oracle(rel, x, weight, mask, mul, reduce)
        if reduce != "pna":
            ours, theirs = (ours,), (theirs,)
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, terms=64)
        loss = lambda ts: sum((values(*t.shape, seed=i) * t.nan_to_num(0, 0, 0)).sum() for i, t in enumerate(ts))
        finite = lambda ts: [torch.where(t.isfinite(), t, 0.0) for t in ts]
        got = torch.autograd.grad(loss(finite(ours)), leaves)
        want = torch.autograd.grad(loss(finite(theirs)), leaves)
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, terms=512, magnitude=8.0)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("mul", MULS)
def test_gradients(mul: str, reduce: str) -> None:
    edges, kind = torch.tensor([[0, 1, 2, 0, 3, 1, 2], [1, 1, 1, 2, 2, 2, 0]]), torch.tensor([0, 1, 0, 1, 1, 0, 1])
    g = RelationalGraph(edges, kind, 4, 2)
    rng = torch.Generator().manual_seed(4)
    make = lambda *s: torch.randn(*s, dtype=torch.float64, generator=rng).requires_grad_()
    rel, x, weight = make(2, 2), make(4, 2), make(7)
    mask = torch.tensor([1, 1, 1, 1, 1, 0, 1]).bool()
    # std of one edge has a kink at 0, and -inf has no difference.
    fill = 0.0 if reduce == "logsumexp" else None
    how = ("sum", "mean", "var", "max", "min") if reduce == "pna" else reduce

    def fn(x, weight, *rel):
        return relational_spmm(g, rel[0] if rel else None, x, weight, mask, mul, how, fill_value=fill)

    args = (x, weight) if mul == "copy" else (x, weight, rel)
    assert gradcheck(fn, args)
    assert gradgradcheck(fn, args)


@pytest.mark.parametrize("mul", ("copy", "add", "mul"))
def test_large_offsets_cost_no_digits(isa: str, mul: str, on_threads) -> None:
    """Results and gradients of PNA beside a common offset. The messages are exact in float32, the mean is not."""
    for D, offset in ((5, 1e4), (37, -1e6)):
        grid = 16.0 if abs(offset) > 1e5 else 1024.0
        x = offset + (values(N, D) * grid).round() / grid
        ones = torch.ones(R, D, dtype=torch.float64)
        rel = {"copy": None, "add": (values(R, D, seed=1) * grid).round() / grid, "mul": ones}[mul]
        weight = torch.ones(E, dtype=torch.float64)
        results = []
        for dtype in (torch.float64, torch.float32):
            leaves = [t.to(dtype).requires_grad_() for t in (x, weight, rel) if t is not None]

            def run(leaves: list[Tensor] = leaves, D: int = D) -> tuple[Tensor, ...]:
                rel = leaves[2] if mul != "copy" else None
                mean, var, std = relational_spmm(graph(), rel, *leaves[:2], None, mul, ["mean", "var", "std"])
                loss = sum((values(N, D, seed=i) * t).sum() for i, t in enumerate((var, std), 3))
                return mean.detach(), var.detach(), std.detach(), *torch.autograd.grad(loss, leaves)

            results.append(on_threads(run))
        wide, narrow = results
        assert (narrow[0].double() - wide[0]).abs().max() < 1e-7 * abs(offset)
        for i, (a, b) in enumerate(zip(narrow[1:], wide[1:], strict=True)):
            # The factors of a product see sums over x, offset and all.
            scale = abs(offset) if i == 4 and mul == "mul" else b.abs().max()
            assert (a.double() - b).abs().max() < 4e-6 * scale, (mul, D, i)


def test_an_outlier_first_costs_no_digits(isa: str) -> None:
    """The first message of a row far from the others."""
    n = 2000
    g = RelationalGraph(torch.stack([torch.arange(n), torch.full((n,), n)]), torch.zeros(n, dtype=torch.int64), n + 1)
    x = 1e4 + (values(n + 1, 3) * 1024).round() / 1024
    x[0] = 0
    found = [relational_spmm(g, None, x.to(t), mul="copy", reduce=["mean", "std"]) for t in (torch.float64, torch.float32)]
    for wide, narrow in zip(*found, strict=True):
        assert (narrow[n].double() / wide[n] - 1).abs().max() < 1e-5


def test_ties_go_to_the_first_edge() -> None:
    """As spmm; and where relation and x tie under min, half to either."""
    g = RelationalGraph(torch.tensor([[0, 1, 2], [3, 3, 3]]), torch.tensor([0, 1, 0]), 4, 2)
    x, rel = torch.tensor([[1.0], [2.0], [2.0], [0.0]], requires_grad=True), torch.ones(2, 1, requires_grad=True)
    relational_spmm(g, rel, x, reduce="max").sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 0, 0] and rel.grad.flatten().tolist() == [0, 2]
    x.grad = rel.grad = None
    relational_spmm(g, rel, x, mul="min").sum().backward()
    assert x.grad.flatten().tolist() == [0.5, 0, 0, 0] and rel.grad.flatten().tolist() == [1.5, 1]
    many = small_integers(N, 3).requires_grad_()
    once = relational_spmm(graph(), torch.ones(R, 3, dtype=torch.float64), many, reduce="min")
    (a,) = torch.autograd.grad(once.sum(), many)
    (b,) = torch.autograd.grad(oracle(torch.ones(R, 3), many, reduce="min").sum(), many)
    assert_same(a, b)


@pytest.mark.parametrize("reduce", REDUCES)
def test_mask_is_removal(reduce: str) -> None:
    rel, x, weight = operands(6)
    some = RelationalGraph(COO[:, MASK], KIND[MASK], N, R)
    out = relational_spmm(graph(), rel, x, weight, MASK, "add", reduce)
    want = relational_spmm(some, rel, x, weight[MASK], None, "add", reduce)
    for a, b in zip(out, want, strict=True) if reduce == "pna" else ((out, want),):
        assert_same(a, b)


@pytest.mark.parametrize("reduce", REDUCES)
def test_special_values(isa: str, reduce: str) -> None:
    x = values(N, 3)
    x[COO[0, 0], 1] = float("nan")
    x[COO[0, 1], 2] = float("inf")
    out = relational_spmm(graph(), torch.zeros(R, 3, dtype=torch.float64), x, mul="add", reduce=reduce)
    want = oracle(torch.zeros(R, 3, dtype=torch.float64), x, mul="add", reduce=reduce)
    for a, b in zip(out, want, strict=True) if reduce == "pna" else ((out, want),):
        assert (a.isnan() == b.isnan())[:, :2].all()
        assert_close(a[:, 0], b[:, 0], terms=64)
        if reduce not in ("pna", "logsumexp"):
            assert_close(a[:, 2], b[:, 2], terms=64)


def test_zero_sizes(poison: None) -> None:
    none = torch.zeros(2, 0, dtype=torch.int64)
    for reduce in (*REDUCES, ["sum", "var"]):
        for g, D, B in (
            (RelationalGraph(none, none[0], 3, 2), 2, 2), (RelationalGraph(none, none[0], 0, 0), 2, 1), (graph(), 0, 2), (graph(), 2, 0),
        ):  # fmt: skip
            x = torch.zeros(B, g.num_nodes, D, requires_grad=True)
            rel, w = torch.zeros(g.num_relations, D, requires_grad=True), torch.ones(g.num_edges, requires_grad=True)
            out = relational_spmm(g, rel, x, w, reduce=reduce, fill_value=7.0 if reduce == "max" else None)
            out = out[-1] if isinstance(out, tuple) else out
            assert out.shape == x.shape
            if g.num_edges == 0 and out.numel():
                assert out.unique().tolist() == [
                    {"max": 7.0, "logsumexp": float("-inf")}.get(reduce if isinstance(reduce, str) else "", 0.0)
                ]
            out.sum().backward()
            assert all(t.grad.eq(0).all() and t.grad.shape == t.shape for t in (x, rel, w))


def test_broadcast_batch_and_dtypes() -> None:
    rel, x, _ = operands(4)
    batched = torch.stack([x, 2 * x])
    out = relational_spmm(graph(), rel, batched)
    assert_same(out[1], relational_spmm(graph(), rel, 2 * x))
    out = relational_spmm(graph(), torch.stack([rel, -rel]), x)
    assert_close(out[1], -out[0])
    assert relational_spmm(graph(), rel.float(), x).dtype == torch.float64
    assert_same(relational_spmm(graph(torch.int32), rel, x), relational_spmm(graph(), rel, x))


def test_structure() -> None:
    g = graph()
    assert_same(g.edge_type().long(), KIND)
    again = pickle.loads(pickle.dumps(g))
    rel, x, _ = operands(4)
    assert_same(relational_spmm(again, rel, x), relational_spmm(g, rel, x))
    assert g.to("cpu") is g and "num_relations=4" in repr(g)
    assert RelationalGraph(COO, KIND).num_relations == R


def test_edge_types_are_the_callers_own() -> None:
    g = RelationalGraph(torch.tensor([[0, 1], [0, 1]]), torch.tensor([1, 0]))
    assert g.graph.eid is None
    g.edge_type().fill_(10**6)
    assert g.edge_type().tolist() == [1, 0]


def test_no_messages_are_saved() -> None:
    rel, x, weight = (t.requires_grad_() for t in operands(8))
    for reduce, extra in (("sum", []), ("max", [N * 8]), ("pna", [4 * N * 8, 2 * N * 8]), ("logsumexp", [N * 8])):
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
            out, *_ = torch.ops.structops.relational_spmm(x, rel, weight, None, *graph().structure, 0, C.REL_REDUCES[reduce], 0.0)
        assert max(saved) <= max([E, N * 8, *extra]), reduce
        assert out.requires_grad


def test_compiles() -> None:
    g = graph()
    g.reversed_structure  # noqa: B018
    fn = lambda rel, x, w: sum(t.sum() for t in relational_spmm(g, rel, x, w, MASK, "add", "pna"))
    results = []
    for f in (fn, torch.compile(fn, fullgraph=True, backend="aot_eager")):
        leaves = [t.requires_grad_() for t in operands(6)]
        results.append(torch.autograd.grad(f(*leaves), leaves))
    for a, b in zip(*results, strict=True):
        assert_close(b, a, terms=64)
    torch._dynamo.reset()


def test_bad_input() -> None:
    g = graph()
    rel, x, weight = operands(4)
    bad = [
        (TypeError, lambda: relational_spmm(g.graph, rel, x)),
        (ValueError, lambda: relational_spmm(g, rel, x, mul="div")),
        (ValueError, lambda: relational_spmm(g, rel, x, reduce="prod")),
        (ValueError, lambda: relational_spmm(g, rel, x, reduce=["prod"])),
        (TypeError, lambda: relational_spmm(g, rel, x, reduce=3)),
        (ValueError, lambda: relational_spmm(g, None, x)),
        (ValueError, lambda: relational_spmm(g, rel, x, mul="copy")),
        (ValueError, lambda: relational_spmm(g, rel[:, :3], x)),
        (ValueError, lambda: relational_spmm(g, rel[:2], x)),
        (ValueError, lambda: relational_spmm(g, rel, x[:5])),
        (ValueError, lambda: relational_spmm(g, rel[:, :3], x[:, :3], mul="rotate")),
        (ValueError, lambda: relational_spmm(g, torch.stack([rel] * 3), torch.stack([x] * 2))),
        (ValueError, lambda: relational_spmm(g, rel, x, weight[:3])),
        (TypeError, lambda: relational_spmm(g, rel, x, mask=weight)),
        (ValueError, lambda: relational_spmm(g, rel, x, mask=MASK[:3])),
        (ValueError, lambda: relational_spmm(g, rel, x, reduce="pna", fill_value=1.0)),
        (TypeError, lambda: relational_spmm(g, rel, x.long())),
        (IndexError, lambda: RelationalGraph(COO, KIND, N, 2)),
        (IndexError, lambda: RelationalGraph(COO, KIND - 1, N)),
        (ValueError, lambda: RelationalGraph(COO, KIND[:4], N)),
        (TypeError, lambda: RelationalGraph(COO, KIND.float(), N)),
    ]
    for error, call in bad:
        with pytest.raises(error, match="expected"):
            call()


def test_docstring_examples() -> None:
    outcome = doctest.testmod(sys.modules[relational_spmm.__module__])
    assert outcome.attempted >= 6 and outcome.failed == 0
