"""Symmetric contractions: polynomials of a node's features that are irreps again (the product basis of MACE)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .. import _ladder as ladder
from ._cg import LMAX
from ._irreps import Irreps
from ._product import LAYOUTS
from ._shapes import Constants
from ._symmetric import MOST_DEGREE, Block, coupled, first_independent, lists
from ._symmetric_ops import symmetric_contraction as contraction_op

__all__ = ["SymmetricContraction", "SymmetricContractionPlan", "symmetric_contraction"]

NO_DIRECTIONS: tuple = (None,) * 6


class PathBlock(NamedTuple):
    """The weights ``start .. stop`` of a plan: the paths of ``degree`` copies to term ``out`` of irreps_out."""

    out: int
    degree: int
    start: int
    stop: int


class SymmetricContractionPlan:
    """What :func:`symmetric_contraction` needs to know: which monomials of the features make which irreps, as sparse lists.

    Args:
        irreps_in: irreps of a channel, one copy of each, such as ``"0e+1o+2e+3o"``.
        irreps_out: irreps of the result, one copy of each.
        correlation: largest number of copies of the features in a product, 1 to 4.
        independent: leave out paths whose polynomial is a combination of earlier ones. Default: all paths, as MACE has weights for.

    ``blocks`` lists the paths: term of irreps_out, then degree 1 .. correlation; ``num_paths`` counts them. ``num_terms`` counts
    the monomials that remain, for each component of the result: 410 of the 17,472 entries of dense tables for
    ``"0e+1o+2e+3o"`` to ``"0e+1o"`` at correlation 3.

    Raises:
        TypeError, ValueError: bad irreps, a correlation beyond 1..4, couplings beyond l = 12.

    Paths couple copies one by one, ((l1 l2) l12 l3) -> L, in the order and normalisation of MACE (Wigner 3j symbols times
    sqrt(2 l + 1); at degree 4 over irreps of natural parity).

    >>> import structops
    >>> plan = structops.so2.SymmetricContractionPlan("0e+1o+2e+3o", "0e+1o", correlation=3)
    >>> plan.num_paths, plan.num_terms
    (86, 410)
    """

    def __init__(self, irreps_in: Any, irreps_out: Any, correlation: int, independent: bool = False) -> None:
        op = type(self).__name__
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self.correlation = check.size(op, "correlation", correlation)
        check.flags(op, independent=independent)
        if not 1 <= self.correlation <= MOST_DEGREE:
            check.fail(ValueError, op, f"correlation in 1..{MOST_DEGREE}", correlation)
        for name, irreps in (("irreps_in", self.irreps_in), ("irreps_out", self.irreps_out)):
            if not irreps or any(t.mul != 1 for t in irreps):
                check.fail(ValueError, op, f"{name} with one copy of each term (channels have their own dimension)", irreps)
        lmax, L = self.irreps_in.lmax, self.irreps_out.lmax
        farthest = max(min(n * lmax, (self.correlation - n) * lmax + L) for n in range(1, self.correlation + 1))
        if max(farthest, L, lmax) > LMAX:
            check.fail(ValueError, op, f"couplings up to l = {LMAX}", f"l = {max(farthest, L, lmax)}")
        self.blocks: list[PathBlock] = []
        blocks: list[Block] = []
        self.num_paths = 0
        for out, (term, at) in enumerate(zip(self.irreps_out, self.irreps_out.offsets(), strict=True)):
            for degree in range(1, self.correlation + 1):
                paths = coupled(self.irreps_in, degree, term)
                paths = first_independent(paths) if independent else paths
                start, self.num_paths = self.num_paths, self.num_paths + len(paths)
                self.blocks.append(PathBlock(out, degree, start, self.num_paths))
                if paths:
                    blocks.append(Block(start, degree, at, np.stack(paths)))
        flat, coef, self._sizes = lists(self.irreps_in.dim, self.irreps_out.dim, self.num_paths, blocks)
        self._constants = Constants(flat, coef)

    @property
    def num_terms(self) -> int:
        return self._sizes[3]

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, list[int]]:
        """The operator's arguments, on a device."""
        flat, coef = self._constants.on(device)
        return flat, coef, self._sizes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.irreps_in} -> {self.irreps_out}, {self.correlation} copies, {self.num_paths} paths)"


