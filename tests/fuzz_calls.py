"""Seeded random calls, good and bad, of the public functions. Run by test_fuzz.py in a process of its own:

    python fuzz_calls.py SEED COUNT

A call must give the float64 oracle's result, or raise one of the allowed exceptions if its arguments are bad. Prints a summary.
"""

from __future__ import annotations

import faulthandler
import random
import sys
import traceback
import warnings

import torch
from cases import REDUCES, message, reduce_rows, to_csr
from compare import assert_close, assert_same
from structops import (
    Graph,
    ScatterPlan,
    scatter_reduce,
    scatter_softmax,
    sddmm,
    segment_gather,
    segment_reduce,
    segment_softmax,
    spmm,
)  # fmt: skip
from torch import Tensor

ALLOWED = (ValueError, TypeError, IndexError, NotImplementedError)
GOOD = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ANY = (*GOOD, torch.int32, torch.int64, torch.int8, torch.uint8, torch.int16)
ODD = (torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16)
JUNK = (None, "x", 3, -1, 2.5, [0, 1], True, torch.tensor(1.0), torch.zeros(2, 2).to_sparse(), torch.empty(3, device="meta"), 2**63, object())


class Calls:
    """Generator of one random call after another; ``bad`` counts the mutations of the current one."""

    def __init__(self, seed: int):
        self.r = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.bad = 0

    def maybe(self, p: float) -> bool:
        return self.r.random() < p

    def size(self) -> int:
        return self.r.choice((0, 1, 1, 2, 3, 5, 8, 17, 33))

    def restride(self, t: Tensor) -> Tensor:
        """The same numbers behind other strides."""
        how = self.r.randrange(6)
        if how == 0 and t.dim() > 1:
            return t.transpose(0, 1).contiguous().transpose(0, 1)
        if how == 1:
            return torch.stack([t, t], -1)[..., 0]
        if how == 2 and t.dim() and t.shape[0]:
            return torch.cat([t[:1], t])[1:]
        return t

    def data(self, *shape: int, dtypes=GOOD) -> Tensor:
        dtype = self.r.choice(dtypes)
        t = torch.randint(-4, 5, shape, generator=self.torch)
        if dtype in (torch.uint8,):
            t = t.abs()
        t = t.to(dtype)
        if dtype.is_floating_point:
            t = t / 2 + torch.where(t == 0, 0.25, 0.0).to(dtype)
            if self.maybe(0.1) and t.numel():
                t.view(-1)[self.r.randrange(t.numel())] = self.r.choice((float("nan"), float("inf"), -float("inf")))
            if self.maybe(0.2):
                t.requires_grad_()
        return self.restride(t)

    def index(self, n: int, limit: int) -> Tensor:
        t = torch.randint(max(limit, 1), (n if limit else 0,), generator=self.torch).to(self.r.choice((torch.int32, torch.int64)))
        return self.restride(t)

    def indptr(self, groups: int, total: int) -> Tensor:
        cuts = sorted(self.r.randrange(total + 1) for _ in range(max(groups - 1, 0)))
        ptr = [0, *cuts, total] if groups else [0]
        return self.restride(torch.tensor(ptr, dtype=self.r.choice((torch.int32, torch.int64))))

    def spoil(self, value):
        """A bad variant of an argument, sometimes."""
        if not self.maybe(0.12):
            return value
        self.bad += 1
        if not isinstance(value, Tensor) or self.maybe(0.2):
            return self.r.choice(JUNK)
        how = self.r.randrange(8)
        if how == 0:
            return value.detach().to(self.r.choice(ODD))
        if how == 1:
            return value[..., None]
        if how == 2 and value.dim() and value.shape[0]:
            return value[1:]
        if how == 3:
            return value.to("meta")
        if how == 4 and value.numel() and value.dtype in (torch.int32, torch.int64):
            value = value.clone(memory_format=torch.contiguous_format)
            value.view(-1)[self.r.randrange(value.numel())] = self.r.choice((-1, -(2**31), 40, 1))
            return value
        if how == 5 and value.dim():
            return torch.cat([value, value])
        if how == 6:
            return value.detach().float()
        return value.flip(0) if value.dim() else value

    def option(self, value, *others):
        """An option, now and then replaced by junk."""
        if self.maybe(0.02):
            self.bad += 1
            return self.r.choice(JUNK)
        return self.r.choice((value, *others))


def wide(t: Tensor) -> Tensor:
    return t.detach().double() if t.is_floating_point() else t.long()


