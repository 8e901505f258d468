"""Several reductions in one pass: every set, dtype and instruction set, large offsets, hubs, empty rows and every gradient."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import FLOATS, INTEGERS, generator, random_coo, remembered, to_csr
from compare import assert_close
from structops import Graph, segment_reduce
from structops._ladder import with_reverse
from structops.kernels import codes as C
from structops.kernels.sparse import multi_reduce_ref as reference
from structops.sparse import multi_aggregate, segment_multi_aggregate
from structops.sparse._multi import AGGREGATORS
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

reference = remembered(reference)

raw, raw_bwd = torch.ops.structops.multi_reduce, torch.ops.structops.multi_reduce_bwd
N, M = 24, 19
COO = random_coo(M, N, 130, hub=200)  # a hub of several runs
E = COO.shape[1]
ALL = [C.SUM, C.MEAN, C.MIN, C.MAX, C.VAR, C.STD]
SETS = [list(s) for n in range(1, 7) for s in itertools.combinations(ALL, n)]
MESSAGES = {"x": (1, 0), "edge": (0, 1), "both": (1, 1)}


def short(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Of few digits: sums of two are exact, and there are ties."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).bfloat16().to(dtype)


def structure(index: torch.dtype, coo: Tensor = COO) -> tuple:
    return with_reverse((*to_csr(coo, N, index), None, None, None), M)


def check(
    messages: str, reduces: list[int], width: int, dtype: torch.dtype, index: torch.dtype, run=lambda f: f(), coo: Tensor = COO
) -> None:
    """Forward and backward of the raw operator against the reference in float64."""
    s = structure(index, coo)
    terms = 64 if coo is COO else coo.shape[1]
    given = zip((M, coo.shape[1]), MESSAGES[messages], strict=True)
    x, edge = (short(rows, width, seed=k, dtype=dtype) if p else None for k, (rows, p) in enumerate(given))
    y = short(N, width, seed=2, dtype=dtype)
    scale = short(2, N, seed=3, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    wide = [None if t is None else t.double() for t in (x, edge, y)]
    args = (*s, scale, reduces, 1e-2)
    out, stat, arg = run(lambda: raw(x, edge, y, *args, True))
    want, want_stat, want_arg = reference.multi_reduce(*wide, *s, scale.double(), reduces, 1e-2, True)
    assert_close(out, want, dtype, terms=terms, magnitude=8.0, what=(messages, reduces, width))
    assert_close(stat, want_stat, terms=terms, magnitude=4.0)
    assert torch.equal(arg, want_arg)
    assert torch.equal(raw(x, edge, y, *args, False)[0], out)
    grad = short(*out.shape, seed=4, dtype=dtype)
    found = run(lambda: raw_bwd(x, edge, grad, stat, arg, *args[:-1], 7))
    expected = reference.multi_reduce_bwd(*wide[:2], grad.double(), want_stat, want_arg, *s, scale.double(), reduces, 7)
    for got, good in zip(found, expected, strict=True):
        assert_close(got, good, dtype, terms=2 * terms, magnitude=16.0, what=(messages, reduces, width))


@pytest.mark.parametrize("messages", MESSAGES)
def test_every_set(messages: str) -> None:
    for n, reduces in enumerate(SETS):
        check(messages, reduces, 5, torch.float32, INTEGERS[n % 2])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("messages", MESSAGES)
def test_widths(isa: str, messages: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for n, width in enumerate((1, 7, 16, 33, 64, 83, 130)):
        for reduces in (ALL, [C.MAX, C.MEAN], [C.STD], [C.SUM, C.MIN], [C.MIN, C.MAX, C.MIN]):
            check(messages, reduces, width, dtype, INTEGERS[n % 2], on_threads)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("messages", MESSAGES)
def test_hub_row(isa: str, messages: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Node 1 is the destination of most edges: its parts are merged in order, and the first of equals still wins."""
    star = torch.stack([torch.arange(3000) % M, torch.ones(3000, dtype=torch.int64)])
    coo = torch.cat([star, random_coo(M, N, 130)], 1)
    for n, (width, reduces) in enumerate(((70, ALL), (5, [C.MAX, C.MEAN]), (17, [C.STD]))):
        check(messages, reduces, width, dtype, INTEGERS[n % 2], on_threads, coo)


def test_panels(on_threads) -> None:
    """Rows enough that the terms of the backward are gathered panel by panel."""
    rows, width = 3000, 200
    coo = random_coo(500, rows, 6000, seed=1)
    s = with_reverse((*to_csr(coo, rows, torch.int32), None, None, None), 500)
    x, grad = short(500, width, dtype=torch.float32), short(rows, 3, width, seed=1, dtype=torch.float32)
    args = (*s, None, [C.MEAN, C.VAR, C.MAX])
    _, stat, arg = raw(x, None, None, *args, 0.0, True)
    got = on_threads(lambda: raw_bwd(x, None, grad, stat, arg, *args, 1))[0]
    want = reference.multi_reduce_bwd(x.double(), None, grad.double(), stat, arg, *args, 1)[0]
    assert_close(got, want, torch.float32, terms=64, magnitude=8.0)


