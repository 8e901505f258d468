"""Tensor products of irreps: instructions, normalisation, and the calls of the kernel that they become."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _check as check
from ..graph import Graph
from ._cg import wigner_3j_dense
from ._irreps import Irreps
from ._plan import Block, Path, Plan, build
from ._tp_ops import tp_conv as conv_op

MODES = ("uvw", "uvu", "uvv", "uuw", "uuu", "uvuv", "uvu<v", "u<vw")
PAIRED = ("uuw", "uuu", "uvu<v", "u<vw")  # both operands have channels of their own
LAYOUTS = ("mul_ir", "ir_mul")
ALONE: tuple = (None,) * 6


class Instruction(NamedTuple):
    """One path; ``path_weight`` is the coefficient that multiplies the Wigner 3j symbol, as in e3nn."""

    i_in1: int
    i_in2: int
    i_out: int
    connection_mode: str
    has_weight: bool
    path_weight: float
    path_shape: tuple[int, ...]


class Spec:
    """What a product is, without parameters: irreps, normalised instructions, layout and the plans made from them."""

    def __init__(self, op: str, irreps_in1, irreps_in2, irreps_out, instructions, variances, irrep_normalization: str,
                 path_normalization: str, layout: str, shared_weights: bool):  # fmt: skip
        self.op = op
        self.in1, self.in2, self.out = Irreps(irreps_in1), Irreps(irreps_in2), Irreps(irreps_out)
        self.layout = check.choice(op, "layout", layout, LAYOUTS)
        self.shared = shared_weights
        check.choice(op, "irrep_normalization", irrep_normalization, ("component", "norm", "none"))
        check.choice(op, "path_normalization", path_normalization, ("element", "path", "none"))
        parsed = [self._read(n, i) for n, i in enumerate(instructions)]
        self.instructions = self._normalised(parsed, variances, irrep_normalization, path_normalization)
        self.weight_numel = sum(prod(i.path_shape) for i in self.instructions if i.has_weight)
        self._make_plans()

    # ---- instructions ----

    def _read(self, number: int, given: Any) -> Instruction:
        name = f"instructions[{number}]"
        parts = tuple(given)
        if len(parts) not in (5, 6):
            check.fail(ValueError, self.op, f"{name} to be (i_in1, i_in2, i_out, mode, has_weight[, path_weight])", given)
        terms = []
        for place, irreps in zip(parts[:3], (self.in1, self.in2, self.out), strict=True):
            if not isinstance(place, int) or not 0 <= place < len(irreps):
                check.fail(IndexError, self.op, f"{name} to index {irreps or 'empty irreps'}", place)
            terms.append(irreps[place])
        a, b, c = terms
        mode = check.choice(self.op, f"{name} mode", parts[3], MODES)
        if a.p * b.p != c.p or not abs(a.l - b.l) <= c.l <= a.l + b.l:
            check.fail(ValueError, self.op, f"{name}: {c} within {a} x {b}", "a forbidden combination")
        pairs = a.mul * (b.mul - 1) // 2
        wanted = {"uvu": a.mul, "uvv": b.mul, "uuu": a.mul, "uvuv": a.mul * b.mul, "uvu<v": pairs}.get(mode, c.mul)
        equal = a.mul == b.mul or mode not in PAIRED
        if wanted != c.mul or not equal:
            check.fail(ValueError, self.op, f"{name}: multiplicities that fit mode {mode}", f"{a.mul}, {b.mul} -> {c.mul}")
        shape = {
            "uvw": (a.mul, b.mul, c.mul), "uuw": (a.mul, c.mul), "uuu": (a.mul,), "uvu<v": (pairs,), "u<vw": (pairs, c.mul),
        }.get(mode, (a.mul, b.mul))  # fmt: skip
        return Instruction(parts[0], parts[1], parts[2], mode, bool(parts[4]), float(parts[5]) if len(parts) == 6 else 1.0, shape)

    def _normalised(self, given: list[Instruction], variances, irrep_norm: str, path_norm: str) -> list[Instruction]:
        var = []
        for name, values, irreps in zip(("in1_var", "in2_var", "out_var"), variances, (self.in1, self.in2, self.out), strict=True):
            values = [1.0] * len(irreps) if values is None else [float(v) for v in values]
            if len(values) != len(irreps):
                check.fail(ValueError, self.op, f"{name} with {len(irreps)} entries", len(values))
            var.append(values)

        def elements(i: Instruction) -> float:
            a, b = self.in1[i.i_in1].mul, self.in2[i.i_in2].mul
            count = {"uvw": a * b, "uvu": b, "uvv": a, "uuw": a, "u<vw": a * (b - 1) // 2}.get(i.connection_mode, 1)
            return var[0][i.i_in1] * var[1][i.i_in2] * count

        found = []
        for i in given:
            same = [j for j in given if j.i_out == i.i_out]
            dims = self.in1[i.i_in1].dim, self.in2[i.i_in2].dim, self.out[i.i_out].dim
            alpha = {"component": dims[2], "norm": dims[0] * dims[1], "none": 1}[irrep_norm]
            x = {"element": sum(map(elements, same)), "path": elements(i) * len(same), "none": 1.0}[path_norm]
            scale = alpha / x if x > 0 else float(alpha)
            found.append(i._replace(path_weight=sqrt(scale * var[2][i.i_out] * i.path_weight)))
        return found

    # ---- plans ----

    def _blocks(self, irreps: Irreps) -> list[Block]:
        rows = zip(irreps, irreps.offsets(), strict=True)
        if self.layout == "mul_ir":
            return [Block(t.mul, t.dim, at, t.dim, 1) for t, at in rows]
        return [Block(t.mul, t.dim, at, 1, t.mul) for t, at in rows]

    def _columns(self, term: int, v: int) -> tuple[int, ...]:
        """The columns of y that hold copy ``v`` of a term of the second operand."""
        block = self._blocks(self.in2)[term]
        return tuple(block.offset + v * block.channel + j * block.component for j in range(block.d))

    def _table(self, i: Instruction):
        return i.path_weight * wigner_3j_dense(self.in1[i.i_in1].l, self.in2[i.i_in2].l, self.out[i.i_out].l)

    def _make_plans(self) -> None:
        """Direct paths write the result; `wide` ones give each (u, v) apart, for sums and mixing afterwards; pairs stand alone."""
        weighted: list[Path] = []
        plain: list[Path] = []
        wide: list[Path] = []
        wide_blocks: list[Block] = []
        self.wide_parts: list[tuple[int, int, int]] = []  # instruction, offset and length in a row of the wide result
        self.pair_plans: list[tuple[int, Plan]] = []
        self.weight_at: list[int] = []
        at = width = 0
        for n, i in enumerate(self.instructions):
            self.weight_at.append(at)
            a, b, c = self.in1[i.i_in1], self.in2[i.i_in2], self.out[i.i_out]
            if not prod(i.path_shape) or not c.mul:
                pass
            elif i.connection_mode in PAIRED:
                path = Path(0, 0, tuple(range(b.dim)), self._table(i), -1, 0)
                plan = build([Block(1, a.dim, 0, 1, 1)], [Block(1, c.dim, 0, 1, 1)], [path], a.dim, b.dim, c.dim, 0)
                self.pair_plans.append((n, plan))
            elif i.connection_mode == "uvu" and not (i.has_weight and self.shared):
                paths = weighted if i.has_weight else plain
                for v in range(b.mul):
                    w = (at + v, b.mul) if i.has_weight else (-1, 0)
                    paths.append(Path(i.i_in1, i.i_out, self._columns(i.i_in2, v), self._table(i), *w))
            else:
                size = c.dim * b.mul * a.mul
                for v in range(b.mul):
                    wide.append(Path(i.i_in1, len(wide_blocks), self._columns(i.i_in2, v), self._table(i), -1, 0))
                    wide_blocks.append(Block(a.mul, c.dim, width + v * a.mul, 1, b.mul * a.mul))
                self.wide_parts.append((n, width, size))
                width += size
            at += prod(i.path_shape) if i.has_weight else 0
        x, out, dims = self._blocks(self.in1), self._blocks(self.out), (self.in1.dim, self.in2.dim)
        self.weighted = build(x, out, weighted, *dims, self.out.dim, self.weight_numel) if weighted else None
        self.plain = build(x, out, plain, *dims, self.out.dim, 0) if plain else None
        self.wide = build(x, wide_blocks, wide, *dims, width, 0) if wide else None
        # The kernel writes the gradient of every weight only where all weights are its own.
        self.all_direct = not self.wide_parts and not self.pair_plans

    # ---- evaluation ----

    def weight_of(self, n: int, weight: Tensor) -> Tensor:
        """The weights of instruction ``n``: ``[*path_shape]`` if shared, else ``[Z, *path_shape]``."""
        i = self.instructions[n]
        return weight.narrow(-1, self.weight_at[n], prod(i.path_shape)).reshape(*weight.shape[:-1], *i.path_shape)

    def run(self, x: Tensor, y: Tensor, weight: Tensor | None, structure: tuple = ALONE, graph: Graph | None = None) -> Tensor:
        """Rows of the result: per edge without a graph, else per destination. Arguments are checked and contiguous."""
        rows = y.shape[0] if graph is None else graph.num_dst
        out = None
        for plan, w in ((self.weighted, weight), (self.plain, None)):
            if plan is not None:
                part = conv_op(x, y, w, *structure, *plan.on(x.device), False)
                out = part if out is None else out + part
        if self.all_direct:
            return x.new_zeros(rows, self.out.dim) if out is None else out
        parts: list[list[Tensor]] = [[] for _ in self.out]
        if self.wide is not None:
            per_edge = graph is not None and not self.shared and any(self.instructions[n].has_weight for n, _, _ in self.wide_parts)
            s = _edge_order(structure) if per_edge else structure
            wide = conv_op(x, y, None, *s, *self.wide.on(x.device), False)
            for n, at, size in self.wide_parts:
                part = self._combine(n, wide.narrow(1, at, size), weight)
                parts[self.instructions[n].i_out].append(_to_nodes(part, graph) if per_edge else part)
        for n, plan in self.pair_plans:
            part = self._pairs(n, plan, x if graph is None else _gather(x, graph), y, weight)
            parts[self.instructions[n].i_out].append(part if graph is None else _to_nodes(part, graph))
        blocks = []
        for term, found in zip(self.out, parts, strict=True):
            if not found:
                blocks.append(x.new_zeros(rows, term.mul * term.dim))
                continue
            total = found[0]
            for more in found[1:]:
                total = total + more
            blocks.append((total.transpose(1, 2) if self.layout == "mul_ir" else total).flatten(1))
        rest = torch.cat(blocks, 1) if blocks else x.new_zeros(rows, 0)
        return rest if out is None else out + rest

    def _combine(self, n: int, wide: Tensor, weight: Tensor | None) -> Tensor:
        """[Z, d, mul_out] from the products of every u with every v, [Z, d * v * u]."""
        i = self.instructions[n]
        a, b, c = self.in1[i.i_in1], self.in2[i.i_in2], self.out[i.i_out]
        t = wide.reshape(-1, c.dim, b.mul, a.mul)
        w = self.weight_of(n, weight) if i.has_weight and weight is not None else None
        mode = i.connection_mode
        if mode == "uvw":
            if w is None:
                return t.sum((2, 3)).unsqueeze(2).expand(-1, -1, c.mul)
            mixed = w.transpose(-3, -2).reshape(*w.shape[:-3], b.mul * a.mul, c.mul)
            return torch.matmul(t.reshape(-1, c.dim, b.mul * a.mul), mixed)
        if w is not None:
            w = w.transpose(-1, -2)
            t = t * (w if self.shared else w.unsqueeze(1))
        if mode == "uvuv":
            return t.transpose(2, 3).reshape(-1, c.dim, a.mul * b.mul)
        return t.sum(2 if mode == "uvu" else 3)

    def _pairs(self, n: int, plan: Plan, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """[Z, d, mul_out] of the modes in which channel u meets channel u, or u meets v > u."""
        i = self.instructions[n]
        a, b, c = self.in1[i.i_in1], self.in2[i.i_in2], self.out[i.i_out]
        xs, ys = (self._term(t, irreps, at) for t, irreps, at in ((x, self.in1, i.i_in1), (y, self.in2, i.i_in2)))
        count = a.mul
        if "<" in i.connection_mode:
            u, v = torch.triu_indices(a.mul, b.mul, 1, device=x.device)
            xs, ys, count = xs[:, u], ys[:, v], u.numel()
        Z = xs.shape[0]
        rows = lambda t: t.reshape(Z * count, t.shape[2]).contiguous()
        t = conv_op(rows(xs), rows(ys), None, *ALONE, *plan.on(x.device), False)
        t = t.reshape(Z, count, c.dim).transpose(1, 2)
        w = self.weight_of(n, weight) if i.has_weight and weight is not None else None
        if i.connection_mode in ("uuw", "u<vw"):
            return torch.matmul(t, w) if w is not None else t.sum(2, keepdim=True).expand(-1, -1, c.mul)
        return t if w is None else t * (w if self.shared else w.unsqueeze(1))

    def _term(self, t: Tensor, irreps: Irreps, n: int) -> Tensor:
        """[Z, mul, d] of one term."""
        term = irreps[n]
        block = t[:, irreps.slices()[n]]
        if self.layout == "mul_ir":
            return block.reshape(-1, term.mul, term.dim)
        return block.reshape(-1, term.dim, term.mul).transpose(1, 2)


def _edge_order(structure: tuple) -> tuple:
    """The structure that leaves a result on every edge; positions are edge ids, so that col must be in the caller's order."""
    _, col, eid, colptr, _, eid_t = structure
    if eid is not None:
        ordered = torch.empty_like(col)
        ordered[eid.long()] = col
        col = ordered
    return None, col, None, colptr, None, eid_t


def _gather(x: Tensor, graph: Graph) -> Tensor:
    return x.index_select(0, graph.edge_index()[0].long())


def _to_nodes(part: Tensor, graph: Graph) -> Tensor:
    """Sum of edge values [E, ...] at the destinations."""
    from ..sparse import spmm

    return spmm(graph, None, part.contiguous(), "copy_e")  # type: ignore[return-value]
