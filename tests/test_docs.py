"""The examples in docstrings and in the README run, and every operator page names an operator."""

from __future__ import annotations

import doctest
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import structops

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = (structops, structops.sparse, structops.tree, structops.so2, structops.binary, structops.nn)
PUBLIC = [getattr(home, name) for home in FAMILIES for name in home.__all__ if name != "backends"]
HOMES = {"structops.tree", "structops.binary", *(public.__module__ for public in PUBLIC)}


@pytest.mark.parametrize("module", ["structops", *sorted(HOMES)])
def test_docstring_examples(module: str) -> None:
    outcome = doctest.testmod(sys.modules[module], optionflags=doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0 and outcome.failed == 0


@pytest.mark.parametrize("page", sorted((ROOT / "docs/operators").glob("*.md")), ids=lambda p: p.stem)
def test_page_names_an_operator(page: Path) -> None:
    (name,) = re.findall(r"^::: structops\.(\w+)$", page.read_text(), re.MULTILINE)
    assert (getattr(structops, name).__doc__ or "").strip()


def test_every_public_name_has_a_page() -> None:
    named = {n for p in (ROOT / "docs/operators").glob("*.md") for n in re.findall(r"^::: structops\.(\w+)$", p.read_text(), re.MULTILINE)}
    assert named == set(structops.__all__) - {"backends"}


def test_readme_examples() -> None:
    """All Python blocks of the README, in order, in one process."""
    pytest.importorskip("numba", reason="one README example is a user-defined function")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_table_of_systems() -> None:
    """docs/systems.md is what docs/systems.py makes of tests/systems, and every operator named there is public."""
    spec = importlib.util.spec_from_file_location("systems", ROOT / "docs/systems.py")
    systems = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(systems)
    assert (ROOT / "docs/systems.md").read_text() == systems.page()
    for path in (ROOT / "tests/systems").glob("test_*.py"):
        for name in systems.constants(path)["OPERATORS"]:
            module, _, function = name.rpartition(".")
            assert hasattr(importlib.import_module(module), function), (path.name, name)