def dense_std(x: Tensor, graph: Graph) -> Tensor:
    return multi_aggregate(graph, x.double(), ("std", "mean"), eps=0.0)


@pytest.mark.parametrize("offset", [1e4, -1e4, 1e6])
def test_common_offset(isa: str, offset: float) -> None:
    """Deviations of float32 messages about 10^4: to the digits of float32, in values and gradients, whatever the length of a row."""
    graph = Graph(random_coo(M, N, 600, hub=3000), num_src=M, num_dst=N)
    x = ((torch.randn(M, 40, generator=generator(0)) * 8).round() / 8 + offset).requires_grad_()  # exact in float32
    exact = x.detach().double().requires_grad_()
    got = multi_aggregate(graph, x, ("std", "var"))
    want = multi_aggregate(graph, exact, ("std", "var"))
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)  # rows of 3000
    weight = torch.randn(want.shape, generator=generator(1), dtype=torch.float64)
    (d,), (d_want,) = torch.autograd.grad(got, x, weight.float()), torch.autograd.grad(want, exact, weight)
    torch.testing.assert_close(d.double(), d_want, atol=2e-4, rtol=1e-4)


def test_first_message_far_away() -> None:
    """The shift starts at an outlier and moves: Welford's accuracy, where sums about the first message lose all digits."""
    m = (torch.randn(100_000, 3, generator=generator(0)) * 8).round() / 8
    m[0] = 3e4
    indptr = torch.tensor([0, len(m)])
    got = segment_multi_aggregate(m, indptr, ("var", "mean"))
    want = torch.cat([m.double().var(0, unbiased=False), m.double().mean(0)])[None]
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


def test_an_outlier_in_a_part_of_its_own(isa: str, on_threads) -> None:
    """The row is cut behind its first two messages, far from the others: merging the parts costs no digits."""
    before, size = 253, 3000  # with spmm_chunk = 256, two edges of the second row belong to the first piece
    m = (torch.randn(before + size, 5, generator=generator(0)) * 8).round() / 8
    m[before] = 3e4
    indptr = torch.tensor([0, before, before + size])
    got = on_threads(lambda: segment_multi_aggregate(m, indptr, ("var", "mean")))
    hub = m[before:].double()
    torch.testing.assert_close(got[1].double(), torch.cat([hub.var(0, unbiased=False), hub.mean(0)]), rtol=1e-5, atol=1e-6)


def test_special_values_of_a_hub(isa: str, on_threads) -> None:
    """NaN and infinities in one part of a row are in its results, whichever part it is."""
    size = 2000
    indptr = torch.tensor([0, size])
    for at in (0, 255, 700, size - 1):
        m = short(size, 3, dtype=torch.float32)
        m[at] = torch.tensor([float("nan"), float("inf"), float("-inf")])
        got = on_threads(lambda: segment_multi_aggregate(m, indptr, ("sum", "mean", "min", "max", "var")))
        want = torch.stack([m.sum(0), m.mean(0), m.amin(0), m.amax(0), m.new_full((3,), float("nan"))])
        special = ~want.isfinite()
        torch.testing.assert_close(got.reshape(5, 3)[special], want[special], equal_nan=True)
        torch.testing.assert_close(got.reshape(5, 3)[2:4], want[2:4], equal_nan=True)


def test_equal_messages_have_no_deviation(isa: str) -> None:
    graph = Graph(torch.stack([torch.zeros(300, dtype=torch.long), torch.arange(300) % 2]), num_src=1, num_dst=2)
    x = torch.tensor([[0.1, 1e4 + 1 / 3, 3e38]])
    assert not multi_aggregate(graph, x, ("var",)).any()


