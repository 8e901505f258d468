"""structops.compat.torch_scatter against loops, and its documented differences."""

from __future__ import annotations

import itertools
import math

import pytest
import structops.compat.torch_scatter as ts
import torch

inf, nan = math.inf, math.nan
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTS = [torch.int32, torch.int64, torch.int8, torch.uint8, torch.int16]
REDUCES = ["sum", "mul", "mean", "min", "max"]


def loop(src, index, dim, size, reduce):
    """Values and positions by the definition, one element at a time; ``index`` as large as ``src``."""
    src, index = src.movedim(dim, -1), index.movedim(dim, -1)
    E, lead = src.shape[-1], src.shape[:-1]
    value = torch.zeros(*lead, size, dtype=src.dtype)
    arg = torch.full((*lead, size), E)
    for at in itertools.product(*map(range, lead)):
        groups = [[] for _ in range(size)]
        for e in range(E):
            groups[int(index[at][e])].append((src[at][e].item(), e))
        for n, group in enumerate(groups):
            numbers = [v for v, _ in group]
            if reduce == "sum":
                value[at][n] = sum(numbers)
            elif reduce == "mul":
                value[at][n] = math.prod(numbers)
            elif reduce == "mean" and numbers:
                total = sum(numbers)
                value[at][n] = total / len(numbers) if src.is_floating_point() else total // len(numbers)
            elif reduce in ("min", "max"):
                best = None
                for v, e in group:
                    if v == v and (best is None or (v > best if reduce == "max" else v < best)):
                        best = value[at][n] = v
                        arg[at][n] = e
    return value.movedim(-1, dim), arg.movedim(-1, dim)


def close(actual, expected):
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(actual.dtype, 1e-5)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def numbers(shape, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return (torch.randint(-8, 9, shape, generator=g) / 4).to(dtype)
    return torch.randint(1 if dtype == torch.uint8 else -3, 4, shape, generator=g).to(dtype)


def integers(high, shape, seed=0):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def values(result):
    return result[0] if isinstance(result, tuple) else result


SRC, INDEX, INDPTR = numbers((6, 3)), torch.tensor([0, 0, 1, 3, 3, 3]), torch.tensor([0, 2, 3, 3, 6])


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS + INTS)
@pytest.mark.parametrize("reduce", REDUCES)
def test_scatter_dtypes(reduce, dtype):
    src, index = numbers((7, 3), dtype), integers(4, (7,))
    got = getattr(ts, f"scatter_{reduce}")(src, index, 0, None, 6)
    value, arg = loop(src, index[:, None].expand(7, 3), 0, 6, reduce)
    close(values(got), value)
    if isinstance(got, tuple):
        assert torch.equal(got[1], arg)


LAYOUTS = [((5,), (5,), 0), ((5, 3), (5,), 0), ((5, 3), (3,), -1), ((2, 5, 3), (5,), 1), ((2, 5, 3), (2, 5), 1),
           ((2, 5, 3), (2, 5, 3), 1), ((2, 5, 3), (1, 5, 3), -2), ((2, 5, 3), (2, 1, 3), -1), ((2, 5, 3), (2, 5, 1), 1),
           ((4, 2, 3), (4, 2, 3), 0), ((5, 3), (1,), 0), ((5, 3), (), 0), ((1, 4), (1, 4), 1)]  # fmt: skip


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize(("shape", "index_shape", "dim"), LAYOUTS)
def test_scatter_broadcasting(shape, index_shape, dim, reduce):
    src, index = numbers(shape), integers(3, index_shape)
    full = index
    if full.dim() == 1:
        full = full.reshape([-1 if d == dim % len(shape) else 1 for d in range(len(shape))])
    full = full.reshape(*full.shape, *[1] * (len(shape) - full.dim())).expand(shape)
    got = ts.scatter(src, index, dim, None, 4, reduce)
    close(got, loop(src, full, dim, 4, reduce)[0])
    transposed = src.transpose(0, -1).contiguous().transpose(0, -1)
    assert torch.equal(ts.scatter(transposed, index.to(torch.int32), dim, None, 4, reduce), got)
    if reduce in ("min", "max"):
        arg = getattr(ts, f"scatter_{reduce}")(src, index, dim, None, 4)[1]
        assert torch.equal(arg, loop(src, full, dim, 4, reduce)[1])


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize(("shape", "index_shape"), [((6,), (6,)), ((6, 2), (6,)), ((3, 6), (3, 6)), ((3, 6), (1, 6)),
                                                    ((2, 3, 6, 2), (2, 1, 6))])  # fmt: skip
