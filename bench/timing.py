"""Interleaved timing: all providers of a case in the same rounds, so that drift of the machine reaches all alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

MIN_ROUNDS, MAX_ROUNDS = 3, 200
_SAMPLE = 1e-3  # calls shorter than this are timed several at a time


@dataclass
class Timing:
    """Seconds per call over ``rounds`` samples."""

    median: float
    p20: float
    p80: float
    rounds: int

    @classmethod
    def of(cls, samples: list[float]) -> Timing:
        s = sorted(samples)
        pick = lambda q: s[min(len(s) - 1, round(q * (len(s) - 1)))]
        middle = (s[(len(s) - 1) // 2] + s[len(s) // 2]) / 2
        return cls(middle, pick(0.2), pick(0.8), len(s))


def _cpu_sample(fn: Callable, inner: int) -> float:
    start = time.perf_counter()
    for _ in range(inner):
        fn()
    return (time.perf_counter() - start) / inner


def median_of(fn: Callable, device: str = "cpu", calls: int = 3) -> float:
    """Median host seconds of a few calls, for work that is slow and done once."""
    sample = _wall_sample if device.startswith("cuda") else _cpu_sample
    return sorted(sample(fn, 1) for _ in range(calls))[calls // 2]


_flush: dict[int, torch.Tensor] = {}


def _wall_sample(fn: Callable, inner: int) -> float:
    """Host time on a GPU, until the device has finished."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(inner):
        fn()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / inner


def _cuda_sample(fn: Callable, inner: int) -> float:
    """Event time on the device. The cache is overwritten first, which also gives the host time to enqueue the call."""
    device = torch.cuda.current_device()
    if device not in _flush:
        _flush[device] = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    _flush[device].zero_()
    start.record()
    for _ in range(inner):
        fn()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e-3 / inner


def interleave(
    fns: dict[str, Callable],
    budget: float,
    device: str = "cpu",
    wall: bool = False,
    seen: dict[str, float] | None = None,
    patience: float = math.inf,
) -> dict[str, Timing]:
    """Median, p20 and p80 of every function within about ``budget`` seconds, at least three samples of each.

    Args:
        fns: name -> function without arguments.
        budget: seconds for the whole case, shared evenly; the number of samples follows from it.
        device: cpu, or cuda for event times.
        wall: host time on CUDA too, for call overhead.
        seen: name -> seconds of a call just made. One of more than ``budget`` is neither warmed up nor estimated again.
        patience: a call seen to take longer than this many seconds is sampled once.
    """
    seen = seen or {}
    cuda = device.startswith("cuda")
    host = _wall_sample if cuda else _cpu_sample
    sample = _cuda_sample if cuda and not wall else host
    collect = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        inner, limit = {}, {}
        for name, fn in fns.items():
            estimate = seen.get(name, 0.0)
            if estimate <= budget:
                fn()
                estimate = max(host(fn, 1), 1e-7)
            inner[name] = 1 if cuda and not wall else max(1, math.ceil(_SAMPLE / estimate))
            share = budget / len(fns) / (estimate * inner[name])
            least = MIN_ROUNDS if seen.get(name, 0.0) <= patience else 1
            limit[name] = max(least, min(MAX_ROUNDS, int(share)))
        rounds = max(limit.values())
        samples: dict[str, list[float]] = {name: [] for name in fns}
        names = list(fns)
        for r in range(rounds):
            for name in names[r % len(names) :] + names[: r % len(names)]:
                # A slow provider takes part in fewer rounds, spread evenly over the case.
                if (r + 1) * limit[name] // rounds > r * limit[name] // rounds:
                    samples[name].append(sample(fns[name], inner[name]))
        return {name: Timing.of(s) for name, s in samples.items()}
    finally:
        if collect:
            gc.enable()
