"""The machine, and the rates that bound every operator, measured in the same run: of copying memory, and of a matrix product."""

from __future__ import annotations

import platform
import re
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import structops
import torch

GEMM = 2048  # rows of the square matrices whose product is timed


def cpu_model() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def last_level_cache() -> int:
    """Bytes of the largest cache that the system reports, else 32 MiB."""
    sizes = [32 << 20]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        number = re.match(r"(\d+)([KMG])", file.read_text().strip())
        if number:
            sizes.append(int(number[1]) << {"K": 10, "M": 20, "G": 30}[number[2]])
    return max(sizes[1:] or sizes)


def commit() -> str:
    """The commit of this checkout, with a + where files differ from it."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *args], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def describe(device: str = "cpu") -> dict:
    """What the numbers of a run depend on."""
    info = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device,
        "cpu": cpu_model(),
        "cores": torch.get_num_threads(),
        "llc_bytes": last_level_cache(),
        "isa": structops.backends.isa(),
        "backends": {name: reason for name, (_, reason) in structops.backends.status().items()},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "structops": structops.__version__,
        "commit": commit(),
        "dtype": "float32",
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        info |= {"gpu": properties.name, "cuda": torch.version.cuda, "llc_bytes": properties.L2_cache_size}
    return info


def folder_name(info: dict) -> str:
    """A directory name for this machine's results."""
    name = info.get("gpu") or f"{info['cpu']} {info['isa']}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def limits(info: dict, threads: list[int]) -> dict:
    """Per thread count: bytes per second of ``copy`` (of arrays beyond the cache) and ``read`` (a sum), and the operations per
    second of ``gemm`` (float32, square, multiplications and additions counted).

    A copy counts two bytes moved per byte copied; a store that first reads its cache line is not counted twice.
    """
    if info["device"].startswith("cuda"):
        return {"cuda": _cuda_limits(info["device"])}
    count = max(4 * info["llc_bytes"], 256 << 20) // 4
    a, b = torch.rand(count), torch.empty(count)
    n = GEMM
    square, product = torch.rand(n, n), torch.empty(n, n)
    saved, rates = torch.get_num_threads(), {}
    for t in threads:
        torch.set_num_threads(t)
        copy = _best(lambda: b.copy_(a))
        if t == 1:
            copy = min(copy, _best(lambda: np.copyto(b.numpy(), a.numpy())))
        gemm = _best(lambda: torch.mm(square, square, out=product))
        rates[str(t)] = {"copy": 8 * count / copy, "read": 4 * count / _best(lambda: a.sum()), "gemm": 2 * n**3 / gemm}
    torch.set_num_threads(saved)
    return rates


def _best(fn, repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return min(times)


def _cuda_limits(device: str) -> dict:
    from .timing import interleave

    a = torch.rand(1 << 28, device=device)
    b = torch.empty_like(a)
    n = 4 * GEMM
    square = torch.rand(n, n, device=device)
    work = {"copy": lambda: b.copy_(a), "read": lambda: a.sum(), "gemm": lambda: square @ square}
    times = interleave(work, 1.0, device)
    amounts = {"copy": 8 * a.numel(), "read": 4 * a.numel(), "gemm": 2 * n**3}
    return {name: amount / times[name].median for name, amount in amounts.items()}


def rates(limit: dict) -> str:
    """The limits of one thread count in words."""
    gemm = f", sgemm {limit['gemm'] / 1e9:.0f} GFLOP/s" if "gemm" in limit else ""
    return f"copy {limit['copy'] / 1e9:.1f} GB/s, read {limit['read'] / 1e9:.1f} GB/s{gemm}"
