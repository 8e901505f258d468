"""Operator spmm: values of every message, reduction, broadcast, rank, dtype and instruction set against the reference."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import structops
import torch
from cases import (
    BINARY,
    FEATURES,
    FLOATS,
    INTEGERS,
    MESSAGES,
    REDUCES,
    near_one,
    random_coo,
    reduce_rows,
    small_integers,
    to_csr,
    values,
    winners,
)  # fmt: skip
from compare import assert_close, assert_same
from structops.kernels import codes as C
from structops.kernels.sparse import spmm_ref
from torch import Tensor

NUM_SRC, NUM_DST, EDGES = 19, 24, 130
MODES = ("both", "e_scalar", "x_scalar", "heads", "table")
ARGS = {"position": C.ARG_POSITION, "edge": C.ARG_EDGE, "source": C.ARG_SOURCE}

raw = torch.ops.structops.spmm


@cache
def structure(index: torch.dtype = torch.int64, permuted: bool = True) -> tuple:
    rowptr, col, eid = to_csr(random_coo(NUM_SRC, NUM_DST, EDGES), NUM_DST, index)
    return rowptr, col, eid if permuted else None


def call(fn, x, e, s, message: str, reduce: str, *, bcast=None, arg=C.ARG_NONE, fill=None, skip_nan=False, unbiased=True):
    code = C.REDUCES[reduce]
    fill = C.EMPTY[code] if fill is None else fill
    return fn(x, e, *s, None, None, None, bcast, C.MESSAGES[message], code, arg, fill, skip_nan, unbiased)


def reference(x, e, s, message, reduce, **kwargs) -> tuple[Tensor, Tensor]:
    wide = lambda t: None if t is None else t.double() if t.is_floating_point() else t
    return call(spmm_ref.spmm, wide(x), wide(e), s, message, reduce, **kwargs)


def degrees(s: tuple, rank: int = 2) -> Tensor:
    d = s[0].diff().double()
    return d if rank == 1 else d[:, None]


def operands(message: str, mode: str, F: int, dtype: torch.dtype, make=values) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(x, e, bcast): rank 2 operands of F features, broadcast by ``mode``."""
    Fx = 1 if mode == "x_scalar" else F
    Fe = 1 if mode == "e_scalar" else F
    bcast = None
    if mode == "heads":
        heads = next(h for h in (8, 5, 4, 3, 2, 1) if F % h == 0)
        Fe, bcast = heads, torch.stack([torch.arange(F), torch.arange(F) // (F // heads)]).int()
    if mode == "table":
        Fx, Fe = F + 2, max(F // 2, 1)
        pick = torch.Generator().manual_seed(F)
        bcast = torch.stack([torch.randint(Fx, (F,), generator=pick), torch.randint(Fe, (F,), generator=pick)]).int()
    x = None if message == "copy_e" else make(NUM_SRC, Fx, dtype=dtype, seed=F)
    e = None if message == "copy_u" else make(EDGES, Fe, dtype=dtype, seed=F + 1)
    return x, e, bcast


def plan() -> list[tuple[str, str, int]]:
    """(message, mode, F): every feature count for the commonest two, a rotating three of them for the rest."""
    cases = []
    for i, message in enumerate(MESSAGES):
        for j, mode in enumerate(MODES if message in BINARY else ("both",)):
            full = message == "copy_u" or (message == "mul" and mode == "e_scalar")
            offset = (3 * i + 5 * j) % len(FEATURES)
            some = [FEATURES[(offset + 6 * k) % len(FEATURES)] for k in range(3)]
            cases += [(message, mode, F) for F in (FEATURES if full else some)]
    return cases


@cache
def inputs(message: str, mode: str, F: int, dtype: torch.dtype) -> tuple:
    return operands(message, mode, F, dtype)


@cache
def expectation(message: str, mode: str, F: int, reduce: str, narrow: bool) -> Tensor:
    x, e, bcast = inputs(message, mode, F, torch.bfloat16 if narrow else torch.float32)
    return reference(x, e, structure(), message, reduce, bcast=bcast)[0]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("reduce", REDUCES)
def test_values(isa: str, reduce: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    for n, (message, mode, F) in enumerate(plan()):
        x, e, bcast = inputs(message, mode, F, dtype)
        expected = expectation(message, mode, F, reduce, dtype.itemsize == 2)
        s = structure((torch.int32, torch.int64)[n % 2])
        out, arg = on_threads(lambda: call(raw, x, e, s, message, reduce, bcast=bcast))
        assert arg.numel() == 0
        assert_close(out, expected, dtype, terms=2 * degrees(s), magnitude=3.0, what=(message, mode, F))


@pytest.mark.parametrize("reduce", REDUCES)
def test_edges_in_csr_order(isa: str, reduce: str, poison: None) -> None:
    for index in INTEGERS:
        s = structure(index, permuted=False)
        x, e, _ = operands("mul", "both", 33, torch.float64)
        for message in MESSAGES:
            expected = reference(x, e, s, message, reduce)[0]
            assert_close(call(raw, x, e, s, message, reduce)[0], expected, terms=2 * degrees(s), magnitude=3.0, what=message)


def batched(rank: int, F: int, who: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x and e of rank 1, 2 or 3; at rank 3 ``who`` (x, e, both) carries a batch of 3, the other has one or rank 2."""
    if rank == 1:
        return values(NUM_SRC, dtype=dtype), values(EDGES, dtype=dtype, seed=1)
    if rank == 2:
        return values(NUM_SRC, F, dtype=dtype), values(EDGES, F, dtype=dtype, seed=1)
    x = values(*((3,) if who in ("x", "both") else (1,) if who == "one" else ()), NUM_SRC, F, dtype=dtype)
    e = values(*((3,) if who in ("e", "both", "one") else ()), EDGES, F, dtype=dtype, seed=1)
    return x, e


@cache
def batched_expectation(rank: int, who: str, message: str, reduce: str) -> Tensor:
    x, e = batched(rank, 9, who, torch.float32)
    return reference(x, e, structure(), message, reduce)[0]


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize(("rank", "who"), [(1, ""), (2, ""), (3, "both"), (3, "x"), (3, "e"), (3, "one")])
def test_ranks_and_batches(isa: str, reduce: str, rank: int, who: str, poison: None, on_threads) -> None:
    s = structure()
    for message in MESSAGES:
        for dtype in (torch.float32, torch.float64):
            x, e = batched(rank, 9, who, dtype)
            if message == "copy_u":
                e = None
            if message == "copy_e":
                x = None
            expected = batched_expectation(rank, who, message, reduce)
            out = on_threads(lambda: call(raw, x, e, s, message, reduce)[0])
            assert_close(out, expected, dtype, terms=2 * degrees(s, rank), magnitude=3.0, what=(message, dtype))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("reduce", ["var", "std"])
def test_unbiased(isa: str, reduce: str, unbiased: bool) -> None:
    s = structure()
    for offset in (0.0, 1000.0):  # a mean far from zero must not cost the deviation its digits
        x = values(NUM_SRC, 21) + offset
        expected = reference(x, None, s, "copy_u", reduce, unbiased=unbiased)[0]
        assert_close(call(raw, x, None, s, "copy_u", reduce, unbiased=unbiased)[0], expected, terms=degrees(s), magnitude=1 + offset)


@pytest.mark.parametrize("reduce", ["var", "std"])
@pytest.mark.parametrize("F", [1, 5, 40])
def test_moments_beside_an_offset(isa: str, F: int, reduce: str, on_threads) -> None:
    """float32 keeps its digits beside an offset of 2^20, within a block, from block to block and where a row is cut."""
    sizes = torch.tensor([3, 0, 1500, 60_000, 17])
    indptr = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    eighths = torch.randint(0, 17, (int(indptr[-1]), F), generator=torch.Generator().manual_seed(0))
    x = (eighths / 8 + 2.0**20).float()
    got = on_threads(lambda: structops.segment_reduce(x, indptr, reduce))
    for row, (a, b) in enumerate(itertools.pairwise(indptr.tolist())):
        want = getattr(x[a:b].double(), reduce)(0) if b > a else torch.zeros(F, dtype=torch.float64)
        assert torch.allclose(got[row].double(), want, rtol=1e-5, atol=0), row


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("reduce", ["sum", "min", "max", "prod"])
def test_integers(isa: str, reduce: str, dtype: torch.dtype, poison: None) -> None:
    info = torch.iinfo(dtype)
    for F in FEATURES:
        for message in ("copy_u", "copy_e"):
            x, e, _ = operands(message, "both", F, dtype, small_integers)
            if reduce != "prod":  # sums wrap; products of huge numbers are tested through small ones
                for t in (x, e):
                    if t is not None:
                        t[::3] = info.max - t[::3].abs()
                        t[1::3] = info.min + t[1::3].abs()
            expected, where = reference(x, e, structure(), message, reduce, arg=C.ARG_EDGE, fill=7)
            arg = C.ARG_EDGE if reduce in ("min", "max") else C.ARG_NONE
            out, got = call(raw, x, e, structure(), message, reduce, fill=7, arg=arg)
            assert_same(out, expected, (message, F))
            if arg:
                assert_same(got, where, (message, F))


@cache
def exact_expectation(message: str, mode: str, F: int, reduce: str, kind: str, permuted: bool) -> tuple[Tensor, Tensor]:
    x, e, bcast = operands(message, mode, F, torch.float64, small_integers)
    return reference(x, e, structure(permuted=permuted), message, reduce, bcast=bcast, arg=ARGS[kind])


@pytest.mark.parametrize("kind", ARGS)
@pytest.mark.parametrize("reduce", ["min", "max"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_args_and_ties(isa: str, dtype: torch.dtype, reduce: str, kind: str, poison: None, on_threads) -> None:
    """Small integers are exact everywhere and tie often: the first edge of the row wins."""
    for n, (message, mode, F) in enumerate([(m, o, F) for m in MESSAGES[:5] for o, F in (("both", 33), ("both", 8), ("heads", 16), ("table", 5), ("both", 1))]):
        if message in ("copy_u", "copy_e") and mode != "both":
            continue
        s = structure(INTEGERS[n % 2], permuted=n % 3 != 0)
        x, e, bcast = operands(message, mode, F, dtype, small_integers)
        expected, where = exact_expectation(message, mode, F, reduce, kind, n % 3 != 0)
        out, arg = on_threads(lambda: call(raw, x, e, s, message, reduce, bcast=bcast, arg=ARGS[kind]))
        assert_close(out, expected, dtype, what=(message, mode))
        assert_same(arg, where.to(arg.dtype), (message, mode))
        assert arg.dtype == s[0].dtype


def spiked(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Small integers with NaN, +inf and -inf strewn in, and one row of nothing but NaN."""
    t = small_integers(*shape, dtype=dtype, seed=seed)
    pick = torch.rand(*shape, generator=torch.Generator().manual_seed(seed + 7))
    t[pick < 0.1] = float("nan")
    t[(pick > 0.1) & (pick < 0.2)] = float("inf")
    t[(pick > 0.2) & (pick < 0.3)] = float("-inf")
    t[0] = float("nan")
    return t


@cache
def spiked_case(F: int, reduce: str, skip_nan: bool) -> tuple[Tensor, Tensor, Tensor]:
    s = structure()
    e = spiked(EDGES, F, dtype=torch.float64)
    e[s[2][s[0][4] : s[0][5]]] = float("nan")
    return e, *reference(None, e, s, "copy_e", reduce, skip_nan=skip_nan, fill=-5.0, arg=C.ARG_POSITION)


@pytest.mark.parametrize("skip_nan", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_infinity(isa: str, dtype: torch.dtype, skip_nan: bool, poison: None) -> None:
    s = structure()
    for F in (1, 3, 4, 8, 17, 64):
        for reduce in REDUCES:
            if skip_nan and reduce not in ("min", "max"):
                continue
            e, expected, where = spiked_case(F, reduce, skip_nan)
            e = e.to(dtype)
            for arg in (C.ARG_NONE, C.ARG_POSITION) if reduce in ("min", "max") else (C.ARG_NONE,):
                out, got = call(raw, None, e, s, "copy_e", reduce, skip_nan=skip_nan, fill=-5.0, arg=arg)
                assert_close(out, expected, dtype, terms=degrees(s), magnitude=3.0, what=(reduce, F, arg))
                if arg:
                    assert_same(got, where, (reduce, F))


@pytest.mark.parametrize("reduce", REDUCES)
def test_empty_rows_are_filled(isa: str, reduce: str) -> None:
    s = structure()
    empty = s[0].diff() == 0
    assert empty.any() and not empty.all()
    for dtype in FLOATS:
        for fill in (0.0, -3.5, float("nan"), float("inf")):
            out = call(raw, values(NUM_SRC, 5, dtype=dtype), None, s, "copy_u", reduce, fill=fill)[0]
            assert_same(out[empty], torch.full_like(out[empty], fill))
            assert out[~empty].isfinite().all()


# ---- hubs: rows cut into pieces --------------------------------------------------------------------------------------


@cache
def hub_structure(hub: int) -> tuple:
    coo = random_coo(40, 12, 900, hub=hub)
    return (coo, *to_csr(coo, 12, torch.int32))


@cache
def hub_case(hub: int, F: int, dtype: torch.dtype, reduce: str) -> tuple[Tensor, Tensor, Tensor]:
    coo, rowptr, _, eid = hub_structure(hub)
    make = near_one if reduce == "prod" else values
    x, e = make(40, F, dtype=dtype), make(coo.shape[1], 1, dtype=dtype, seed=1)
    if reduce in ("min", "max"):
        x, e = (t.mul(4).round() for t in (x, e))
    m = (x.double()[coo[0]] * e.double())[eid.long()]
    return x, e, reduce_rows(m, rowptr, reduce)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize(("hub", "F"), [(20_000, 1), (20_000, 20), (20_000, 70), (150_000, 3)])
def test_hub_rows(isa: str, hub: int, F: int, reduce: str, dtype: torch.dtype, poison: None, on_threads) -> None:
    """20 000 edges: cut into chunks of 256; 150 000: chunks longer than a block of edges."""
    _, *s = hub_structure(hub)
    x, e, expected = hub_case(hub, F, dtype, reduce)
    out, _ = on_threads(lambda: call(raw, x, e, s, "mul", reduce))
    magnitude = expected.abs() if reduce == "prod" else 2.0
    assert_close(out, expected, dtype, terms=degrees(s).sqrt() * 4 if reduce in ("prod", "logsumexp") else degrees(s), magnitude=magnitude)


@pytest.mark.parametrize("reduce", ["min", "max"])
@pytest.mark.parametrize("skip_nan", [False, True])
def test_hub_winners(isa: str, reduce: str, skip_nan: bool, on_threads) -> None:
    coo, *s = hub_structure(20_000)
    rowptr, _, eid = s
    for dtype, F in ((torch.float32, 17), (torch.float32, 8), (torch.float64, 3), (torch.float16, 1)):
        e = small_integers(coo.shape[1], F, dtype=dtype)
        where = torch.rand(coo.shape[1], F) < (0.9 if skip_nan else 0.0002)
        e[where] = float("nan")
        if skip_nan:
            e[:, 0] = float("nan")
        m = e.double()[eid.long()]
        out, arg = on_threads(lambda: call(raw, None, e, s, "copy_e", reduce, arg=C.ARG_POSITION, skip_nan=skip_nan))
        assert_close(out, reduce_rows(m, rowptr, reduce, skip_nan=skip_nan), dtype)
        assert_same(arg.long(), winners(m, rowptr, reduce == "max", coo.shape[1], skip_nan))


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "logsumexp"])
@pytest.mark.parametrize("F", [8, 13, 24, 40])
def test_sources_beyond_the_cache(isa: str, F: int, reduce: str, poison: None, on_threads) -> None:
    sources, rows = 40_000, 300
    rowptr, col, _ = to_csr(random_coo(sources, rows, 3_000), rows, torch.int32)
    x, w = values(sources, F, dtype=torch.float32, seed=F), values(3_000, 1, dtype=torch.float32, seed=1)
    arg = C.ARG_SOURCE if reduce == "max" else C.ARG_NONE
    for message, e in (("copy_u", None), ("mul", w)):
        s = (rowptr, col, None)
        out, won = on_threads(lambda: call(raw, x, e, s, message, reduce, arg=arg))
        expected, winner = reference(x, e, s, message, reduce, arg=arg)
        assert_close(out, expected, torch.float32, terms=200, magnitude=1.5, what=message)
        assert_same(won, winner, message)


@pytest.mark.parametrize("reduce", REDUCES)
def test_longest_chunks(isa: str, reduce: str, on_threads) -> None:
    """Two million edges in one row: chunks of 8192 edges, each walked in many blocks."""
    E = 2_200_000
    rowptr = torch.tensor([0, 5, 5, E - 4, E])
    make = near_one if reduce == "prod" else values
    e = make(E, dtype=torch.float64)
    out, _ = on_threads(lambda: call(raw, None, e, (rowptr, None, None), "copy_e", reduce))
    expected = reduce_rows(e, rowptr, reduce)
    assert_close(out, expected, terms=rowptr.diff().double(), magnitude=expected.abs() if reduce == "prod" else 1.0)


@pytest.mark.parametrize("reduce", REDUCES)
def test_instruction_sets_agree(reduce: str) -> None:
    from conftest import ISAS
    from structops import backends

    if len(ISAS) < 2:
        pytest.skip("this machine has one instruction set")
    before = backends.isa()
    results = []
    s = structure()
    for name in ISAS:
        backends.set_isa(name)
        results.append(call(raw, values(NUM_SRC, 37), values(EDGES, 37, seed=1), s, "mul", reduce)[0])
    backends.set_isa(before)
    for r in results[1:]:
        assert_close(r, results[0], terms=degrees(s), magnitude=3.0)


def test_zero_sizes(isa: str, poison: None) -> None:
    for index in INTEGERS:
        no_rows = (torch.zeros(1, dtype=index), torch.zeros(0, dtype=index), torch.zeros(0, dtype=index))
        no_edges = (torch.zeros(4, dtype=index), *no_rows[1:])
        for reduce in REDUCES:
            fill = C.EMPTY[C.REDUCES[reduce]]
            assert call(raw, values(3, 4), None, no_rows, "copy_u", reduce)[0].shape == (0, 4)
            out = call(raw, values(5, 4), values(0, 4), no_edges, "mul", reduce)[0]
            assert_same(out, torch.full((3, 4), fill, dtype=torch.float64))
            assert call(raw, values(0, 4), None, no_edges, "copy_u", reduce)[0].shape == (3, 4)
            assert call(raw, values(NUM_SRC, 0), None, structure(), "copy_u", reduce)[0].shape == (NUM_DST, 0)
            assert call(raw, values(0, NUM_SRC, 3), None, structure(), "copy_u", reduce)[0].shape == (0, NUM_DST, 3)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_public_integers(dtype: torch.dtype) -> None:
    """Copies of integers sum, multiply and compare exactly; other messages and reductions of them are refused."""
    coo = random_coo(9, 8, 40)
    graph = structops.Graph(coo, num_src=9, num_dst=8)
    x, e = small_integers(9, 3, dtype=dtype), small_integers(40, 3, dtype=dtype)
    for reduce in ("sum", "min", "max", "prod"):
        copied = structops.spmm(graph, x, reduce=reduce)
        assert copied.dtype == dtype
        assert torch.equal(copied, structops.spmm(graph, x.double(), reduce=reduce).to(dtype))
        assert torch.equal(
            structops.spmm(graph, edge=e, reduce=reduce), structops.spmm(graph, edge=e.double(), reduce=reduce).to(dtype)
        )
    with pytest.raises(TypeError, match="x of dtype"):
        structops.spmm(graph, x, reduce="mean")
    with pytest.raises(TypeError, match="x of dtype"):
        structops.spmm(graph, x, e, "mul")
