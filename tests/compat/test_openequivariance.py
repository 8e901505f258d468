"""structops.compat.openequivariance: its modules against TensorProduct of structops and against e3nn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compare import assert_same
from structops import Graph
from structops.compat.openequivariance import TensorProduct, TensorProductConv, TPProblem
from structops.so2 import tp_conv

PATHS = [(0, 0, 0, "uvu", True), (1, 1, 0, "uvu", True), (0, 1, 1, "uvu", True), (1, 0, 1, "uvu", True)]


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_convolution(layout: str) -> None:
    problem = TPProblem(
        "32x0e+32x1o", "0e+1o", "32x0e+32x1o", PATHS, layout=layout, irrep_dtype=np.float64, weight_dtype=np.float64
    )
    conv, product = TensorProductConv(problem, deterministic=True), TensorProduct(problem)
    assert conv.weight_numel == product.weight_numel == problem.weight_numel == 128
    rows, cols = torch.randint(0, 6, (2, 40))
    X, Y, W = (torch.randn(*s, dtype=torch.float64) for s in ((6, 128), (40, 4), (40, 128)))
    got = conv(X, Y, W, rows, cols)
    assert torch.allclose(got, torch.zeros_like(X).index_add(0, rows, product(X[cols], Y, W)))
    assert_same(got, tp_conv(Graph(torch.stack([cols, rows]), num_nodes=6), X, Y, W, product.product))
    kept = conv._graph(rows, cols, 6)
    assert conv._graph(rows, cols, 6) is kept
    rows[0] = (rows[0] + 1) % 6
    assert conv._graph(rows, cols, 6) is not kept
    assert torch.allclose(conv(X, Y, W, rows, cols), torch.zeros_like(X).index_add(0, rows, product(X[cols], Y, W)))
    with torch.inference_mode():  # whose tensors do not count what is written to them
        rows, cols = rows.clone(), cols.clone()
        conv(X, Y, W, rows, cols)
        rows[0] = (rows[0] + 1) % 6
        assert torch.allclose(conv(X, Y, W, rows, cols), torch.zeros_like(X).index_add(0, rows, product(X[cols], Y, W)))
    assert conv.reorder_weights_to_e3nn(conv.reorder_weights_from_e3nn(W)) is W


def test_against_e3nn() -> None:
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    product = TensorProduct(TPProblem("3x0e+3x1o", "0e+1o", "3x0e+3x1o", PATHS))
    theirs = o3.TensorProduct("3x0e+3x1o", "0e+1o", "3x0e+3x1o", PATHS, shared_weights=False, internal_weights=False)
    x, y, w = torch.randn(7, 12), torch.randn(7, 4), torch.randn(7, 12)
    assert torch.allclose(product(x, y, w), theirs(x, y, w), rtol=1e-5, atol=1e-5)


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="weight_dtype"):
        TPProblem("1x0e", "0e", "1x0e", PATHS[:1], weight_dtype=np.float64)
    with pytest.raises(TypeError, match="problem"):
        TensorProduct("1x0e")
    conv = TensorProductConv(TPProblem("1x0e", "0e", "1x0e", PATHS[:1]))
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="rows and cols"):
        conv(one, one, one, torch.zeros(1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(IndexError, match="edge_index"):
        conv(one, one, one, torch.ones(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))


def test_clone() -> None:
    problem = TPProblem("4x0e", "0e+1o", "4x0e+4x1o", [(0, 0, 0, "uvu", True), (0, 1, 1, "uvu", True)])
    copy = problem.clone()
    assert copy is not problem and copy.weight_numel == problem.weight_numel == 8
    x, y, w = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 8)
    assert torch.equal(TensorProduct(copy)(x, y, w), TensorProduct(problem)(x, y, w))
