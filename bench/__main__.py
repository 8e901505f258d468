"""``python -m bench``: self-check, benchmarks against the peers that are installed, table, JSON and plot."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import time
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from structops import selfcheck

from . import FAMILIES, machine, peers, report
from .case import at_level
from .run import Runner, collect


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    level = parser.add_mutually_exclusive_group()
    for name, text in (
        ("smoke", "tiny inputs: does everything run"),
        ("quick", "a case or two of every operator"),
        ("full", "every row: all graphs, widths, reductions, both directions; long"),
    ):
        level.add_argument(f"--{name}", dest="level", action="store_const", const=name, default="default", help=text)
    parser.add_argument("--threads", help="e.g. 1,2 (default: all cores; with --full also 1)")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="repeatable; default: all")
    parser.add_argument("--only", default="", metavar="REGEX", help="of operator|direction|graph|F=width: 'spmm sum.*hpo'")
    parser.add_argument("--budget", type=float, help="seconds of timing per case and thread count")
    parser.add_argument("--json", type=Path, help="result file (default: bench/out/<time>.json)")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="folder of the PNG (default: beside the JSON)")
    parser.add_argument(
        "--save", nargs="?", const="", metavar="NAME", help="write bench/results/<machine>/NAME.json and .md (default: the level)"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--no-check", action="store_true", help="skip the self-check of the package")
    return parser.parse_args()


def self_check(console: Console) -> bool:
    """Every operator against its reference, before anything is timed."""
    results = selfcheck.run()
    for r in results:
        if not r.ok:
            console.print(f"[red]self-check failed: {r.op} on {r.device}: error {r.error:.1e} {r.note}[/]")
    passed = all(r.ok for r in results)
    console.print(f"self-check of {len(results)} operators: " + ("[green]passed[/]" if passed else "[red]failed[/]"))
    return passed


def style(row: dict) -> str:
    if row["status"] != "ok":
        return "bold white on red"
    if row["ratio"] is not None and row["ratio"] < 1:
        return "red"
    return {True: "green", False: "yellow", None: ""}[row["met"]]


def tables(console: Console, rows: list[dict]) -> None:
    for name, chosen, columns in report.groups(rows):
        table = Table(title=name, title_justify="left", title_style="bold", header_style="dim")
        for i, heading in enumerate(report.headings(columns)):
            table.add_column(heading, justify="right" if i else "left", overflow="fold", min_width=None if i else 24)
        for row in chosen:
            cells = report.cells(row, columns)
            at = 3 + len(columns)
            cells[at] = f"[{style(row)}]{cells[at]}[/]" if style(row) and cells[at] else cells[at]
            table.add_row(*cells)
        console.print(table)


def summary(console: Console, run: dict) -> None:
    judged = [r for r in run["rows"] if r.get("met") is not None]
    wrong = [r for r in run["rows"] if r["status"] != "ok"]
    met = sum(r["met"] for r in judged)
    counts = f"{len(run['rows'])} rows, {len(wrong)} wrong; targets met: {met} of {len(judged)}"
    console.print(f"\n{counts} ([green]met[/], [yellow]not met[/], [red]slower than a peer[/])")
    console.print(report.LEGEND, style="dim")


def main() -> int:
    args = arguments()
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    warnings.filterwarnings("ignore", message=".*Sparse.*|.*masked_fill_.*|.*segment_reduce.*")
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 220)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    default = {1, cores} if args.level == "full" else {cores}
    threads = [int(t) for t in args.threads.split(",")] if args.threads else sorted(default)
    budget = args.budget or at_level(args.level, 0.05, 0.5, 0.6, 2.0)
    patience = at_level(args.level, math.inf, 0.7, 4.0, math.inf)
    if not args.no_check and not self_check(console):
        return 1
    torch.set_num_threads(threads[-1])
    info = machine.describe(args.device)
    found = peers.versions()
    console.print(f"[bold]{report.title(info, threads)}[/], structops {info['structops']} at {info['commit']}")
    console.print(", ".join(f"{name} {version}" for name, version in found.items()))
    limits = machine.limits(info, threads)
    for name, limit in limits.items():
        console.print(f"measured ({name}): {machine.rates(limit)}")
    runner = Runner(args.device, threads, budget, patience, limits, info["llc_bytes"])
    rows, started = [], time.perf_counter()
    bar = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    path = args.json or Path(__file__).parent / "out" / (time.strftime("%Y%m%d-%H%M%S") + ".json")
    if args.save is not None:
        path = Path(__file__).parent / "results" / machine.folder_name(info) / f"{args.save or args.level}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with Progress(*bar, console=console, transient=True) as progress:
        task = progress.add_task("preparing inputs", total=None)
        cases = collect(args.level, args.family, args.only)
        progress.update(task, total=len(cases))
        run = {"machine": info, "level": args.level, "threads": threads, "stream": limits, "peers": found, "rows": rows}
        for done, case in enumerate(cases, 1):
            progress.update(task, description=case.key.replace("|", "  "))
            rows.extend(runner.rows(case))
            path.write_text(json.dumps(run, indent=1))
            progress.advance(task)
            if not console.is_terminal:  # where the bar is not drawn
                print(f"{time.perf_counter() - started:5.0f} s  {done}/{len(cases)}  {case.key}", flush=True)
    tables(console, rows)
    summary(console, run)
    if args.save is not None:
        path.with_suffix(".md").write_text(report.markdown(run) + "\n")
    console.print(f"{time.perf_counter() - started:.0f} s; {path}")
    if rows and importlib.util.find_spec("matplotlib"):
        from .plot import draw

        picture = (args.plot or path.parent) / (path.stem + ".png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw(run, picture)
        console.print(str(picture))
    return 1 if any(r["status"] != "ok" for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
