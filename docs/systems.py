"""Writes docs/systems.md: which published systems are written with the operators, from the constants of tests/systems."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a system is known for, or needs at its published size, that no operator does.
OPEN = {
    "MFN": "linear scaling: inversion of selected blocks of a sparse matrix",
    "GRADCO": "intersections of sorted adjacency lists",
    "PathNN, k-path subgraphs": "enumeration of paths",
    "TOGL, TopNets": "union-find over sorted edges; the Rips lift",
    "LiGNN": "personalised PageRank by a push queue",
    "BGNN, EMPSN": "radius graphs; nearest triangles without all pairs",
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
    lines += ["", "## Not there yet", "", "The layers of these are above; what they are known for, or need at scale, is missing:"]
    lines += ["", "| system | what is missing |", "|---|---|"]
    lines += [f"| {system} | {need} |" for system, need in OPEN.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs/systems.md").write_text(page())
