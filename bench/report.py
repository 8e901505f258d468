"""``python -m bench.report run.json [base.json]``: a markdown table, against an earlier run if given, and a plot."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from .case import OURS
from .machine import rates


def title(machine: dict, threads: list[int] | None = None) -> str:
    """The machine in one line."""
    if machine.get("gpu"):
        return f"{machine['gpu']}, CUDA {machine['cuda']}, torch {machine['torch']}, {machine['dtype']}"
    count = "" if not threads else f", {'/'.join(map(str, threads))} thread{'s' if threads != [1] else ''}"
    return f"{machine['cpu']} ({machine['isa']}){count}, torch {machine['torch']}, {machine['dtype']}"


def milliseconds(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.4f}" if ms < 0.1 else f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"


def times(x: float | None) -> str:
    return "—" if x is None else f"{x:.2f}x" if x < 9.95 else f"{x:.0f}x"


def targets(row: dict) -> str:
    parts = [
        f"{least:g}x" if name == "best" else f"{least:g}x {name.removeprefix('torch.')}" for name, least in row["targets"].items()
    ]
    if len({p.split()[0] for p in parts}) == 1 and len(parts) > 1:
        parts = [parts[0].split()[0]]
    if row["stream_target"]:
        parts.append(f"{row['stream_target']:.0%} stream")
    mark = {True: " ✓", False: " ✗", None: ""}[row.get("met")]
    return ", ".join(parts) + mark if parts else "—"


def cells(row: dict, peers: list[str]) -> list[str]:
    """shape, threads, ours, each peer, ratio, with plan, target, items/s, GB/s, % of stream, GFLOP/s, saved, check."""
    left = [row["shape"], str(row["threads"]) if row["device"] == "cpu" else row["device"]]
    if row["status"] != "ok":
        empty = ["" for _ in peers]
        return [*left, "WRONG", *empty, "", "", targets(row), "", "", "", "", "", f"error {row['error']:.0e}"]
    fraction = row["stream_fraction"]
    return [
        *left, milliseconds(row["ours"]["median"]), *(_peer(row["peers"].get(p)) for p in peers),
        times(row["ratio"]), times(row.get("ratio_with_plan")), targets(row), _items(row),
        f"{row['effective_rate'] / 1e9:.1f}" if row["traffic"]["max_bytes"] else "—",
        "n/a" if fraction is None else f"{fraction:.0%}", _operations(row), _saved(row), f"{row['error']:.0e}",
    ]  # fmt: skip


def _items(row: dict) -> str:
    return f"{row['items'] / row['ours']['median']:.3g}" if row.get("items") else "—"


def _operations(row: dict) -> str:
    if not row["traffic"]["flops"] or row.get("gemm_fraction") is None:
        return "—"
    return f"{row['traffic']['flops'] / row['ours']['median'] / 1e9:.3g} ({row['gemm_fraction']:.0%})"


def _saved(row: dict) -> str:
    """Ours, and the least of the peers in brackets."""
    known = {name: size / 1e6 for name, size in row["saved_bytes"].items() if size is not None}
    if OURS not in known:
        return "—"
    least = min((size for name, size in known.items() if not name.startswith(OURS)), default=None)
    return f"{known[OURS]:.1f}" + ("" if least is None else f" ({least:.1f})")


def _peer(peer: dict | None) -> str:
    if peer is None:
        return "—"
    if "median" in peer:
        return milliseconds(peer["median"])
    return {"no such operation": "—"}.get(peer["status"], peer["status"])


def headings(peers: list[str]) -> list[str]:
    return ["shape", "thr", "ours ms", *peers, "ratio", "incl. plan", "target", "items/s", "GB/s", "% stream", "GFLOP/s (of sgemm)",
            "saved MB", "check"]  # fmt: skip


LEGEND = (
    "ms: median per call. ratio: best correct peer / ours; incl. plan: a call and the building of its plan. target: "
    "least ratio to the best or the named peer, ✓ all met, ✗ not. items/s: sentences per second. GB/s: bytes without any "
    "reuse / time. % stream: least bytes / time, of the copy rate measured in the same run (n/a: fits the cache). GFLOP/s: "
    "operations of the formula / time, without those of recomputing, and their share of the rate of a float32 matrix product in "
    "the same run, which products of bits may exceed. saved MB: kept for the "
    "backward beyond inputs and plan (least of the peers). check: largest error relative to a float64 reference."
)


def groups(rows: list[dict]) -> Iterator[tuple[str, list[dict], list[str]]]:
    """(operator and direction, its rows, its peers) in the order of the run."""
    names = dict.fromkeys((r["op"], r["direction"]) for r in rows)
    for op, direction in names:
        chosen = [r for r in rows if (r["op"], r["direction"]) == (op, direction)]
        yield f"{op}, {direction}", chosen, list(dict.fromkeys(p for r in chosen for p in r["peers"]))


def key(row: dict) -> tuple:
    return row["op"], row["direction"], row["shape"], row["threads"], row["device"]


def markdown(run: dict, base: dict | None = None) -> str:
    """The whole run as markdown; with ``base`` a last column says how our time changed (above 1x: faster now)."""
    before = {key(r): r["ours"]["median"] for r in base["rows"] if "ours" in r} if base else {}
    lines = [f"# {title(run['machine'])}", "", f"commit {run['machine']['commit']}, {run['machine']['time']}", ""]
    for threads, limit in run["stream"].items():
        who = "device" if threads == "cuda" else f"{threads} thread(s)"
        lines.append(f"- measured, {who}: {rates(limit)}")
    lines += [f"- {name}: {version}" for name, version in run["peers"].items()]
    lines += ["", LEGEND, ""]
    for name, rows, peers in groups(run["rows"]):
        head = headings(peers) + (["vs base"] if base else [])
        lines += [f"## {name}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for row in rows:
            line = cells(row, peers)
            if base:
                old = before.get(key(row))
                line.append(times(old / row["ours"]["median"]) if old and "ours" in row else "—")
            lines.append("| " + " | ".join(line) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("base", type=Path, nargs="?")
    parser.add_argument("--plot", type=Path, help="PNG to write (default: beside the run)")
    args = parser.parse_args()
    run = json.loads(args.run.read_text())
    base = json.loads(args.base.read_text()) if args.base else None
    print(markdown(run, base))
    from .plot import draw

    draw(run, args.plot or args.run.with_suffix(".png"))


if __name__ == "__main__":
    main()
