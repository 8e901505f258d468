"""Self-check cases of segment_order."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ._common import DTYPES


def cases(op: str, g: torch.Generator) -> Iterator[tuple]:
    """Argument tuples of the raw operator: ties, empty rows, a long row."""
    rowptr = torch.tensor([0, 3, 3, 10, 300, 400])
    for dtype in (*DTYPES, torch.int32, torch.int64):
        src = torch.randint(-20, 20, (400, 5), generator=g).to(dtype)
        for k, largest in ((1, True), (6, False), (50, True)):
            yield src, rowptr.int(), None, k, largest
        yield src, rowptr, torch.randint(-1, 12, (5, 3), generator=g), 3, False
