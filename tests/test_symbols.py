"""No wide instruction may reach a function that every CPU runs.

Two ways it could: a weak symbol (an inline function or template outside the instruction set's namespace), which the linker keeps in
whichever copy it meets first; or a flag on the wrong file.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections import Counter

import pytest
from structops import backends

LIBRARY = backends.LIB / "libstructops_core.so"
NAMESPACES = ("structops::baseline::", "structops::avx2::", "structops::avx512::")
# Weak by nature and never compiled with wide instructions: the C runtime's own and CUDA's host stubs.
WEAK = re.compile(r"^(_?_?(gmon_start|cxa_finalize|ITM_\w+|cxa_pure_virtual)__?|_ITM_\w+|__cxa_finalize|__gmon_start__|DW\.ref\..*)$")
CUDA = re.compile(r"^_{0,2}(cuda|cu[A-Z]|nv|fat)|^structops::cuda::|__cuda|__nv_|__device_stub|__sti____cuda|^libcudart|^_GLOBAL__sub_I_.*cuda")

pytestmark = [
    pytest.mark.skipif(not LIBRARY.is_file(), reason="no compiled library"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="wide instruction sets are built on x86-64 only"),
]


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def plain(name: str) -> str:
    """A demangled name without its return type."""
    for marker in ("structops::", "std::"):
        at = name.find(marker)
        if at > 0 and "(" not in name[:at] and "<" not in name[:at]:
            return name[at:]
    return name


def weak_symbols(text: str) -> list[str]:
    """Weak and unique definitions of ``nm -C`` outside the instruction sets' namespaces."""
    found = []
    for line in text.splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) == 3 and parts[1] in "WVuv":
            name = plain(parts[2])
            for prefix in ("vtable for ", "typeinfo for ", "typeinfo name for ", "guard variable for "):
                name = name.removeprefix(prefix)
            if not (name.startswith(NAMESPACES) or WEAK.match(name) or CUDA.search(name)):
                found.append(parts[2])
    return found


def wide_functions(lines) -> dict[str, Counter]:
    """Functions of ``objdump -d -C`` that use ymm or zmm registers, with counts, by register kind."""
    found: dict[str, Counter] = {}
    current = ""
    for line in lines:
        if line.endswith(">:\n"):
            current = plain(line[line.index("<") + 1 : -3])
        elif "%ymm" in line or "%zmm" in line:
            found.setdefault(current, Counter())["zmm" if "%zmm" in line else "ymm"] += 1
    return found


def misplaced(found: dict[str, Counter]) -> dict[str, dict]:
    wrong = {}
    for name, count in found.items():
        if CUDA.search(name):
            continue
        # Lambdas inside generic lambdas are more than the demangler can do: their mangled names say it too.
        avx512 = "structops::avx512::" in name or (name.startswith("_Z") and "6avx512" in name)
        avx2 = "structops::avx2::" in name or (name.startswith("_Z") and "4avx2" in name)
        allowed = avx512 or (avx2 and not count["zmm"])
        if not allowed:
            wrong[name] = dict(count)
    return wrong


def test_no_weak_symbols_outside_the_instruction_sets() -> None:
    text = subprocess.run([tool("nm"), "-C", "--defined-only", str(LIBRARY)], capture_output=True, text=True, check=True).stdout
    assert "structops::spmm_fwd" in text
    assert weak_symbols(text) == []


def test_wide_registers_stay_in_their_namespace() -> None:
    command = [tool("objdump"), "-d", "-C", "--no-show-raw-insn", "--section=.text", str(LIBRARY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        found = wide_functions(process.stdout)
    assert process.returncode == 0
    assert any("avx512" in name and count["zmm"] for name, count in found.items())
    assert any("avx2" in name and count["ymm"] for name, count in found.items())
    assert misplaced(found) == {}


def test_the_checks_find_planted_leaks() -> None:
    nm = (
        "0000000000001000 W std::vector<long>::push_back(long const&)\n"
        "0000000000001010 W structops::avx2::kernel()\n"
        "0000000000001020 u void structops::helper<float>(float)\n"
        "0000000000001030 T structops::spmm_fwd()\n"
    )
    assert weak_symbols(nm) == ["std::vector<long>::push_back(long const&)", "void structops::helper<float>(float)"]
    dump = [
        "0000000000001000 <structops::avx512::f()>:\n", "  1000: vaddps %zmm0,%zmm1,%zmm2\n",
        "0000000000001010 <structops::avx2::f()>:\n", "  1010: vaddps %zmm0,%zmm1,%zmm2\n",
        "0000000000001020 <void structops::baseline::f<float>(float*)>:\n", "  1020: vaddps %ymm0,%ymm1,%ymm2\n",
        "0000000000001030 <structops::avx2::g()>:\n", "  1030: vaddps %ymm0,%ymm1,%ymm2\n",
    ]  # fmt: skip
    assert set(misplaced(wide_functions(dump))) == {"structops::avx2::f()", "structops::baseline::f<float>(float*)"}
