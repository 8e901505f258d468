"""Writes docs/systems.md: which published systems are written with the operators, from the constants of tests/systems."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# System -> what it needs that is not built.
OPEN = {
    "CRF2o, deep biaffine parser": "nothing: see tests/tree; no file of its own yet",
    "MFN": "selected inversion",
    "eSCN, UMA; NequIP, MACE": "nothing: see tests/so2; no files of their own yet",
    "BiPer, BiBench, BiPFT, A&B BNN, FFF, IWR, G2GNet": "nothing: see tests/binary; no files of their own yet",
    "EnergyEquivGNN": "nothing: see tests/so2; no file of its own yet",
    "TOGL, TopNets": "persistent homology",
    "PathNN, k-path rooted subgraphs": "path enumeration",
    "PPGN++": "ragged batched products of dense matrices",
    "BGNN": "closest points on triangles, radius graphs",
}


def constants(path: Path) -> dict[str, object]:
    """The module's SYSTEM and OPERATORS, read without importing it."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in ("SYSTEM", "OPERATORS"):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def page() -> str:
    lines = [
        "# Published systems",
        "",
        "Layers of published systems, written with the public operators and checked in float64, values and gradients, against",
        "independent dense references. Made by `python docs/systems.py`.",
        "",
        "| system | operators | test |",
        "|---|---|---|",
    ]
    for path in sorted((ROOT / "tests/systems").glob("test_*.py")):
        c = constants(path)
        operators = ", ".join(f"`{name.removeprefix('structops.')}`" for name in c["OPERATORS"])
        lines.append(f"| {c['SYSTEM']} | {operators} | `tests/systems/{path.name}` |")
    lines += ["", "## Not there yet", "", "| system | what is missing |", "|---|---|"]
    lines += [f"| {system} | {need} |" for system, need in OPEN.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs/systems.md").write_text(page())
