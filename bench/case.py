"""What a benchmark case is: inputs, providers, reference, traffic and target, declared once for every runner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .models import Traffic

LEVELS = ("smoke", "quick", "default", "full")
OURS = "structops"
FWD, BOTH, PLAN = "fwd", "fwd+bwd", "plan"

Run = Callable[[], tuple[Tensor, ...]]


@dataclass
class Provider:
    """One way to compute the case; ``run`` is None where it is not available, for the ``reason`` given."""

    name: str
    run: Run | None = None
    reason: str = ""
    plan: Callable[[], object] | None = None  # analysis of the structure that ``run`` leaves out


@dataclass
class Prepared:
    """A case with its inputs in memory. ``reference`` gives float64 results in the order of the providers' results."""

    ours: Provider
    peers: list[Provider]
    reference: Callable[[], tuple[Tensor, ...]]
    tolerance: float = 1e-4


@dataclass
class Case:
    """``targets``: least ratio to a peer by name, or to the best of them under ``best``."""

    op: str
    direction: str
    graph: str
    shape: str
    features: int
    build: Callable[[str], Prepared]
    traffic: Traffic
    targets: dict[str, float] = field(default_factory=dict)
    stream_target: float | None = None
    items: int = 0  # sentences of a batch, for a rate

    @property
    def key(self) -> str:
        return f"{self.op}|{self.direction}|{self.graph}|F={self.features}"


def at_level(level: str, smoke, quick, default, full):
    """One of four values by level."""
    return {"smoke": smoke, "quick": quick, "default": default, "full": full}[level]


def runner(forward: Callable[[], Tensor], direction: str, leaves: tuple[Tensor, ...] = (), grad: Tensor | None = None) -> Run:
    """``forward`` alone, or with the gradients of ``leaves``: (result, *gradients)."""

    def fwd():
        with torch.no_grad():
            return (forward(),)

    def both():
        out = forward()
        return (out.detach(), *torch.autograd.grad(out, leaves, grad.reshape(out.shape)))

    return both if direction == BOTH else fwd


def error(got: tuple[Tensor, ...], want: tuple[Tensor, ...], free_fill: bool = False) -> float:
    """Largest difference over the results, each relative to the reference's largest entry; inf for NaN or a wrong size.

    ``free_fill``: infinities, which some peers give for empty groups, count as 0.
    """
    worst = 0.0
    if len(got) > len(want):
        return float("inf")
    for a, b in zip(got, want, strict=False):
        if a.numel() != b.numel():
            return float("inf")
        if b.numel() == 0:
            continue
        a = a.reshape(b.shape).to(b.dtype)
        difference = (a.masked_fill(a.isinf(), 0) if free_fill else a).sub(b).abs().max().item()
        if difference != difference:
            return float("inf")
        worst = max(worst, difference / max(b.abs().max().item(), 1e-30))
    return worst


def saved_bytes(run: Run) -> int | None:
    """Bytes that one run keeps for its backward beyond inputs and cached structure: saved anew on every run."""
    try:
        first, second = _saved(run), _saved(run)
    except Exception:  # a peer that does not go through saved tensors
        return None
    return sum(size for pointer, (size, _) in second.items() if pointer not in first)


def _saved(run: Run) -> dict[int, tuple[int, Tensor]]:
    found: dict[int, tuple[int, Tensor]] = {}

    def pack(t: Tensor):
        parts = (t.crow_indices(), t.col_indices(), t.values()) if t.layout == torch.sparse_csr else (t,)
        for part in parts:
            kept = part.detach()
            found.setdefault(kept.data_ptr(), (kept.numel() * kept.element_size(), kept))
        return t.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run()
    return found
