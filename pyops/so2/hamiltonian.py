"""Matrices over atomic orbitals from irreps and back: Clebsch-Gordan expansion of blocks, assembly of molecules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._check import shaped
from ._cg import wigner_3j_dense
from ._irreps import Irreps
from ._shapes import computing, table

__all__ = ["OrbitalBasis", "hamiltonian_blocks", "hamiltonian_features", "hamiltonian_irreps"]

MAX_SHELL = 6
NAMES = "spdfghi"

Shells = tuple[int, ...]


def _shells(op: str, name: str, given: Any) -> Shells:
    """Degrees of ``"2s1p"`` or of a sequence."""
    if isinstance(given, str):
        if not re.fullmatch(rf"(\d+[{NAMES}])+", given):
            check.fail(ValueError, op, f"{name} such as 3s2p1d, or degrees", repr(given))
        return tuple(NAMES.index(l) for count, l in re.findall(r"(\d+)(\w)", given) for _ in range(int(count)))
    if isinstance(given, (int, Mapping)) or not hasattr(given, "__iter__"):
        check.fail(TypeError, op, f"{name} to be a string or a sequence of degrees", type(given).__name__)
    found = tuple(check.size(op, name, l) for l in given)
    if any(l > MAX_SHELL for l in found):
        check.fail(ValueError, op, f"{name} of degrees <= {MAX_SHELL}", max(found))
    return found


def _dim(shells: Shells) -> int:
    return sum(2 * l + 1 for l in shells)


@cache
def _paths(rows: Shells, cols: Shells) -> list[tuple[int, int, int, int]]:
    """(degree, parity, row shell, column shell), in e3nn's order of irreps."""
    found = [
        (L, (-1) ** (k + l), a, b) for a, k in enumerate(rows) for b, l in enumerate(cols) for L in range(abs(k - l), k + l + 1)
    ]
    return sorted(found)


@table
def _degree_counts(rows: Shells, cols: Shells) -> list[int]:
    """Paths of each degree 0..max."""
    degrees = [p[0] for p in _paths(rows, cols)]
    return [degrees.count(L) for L in range(max(degrees, default=-1) + 1)]


@cache
def _expansion(rows: Shells, cols: Shells) -> np.ndarray:
    """Orthogonal ``[coefficients, rows x columns]``, float64."""
    found = np.zeros((_dim(rows) * _dim(cols), _dim(rows), _dim(cols)))
    at_row, at_col = (np.cumsum([0, *(2 * l + 1 for l in shells)]) for shells in (rows, cols))
    at = 0
    for L, _, a, b in _paths(rows, cols):
        w3j = sqrt(2 * L + 1) * wigner_3j_dense(rows[a], cols[b], L)
        found[at : at + 2 * L + 1, at_row[a] : at_row[a + 1], at_col[b] : at_col[b + 1]] = w3j.transpose(2, 0, 1)
        at += 2 * L + 1
    return found.reshape(len(found), len(found))


