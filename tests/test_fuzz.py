"""Thousands of seeded random calls, good and bad, each batch in a process of its own: a crash is a failure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
COUNT = 1500


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_calls(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_calls.py"), str(seed), str(COUNT)], capture_output=True, text=True, timeout=300, cwd=HERE
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    returned, raised, failed = map(int, re.search(r"(\d+) returned, (\d+) raised, (\d+) failed", done.stdout).groups())
    assert returned + raised == COUNT and failed == 0
    assert returned > COUNT // 4 and raised > COUNT // 20  # both kinds are really exercised
