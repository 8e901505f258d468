"""Check, then time. A wrong result is reported as wrong and never timed; a wrong peer is never the best one."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch

from . import FAMILIES
from .case import BOTH, OURS, Case, Prepared, Provider, error, saved_bytes
from .timing import interleave, median_of

OK, WRONG = "ok", "WRONG"


def collect(level: str, families: list[str] | None = None, only: str = "") -> list[Case]:
    """The cases of a level, filtered by family and by a regular expression on ``case.key``."""
    modules = [m for family in families or FAMILIES for m in FAMILIES[family]]
    found = [c for m in modules for c in importlib.import_module(f"{__package__}.{m}").cases(level)]
    return [c for c in found if re.search(only, c.key)]


def check(prepared: Prepared) -> tuple[float, dict[str, str], dict[str, float]]:
    """(our error, status of every peer: ok, or why it is not timed, seconds of every peer's call). Each provider runs once."""
    want = prepared.reference()
    status, seconds = {}, {}
    ours = error(prepared.ours.run(), want)
    for peer in prepared.peers:
        if peer.run is None:
            status[peer.name] = peer.reason
            continue
        try:
            start = time.perf_counter()
            got = peer.run()
            seconds[peer.name] = time.perf_counter() - start
            wrong = error(got, want, free_fill=True)
            status[peer.name] = OK if wrong <= prepared.tolerance else f"wrong result (error {wrong:.0e})"
        except (torch.OutOfMemoryError, MemoryError):
            status[peer.name] = "out of memory"
        except Exception as failure:
            status[peer.name] = f"failed: {type(failure).__name__}"
    return ours, status, seconds


class Runner:
    """Runs cases on one device; plan times are measured once per structure, provider and thread count."""

    def __init__(self, device: str, threads: list[int], budget: float, patience: float, limits: dict, llc_bytes: int):
        self.device, self.threads, self.budget = device, threads if device == "cpu" else threads[-1:], budget
        self.patience = patience  # a peer's call of more seconds is timed once, and what it saves is not weighed
        self.limits, self.llc_bytes = limits, llc_bytes
        self._plans: dict[tuple, float] = {}

    def rows(self, case: Case) -> Iterator[dict]:
        """One result per thread count."""
        prepared = case.build(self.device)
        saved: dict[str, int | None] = {}
        for threads in self.threads:
            torch.set_num_threads(threads)
            row = self._row(case, prepared, threads)
            if case.direction == BOTH and row["status"] == OK:
                saved = saved or {p.name: saved_bytes(p.run) for p in self._quick(prepared, row)}
            row["saved_bytes"] = saved
            yield row

    @staticmethod
    def _timed(prepared: Prepared, row: dict) -> list[Provider]:
        return [prepared.ours, *(p for p in prepared.peers if row["peers"][p.name]["status"] == OK)]

    def _quick(self, prepared: Prepared, row: dict) -> list[Provider]:
        peers = row["peers"]
        return [p for p in self._timed(prepared, row) if p.name == OURS or peers[p.name]["median"] <= self.patience]

    def _row(self, case: Case, prepared: Prepared, threads: int) -> dict:
        wrong, status, seconds = check(prepared)
        row = {
            "op": case.op, "direction": case.direction, "graph": case.graph, "shape": case.shape,
            "features": case.features, "device": self.device, "threads": threads, "dtype": "float32",
            "traffic": asdict(case.traffic), "targets": case.targets, "stream_target": case.stream_target,
            "items": case.items,
            "error": wrong,
            "status": OK if wrong <= prepared.tolerance else WRONG,
            "peers": {name: {"status": s} for name, s in status.items()},
        }  # fmt: skip
        if row["status"] == WRONG:
            return row
        fns: dict[str, Callable] = {OURS: prepared.ours.run}
        fns |= {p.name: p.run for p in prepared.peers if status[p.name] == OK}
        times = interleave(fns, self.budget, self.device, wall=case.graph == "10 nodes", seen=seconds, patience=self.patience)
        row["ours"] = asdict(times[OURS])
        for name in fns:
            if name != OURS:
                row["peers"][name] |= asdict(times[name])
        self._judge(row, case)
        self._with_plans(row, case, prepared, threads)
        return row

    def _judge(self, row: dict, case: Case) -> None:
        ours = row["ours"]["median"]
        timed = {name: p["median"] for name, p in row["peers"].items() if "median" in p}
        ratios = {name: m / ours for name, m in timed.items()}
        row["ratios"] = ratios
        medians = {name: m for name, m in timed.items() if not name.startswith(OURS)}  # another way of ours is no peer
        row["best"] = min(medians, key=medians.get) if medians else None
        row["ratio"] = ratios[row["best"]] if medians else None
        limit = self.limits["cuda" if self.device != "cpu" else str(row["threads"])]
        row["effective_rate"] = case.traffic.max_bytes / ours
        beyond_cache = case.traffic.min_bytes > 2 * self.llc_bytes
        row["stream_fraction"] = case.traffic.min_bytes / ours / limit["copy"] if beyond_cache else None
        row["gemm_fraction"] = case.traffic.flops / ours / limit["gemm"]
        wanted = {(row["best"] if name == "best" else name): least for name, least in case.targets.items()}
        known = [ratios[name] >= least if name in ratios else None for name, least in wanted.items()]
        if case.stream_target and row["stream_fraction"] is not None:
            known.append(row["stream_fraction"] >= case.stream_target)
        row["met"] = False if False in known else None if None in known or not known else True

    def _with_plans(self, row: dict, case: Case, prepared: Prepared, threads: int) -> None:
        """``ratio_with_plan``: one call and the building of its plan, against the best peer reckoned likewise."""
        providers = self._timed(prepared, row)
        if not any(p.plan for p in providers):
            return
        row["plans"] = {p.name: self._plan_time(p, case, threads) for p in providers}
        total = {name: row["peers"][name]["median"] + t for name, t in row["plans"].items() if name != OURS}
        if total:
            row["ratio_with_plan"] = min(total.values()) / (row["ours"]["median"] + row["plans"][OURS])

    def _plan_time(self, provider: Provider, case: Case, threads: int) -> float:
        if provider.plan is None:
            return 0.0
        key = (case.graph, case.shape.split(",")[0], case.direction, provider.name, threads)
        if key not in self._plans:
            self._plans[key] = median_of(provider.plan, self.device)
        return self._plans[key]
