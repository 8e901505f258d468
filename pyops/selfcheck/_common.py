"""What the cases of every family share."""

import torch

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def structure(generator: torch.Generator, N: int, M: int, E: int, itype: torch.dtype) -> tuple:
    """(rowptr, col, eid) with empty rows, a row of a third of the edges, parallel edges and shuffled edge numbers."""
    dst = torch.randint(0, N - 3, (E,), generator=generator)
    dst[: E // 3] = 5
    src = torch.randint(0, M, (E,), generator=generator)
    order = torch.argsort(dst, stable=True)
    rowptr = torch.zeros(N + 1, dtype=torch.int64)
    rowptr[1:] = torch.bincount(dst, minlength=N).cumsum(0)
    return rowptr.to(itype), src[order].to(itype), torch.randperm(E, generator=generator).to(itype)