@autocast.promotes
def symmetric_contraction(x: Tensor, weight: Tensor, element: Tensor, plan: SymmetricContractionPlan,
                          layout: str = "mul_ir") -> Tensor:  # fmt: skip
    """``out[n, c] = sum over paths of weight[element[n], path, c] * path(x[n, c], .., x[n, c])``: products of a node's features
    with themselves, coupled to irreps.

    Args:
        x: ``[N, C, D]`` with D = irreps_in.dim; ``[N, D, C]`` with layout ``ir_mul``.
        weight: ``[elements, num_paths, C]``; paths in the order of ``plan.blocks``.
        element: ``[N]`` int32 or int64, the row of weights of each node.
        plan: a :class:`SymmetricContractionPlan`.

    Returns ``[N, C, irreps_out.dim]``, or ``[N, irreps_out.dim, C]``. float32, float64, bfloat16, float16 (accumulated in float32).
    Differentiable in x three times, and in weight: energies, forces, training on forces and its curvature, by one kernel; x, weight
    and cotangents are all that is saved. A node is a sum over the monomials that selection rules leave; no tensor of nodes times
    products exists, forward or backward. Deterministic on any number of threads.

    Raises:
        TypeError, ValueError, IndexError: a wrong dtype, shape, device, or an element out of range, before any kernel runs.

    Source: Batatia et al., MACE (arXiv:2206.07697), equations 10 and 11.

    >>> import torch
    >>> from structops.so2 import SymmetricContractionPlan, symmetric_contraction
    >>> plan = SymmetricContractionPlan("0e+1o", "0e", correlation=2)
    >>> weight = torch.zeros(1, plan.num_paths, 1)
    >>> weight[0, 2] = 3**0.5                                  # x (x) x -> 0e of the vector: its squared length / sqrt(3)
    >>> x, element = torch.tensor([[[0., 1., 2., 2.]]]), torch.zeros(1, dtype=torch.long)
    >>> symmetric_contraction(x, weight, element, plan).round(decimals=4)
    tensor([[[9.]]])
    """
    op = "symmetric_contraction"
    if not isinstance(plan, SymmetricContractionPlan):
        check.fail(TypeError, op, "plan to be a SymmetricContractionPlan", type(plan).__name__)
    last = check.choice(op, "layout", layout, LAYOUTS) == "mul_ir"
    D = plan.irreps_in.dim
    check.dense(op, "x", x)
    if x.dim() != 3 or x.shape[2 if last else 1] != D:
        check.fail(ValueError, op, f"x of shape {f'[N, C, {D}]' if last else f'[N, {D}, C]'}", list(x.shape))
    check.dense(op, "weight", weight)
    C = x.shape[1 if last else 2]
    if weight.dim() != 3 or weight.shape[1:] != (plan.num_paths, C):
        check.fail(ValueError, op, f"weight of shape [elements, {plan.num_paths}, {C}]", list(weight.shape))
    if weight.dtype != x.dtype:
        check.fail(TypeError, op, f"weight of dtype {x.dtype}, as x", weight.dtype)
    check.index(op, "element", element, like=x)
    check.same_device(op, x=x, weight=weight)
    if element.shape != x.shape[:1]:
        check.fail(ValueError, op, f"element of shape [{x.shape[0]}]", list(element.shape))
    element = element.contiguous()
    elements = weight.shape[0]
    if not torch.compiler.is_compiling():
        low, high, _ = ladder.index_range(element)
        if element.numel() and not 0 <= low <= high < elements:
            check.fail(IndexError, op, f"element in [0, {elements})", f"{low}..{high}")
    ptr, nodes = ladder.csr_build(element, elements)
    structure = ptr, nodes, *plan.on(x.device)
    return contraction_op(x.contiguous(), weight.contiguous(), None, *NO_DIRECTIONS, *structure, 0, last, False, False, True)[2]


