"""Every operator on the GPU against the same call on the CPU; determinism, streams and device checks. Runs where a GPU is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import FLOATS, INTEGERS, MESSAGES, REDUCES, near_one, random_coo, small_integers, to_csr, values
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
)
from torch import Tensor

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
NUM_SRC, NUM_DST, EDGES = 19, 24, 130
COO = random_coo(NUM_SRC, NUM_DST, EDGES)
FEATURES = (1, 2, 3, 7, 8, 16, 17, 32, 33, 64, 100, 128, 130, 256, 300)


def both(fn: Callable, *tensors: Tensor, terms: int = 64, magnitude: float = 4.0, what: object = "") -> None:
    """fn on the GPU, twice, against fn on the CPU in float64: values and gradients."""
    results = []
    for device, wide in (("cpu", True), (DEVICE, False), (DEVICE, False)):
        leaves = [(t.double() if wide and t.is_floating_point() else t).to(device, copy=True) for t in tensors]
        leaves = [t.requires_grad_() if t.is_floating_point() else t for t in leaves]
        out = fn(*leaves)
        grads = ()
        if out.requires_grad:
            cotangent = values(*out.shape, dtype=torch.float32, seed=3).to(out)
            floats = [t for t in leaves if t.requires_grad]
            finite = torch.where(out.isfinite(), out, torch.zeros_like(out))
            grads = torch.autograd.grad((finite * cotangent).sum(), floats)
        results.append([out.detach().cpu(), *(g.cpu() for g in grads)])
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)
    for i, (cpu, one, two) in enumerate(zip(*results, strict=True)):
        assert_same(two, one, (what, "two runs"))
        if dtype is None or not one.is_floating_point():
            assert_same(one, cpu.to(one.dtype), what)
            continue
        if i == 0:
            assert_close(one, cpu, dtype, terms=terms, magnitude=magnitude, what=what)
        else:
            scale = max(cpu.abs().nan_to_num(0, 0, 0).max().item() if cpu.numel() else 0, 1.0)
            assert (one.double() - cpu).abs().nan_to_num(0, 0, 0).max() <= 256 * torch.finfo(dtype).eps * scale, (what, "gradient", i)


def graph(device: str, coo: Tensor = COO, num_src: int = NUM_SRC, num_dst: int = NUM_DST) -> Graph:
    return Graph(coo.to(device), num_src=num_src, num_dst=num_dst)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("reduce", REDUCES)
def test_spmm(reduce: str, dtype: torch.dtype) -> None:
    for n, F in enumerate(FEATURES):
        kind = MESSAGES[n % 6]
        fe = ((F,), (1,))[n // 6 % 2]
        x, e = values(NUM_SRC, F, dtype=dtype), values(EDGES, *fe, dtype=dtype, seed=1)
        fn = lambda x, e: spmm(graph(x.device.type), x, e, kind, reduce)
        if kind.startswith("copy"):
            lone = x if kind == "copy_u" else values(EDGES, F, dtype=dtype)
            fn = lambda t: spmm(graph(t.device.type), *((t, None) if kind == "copy_u" else (None, t)), kind, reduce)
            both(fn, lone, what=(kind, F))
        else:
            both(fn, x, e, what=(kind, F))


@pytest.mark.parametrize("reduce", REDUCES)
def test_heads_batches_and_hubs(reduce: str) -> None:
    both(lambda x, e: spmm(graph(x.device.type), x, e, reduce=reduce), values(NUM_SRC, 4, 8), values(EDGES, 4, 1, seed=1))
    both(lambda x, e: spmm(graph(x.device.type), x, e, reduce=reduce, batch_dims=1), values(3, NUM_SRC, 8), values(EDGES, 1, seed=1))
    coo = random_coo(40, 12, 900, hub=20_000)
    make = near_one if reduce == "prod" else values
    hub = lambda x: spmm(graph(x.device.type, coo, 40, 12), x, reduce=reduce)
    if reduce == "prod":
        with torch.no_grad():
            x = make(40, 8)
            assert_close(hub(x.to(DEVICE)).cpu(), hub(x), terms=1000, magnitude=hub(x).abs())
    else:
        both(hub, make(40, 8), terms=20_000)


@pytest.mark.parametrize("reduce", ["min", "max"])
def test_winners(reduce: str) -> None:
    for dtype in (*FLOATS, *INTEGERS):
        for F in (1, 17, 64):
            src = small_integers(EDGES, F, dtype=dtype)
            ptr = to_csr(COO, NUM_DST)[0]
            for skip_nan in (False, True):
                if dtype.is_floating_point:
                    src[::7] = float("nan")
                fn = lambda d: segment_reduce(src.to(d), ptr.to(d), reduce, return_arg=True, skip_nan=skip_nan)
                for a, b in zip(fn(DEVICE), fn("cpu"), strict=True):
                    assert_same(a.cpu(), b, (dtype, F, skip_nan))
                fn = lambda d: scatter_reduce(src.to(d), COO[1].to(d), NUM_DST, reduce, return_arg=True, skip_nan=skip_nan)
                for a, b in zip(fn(DEVICE), fn("cpu"), strict=True):
                    assert_same(a.cpu(), b, (dtype, F, skip_nan))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", ["dot", "add", "sub", "mul", "div", "copy"])
def test_sddmm(op: str, dtype: torch.dtype) -> None:
    rows = {"u": NUM_SRC, "v": NUM_DST, "e": EDGES}
    for n, F in enumerate(FEATURES):
        lt, rt = "uve"[n % 3], "vue"[n // 3 % 3]
        lhs, rhs = values(rows[lt], F, dtype=dtype), values(rows[rt], F, dtype=dtype, seed=1)
        if op == "copy":
            both(lambda a: sddmm(graph(a.device.type), a, None, op, lt), lhs, what=F)
        else:
            both(lambda a, b: sddmm(graph(a.device.type), a, b, op, lt, rt), lhs, rhs, terms=F + 64, what=(lt, rt, F))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_softmax_and_gather(dtype: torch.dtype) -> None:
    ptr = to_csr(COO, NUM_DST)[0]
    for F in FEATURES:
        for log in (False, True):
            both(lambda s: segment_softmax(s, ptr.to(s.device), log=log), values(EDGES, F, dtype=dtype), what=F)
            both(lambda s: scatter_softmax(s, COO[1].to(s.device), log=log), values(EDGES, F, dtype=dtype), what=F)
        both(lambda s: segment_gather(s, ptr.to(s.device)), values(NUM_DST, F, dtype=dtype), what=F)


@pytest.mark.parametrize("dtype", (*FLOATS, *INTEGERS), ids=str)
@pytest.mark.parametrize("reduce", REDUCES)
def test_scatter_and_segment(reduce: str, dtype: torch.dtype) -> None:
    if not dtype.is_floating_point and reduce in ("var", "std", "logsumexp"):
        return
    ptr = to_csr(COO, NUM_DST)[0]
    make = values if dtype.is_floating_point else small_integers
    for shape, dim in [((EDGES,), 0), ((EDGES, 3), 0), ((EDGES, 64), 0), ((2, EDGES, 17), 1)]:
        src = make(*shape, dtype=dtype)
        both(lambda s: segment_reduce(s, ptr.to(s.device), reduce, dim), src, what=shape)
        both(lambda s: scatter_reduce(s, COO[1].to(s.device), NUM_DST, reduce, dim), src, what=shape)
        both(lambda s: scatter_reduce(s, ScatterPlan(COO[1].to(s.device), NUM_DST), None, reduce, dim), src, what=shape)


@pytest.mark.parametrize("edges", [0, 1, 5000, 300_000])
def test_structure(edges: int) -> None:
    for dtype in INTEGERS:
        index = torch.randint(777, (edges,)).to(dtype)
        for a, b in zip(torch.ops.structops.csr_build(index.to(DEVICE), 777), torch.ops.structops.csr_build(index, 777), strict=True):
            assert_same(a.cpu(), b)
        ptr = torch.tensor([0, 0, edges // 2, edges], dtype=dtype)
        for op, args in (("csr_from_coo", (index, index.flip(0), 777, False)), ("csr_transpose", (ptr, index, index.flip(0), 777))):
            run = getattr(torch.ops.structops, op)
            for a, b in zip(run(*(t.to(DEVICE) if isinstance(t, torch.Tensor) else t for t in args)), run(*args), strict=True):
                assert_same(a.cpu(), b)
        assert torch.ops.structops.index_range(index.to(DEVICE)) == torch.ops.structops.index_range(index)
        if edges:
            index[edges // 2] = 777
            with pytest.raises(RuntimeError, match="out of range"):
                torch.ops.structops.csr_build(index.to(DEVICE), 777)


def test_bad_input() -> None:
    x, ptr, index = values(5, 2), torch.tensor([0, 2, 5]), torch.tensor([0, 1, 1, 3, 0])
    for call, exception in (
        (lambda: segment_reduce(x.to(DEVICE), ptr), ValueError), (lambda: segment_reduce(x, ptr.to(DEVICE)), ValueError),
        (lambda: segment_reduce(x.to(DEVICE), torch.tensor([0, 3, 2, 5]).to(DEVICE)), ValueError),
        (lambda: scatter_reduce(x.to(DEVICE), index.to(DEVICE), 3), IndexError), (lambda: scatter_reduce(x.to(DEVICE), -index.to(DEVICE)), IndexError),
        (lambda: scatter_reduce(x.to(DEVICE), index), ValueError), (lambda: Graph(torch.tensor([[0, -1], [0, 1]], device=DEVICE)), IndexError),
        (lambda: spmm(graph(DEVICE), values(NUM_SRC, 2)), ValueError), (lambda: spmm(graph("cpu"), values(NUM_SRC, 2).to(DEVICE)), ValueError),
        (lambda: sddmm(graph(DEVICE), values(NUM_SRC, 2).to(DEVICE), values(NUM_DST, 2)), ValueError),
    ):  # fmt: skip
        with pytest.raises(exception):
            call()
    torch.cuda.synchronize()


def test_zero_sizes() -> None:
    none = Graph(torch.zeros(2, 0, dtype=torch.long, device=DEVICE), num_src=3, num_dst=2)
    for reduce in REDUCES:
        assert spmm(none, torch.ones(3, 2, device=DEVICE), reduce=reduce).shape == (2, 2)
        assert spmm(none, torch.ones(3, 0, device=DEVICE), reduce=reduce).shape == (2, 0)
        assert segment_reduce(torch.ones(0, 3, device=DEVICE), torch.zeros(1, dtype=torch.long, device=DEVICE), reduce).shape == (0, 3)
    assert segment_softmax(torch.ones(0, 3, device=DEVICE), torch.zeros(4, dtype=torch.long, device=DEVICE)).shape == (0, 3)
    assert sddmm(none, torch.ones(3, 2, device=DEVICE), torch.ones(2, 2, device=DEVICE)).shape == (0, 1)


def test_runs_on_the_current_stream() -> None:
    """Work is ordered after what the stream already holds, and before what follows."""
    g = graph(DEVICE)
    x = torch.zeros(NUM_SRC, 64, device=DEVICE)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        x.fill_(1.0)
        out = spmm(g, x)
        x.fill_(2.0)
    stream.synchronize()
    assert_same(out, g.in_degrees().float()[:, None].expand(-1, 64).contiguous())


def test_graph_moves_between_devices() -> None:
    g = graph("cpu")
    g.out_degrees()
    moved = g.to(DEVICE)
    assert moved.device.type == DEVICE and moved.to("cpu").edge_index().equal(COO.to(moved.col.dtype))
    x = values(NUM_SRC, 3)
    assert_close(spmm(moved, x.to(DEVICE)).cpu(), spmm(g, x), terms=32)
