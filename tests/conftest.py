"""Fixtures: instruction sets, threads, poisoned memory. GPU tests skip themselves with a reason."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from compare import assert_same
from structops import backends
from torch import Tensor

M_PERTURB = -6  # mallopt: fill fresh heap memory with the complement of the value's low byte


def available_isas() -> tuple[str, ...]:
    """The instruction sets that this machine and this build have."""
    found = []
    if backends.native is None:
        return ("none",)
    before = backends.isa()
    for name in ("baseline", "avx2", "avx512"):
        with contextlib.suppress(ValueError):
            backends.set_isa(name)
            found.append(name)
    backends.set_isa(before)
    return tuple(found)


ISAS = available_isas()
torch.set_num_threads(1)  # tests that need more ask for them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What differs in the instruction set alone runs together: cases.remembered.
    order: dict[object, int] = {}
    for item in items:
        indices = item.callspec.indices if hasattr(item, "callspec") else {}
        rest = tuple((name, at) for name, at in indices.items() if name != "isa")
        item.place = order.setdefault((item.parent.nodeid, getattr(item, "originalname", item.name), rest), len(order))
    items.sort(key=lambda item: item.place)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set in turn."""
    before = backends.isa()
    if request.param != "none":
        backends.set_isa(request.param)
    yield request.param
    if request.param != "none":
        backends.set_isa(before)


@pytest.fixture(params=(1, 2))
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """One and two intra-op threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def on_threads() -> Iterator[Callable]:
    """``on_threads(fn)``: fn's tensors on one thread, after checking that two threads give the same bits."""
    before = torch.get_num_threads()

    def run(fn: Callable, what: object = ""):
        torch.set_num_threads(1)
        one = fn()
        torch.set_num_threads(2)
        two = fn()
        torch.set_num_threads(1)
        for a, b in zip(*((r,) if isinstance(r, Tensor) else r for r in (one, two)), strict=True):
            assert_same(b, a, f"{what} on 2 threads")
        return one

    yield run
    torch.set_num_threads(before)


def junk_fill() -> ctypes.c_bool | None:
    """The switch of torch's CPU allocator that fills every new tensor with 0x7fedbeef, a NaN in float32."""
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    with contextlib.suppress(OSError, ValueError):
        return ctypes.c_bool.in_dll(ctypes.CDLL(str(library)), "FLAGS_caffe2_cpu_allocator_do_junk_fill")
    return None


@pytest.fixture
def poison() -> Iterator[None]:
    """Fresh memory holds NaN (torch.empty), NaN or garbage (the C++ side's tensors and malloc): what was not written shows."""
    process = ctypes.CDLL(None)
    perturbed = hasattr(process, "mallopt") and process.mallopt(M_PERTURB, 1)
    junk = junk_fill()
    if junk is not None:
        junk.value = True
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]
    if junk is not None:
        junk.value = False
    if perturbed:
        process.mallopt(M_PERTURB, 0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def float64_default() -> Iterator[None]:
    """Modules get float64 parameters and buffers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def double():
    """float64 as the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