def test_segments_are_scatters(shape, index_shape, reduce):
    src, dim = numbers(shape), len(index_shape) - 1
    index = integers(3, index_shape).sort(-1)[0]
    full = index.reshape(*index_shape, *[1] * (len(shape) - dim - 1)).expand(shape)
    value, arg = loop(src, full, dim, 4, reduce)
    indptr = torch.searchsorted(index, torch.arange(5).expand(*index_shape[:-1], 5).contiguous())
    got_coo = getattr(ts, f"segment_{reduce}_coo")(src, index, None, 4)
    got_csr = getattr(ts, f"segment_{reduce}_csr")(src, indptr)
    for got in (got_coo, got_csr):
        close(values(got), value)
        if isinstance(got, tuple):
            assert torch.equal(got[1], arg)
    close(ts.segment_coo(src, index.int(), reduce=reduce), value.narrow(dim, 0, int(index.max()) + 1))
    assert torch.equal(ts.segment_csr(src, indptr.int(), reduce=reduce), values(got_csr))


@pytest.mark.parametrize("dtype", FLOATS + INTS)
def test_gather(dtype):
    src = numbers((2, 3, 2), dtype)
    index, indptr = torch.tensor([[0, 0, 2], [1, 2, 2]]), torch.tensor([[0, 2, 2, 3], [0, 0, 1, 3]])
    expected = torch.stack([src[b][index[b]] for b in range(2)])
    assert torch.equal(ts.gather_coo(src, index), expected)
    assert torch.equal(ts.gather_csr(src, indptr), expected)
    assert torch.equal(ts.gather_coo(src[0], index[0].int()), expected[0])
    assert torch.equal(ts.gather_csr(src[0], indptr[0].int()), expected[0])
    out = torch.full((2, 4, 2), 5, dtype=dtype)
    assert ts.gather_csr(src, indptr, out) is out
    assert torch.equal(out, torch.cat([expected, torch.full((2, 1, 2), 5, dtype=dtype)], 1))


def test_dim_size_rules():
    src, index = numbers((4, 2)), torch.tensor([2, 0, 2, 0])
    assert ts.scatter_sum(src, index, 0).shape == (3, 2)
    assert ts.scatter_sum(src, index, 0, None, 7).shape == (7, 2)
    assert ts.scatter_sum(src, index, 0, torch.zeros(5, 2), 7).shape == (5, 2)
    assert ts.scatter_max(src[:0], index[:0], 0)[0].shape == (0, 2)
    assert ts.segment_sum_coo(src, torch.tensor([0, 0, 1, 4])).shape == (5, 2)
    assert ts.segment_sum_csr(src, torch.tensor([0, 4, 4, 4])).shape == (3, 2)


def test_reduce_strings_give_values_only():
    for reduce in ("sum", "add", "mean", "min", "max"):
        assert isinstance(ts.scatter(SRC, INDEX, 0, reduce=reduce), torch.Tensor)
        assert isinstance(ts.segment_coo(SRC, INDEX, reduce=reduce), torch.Tensor)
        assert isinstance(ts.segment_csr(SRC, INDPTR, reduce=reduce), torch.Tensor)
    assert torch.equal(ts.scatter(SRC, INDEX, 0, reduce="mul")[1], SRC[2])


def test_empty_groups_and_sentinels():
    src, index = torch.tensor([1.0, -2.0]), torch.tensor([1, 1])
    assert ts.scatter_sum(src, index, 0, None, 3).tolist() == [0, -1, 0]
    assert ts.scatter_mean(src, index, 0, None, 3).tolist() == [0, -0.5, 0]
    assert ts.scatter_mul(src, index, 0, None, 3).tolist() == [1, -2, 1]
    for function, args in ((ts.scatter_min, (0, None, 3)), (ts.segment_min_coo, (None, 3))):
        value, arg = function(src, index, *args)
        assert (value.tolist(), arg.tolist()) == ([0, -2, 0], [2, 1, 2])
    value, arg = ts.segment_max_csr(src, torch.tensor([0, 0, 2, 2]))
    assert (value.tolist(), arg.tolist()) == ([0, 1, 0], [2, 0, 2])


