"""User-defined message and reduce functions against torch autograd of the same formulas."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import structops
import torch
from cases import random_coo, reduce_rows, small_integers, to_csr, values
from compare import assert_close, assert_same
from torch import Tensor

numba = pytest.importorskip("numba", reason="numba is not installed")

from structops import user_defined  # noqa: E402

NUM_SRC, NUM_DST, EDGES = 7, 9, 40
COO = random_coo(NUM_SRC, NUM_DST, EDGES, hub=12)
TOTAL = EDGES + 12
ROWPTR, _, EID = to_csr(COO, NUM_DST)
EMPTY_ROWS = ROWPTR.diff() == 0


def graph() -> structops.Graph:
    return structops.Graph(COO, num_src=NUM_SRC, num_dst=NUM_DST)


# Message functions, and the same formulas in torch.


def gate(x, e):
    return math.tanh(x) * e + x


def gate_grad(x, e, g):
    t = math.tanh(x)
    return g * ((1 - t * t) * e + 1), g * t


gate.grad = gate_grad


def square(x):
    return x * x


square.grad = lambda x, g: 2 * x * g


def cube(e):
    return e**3


cube.grad = lambda e, g: 3 * e**2 * g


def add_squares(acc, m):
    return acc + m * m


add_squares.grad = lambda acc, m, g: 2 * m * g


def larger(acc, m):
    return acc if acc > m else m


larger.grad = lambda acc, m, g: g if acc == m else 0.0


def torch_gate(x: Tensor, e: Tensor) -> Tensor:
    return torch.tanh(x) * e + x


def gathered(x: Tensor | None, e: Tensor | None, fn: Callable) -> Tensor:
    """Messages [E, ...] in CSR order."""
    operands = [t for t in (None if x is None else x[COO[0]], e) if t is not None]
    rank = max(t.dim() for t in operands)
    return fn(*(t.reshape(t.shape[0], *(1,) * (rank - t.dim()), *t.shape[1:]) for t in operands))[EID]


SHAPES = {
    "vectors": ((), ()),
    "both": ((5,), (5,)),
    "heads": ((3, 4), (3, 1)),
    "e_vector": ((3, 4), ()),
    "x_scalar": ((1,), (6,)),
    "outer": ((3, 1), (1, 4)),
}


@pytest.fixture(params=SHAPES)
def operands(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    xs, es = SHAPES[request.param]
    return values(NUM_SRC, *xs, seed=1).requires_grad_(), values(TOTAL, *es, seed=2).requires_grad_()


def check_against(actual: Tensor, expected: Tensor, inputs: tuple, what: object = "") -> None:
    assert_close(actual, expected, terms=TOTAL, magnitude=4.0, what=what)
    weight = values(*expected.shape, seed=9)
    got = torch.autograd.grad((actual * weight).sum(), inputs)
    want = torch.autograd.grad((expected * weight).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, terms=20 * TOTAL, magnitude=4.0, what=(what, "gradient"))


@pytest.mark.parametrize("reduce", ("sum", "mean", "min", "max"))
def test_messages_against_autograd(operands: tuple[Tensor, Tensor], reduce: str) -> None:
    x, e = operands
    expected = reduce_rows(gathered(x, e, torch_gate), ROWPTR, reduce)
    check_against(structops.spmm(graph(), x, e, gate, reduce), expected, (x, e), reduce)


def test_reduce_functions_against_autograd(operands: tuple[Tensor, Tensor]) -> None:
    x, e = operands
    expected = reduce_rows(gathered(x, e, torch_gate) ** 2, ROWPTR, "sum")
    check_against(structops.spmm(graph(), x, e, gate, (add_squares, 0.0)), expected, (x, e), "squares")
    expected = reduce_rows(gathered(x, e, torch_gate), ROWPTR, "max", fill=-9.0)
    check_against(structops.spmm(graph(), x, e, gate, (larger, -9.0)), expected, (x, e), "larger")


@pytest.mark.parametrize("name", ("add", "sub", "mul", "div", "copy_u", "copy_e"))
def test_named_messages_with_a_reduce_function(name: str) -> None:
    x, e = values(NUM_SRC, 3, seed=1).requires_grad_(), values(TOTAL, 1, seed=2).requires_grad_()
    inputs = {"copy_u": (x,), "copy_e": (e,)}.get(name, (x, e))
    formula = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}.get(name, lambda t: t)
    m = gathered(x if x is inputs[0] else None, e if e is inputs[-1] else None, formula)
    expected = reduce_rows(m * m, ROWPTR, "sum")
    check_against(structops.spmm(graph(), x, e, name, (add_squares, 0.0)), expected, inputs, name)


def test_messages_of_one_operand() -> None:
    x, e = values(NUM_SRC, 3, seed=1).requires_grad_(), values(TOTAL, 3, seed=2).requires_grad_()
    for reduce in ("sum", "mean", "max"):
        expected = reduce_rows(gathered(x, None, lambda t: t * t), ROWPTR, reduce)
        check_against(structops.spmm(graph(), x, None, square, reduce), expected, (x,), reduce)
        expected = reduce_rows(gathered(None, e, lambda t: t**3), ROWPTR, reduce)
        check_against(structops.spmm(graph(), None, e, cube, reduce), expected, (e,), reduce)


@pytest.mark.parametrize("reduce", ("sum", "mean", "min", "max", (add_squares, 0.0)), ids=("sum", "mean", "min", "max", "function"))
def test_gradcheck(reduce) -> None:
    x, e = values(NUM_SRC, 2, 2, seed=1).requires_grad_(), values(TOTAL, 1, seed=2).requires_grad_()
    g = graph()
    assert torch.autograd.gradcheck(lambda x, e: structops.spmm(g, x, e, gate, reduce), (x, e))


def test_wrong_gradient_functions_are_noticed() -> None:
    """The comparison above can fail."""

    def halved(x, e):
        return math.tanh(x) * e + x

    wrong = numba.njit(gate_grad)
    halved.grad = lambda x, e, g: (0.5 * wrong(x, e, g)[0], wrong(x, e, g)[1])
    x, e = values(NUM_SRC, 2, seed=1).requires_grad_(), values(TOTAL, 2, seed=2).requires_grad_()
    expected = reduce_rows(gathered(x, e, torch_gate), ROWPTR, "sum")
    with pytest.raises(AssertionError, match="gradient"):
        check_against(structops.spmm(graph(), x, e, halved), expected, (x, e))


def test_only_the_wanted_gradient() -> None:
    """A function may leave out the gradient of an operand that needs none."""

    def scale(x, e):
        return x * e

    scale.grad = lambda x, e, g: (g * e, None)
    x, e = values(NUM_SRC, 2, seed=1).requires_grad_(), values(TOTAL, 2, seed=2)
    expected = reduce_rows(gathered(x, e, torch.mul), ROWPTR, "sum")
    check_against(structops.spmm(graph(), x, e, scale), expected, (x,))


def test_sorted_edges_and_a_reversed_graph() -> None:
    x, e = values(NUM_SRC, 2, seed=1).requires_grad_(), values(TOTAL, 2, seed=2).requires_grad_()
    in_order = structops.Graph.from_csr(ROWPTR, COO[0][EID], NUM_SRC)
    assert in_order.eid is None
    expected = reduce_rows(torch_gate(x[COO[0][EID]], e), ROWPTR, "sum")
    check_against(structops.spmm(in_order, x, e, gate), expected, (x, e))
    y = values(NUM_DST, 2, seed=3).requires_grad_()
    turned = structops.Graph(COO.flip(0), num_src=NUM_DST, num_dst=NUM_SRC)
    got, want = (structops.spmm(g, y, e, gate) for g in (in_order.reverse(), turned))
    want = structops.spmm(turned, y, e[EID.argsort()], gate)
    check_against(got, want, (y, e))


def test_empty_rows_and_fill() -> None:
    x = values(NUM_SRC, 3, seed=1)
    call = functools.partial(structops.spmm, graph(), x, None, square)
    default = {"sum": 0.0, "mean": 0.0, "min": 0.0, "max": 0.0, "prod": 1.0}
    for reduce, value in (*default.items(), ((add_squares, 0.5), 0.5)):
        assert (call(reduce)[EMPTY_ROWS] == value).all(), reduce
        filled = call(reduce, fill_value=-3.0)
        assert (filled[EMPTY_ROWS] == -3).all() and torch.equal(filled[~EMPTY_ROWS], call(reduce)[~EMPTY_ROWS])
    none = structops.Graph(torch.zeros(2, 0, dtype=torch.long), num_nodes=4)
    assert_same(structops.spmm(none, torch.ones(4, 2), None, square), torch.zeros(4, 2))
    nobody = structops.Graph(torch.zeros(2, 0, dtype=torch.long), num_nodes=0)
    assert structops.spmm(nobody, torch.ones(0, 2), None, square).shape == (0, 2)
    blank = torch.ones(NUM_SRC, 0, requires_grad=True)
    structops.spmm(graph(), blank, None, square).sum().backward()
    assert blank.grad.shape == (NUM_SRC, 0)


def test_prod_ties_and_nan() -> None:
    x, e = small_integers(NUM_SRC, 2, seed=1), small_integers(TOTAL, 2, seed=2)
    m = gathered(x, e, torch.add)

    def plus(x, e):
        return x + e

    plus.grad = lambda x, e, g: (g, g)
    assert_same(structops.spmm(graph(), x, e, plus, "prod"), reduce_rows(m, ROWPTR, "prod"))
    for reduce in ("min", "max"):
        a = e.clone().requires_grad_()
        structops.spmm(graph(), x, a, plus, reduce).sum().backward()
        b = e.clone().requires_grad_()
        reduce_rows(gathered(x, b, torch.add), ROWPTR, reduce).sum().backward()
        assert_same(a.grad, b.grad, (reduce, "first winner"))
    x[0] = float("nan")
    expected = reduce_rows(gathered(x, e, torch.add), ROWPTR, "max")
    assert expected.isnan().any()
    assert_same(structops.spmm(graph(), x, e, plus, "max"), expected)


def test_float32_and_mixed_dtypes() -> None:
    x, e = values(NUM_SRC, 3, seed=1), values(TOTAL, 3, seed=2)
    expected = reduce_rows(gathered(x, e, torch_gate), ROWPTR, "sum")
    assert_close(structops.spmm(graph(), x.float(), e.float(), gate), expected, torch.float32, terms=4, magnitude=4.0)
    assert structops.spmm(graph(), x.float(), e, gate).dtype == torch.float64
    a = x.float().requires_grad_()
    structops.spmm(graph(), a, e, gate).sum().backward()
    assert a.grad.dtype == torch.float32

    def shifted(e):
        return e * 1.1  # a double in numba: the message is rounded, so that the winner is found again

    shifted.grad = lambda e, g: 1.1 * g
    a = e.float().requires_grad_()
    y = structops.spmm(graph(), None, a, shifted, (larger, -9.0))
    y.sum().backward()
    assert a.grad.sum().item() == pytest.approx(1.1 * 3 * int((~EMPTY_ROWS).sum()), rel=1e-5)


def test_jitted_functions_and_the_cache() -> None:
    compiled = numba.njit(lambda x, e: x - e)
    x, e = values(NUM_SRC, 2, seed=1), values(TOTAL, 2, seed=2)
    expected = reduce_rows(gathered(x, e, torch.sub), ROWPTR, "sum")
    user_defined.compiled.cache_clear()
    for _ in range(3):
        assert_close(structops.spmm(graph(), x, e, compiled), expected, terms=TOTAL, magnitude=2.0)
    assert user_defined.compiled.cache_info().misses == 1
    fixed = numba.njit("float64(float64, float64)")(lambda x, e: x - e)
    assert_close(structops.spmm(graph(), x, e, fixed), expected, terms=TOTAL, magnitude=2.0)


def test_same_bits_on_any_number_of_threads() -> None:
    coo = random_coo(2000, 2000, 30000, seed=5, hub=5000)
    g = structops.Graph(coo, num_nodes=2000)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            x = values(2000, 8, dtype=torch.float32).requires_grad_()
            e = values(35000, 1, dtype=torch.float32).requires_grad_()
            y = structops.spmm(g, x, e, gate)
            found.append((y, *torch.autograd.grad(y.square().sum(), (x, e))))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        assert_same(a, b)


# ---- errors ----------------------------------------------------------------------------------------------------------

X, E = torch.ones(NUM_SRC, 2), torch.ones(TOTAL, 2)


def no_gradient(x, e):
    return x + e


def refuses(kind: type[Exception], match: str, *args, **kwargs) -> None:
    with pytest.raises(kind, match=match):
        structops.spmm(graph(), *args, **kwargs)


def test_wrong_functions() -> None:
    refuses(TypeError, r"expected message to take \(x, e\), got square\(x\)", X, E, square)
    refuses(TypeError, r"expected message to take \(x\), got gate", X, None, gate)
    refuses(TypeError, "expected message to be a Python or numba.njit function", X, E, functools.partial(gate))
    refuses(TypeError, "expected message to be a Python or numba.njit function", X, E, math.hypot)
    refuses(TypeError, r"the reduce function to take \(acc, m\)", X, E, gate, (square, 0.0))
    refuses(TypeError, r"reduce to be a name or \(fn\(acc, m\), identity", X, E, gate, add_squares)
    refuses(TypeError, r"reduce to be a name or \(fn\(acc, m\), identity", X, E, gate, (add_squares, "0"))
    refuses(ValueError, "expected reduce with message functions to be one of", X, E, gate, "median")
    refuses(ValueError, "expected message to be one of", X, E, "xor", (add_squares, 0.0))
    refuses(TypeError, "expected x for message add, got None", None, E, "add", (add_squares, 0.0))
    refuses(TypeError, "x, edge or both", None, None, gate)

    def wrong_grad(x, e):
        return x

    wrong_grad.grad = square
    refuses(TypeError, r"message.grad to take \(x, e, g\)", X, E, wrong_grad)
    wrong_grad.grad = lambda x, e, g: g
    refuses(TypeError, r"message.grad to return \(dx, de\)", X, E, wrong_grad)


def test_what_numba_cannot_compile() -> None:
    refuses(TypeError, "cannot compile message: .*not_defined_anywhere", X, E, lambda x, e: not_defined_anywhere(x))  # noqa: F821
    refuses(TypeError, "cannot compile message: Unknown attribute 'numpy'", X, E, lambda x, e: x.numpy())
    refuses(TypeError, "expected message to return a number", X, E, lambda x, e: "text")
    refuses(TypeError, "cannot compile the reduce function", X, E, gate, (lambda acc, m: acc.numpy(), 0.0))


def test_wrong_tensors() -> None:
    refuses(TypeError, "x of dtype float32 or float64", X.half(), E, gate)
    refuses(TypeError, "edge to be a torch.Tensor", X, 3, gate)
    refuses(ValueError, rf"x of shape \[{NUM_SRC}, ", torch.ones(3, 2), E, gate)
    refuses(ValueError, rf"edge of shape \[{TOTAL}, ", X, torch.ones(3, 2), gate)
    refuses(ValueError, "broadcast", X, torch.ones(TOTAL, 3), gate)
    refuses(ValueError, "x on the CPU", X.to("meta"), E, gate)


@pytest.mark.gpu
def test_cuda_tensors() -> None:
    refuses(ValueError, "on the CPU", X.cuda(), E.cuda(), gate)


def test_missing_gradients() -> None:
    x, e = X.clone().requires_grad_(), E.clone().requires_grad_()
    needs = r"message.grad = fn\(x, e, g\) -> \(dx, de\)"
    refuses(NotImplementedError, f"x requires a gradient, which needs {needs}", x, E, no_gradient)
    refuses(NotImplementedError, f"edge requires a gradient, which needs {needs}", X, e, no_gradient)
    refuses(NotImplementedError, r"message.grad = fn\(x, g\) -> dx", x, None, lambda x: x)
    refuses(NotImplementedError, r"reduce_fn.grad = fn\(acc, m, g\) -> dm", x, E, gate, (lambda acc, m: acc + m, 0.0))
    refuses(NotImplementedError, "reduce prod", x, E, gate, "prod")
    with torch.no_grad():
        assert not structops.spmm(graph(), x, e, no_gradient).requires_grad


def test_second_derivatives_raise_a_sentence() -> None:
    x = values(NUM_SRC, 2, seed=1).requires_grad_()
    y = structops.spmm(graph(), x, None, square)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        first.sum().backward()


def test_missing_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch, structops\n"
        "g = structops.Graph(torch.zeros(2, 1, dtype=torch.long))\n"
        "try: structops.spmm(g, torch.ones(1), None, lambda x: x)\n"
        "except ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "pip install numba" in result.stdout, result.stdout + result.stderr


def test_compiled_callers_leave_it_to_eager_mode() -> None:
    g, x = graph(), values(NUM_SRC, 2, seed=1)
    fn = torch.compile(lambda x: structops.spmm(g, x, None, square) * 2, backend="eager")
    assert_same(fn(x), structops.spmm(g, x, None, square) * 2)
