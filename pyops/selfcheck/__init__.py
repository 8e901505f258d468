"""A quick check of every registered operator against its reference on fresh random input."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels import backends

# Output of an operator -> the output whose rounding it holds: its error counts relative to that one.
ROUNDING_OF = {("relational_spmm", 2): 0}


@dataclass
class Result:
    op: str
    device: str
    cases: int
    error: float  # largest error, relative to the largest value of the case
    ok: bool
    note: str = ""


def tolerance(dtype: torch.dtype) -> float:
    """Allowed error relative to the largest value: a few roundings of the result, a few dozen of the accumulator."""
    if not dtype.is_floating_point:
        return 0.0
    return {torch.float64: 1e-12, torch.float32: 2e-5}.get(dtype, 2 * torch.finfo(dtype).eps)


def cases(op: str, generator: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator."""
    family = backends.OPS[op].partition(".")[0]
    return importlib.import_module(f"{__name__}._{family}").cases(op, generator)


def _error(got, want, rounded=None) -> tuple[float, float]:
    """(largest error relative to the largest value, of ``rounded`` where given, allowed)."""
    if not isinstance(want, Tensor):
        return (0.0 if got == want else float("inf")), 0.0
    got = got.cpu()
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf"), 0.0
    if want.numel() == 0:
        return 0.0, 0.0
    a, b = got.double(), want.double()
    same = (got == want) | (a.isnan() & b.isnan())  # in the own dtype: words differ by less than a double shows
    if not want.dtype.is_floating_point:
        return (0.0 if bool(same.all()) else float("inf")), 0.0
    difference = torch.where(same, torch.zeros_like(a), (a - b).abs())
    of = (b if rounded is None else rounded.double()).abs()
    of = of[of.isfinite()]
    scale = float(of.max()) if of.numel() else 1.0
    return float(difference.max()) / max(scale, 1e-30), tolerance(want.dtype)


def check(op: str, device: str = "cpu", seed: int = 0) -> Result:
    """Run every case of ``op`` on ``device`` and compare with the reference."""
    generator = torch.Generator().manual_seed(seed)
    kernel = backends.implementation(op)
    worst, ok, count, note = 0.0, True, 0, ""
    with backends.override("reference"):
        reference = backends.implementation(op)
    for args in cases(op, generator):
        count += 1
        moved = [a.to(device) if isinstance(a, Tensor) else a for a in args]
        try:
            got, want = kernel(*moved), reference(*args)
        except (RuntimeError, NotImplementedError) as error:
            return Result(op, device, count, float("inf"), False, str(error).splitlines()[0])
        pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
        for n, (g, w) in enumerate(pairs):
            base = ROUNDING_OF.get((op, n))
            found, allowed = _error(g, w, None if base is None else want[base])
            worst, ok = max(worst, found), ok and found <= allowed
    if count == 0:
        return Result(op, device, 0, float("inf"), False, "no case")
    return Result(op, device, count, worst, ok, note)


def run(seed: int = 0) -> list[Result]:
    """Check every operator on the CPU, and on the GPU where its kernels can run."""
    devices = ["cpu", *(["cuda"] if backends.cuda()[0] else [])]
    with torch.no_grad():
        return [check(op, device, seed) for device in devices for op in backends.OPS]