def test_first_tie_wins_and_takes_the_gradient():
    src = torch.tensor([3.0, 5.0, 5.0, 3.0], requires_grad=True)
    index = torch.zeros(4, dtype=torch.long)
    assert ts.scatter_max(src, index)[1].item() == 1 and ts.scatter_min(src, index)[1].item() == 0
    assert ts.segment_max_coo(src, index)[1].item() == 1
    assert ts.segment_min_csr(src, torch.tensor([0, 4]))[1].item() == 0
    ts.scatter(src, index, reduce="max").sum().backward()
    assert src.grad.tolist() == [0, 1, 0, 0]


def test_nan_is_skipped():
    src = torch.tensor([nan, 2.0, 1.0, nan])
    value, arg = ts.scatter_max(src, torch.tensor([0, 0, 0, 1]))
    assert (value.tolist(), arg.tolist()) == ([2, 0], [1, 4])
    value, arg = ts.segment_min_csr(src, torch.tensor([0, 3, 4]))
    assert (value.tolist(), arg.tolist()) == ([1, 0], [2, 4])


def test_infinite_groups_keep_value_and_position():
    src, index = torch.full((3,), -inf), torch.tensor([0, 1, 1])
    for value, arg in (
        ts.scatter_max(src, index), ts.segment_max_coo(src, index), ts.segment_max_csr(src, torch.tensor([0, 1, 3]))
    ):  # fmt: skip
        assert (value.tolist(), arg.tolist()) == ([-inf, -inf], [0, 1])
    assert ts.scatter_min(-src, index)[0].tolist() == [inf, inf]
    assert ts.scatter_max(torch.zeros(2, dtype=torch.uint8), torch.tensor([1, 1]))[1].tolist() == [2, 0]


def test_integer_means():
    src, index = torch.tensor([-1, -2, 5, 6]), torch.tensor([0, 0, 1, 1])
    assert ts.scatter_mean(src, index).tolist() == [-2, 5]
    assert ts.segment_mean_coo(src, index).tolist() == [-1, 5]
    assert ts.segment_mean_csr(src, torch.tensor([0, 2, 4])).tolist() == [-1, 5]
    assert ts.scatter_mean(src, index, 0, torch.tensor([0, 0, 7])).tolist() == [-2, 5, 7]
    assert ts.segment_mean_coo(src, index, torch.tensor([0, 0, 7])).tolist() == [-1, 5, 7]


def test_sums_of_booleans_and_complex_numbers():
    index = torch.tensor([0, 0, 2])
    assert ts.scatter_sum(torch.tensor([True, True, False]), index).tolist() == [True, False, False]
    assert ts.scatter_sum(torch.tensor([1 + 1j, 2j, 3]), index).tolist() == [1 + 3j, 0, 3]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0), (0, 0, 0, 16)])
def test_empty_sources(shape):
    src = torch.zeros(shape, requires_grad=True)
    index = torch.zeros(shape[0], dtype=torch.long)
    for reduce in REDUCES:
        out = ts.scatter(src, index, 0, None, 2, reduce)
        assert out.shape == (2, *shape[1:])
        out.sum().backward()
    for out in (
        ts.segment_coo(src, index, None, 2, "max"), ts.segment_csr(src, torch.tensor([0, shape[0]]), None, "mean"),
        ts.segment_csr(src[:0], index[:0]), ts.gather_coo(src, index[:0]), ts.gather_csr(src[:0], index[:0]),
        *(f(src, index, 0) for f in (ts.scatter_softmax, ts.scatter_logsumexp, ts.scatter_std)),
    ):  # fmt: skip
        out.sum().backward()


