"""Fail on stack frames in the hot CUDA kernels of a built library; print registers."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

HOT = (
    "spmm", "sddmm", "softmax",
    "chart", "factored", "chain", "matrix_tree",
    "tp_conv", "sph_kernel", "sph_bwd",
    "bits_gemm",
)  # fmt: skip


def cuobjdump() -> str:
    """The toolkit's, or the one in Triton's package."""
    spec = importlib.util.find_spec("triton")
    bundled = Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump" if spec and spec.origin else Path("missing")
    found = shutil.which("cuobjdump") or (str(bundled) if bundled.is_file() else None)
    if found is None:
        sys.exit("cuobjdump is neither on the PATH nor in Triton's package")
    return found


text = subprocess.run([cuobjdump(), "--dump-resource-usage", sys.argv[1]], check=True, capture_output=True, text=True).stdout
names = re.findall(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
assert names, "no kernels found"
bad = [n for n in names if any(h in n[0] for h in HOT) and (int(n[2]) or int(n[4]))]
registers = max(int(n[1]) for n in names)
print(f"{len(names)} kernels, at most {registers} registers; {len(bad)} hot kernels with a stack frame")
for name, reg, stack, _, local in bad:
    print(f"  {name}: REG {reg} STACK {stack} LOCAL {local}")
sys.exit(1 if bad else 0)