class SymmetricContraction(torch.nn.Module):
    """:func:`symmetric_contraction` with its weights, in the rows and state dict of MACE.

    Args:
        irreps_in: such as ``"128x0e+128x1o+128x2e"``, equal multiplicities. irreps_out: the same multiplicity.
        correlation: 1 to 4. num_elements: rows of weights.
        independent: see :class:`SymmetricContractionPlan`.

    ``weight`` is ``[num_elements, num_paths, C]``. ``forward(x, element)`` takes x ``[N, C, D]`` and the elements, integers ``[N]``
    or one-hot ``[N, num_elements]``, and returns rows of irreps_out, ``[N, irreps_out.dim]``.

    State dicts of MACE's module load (``contractions.<i>.weights_max``, ``contractions.<i>.weights.<j>``; its tables are not
    needed), unless it was made with a reduced basis.

    >>> import torch, structops
    >>> layer = structops.so2.SymmetricContraction("8x0e+8x1o", "8x0e+8x1o", correlation=3, num_elements=2)
    >>> layer(torch.randn(5, 8, 4), torch.tensor([0, 1, 1, 0, 1])).shape
    torch.Size([5, 32])
    """

    def __init__(self, irreps_in: Any, irreps_out: Any, correlation: int, num_elements: int, independent: bool = False) -> None:
        super().__init__()
        op = type(self).__name__
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        muls = {t.mul for t in (*self.irreps_in, *self.irreps_out)}
        if len(muls) != 1 or 0 in muls:
            check.fail(ValueError, op, "irreps of equal multiplicities", f"{self.irreps_in} and {self.irreps_out}")
        self.channels, self.num_elements = muls.pop(), check.size(op, "num_elements", num_elements)
        one = lambda irreps: [(1, t.l, t.p) for t in irreps]
        self.plan = SymmetricContractionPlan(one(self.irreps_in), one(self.irreps_out), correlation, independent)
        weight = torch.randn(self.num_elements, self.plan.num_paths, self.channels)
        for block in self.plan.blocks:
            weight[:, block.start : block.stop] /= max(block.stop - block.start, 1)
        self.weight = torch.nn.Parameter(weight)

    @autocast.promotes
    def forward(self, x: Tensor, element: Tensor) -> Tensor:
        check.tensor(type(self).__name__, "element", element)
        if element.dim() == 2:
            if element.shape[1] != self.num_elements:
                check.fail(ValueError, type(self).__name__, f"one-hot elements [N, {self.num_elements}]", list(element.shape))
            element = element.argmax(1)
        out = symmetric_contraction(x, self.weight, element, self.plan)
        irreps = self.plan.irreps_out
        return torch.cat([out[:, :, part].flatten(1) for part in irreps.slices()], 1)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}, correlation={self.plan.correlation}, {self.plan.num_paths} paths"

    def _load_from_state_dict(self, state_dict, prefix, *args):
        theirs = {k: state_dict.pop(k) for k in [*state_dict] if k.startswith(prefix + "contractions.")}
        if theirs:
            n = self.plan.correlation
            name = lambda b: "weights_max" if b.degree == n else f"weights.{n - 1 - b.degree}"
            parts = [theirs.get(f"{prefix}contractions.{b.out}.{name(b)}") for b in self.plan.blocks if b.stop > b.start]
            if all(p is not None for p in parts):
                state_dict[prefix + "weight"] = torch.cat(parts, 1)
        super()._load_from_state_dict(state_dict, prefix, *args)