# ---- out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strided", [False, True])
def test_out_of_scatter_is_the_starting_value(strided):
    src, index = torch.tensor([[1.0, -5.0], [3.0, 7.0]]), torch.tensor([0, 0])
    start = torch.tensor([[2.0, -6.0], [4.0, 4.0]])
    start = start.t().contiguous().t() if strided else start
    expected = {
        "sum": [[6, -4], [4, 4]], "mul": [[6, 210], [4, 4]], "mean": [[3, -2], [4, 4]], "min": [[1, -6], [4, 4]],
        "max": [[3, 7], [4, 4]],
    }  # fmt: skip
    arg = {"min": [[0, 2], [2, 2]], "max": [[1, 1], [2, 2]]}
    for reduce, want in expected.items():
        functions = [lambda out, r=reduce: getattr(ts, f"scatter_{r}")(src, index, 0, out)]
        if reduce != "mul":
            functions.append(lambda out, r=reduce: getattr(ts, f"segment_{r}_coo")(src, index, out))
        for function in functions:
            out = start.clone()
            got = function(out)
            assert values(got) is out and out.tolist() == want
            if isinstance(got, tuple):
                assert got[1].tolist() == arg[reduce]


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_out_of_segment_csr_is_overwritten(reduce):
    src, indptr = numbers((2, 5)), torch.tensor([[0, 2, 2, 5]])
    out = torch.full((2, 3), -9.0)
    assert ts.segment_csr(src, indptr, out, reduce) is out
    assert torch.equal(out, ts.segment_csr(src, indptr, reduce=reduce))


def test_gradient_flows_into_out():
    start = torch.ones(2, dtype=torch.float64, requires_grad=True)
    src = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 1, 1])
    for reduce in REDUCES:
        function = lambda s, o, r=reduce: ts.scatter(s, index, 0, o.clone(), None, r)
        assert torch.autograd.gradcheck(function, (src, start))


# ---- composites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "index_shape", "dim"), [((6,), (6,), 0), ((6, 3), (6,), 0), ((2, 6), (2, 6), 1)])
def test_composites_by_definition(shape, index_shape, dim, dtype):
    src, index = numbers(shape, dtype), integers(3, index_shape)
    full = index.reshape(*index_shape, *[1] * (len(shape) - len(index_shape))).expand(shape)
    peak = loop(src, full, dim, 5, "max")[0]
    shifted = src - peak.gather(dim, full)
    for eps in (1e-12, 0.25):
        total = loop(shifted.exp(), full, dim, 5, "sum")[0]
        close(ts.scatter_log_softmax(src, index, dim, eps, 5), shifted - (total + eps).log().gather(dim, full))
        count = loop(torch.ones_like(src), full, dim, 5, "sum")[0]
        expected = torch.where(count > 0, (total + eps).log() + peak, 0)
        close(ts.scatter_logsumexp(src, index, dim, None, 5, eps), expected)
    close(ts.scatter_softmax(src, index, dim), shifted.exp() / total.gather(dim, full))
    mean = loop(src, full, dim, 5, "mean")[0]
    squares = loop((src - mean.gather(dim, full)) ** 2, full, dim, 5, "sum")[0]
    for unbiased in (True, False):
        n = (count - 1 if unbiased else count).clamp(min=1)
        close(ts.scatter_std(src, index, dim, None, 5, unbiased), (squares / (n + 1e-6)).sqrt())
        out = torch.ones_like(squares)
        close(ts.scatter_std(src, index, dim, out, None, unbiased), ((1 + squares) / (n + 1e-6)).sqrt())
        close(out, 1 + squares)


def test_epsilon_of_log_softmax_shows_in_float64():
    src = torch.zeros(1, dtype=torch.float64)
    assert ts.scatter_log_softmax(src, torch.tensor([0])).item() == pytest.approx(-1e-12, rel=1e-3)


def test_logsumexp_limits_and_out():
    src, index = torch.tensor([-inf, inf, 1.0, nan]), torch.tensor([0, 1, 2, 3])
    assert ts.scatter_logsumexp(src[:3], index[:3], 0, None, 4).tolist() == [0, torch.finfo(torch.float32).max, 1, 0]
    assert ts.scatter_logsumexp(src, index)[3].isnan()
    out = torch.tensor([0.0, 2.0])
    assert ts.scatter_logsumexp(torch.tensor([0.0, 1.0]), torch.tensor([0, 0]), 0, out) is out
    close(out, torch.tensor([math.log(2 + math.e), 2.0]))