def check(out: Tensor, expected: Tensor, dtype: torch.dtype, what: object) -> None:
    if dtype.is_floating_point:
        # values of at most 4 in rows of at most 100; products of more are compared in their own scale
        scale = expected.abs().nan_to_num(0, 0, 0).amax().item() if expected.numel() else 1.0
        limit = torch.finfo(dtype).max
        expected = torch.where(expected.abs() > limit, torch.sign(expected) * float("inf"), expected)
        close = expected.abs().nan_to_num(0, 0, 0) > limit / 2
        out, expected = torch.where(close, 0, out), torch.where(close, 0, expected)
        assert_close(out, expected, dtype, terms=200, magnitude=max(4.0, scale), what=what)
    else:
        assert_same(out, expected.to(dtype), what)


def segment(c: Calls) -> None:
    total, groups, F = c.size(), c.size(), c.size()
    total = total if groups else 0
    rank = c.r.randrange(4)
    shape, dim = {0: ((total,), 0), 1: ((total, F), 0), 2: ((2, total), 1), 3: ((2, total, F), 1)}[rank]
    src, ptr = c.spoil(c.data(*shape, dtypes=ANY)), c.spoil(c.indptr(groups, total))
    reduce, dim = c.option(c.r.choice(REDUCES)), c.option(dim, dim - len(shape))
    skip_nan, unbiased = c.option(False, True), c.option(True, False)
    out = segment_reduce(src, ptr, reduce, dim, skip_nan=skip_nan, unbiased=unbiased)
    if src.dtype.is_floating_point or reduce != "mean":
        options = dict(skip_nan=skip_nan) if reduce in ("min", "max") else dict(unbiased=unbiased)
        expected = reduce_rows(wide(src).movedim(dim, 0), ptr, reduce, **options).movedim(0, dim)
        check(out, expected, src.dtype, ("segment", reduce))


def softmax(c: Calls) -> None:
    total, groups = c.size(), c.size()
    total = total if groups else 0
    src, ptr = c.spoil(c.data(total, c.size())), c.spoil(c.indptr(groups, total))
    log = c.option(False, True)
    out = segment_softmax(src, ptr, log=log)
    fn = torch.log_softmax if log else torch.softmax
    cuts = ptr.tolist()
    check(out, torch.cat([wide(src)[:0], *(fn(wide(src)[a:b], 0) for a, b in zip(cuts, cuts[1:], strict=False))]), src.dtype, "softmax")


def gather(c: Calls) -> None:
    groups = c.size()
    src, ptr = c.spoil(c.data(groups, c.size(), dtypes=ANY)), c.spoil(c.indptr(groups, c.size() if groups else 0))
    check(segment_gather(src, ptr), wide(src).repeat_interleave(ptr.long().diff(), 0), src.dtype, "gather")


def scatter(c: Calls) -> None:
    n, groups, F = c.size(), c.r.choice((1, 2, 5, 9)), c.size()
    rank = c.r.randrange(3)
    shape, dim = {0: ((n,), 0), 1: ((n, F), 0), 2: ((2, n, F), 1)}[rank]
    src, index = c.spoil(c.data(*shape, dtypes=ANY)), c.spoil(c.index(n, groups))
    if c.maybe(0.2):
        index = ScatterPlan(index, groups)
    reduce, dim_size = c.option(c.r.choice(REDUCES)), c.option(groups, groups if isinstance(index, ScatterPlan) else groups + 1)
    out = scatter_reduce(src, index, dim_size, reduce, c.option(dim))
    if isinstance(index, ScatterPlan) or index.dim() != 1 or not (src.is_floating_point() or reduce != "mean"):
        return
    rowptr, _, perm = to_csr(torch.stack([index, index]).long(), out.shape[dim])
    check(out, reduce_rows(wide(src).movedim(dim, 0)[perm], rowptr, reduce).movedim(0, dim), src.dtype, ("scatter", reduce))


def scattered_softmax(c: Calls) -> None:
    n = c.size()
    src, index = c.spoil(c.data(n, c.size())), c.spoil(c.index(n, 5))
    out = scatter_softmax(src, index, c.option(None, 5, 6))
    if index.dim() == 1:
        expected = torch.empty_like(wide(src))
        for v in index.unique():
            expected[index == v] = wide(src)[index == v].softmax(0)
        check(out, expected, src.dtype, "scatter_softmax")


def graph(c: Calls) -> tuple[Graph, Tensor]:
    num_src, num_dst = c.r.choice((1, 3, 7)), c.r.choice((1, 2, 9))
    n = c.size()
    coo = torch.stack([c.index(n, num_src).long(), c.index(n, num_dst).long()])
    coo = c.spoil(c.restride(coo.to(c.r.choice((torch.int32, torch.int64)))))
    g = Graph(coo, num_src=c.option(num_src, num_src + 1), num_dst=c.option(num_dst, num_dst + 1))
    return g, coo.long()


