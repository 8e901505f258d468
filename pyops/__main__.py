"""``python -m structops``: versions, instruction set, backends with reasons, and a check of every operator here and now."""

from __future__ import annotations

import platform
import sys

import structops
import torch
from structops.selfcheck import run


def main() -> int:
    backends = structops.backends
    versions = f"structops {structops.__version__}   torch {torch.__version__}   Python {platform.python_version()}"
    print(f"{versions}   {platform.machine()}")
    print(f"CPU kernels: {backends.isa()}   threads: {torch.get_num_threads()}\n")
    for name, (ok, reason) in backends.status().items():
        print(f"  {'on ' if ok else 'off'}  {name:<10} {reason}")
    print("\nEvery operator against its reference:")
    results = run()
    width = max(len(r.op) for r in results)
    for r in results:
        verdict = "ok  " if r.ok else "FAIL"
        print(f"  {verdict}  {r.op:<{width}} {r.device:<5} {r.cases:>3} cases   largest error {r.error:.1e}   {r.note}".rstrip())
    failed = [r for r in results if not r.ok]
    print(f"\n{len(results) - len(failed)} of {len(results)} checks passed" + (", on this machine" if not failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
