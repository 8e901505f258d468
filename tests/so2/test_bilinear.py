"""sparse_bilinear: values in every role, broadcasting, derivatives, errors."""

from __future__ import annotations

import itertools

import pytest
import torch
from compare import assert_close
from structops.kernels.so2 import bilinear_ref
from structops.so2._bilinear import Table, bilinear
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

ops = torch.ops.structops
DIMS = (4, 6, 5)


def dense_and_table(seed: int = 0, dims=DIMS, terms: int = 30) -> tuple[Tensor, Table]:
    """A map with repeated terms and a component without any."""
    g = torch.Generator().manual_seed(seed)
    i, j, k = (torch.randint(0, max(d - 1, 1), (terms,), generator=g) for d in dims)
    coef = torch.randn(terms, generator=g, dtype=torch.float64)
    dense = torch.zeros(dims, dtype=torch.float64).index_put_((i, j, k), coef, accumulate=True)
    return dense, Table(i, j, k, coef, dims)


def draw(*shape: int, dtype=torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("C", [1, 3, 16, 48, 64, 129])
@pytest.mark.parametrize("layout", ["ir_mul", "mul_ir"])
def test_values(layout: str, C: int, isa: str, on_threads, poison) -> None:
    dense, table = dense_and_table()
    equation = "nic,njc,ijk->nkc" if layout == "ir_mul" else "nci,ncj,ijk->nck"
    shape = lambda n, d: (n, d, C) if layout == "ir_mul" else (n, C, d)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for a, b in ((7, 7), (1, 7), (7, 1), (1, 1)):
            x, y = draw(*shape(a, 4), dtype=dtype), draw(*shape(b, 6), dtype=dtype)
            want = torch.einsum(equation, x.double().expand(max(a, b), -1, -1), y.double().expand(max(a, b), -1, -1), dense)
            assert_close(on_threads(lambda: bilinear(x, y, table, layout)), want, dtype, terms=40, magnitude=4.0)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("total", [False, True])
def test_every_role_against_the_reference(last: bool, total: bool, isa: str, on_threads, poison) -> None:
    _, table = dense_and_table()
    lists = table.on(torch.device("cpu"))
    for role, C, dtype in itertools.product(range(3), (2, 33, 150), (torch.float64, torch.float32)):
        shape = lambda d, n=9: (n, C, d) if last else (n, d, C)
        a, b = draw(*shape(DIMS[role - 2]), dtype=dtype), draw(*shape(DIMS[role - 1]), dtype=dtype)
        got = on_threads(lambda: ops.sparse_bilinear(a, b, *lists, role, last, total))
        want = bilinear_ref.sparse_bilinear(a.double(), b.double(), *lists, role, last, total)
        assert_close(got, want, dtype, terms=400, magnitude=4.0)


@pytest.mark.parametrize("layout", ["ir_mul", "mul_ir"])
@pytest.mark.parametrize("rows", [(3, 3), (1, 3), (3, 1)])
def test_gradients(layout: str, rows: tuple[int, int]) -> None:
    _, table = dense_and_table()
    shape = lambda n, d: (n, d, 2) if layout == "ir_mul" else (n, 2, d)
    args = draw(*shape(rows[0], 4)).requires_grad_(), draw(*shape(rows[1], 6)).requires_grad_()
    f = lambda x, y: bilinear(x, y, table, layout)
    assert gradcheck(f, args) and gradgradcheck(f, args)


def test_three_orders(isa: str) -> None:
    dense, table = dense_and_table()
    results = []
    for f in (lambda x, y: torch.einsum("nic,njc,ijk->nkc", x, y, dense), lambda x, y: bilinear(x, y, table)):
        args = [draw(5, 4, 70).requires_grad_(), draw(5, 6, 70).requires_grad_()]
        first = torch.autograd.grad(f(*args).sin().sum(), args, create_graph=True)
        second = torch.autograd.grad(sum(t.square().sum() for t in first), args, create_graph=True)
        results.append([*first, *second, *torch.autograd.grad(sum(t.square().sum() for t in second), args)])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= 1e-12 * a.abs().max()


def test_leading_dimensions_and_empty_operands() -> None:
    dense, table = dense_and_table()
    x, y = draw(2, 1, 4, 3), draw(5, 6, 3)
    assert torch.allclose(bilinear(x, y, table), torch.einsum("abic,bjc,ijk->abkc", x.expand(2, 5, 4, 3), y, dense))
    assert bilinear(draw(4, 3), draw(6, 3), table).shape == (5, 3)
    assert bilinear(draw(0, 4, 3), draw(0, 6, 3), table).shape == (0, 5, 3)
    assert bilinear(draw(2, 4, 0), draw(2, 6, 0), table).shape == (2, 5, 0)
    y = draw(1, 6, 3).requires_grad_()
    bilinear(draw(0, 4, 3), y, table).sum().backward()
    assert torch.equal(y.grad, torch.zeros(1, 6, 3, dtype=torch.float64))
    assert torch.equal(bilinear(draw(2, 1, 1), draw(2, 1, 1), Table([], [], [], [], (1, 1, 3))), torch.zeros(2, 3, 1).double())


def test_errors() -> None:
    _, table = dense_and_table()
    x, y = draw(2, 4, 3), draw(2, 6, 3)
    bad = [
        (ValueError, "x of shape", (x.transpose(1, 2), y, table)), (ValueError, "channels", (x, draw(2, 6, 2), table)),
        (TypeError, "dtype", (x, y.float(), table)), (TypeError, "dtype", (x.long(), y, table)),
        (ValueError, "broadcast", (x, draw(3, 6, 3), table)), (ValueError, "layout", (x, y, table, "last")),
        (IndexError, "j in", (x, y, ([0], [6], [0], [1.0], DIMS))), (ValueError, "lengths", (x, y, ([0], [1, 2], [0], [1.0], DIMS))),
        (ValueError, "three sizes", (x, y, ([0], [1], [0], [1.0], (4, 6)))),
    ]  # fmt: skip
    for kind, message, args in bad:
        with pytest.raises(kind, match=message):
            bilinear(*args)
