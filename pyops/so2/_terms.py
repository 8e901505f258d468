"""Rows of irreps as blocks [..., components, copies], one per term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from ._irreps import Irrep, Irreps

LAYOUTS = ("mul_ir", "ir_mul")


class Rows:
    """How rows are laid out: an int lmax for ``[..., (lmax + 1)^2, C]``, or irreps and a layout for ``[..., dim]``."""

    def __init__(self, op: str, name: str, irreps: Any, layout: str, x: Any):
        self.layout = check.choice(op, "layout", layout, LAYOUTS)
        check.dense(op, name, x)
        self.stacked = isinstance(irreps, int)
        if self.stacked:
            rows = (check.size(op, "irreps", irreps) + 1) ** 2
            if x.dim() < 2 or x.shape[-2] != rows:
                check.fail(ValueError, op, f"{name} of shape [..., {rows}, channels]", list(x.shape))
            self.irreps = Irreps([(x.shape[-1], l, (-1) ** l) for l in range(irreps + 1)])
        else:
            self.irreps = Irreps(irreps)
            if x.dim() < 1 or x.shape[-1] != self.irreps.dim:
                check.fail(ValueError, op, f"{name} of shape [..., {self.irreps.dim}], {self.irreps}", list(x.shape))

    def split(self, x: Tensor) -> list[Tensor]:
        """The block ``[..., 2 l + 1, mul]`` of every term: views."""
        if self.stacked:
            return list(x.split([t.dim for t in self.irreps], -2))
        blocks = x.split([t.mul * t.dim for t in self.irreps], -1)
        if self.layout == "ir_mul":
            return [b.unflatten(-1, (t.dim, t.mul)) for t, b in zip(self.irreps, blocks, strict=True)]
        return [b.unflatten(-1, (t.mul, t.dim)).transpose(-1, -2) for t, b in zip(self.irreps, blocks, strict=True)]

    def join(self, blocks: Sequence[Tensor], like: Tensor) -> Tensor:
        """Rows of the blocks; ``like`` where there are none."""
        if not blocks:
            return like.clone()
        if self.stacked:
            return torch.cat(list(blocks), -2)
        return torch.cat([(b if self.layout == "ir_mul" else b.transpose(-1, -2)).flatten(-2) for b in blocks], -1)

    def copies(self, values: Tensor, terms: Sequence[Irrep] | None = None) -> list[Tensor]:
        """``values [..., copies]`` cut into ``[..., 1, mul]``, one per term (default: all)."""
        sizes = [t.mul for t in (self.irreps if terms is None else terms)]
        return [v.unsqueeze(-2) for v in values.split(sizes, -1)] if sizes else []