def test_special_values(isa: str) -> None:
    nan, inf = float("nan"), float("inf")
    graph = Graph(torch.tensor([[0, 1, 2, 3, 1], [0, 0, 1, 1, 2]]), num_src=4, num_dst=4)
    x = torch.tensor([[inf, nan, 1.0], [1.0, 2.0, 2.0], [-inf, 5.0, nan], [inf, 6.0, 1.0]])
    out = multi_aggregate(graph, x, ("sum", "mean", "min", "max", "var")).reshape(4, 5, 3)
    want = torch.tensor([
        [[inf, nan, 3.0], [inf, nan, 1.5], [1.0, nan, 1.0], [inf, nan, 2.0], [nan, nan, 0.25]],
        [[nan, 11.0, nan], [nan, 5.5, nan], [-inf, 5.0, nan], [inf, 6.0, nan], [nan, 0.25, nan]],
        [[1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [0.0, 0.0, 0.0]],
        [[0.0] * 3] * 5,
    ])  # fmt: skip
    torch.testing.assert_close(out, want, equal_nan=True)
    x = x.requires_grad_()
    (d,) = torch.autograd.grad(multi_aggregate(graph, x, ("max", "min"))[0].sum(), x)  # NaN wins, the first edge among equals
    assert d.tolist() == [[1.0, 2.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("messages", MESSAGES)
def test_derivatives(messages: str) -> None:
    graph = Graph(torch.unique(random_coo(7, 8, 30), dim=1), num_src=7, num_dst=8)
    rand = lambda rows, seed: torch.randn(rows, 2, dtype=torch.float64, generator=generator(seed)).requires_grad_()
    x, edge = (rand(r, k) if p else None for k, (r, p) in enumerate(zip((7, graph.num_edges), MESSAGES[messages], strict=True)))
    leaves = tuple(t for t in (x, edge, rand(8, 2)) if t is not None)

    def function(*given):
        given = list(given)
        first = given.pop(0) if x is not None else None
        second = given.pop(0) if edge is not None else None
        return multi_aggregate(graph, first, AGGREGATORS, ("identity", "attenuation"), x_dst=given[0], edge=second)

    assert gradcheck(function, leaves, fast_mode=True)
    assert gradgradcheck(function, leaves, fast_mode=True)


def test_the_composition_is_the_kernel() -> None:
    """First derivatives by the kernel and, where a second follows, by the composition."""
    graph = Graph(COO, num_src=M, num_dst=N)
    x = short(M, 6).requires_grad_()
    out = multi_aggregate(graph, x, AGGREGATORS, ("identity", "linear"))
    weight = short(*out.shape, seed=1)
    (one,) = torch.autograd.grad(out, x, weight, retain_graph=True)
    (two,) = torch.autograd.grad(out, x, weight, create_graph=True)
    torch.testing.assert_close(one, two.detach())


def test_segments_and_empty() -> None:
    src = torch.randn(12, 3, 4, generator=generator(0), dtype=torch.float64).requires_grad_()
    indptr = torch.tensor([0, 0, 5, 6, 12, 12], dtype=torch.int32)
    names = ("sum", "mean", "min", "max", "var")
    got = segment_multi_aggregate(src, indptr, names)
    want = torch.cat([segment_reduce(src, indptr, r, unbiased=False) for r in names], -1)
    torch.testing.assert_close(got, want)
    g = torch.randn(got.shape, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad(t, src, g)[0] for t in (got, want)))
    assert gradgradcheck(lambda s: segment_multi_aggregate(s, indptr, names), (src,), fast_mode=True)
    for shape, ptr in (((0, 2), [0]), ((0, 2), [0, 0, 0]), ((3, 0), [0, 3])):
        t = torch.ones(shape, requires_grad=True)
        out = segment_multi_aggregate(t, torch.tensor(ptr), AGGREGATORS, ("identity", "amplification"))
        assert out.shape == (len(ptr) - 1, 12 * shape[1])
        assert torch.autograd.grad(out.sum(), t)[0].shape == shape
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), num_src=3, num_dst=4)
    x = torch.ones(3, 5, requires_grad=True)
    out = multi_aggregate(empty, x, AGGREGATORS, x_dst=torch.ones(4, 5))
    torch.testing.assert_close(out, torch.cat([torch.zeros(4, 20), torch.full((4, 5), 1e-5**0.5), torch.zeros(4, 5)], 1))
    assert not torch.autograd.grad(out.sum(), x)[0].any()


def test_nothing_of_the_edges_is_kept() -> None:
    graph = Graph(COO, num_src=M, num_dst=N)
    x = short(M, 8).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        multi_aggregate(graph, x, AGGREGATORS, ("identity", "amplification", "attenuation"))
    assert sum(t.numel() for t in kept if t.dim() > 1) == x.numel() + 4 * N * 8 + 3 * N  # x, mean, std, two winners, scale
    assert all(t.numel() <= E for t in kept if t.dim() == 1)


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda g: multi_aggregate(g, None), ValueError, "x, edge or both"),
        (lambda g: multi_aggregate(g, torch.ones(M, 2), edge=torch.ones(E, 3)), ValueError, "edge"),
        (lambda g: multi_aggregate(g, torch.ones(M, 2), edge=torch.ones(E, 2).double()), TypeError, "edge"),
        (lambda g: multi_aggregate(g, torch.ones(M, 2), ("mean",) * 17), ValueError, "16"),
        (lambda g: multi_aggregate(g, torch.ones(M, 2), eps=-1.0), ValueError, "eps"),
        (lambda g: multi_aggregate(g, torch.ones(M, 2).int()), TypeError, "x"),
        (lambda g: multi_aggregate(g, torch.ones(M, 2, device="meta")), ValueError, "x on cpu"),
        (lambda g: segment_multi_aggregate(torch.ones(3, 2), torch.tensor([0, 4])), ValueError, "indptr"),
        (lambda g: segment_multi_aggregate(torch.ones(3), torch.tensor([0, 3])), ValueError, "src"),
        (lambda g: segment_multi_aggregate(torch.ones(3, 2), torch.tensor([0.0, 3.0])), TypeError, "indptr"),
    ],
)
def test_bad_input(call, kind, text: str) -> None:
    with pytest.raises(kind, match=text):
        call(Graph(COO, num_src=M, num_dst=N))