def test_softmax_of_minus_infinity():
    src, index = torch.tensor([-inf, 0.0, -inf]), torch.tensor([0, 0, 1])
    assert ts.scatter_softmax(src, index)[:2].tolist() == [0, 1]
    assert ts.scatter_log_softmax(src, index)[:2].tolist() == [-inf, 0]
    assert ts.scatter_softmax(src, index)[2].isnan() and ts.scatter_log_softmax(src, index)[2].isnan()


def test_std_of_integers_and_zero_gradient_at_constant_groups():
    close(ts.scatter_std(torch.tensor([1, 3, 3]), torch.tensor([0, 0, 1])), torch.tensor([2**0.5, 0]))
    src = torch.tensor([2.0, 2.0, 5.0, 1.0, 3.0], requires_grad=True)
    ts.scatter_std(src, torch.tensor([0, 0, 1, 2, 2])).sum().backward()
    close(src.grad, torch.tensor([0, 0, 0, -(0.5**0.5), 0.5**0.5]))


# ---- derivatives -----------------------------------------------------------------------------------------------------

DIFFERENTIABLE = {
    **{f"scatter_{r}": (lambda s, i, r=r: ts.scatter(s, i, 0, None, 4, r)) for r in REDUCES},
    **{f"coo_{r}": (lambda s, i, r=r: ts.segment_coo(s, i, None, 4, r)) for r in ("sum", "mean", "min", "max")},
    **{f"csr_{r}": (lambda s, i, r=r: ts.segment_csr(s, INDPTR, None, r)) for r in ("sum", "mean", "min", "max")},
    "csr_gaps": lambda s, i: ts.segment_csr(s, torch.tensor([1, 3, 5]), None, "mean"),
    "csr_batched": lambda s, i: ts.segment_csr(s.t(), torch.tensor([[0, 2, 6], [0, 1, 1]])),
    "elementwise": lambda s, i: ts.scatter(s, torch.stack([i, i.flip(0)], 1), 0, None, 4, "sum"),
    "last_dim": lambda s, i: ts.scatter(s.t(), i, -1, None, 4, "mean"),
    "gather_coo": lambda s, i: ts.gather_coo(s, torch.tensor([0, 0, 2, 5])),
    "gather_csr": lambda s, i: ts.gather_csr(s, torch.tensor([0, 2, 2, 3, 3, 3, 5])),
    "softmax": lambda s, i: ts.scatter_softmax(s, i, 0),
    "log_softmax": lambda s, i: ts.scatter_log_softmax(s, i, 0),
    "log_softmax_eps": lambda s, i: ts.scatter_log_softmax(s, i, 0, 0.5),
    "logsumexp": lambda s, i: ts.scatter_logsumexp(s, i, 0, None, 5),
    "logsumexp_eps": lambda s, i: ts.scatter_logsumexp(s, i, 0, None, 5, 0.5),
    "std": lambda s, i: ts.scatter_std(s, i, 0, None, 5),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(name):
    src = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    index = torch.tensor([0, 0, 1, 1, 1, 1]) if name == "std" else INDEX
    function = lambda s: DIFFERENTIABLE[name](s, index)
    assert torch.autograd.gradcheck(function, (src,))
    assert torch.autograd.gradgradcheck(function, (src,))


def test_product_gradient_at_zeros():
    src = torch.tensor([0.0, 2.0, 3.0, 0.0, 0.0], requires_grad=True)
    ts.scatter_mul(src, torch.tensor([0, 0, 0, 1, 1])).sum().backward()
    assert src.grad.tolist() == [6, 0, 0, 0, 0]


def test_half_precision_accumulates_in_float32():
    src = torch.ones(4096, dtype=torch.bfloat16)
    assert ts.scatter_sum(src, torch.zeros(4096, dtype=torch.long)).item() == 4096
    assert ts.scatter_mean(src, torch.zeros(4096, dtype=torch.long)).item() == 1


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "mul"])
def test_compile(reduce):
    torch._dynamo.reset()
    src = SRC.clone().requires_grad_()
    function = lambda s, i: ts.scatter(s, i, 0, None, 5, reduce)
    got = torch.compile(function, fullgraph=True, backend="aot_eager")(src, INDEX)
    close(got, function(src, INDEX))
    close(torch.autograd.grad(got.sum(), src)[0], torch.autograd.grad(function(src, INDEX).sum(), src)[0])
