"""The default device and dtype of the process, and inference mode, are for tensors of the user, not for what operators keep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import torch, structops
with torch.inference_mode():  # graphs, plans and modules serve training all the same
    import test_autocast as cases
cases.PTR, cases.TYPES, cases.LENGTHS = (t.clone() for t in (cases.PTR, cases.TYPES, cases.LENGTHS))

def run(fn, x):
    y = fn(*x)
    y.sum().backward()
    return y, *(t.grad for t in x)

others = {
    "fold_batch_norm": (lambda m, v: cases.binary.fold_batch_norm(m, v.abs(), K=9).float() + (m + v) * 0, ((3,), (3,))),
    "bool attention": (
        lambda q, k, v: cases.binary.binary_attention(q, k, v, probability="bool", tie=">="), ((2, 5, 4), (2, 3, 4), (2, 3, 4)),
    ),
    "frames": (lambda x: cases.so2.frames(x, group="SO(3)").pos, ((5, 3),)),
}
cases.CASES.update(others)
for name, (fn, _) in cases.CASES.items():
    a, b = cases.operands(name, 2), cases.operands(name, 2)  # float32
    torch.set_default_dtype(torch.float64)
    with torch.device("meta"):  # first, before tables are cached
        got = run(fn, a)
    torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, got, run(fn, b))), name
    print(name)
"""


def test_none_is_used_inside() -> None:
    """In a fresh process, which has cached no tables; what is made on the meta device has no values, and inference tensors cannot be
    saved for a backward."""
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, "-c", CODE], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]
    assert len(done.stdout.splitlines()) > 50
