"""Irreps and Clebsch-Gordan coefficients, against e3nn where it is installed and against what defines them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from rotations import random_rotation, wigner
from structops.so2 import Irreps, wigner_3j


def triples(lmax: int):
    return [(a, b, c) for a, b, c in itertools.product(range(lmax + 1), repeat=3) if abs(a - b) <= c <= a + b]


def test_irreps() -> None:
    irreps = Irreps("128x0e + 64x1o+2y")
    assert irreps == Irreps([(128, 0, 1), (64, (1, -1)), "2e"]) == Irreps(irreps) == Irreps(str(irreps))
    assert (irreps.dim, irreps.lmax, irreps.num_irreps) == (128 + 192 + 5, 2, 193)
    assert irreps.slices() == [slice(0, 128), slice(128, 320), slice(320, 325)]
    assert str(irreps) == "128x0e+64x1o+1x2e" and Irreps("").dim == 0 and Irreps("").lmax == -1
    assert Irreps.spherical_harmonics(2) == Irreps("0e+1o+2e") and irreps + "0e" == Irreps("128x0e+64x1o+2e+0e")


@pytest.mark.parametrize("bad", ["1x", "0", "x0e", "-1x0e", "0e++1o", "1q", [(1, 2)], [(1, -1, 1)], [(1, 0, 2)]])
def test_bad_irreps(bad) -> None:
    with pytest.raises(ValueError, match="Irreps"):
        Irreps(bad)


def test_irreps_of_another_type() -> None:
    with pytest.raises(TypeError, match="Irreps"):
        Irreps(3)


@pytest.mark.parametrize("ls", [*triples(3), (6, 5, 4), (12, 12, 12)])
def test_wigner_3j_is_invariant(ls) -> None:
    """Invariance under rotation fixes the table up to a factor, the norm up to a sign."""
    table = wigner_3j(*ls, dtype=torch.float64)
    R = random_rotation(3)
    turned = torch.einsum("ijk,ai,bj,ck->abc", table, *(wigner(l, R) for l in ls))
    assert (turned - table).abs().max() < 1e-9
    assert abs(table.square().sum() - 1) < 1e-14


def test_wigner_3j_known_values() -> None:
    assert torch.allclose(wigner_3j(1, 1, 0, dtype=torch.float64)[..., 0], torch.eye(3, dtype=torch.float64) / 3**0.5)
    cross = wigner_3j(1, 1, 1, dtype=torch.float64) * 6**0.5  # the Levi-Civita symbol
    assert torch.allclose(cross[0, 1, 2], torch.ones((), dtype=torch.float64)) and torch.allclose(cross, -cross.transpose(0, 1))
    for l in range(7):
        assert torch.allclose(
            wigner_3j(l, 0, l, dtype=torch.float64)[:, 0], torch.eye(2 * l + 1, dtype=torch.float64) / (2 * l + 1) ** 0.5
        )


def test_wigner_3j_is_sparse() -> None:
    """Non-zero entries to degree 4: what selection rules leave."""
    counts = [sum(int((wigner_3j(*t) != 0).sum()) for t in triples(L)) for L in (1, 2, 3)]
    assert counts == [16, 137, 611]


def test_wigner_3j_equals_e3nn() -> None:
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    for ls in [*triples(5), (8, 7, 6), (11, 11, 10)]:
        want = o3.wigner_3j(*ls, dtype=torch.float64).numpy()
        np.testing.assert_allclose(wigner_3j(*ls, dtype=torch.float64).numpy(), want, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("ls", "name"), [((13, 1, 12), "l1"), ((1, -1, 0), "l2"), ((1, 1, 3), "l3")])
def test_bad_degrees(ls, name) -> None:
    with pytest.raises(ValueError, match=name):
        wigner_3j(*ls)
