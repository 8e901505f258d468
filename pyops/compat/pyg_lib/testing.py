"""The decorators that pyg_lib's test-suite imports."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch


def withSeed(function: Callable) -> Callable:
    """The test after ``torch.manual_seed(12345)``."""

    @functools.wraps(function)
    def seeded(*args, **kwargs):
        torch.manual_seed(12345)
        return function(*args, **kwargs)

    return seeded


def withCUDA(function: Callable) -> Callable:
    """The test for every ``device`` there is."""
    import pytest

    devices = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
    return pytest.mark.parametrize("device", [pytest.param(torch.device(d), id=d) for d in devices])(function)


def onlyCUDA(function: Callable) -> Callable:
    import pytest

    return pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")(function)


def onlyTriton(function: Callable) -> Callable:
    import pytest

    return pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")(function)