@table
def _expansion_on(rows: Shells, cols: Shells, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(_expansion(rows, cols), dtype=dtype, device=device)


def hamiltonian_irreps(rows: str | Sequence[int], cols: str | Sequence[int] | None = None) -> Irreps:
    """The irreps of a block of orbitals: every degree |l1 - l2|..l1 + l2 of every pair of shells, sorted as in e3nn; within a term
    by row shell, then column shell.

    Args:
        rows, cols: shells, as ``"3s2p1d"`` or as degrees (0, 0, 0, 1, 1, 2), at most 6; cols: default rows.

    >>> import structops
    >>> structops.so2.hamiltonian_irreps("2s1p")
    5x0e+4x1o+1x1e+1x2e
    """
    op = "hamiltonian_irreps"
    rows = _shells(op, "rows", rows)
    cols = rows if cols is None else _shells(op, "cols", cols)
    counts: dict[tuple[int, int], int] = {}
    for L, p, _, _ in _paths(rows, cols):
        counts[L, p] = counts.get((L, p), 0) + 1
    return Irreps([(n, *lp) for lp, n in counts.items()])


@autocast.promotes
def hamiltonian_blocks(
    x: Tensor,
    rows: str | Sequence[int],
    cols: str | Sequence[int] | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Blocks of a matrix over atomic orbitals: ``H[l1 m1, l2 m2] = sum_LM sqrt(2 L + 1) w3j(l1 m1, l2 m2, L M) c[l1 l2 L, M]``.

    Args:
        x: without weight the coefficients c, ``[..., n n']`` in the order of :func:`hamiltonian_irreps`, layout mul_ir. With
            weight, features ``[..., (lmax + 1)^2, C]``, lmax the largest degree of the block, and
            ``c[p] = sum_u weight[p, u] x[L_p, u]``. float32, float64, or 16-bit floats (computed in float32).
        rows, cols: the shells of the two atoms, ``"3s2p1d"`` or degrees; cols: default rows. n and n' orbitals.
        weight: ``[..., K, C]`` for the K copies of :func:`hamiltonian_irreps`, leading dimensions broadcast against x's: for every
            pair, or shared.
        bias: ``[..., K0]``, added to the copies of degree 0.

    Returns:
        ``[..., n, n']``: shells in the order given, components in e3nn's basis (polar axis y). For orbitals whose polar axis is z
        (p: y, z, x; d: xy, yz, z2, xz, x2-y2) give positions as ``pos[:, [1, 2, 0]]``.

    Without weight the map is orthogonal, its inverse and adjoint :func:`hamiltonian_features`. Turning x turns blocks as D H D^T.
    Differentiable to any order; deterministic.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: the expansion of QHNet, arXiv:2306.04922.

    >>> import torch, structops
    >>> structops.so2.hamiltonian_blocks(torch.tensor([3.0 ** 0.5, 0., 0., 0., 0., 0., 0., 0., 0.]), "1p").round(decimals=3)
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    op = "hamiltonian_blocks"
    rows = _shells(op, "rows", rows)
    cols = rows if cols is None else _shells(op, "cols", cols)
    check.dense(op, "x", x)
    counts = _degree_counts(rows, cols)
    given = x.dtype
    if weight is None:
        if x.dim() < 1 or x.shape[-1] != _dim(rows) * _dim(cols):
            check.fail(ValueError, op, f"x of shape [..., {_dim(rows) * _dim(cols)}]", list(x.shape))
    elif x.dim() < 2 or x.shape[-2] != len(counts) ** 2:
        check.fail(ValueError, op, f"x of shape [..., {len(counts) ** 2}, C], degrees up to {len(counts) - 1}", list(x.shape))
    if bias is not None:
        _trailing(op, "bias", bias, (sum(counts[:1]),), x)
    if weight is not None:
        _trailing(op, "weight", weight, (sum(counts), x.shape[-1]), x)
    x, weight, bias = computing(x, weight, bias)
    if weight is not None:
        try:
            parts = [
                w @ f.transpose(-1, -2)
                for w, f in zip(weight.split(counts, -2), x.split([2 * L + 1 for L in range(len(counts))], -2), strict=True)
            ]
        except RuntimeError:
            check.fail(ValueError, op, "leading dimensions of x and weight that broadcast", [list(x.shape), list(weight.shape)])
        x = torch.cat([p.flatten(-2) for p in parts], -1) if parts else x.new_zeros(*x.shape[:-2], 0)
    if bias is not None:
        first, rest = x.split([bias.shape[-1], x.shape[-1] - bias.shape[-1]], -1)
        try:
            first = first + bias
        except RuntimeError:
            check.fail(ValueError, op, "leading dimensions of x and bias that broadcast", [list(x.shape), list(bias.shape)])
        x = torch.cat([first, rest.expand(*first.shape[:-1], -1)], -1)
    return (x @ _expansion_on(rows, cols, x.dtype, x.device)).unflatten(-1, (_dim(rows), _dim(cols))).to(given)


@autocast.disabled
def hamiltonian_features(blocks: Tensor, rows: str | Sequence[int], cols: str | Sequence[int] | None = None) -> Tensor:
    """Coefficients ``[..., n n']`` of blocks ``[..., n, n']``: the inverse, and the adjoint, of :func:`hamiltonian_blocks`.

    Shapes, dtypes, order and errors as there. Differentiable to any order; deterministic.

    >>> import torch, structops
    >>> structops.so2.hamiltonian_features(torch.eye(3), "1p")[:4]
    tensor([1.7321, 0.0000, 0.0000, 0.0000])
    """
    op = "hamiltonian_features"
    rows = _shells(op, "rows", rows)
    cols = rows if cols is None else _shells(op, "cols", cols)
    check.dense(op, "blocks", blocks)
    if blocks.dim() < 2 or tuple(blocks.shape[-2:]) != (_dim(rows), _dim(cols)):
        check.fail(ValueError, op, f"blocks of shape [..., {_dim(rows)}, {_dim(cols)}]", list(blocks.shape))
    (x,) = computing(blocks)
    return (x.flatten(-2) @ _expansion_on(rows, cols, x.dtype, x.device).T).to(blocks.dtype)


class OrbitalBasis:
    """The shells of every element, and the union of them in which blocks of all pairs of atoms have one size.

    Args:
        shells: atomic number -> ``"3s2p1d"`` or degrees. The k-th shell of degree l of an atom is the k-th one of the union, whose
            shells are sorted by degree.

    A block over the union has rows and columns that an atom lacks; they are 0 in :meth:`blocks` and left out in :meth:`matrix`.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> import torch, structops
    >>> basis = structops.so2.OrbitalBasis({1: "2s1p", 8: "3s2p1d"})  # def2-SVP
    >>> basis.shells, basis.dim, basis.num_orbitals(torch.tensor([8, 1, 1]))
    ((0, 0, 0, 1, 1, 2), 14, 24)
    """

    def __init__(self, shells: Mapping[int, str | Sequence[int]]) -> None:
        op = "OrbitalBasis"
        if not isinstance(shells, Mapping) or not shells:
            check.fail(TypeError, op, "shells as a mapping from atomic numbers", type(shells).__name__)
        by_element = {check.size(op, "shells", z): _shells(op, f"shells[{z}]", s) for z, s in shells.items()}
        top = max((l for s in by_element.values() for l in s), default=-1)
        counts = [max(s.count(l) for s in by_element.values()) for l in range(top + 1)]
        self.shells: Shells = tuple(l for l, n in enumerate(counts) for _ in range(n))
        self.dim = _dim(self.shells)
        starts = np.cumsum([0, *(2 * l + 1 for l in self.shells)])
        self._orbitals: dict[int, list[int]] = {}
        for z, own in by_element.items():
            seen = [0] * (top + 1)
            self._orbitals[z] = []
            for l in own:
                at = int(starts[self.shells.index(l) + seen[l]])
                self._orbitals[z] += range(at, at + 2 * l + 1)
                seen[l] += 1

    @property
    def irreps(self) -> Irreps:
        """:func:`hamiltonian_irreps` of a block of the union."""
        return hamiltonian_irreps(self.shells)

    def num_orbitals(self, numbers: Tensor) -> int:
        """Orbitals of the atoms with atomic numbers ``[N]``."""
        return len(self._places("num_orbitals", numbers))

    def mask(self, numbers: Tensor) -> Tensor:
        """``[N, dim]`` bool: which orbitals of the union each atom has."""
        places = self._places("mask", numbers)
        found = torch.zeros(numbers.shape[0] * self.dim, dtype=torch.bool, device=numbers.device)
        found[places] = True
        return found.unflatten(0, (numbers.shape[0], self.dim))

    @autocast.promotes
    def matrix(self, diagonal: Tensor, off_diagonal: Tensor, edge_index: Tensor, numbers: Tensor) -> Tensor:
        """The symmetric matrix of a molecule: the mean of every block given and the transposes of those given for (j, i).

        Args:
            diagonal: ``[N, dim, dim]`` blocks of atoms. off_diagonal: ``[E, dim, dim]``, block e of the rows of atom
                ``edge_index[0, e]`` and the columns of atom ``edge_index[1, e]``.
            edge_index: ``[2, E]``, int32 or int64: each pair once or in both directions; pairs that are not there are 0.
            numbers: ``[N]`` atomic numbers.

        Returns:
            ``[n, n]``, exactly symmetric; atoms in order, the shells of an atom in the order given. Differentiable to any order.
        """
        op = "OrbitalBasis.matrix"
        places = self._places(op, numbers)
        N, d = numbers.shape[0], self.dim
        i, j = _pairs(op, edge_index, N)
        shaped(op, "diagonal", diagonal, (N, d, d))
        shaped(op, "off_diagonal", off_diagonal, (i.shape[0], d, d), diagonal)
        check.same_device(op, numbers=numbers, edge_index=edge_index, diagonal=diagonal)
        atoms = torch.arange(N, device=numbers.device)
        at = torch.cat([atoms, i]), torch.cat([atoms, j])
        blocks = torch.cat([diagonal, off_diagonal])
        full = blocks.new_zeros(N, N, d, d).index_put(at, blocks, accumulate=True)
        times = blocks.new_zeros(N, N).index_put(at, blocks.new_ones(()), accumulate=True)
        full = full + full.permute(1, 0, 3, 2)
        full = full / (times + times.T).clamp(min=1)[:, :, None, None]
        return full.transpose(1, 2).reshape(N * d, N * d)[places][:, places]

    @autocast.promotes
    def blocks(self, matrix: Tensor, edge_index: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """(diagonal ``[N, dim, dim]``, off_diagonal ``[E, dim, dim]``) of a matrix ``[n, n]``, as :meth:`matrix` takes them."""
        op = "OrbitalBasis.blocks"
        places = self._places(op, numbers)
        N, d = numbers.shape[0], self.dim
        i, j = _pairs(op, edge_index, N)
        shaped(op, "matrix", matrix, (len(places), len(places)))
        check.same_device(op, numbers=numbers, edge_index=edge_index, matrix=matrix)
        wide = matrix.new_zeros(N * d, len(places)).index_copy(0, places, matrix)
        full = matrix.new_zeros(N * d, N * d).index_copy(1, places, wide)
        full = full.reshape(N, d, N, d).transpose(1, 2)
        atoms = torch.arange(N, device=numbers.device)
        return full[atoms, atoms], full[i, j]

    def _places(self, op: str, numbers: Tensor) -> Tensor:
        """Row of the matrix over the union, ``atom * dim + orbital``, of every orbital that is there."""
        check.index(op, "numbers", numbers)
        if numbers.dim() != 1:
            check.fail(ValueError, op, "numbers of shape [N]", list(numbers.shape))
        elements = numbers.tolist()
        unknown = [z for z in elements if z not in self._orbitals]
        if unknown:
            check.fail(ValueError, op, f"numbers among {sorted(self._orbitals)}", unknown[0])
        found = [n * self.dim + o for n, z in enumerate(elements) for o in self._orbitals[z]]
        return torch.tensor(found, dtype=torch.int64, device=numbers.device)


def _pairs(op: str, edge_index: Tensor, N: int) -> tuple[Tensor, Tensor]:
    check.index(op, "edge_index", edge_index)
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        check.fail(ValueError, op, "edge_index of shape [2, E]", list(edge_index.shape))
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < N:
        check.fail(IndexError, op, f"edge_index within 0..{N - 1}", f"{int(edge_index.min())}..{int(edge_index.max())}")
    i, j = edge_index.long()
    return i, j


def _trailing(op: str, name: str, t: Any, shape: tuple[int, ...], like: Tensor) -> None:
    """Shape, dtype and device of an operand whose leading dimensions are free."""
    check.dense(op, name, t)
    lead = (None,) * max(t.dim() - len(shape), 0)
    shaped(op, name, t, (*lead, *shape), like)