def features(c: Calls) -> tuple[tuple, tuple]:
    F = c.r.choice((1, 2, 5, 16))
    return c.r.choice((((F,), (F,)), ((F,), (1,)), ((1,), (F,)), ((), ()), ((2, F), (2, 1)), ((F,), (F + 1,)), ((0,), (1,)), ((F,), ()), ((3, 1), (2,))))


def aggregate(c: Calls) -> None:
    g, coo = graph(c)
    fx, fe = features(c)
    dtypes = (c.r.choice(GOOD),)
    x, e = c.spoil(c.data(g.num_src, *fx, dtypes=dtypes)), c.spoil(c.data(g.num_edges, *fe, dtypes=dtypes))
    kind, reduce = c.option(c.r.choice(("copy_u", "copy_e", "add", "sub", "mul", "div"))), c.option(c.r.choice(REDUCES))
    skip_nan = c.option(False, True)
    out = spmm(g, x, e, kind, reduce, skip_nan=skip_nan, fill_value=c.option(0.0))
    if c.bad:
        return  # a spoiled operand that is still valid is checked by the shape of what follows
    mx, me = wide(x)[coo[0]], wide(e)
    rank = max(mx.dim(), me.dim())
    mx, me = (t if kind.startswith("copy") else t.reshape(t.shape[0], *(1,) * (rank - t.dim()), *t.shape[1:]) for t in (mx, me))
    rowptr, _, perm = to_csr(coo, g.num_dst)
    expected = reduce_rows(message(kind, mx, me)[perm], rowptr, reduce, fill=0.0, **(dict(skip_nan=skip_nan) if reduce in ("min", "max") else {}))
    check(out, expected, x.dtype, ("spmm", kind, reduce, fx, fe))


def product(c: Calls) -> None:
    g, coo = graph(c)
    fl, fr = features(c)
    dtypes = (c.r.choice(GOOD),)
    lt, rt = c.r.choice("uve"), c.r.choice("uve")
    rows, at = {"u": g.num_src, "v": g.num_dst, "e": g.num_edges}, {"u": coo[0], "v": coo[1], "e": torch.arange(g.num_edges)}
    lhs, rhs = c.spoil(c.data(rows[lt], *fl, dtypes=dtypes)), c.spoil(c.data(rows[rt], *fr, dtypes=dtypes))
    op = c.option(c.r.choice(("add", "sub", "mul", "div", "dot", "copy")))
    out = sddmm(g, lhs, rhs, op, c.option(lt), c.option(rt))
    if c.bad:
        return
    left, right = wide(lhs)[at[lt]], wide(rhs)[at[rt]]
    rank = max(left.dim(), right.dim())
    if op != "copy":
        left, right = (t.reshape(t.shape[0], *(1,) * (rank - t.dim()), *t.shape[1:]) for t in (left, right))
    expected = left if op == "copy" else (left * right).sum(-1, keepdim=True) if op == "dot" else message(op, left, right)
    check(out, expected, lhs.dtype, ("sddmm", op, lt, rt, fl, fr))


def csr(c: Calls) -> None:
    rows, n = c.size(), c.size()
    n = n if rows else 0
    g = Graph.from_csr(c.spoil(c.indptr(rows, n)), c.spoil(c.index(n, 4)), c.option(4, None, 6))
    spmm(g, torch.ones(g.num_src, 2))


FUNCTIONS = (segment, segment, softmax, gather, scatter, scatter, scattered_softmax, aggregate, aggregate, aggregate, product, product, csr)


def main(seed: int, count: int) -> int:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    returned = raised = failed = 0
    for k in range(count):
        calls = Calls(seed * 1_000_003 + k)
        fn = calls.r.choice(FUNCTIONS)
        try:
            fn(calls)
            returned += 1
        except ALLOWED as error:
            raised += 1
            # an exception of a call that nothing was wrong with, or one from torch rather than from a check
            if not (str(error).partition(":")[0].split(".")[0] in NAMES and (calls.bad or "broadcast" in str(error) or "feature" in str(error) or "floating src" in str(error))):
                failed += 1
                print(f"call {seed} {k} {fn.__name__} bad={calls.bad}: unexpected {type(error).__name__}: {error}", traceback.format_exc(limit=-3))
        except Exception as error:
            failed += 1
            print(f"call {seed} {k} {fn.__name__} bad={calls.bad}: {type(error).__name__}: {error}", traceback.format_exc(limit=-3))
        if failed > 5:
            break
    print(f"{returned} returned, {raised} raised, {failed} failed")
    return failed


NAMES = ("segment_reduce", "segment_softmax", "segment_gather", "scatter_reduce", "scatter_softmax", "ScatterPlan", "Graph", "spmm", "sddmm")

if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]))))
