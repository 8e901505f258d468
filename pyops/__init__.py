"""Structops: fast, differentiable operators for structured deep learning.

>>> import torch, structops
>>> graph = structops.Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), num_nodes=3)
>>> structops.spmm(graph, torch.eye(3)).argmax(1).tolist()
[2, 0, 1]
"""

from __future__ import annotations

from pathlib import Path as _Path

from .kernels import backends

backends.load_library(_Path(__file__).resolve().parent / "lib")

from . import binary as binary  # noqa: E402
from . import compat as compat  # noqa: E402
from . import nn as nn  # noqa: E402
from . import so2 as so2  # noqa: E402
from . import tree as tree  # noqa: E402
from .graph import Graph  # noqa: E402
from .sparse import (  # noqa: E402
    ScatterPlan,
    scatter_reduce,
    scatter_softmax,
    sddmm,
    segment_gather,
    segment_reduce,
    segment_softmax,
    spmm,
)

__version__ = "0.1.0"
__all__ = [
    "Graph", "ScatterPlan", "backends", "scatter_reduce", "scatter_softmax", "sddmm", "segment_gather", "segment_reduce",
    "segment_softmax", "spmm",
]  # fmt: skip
