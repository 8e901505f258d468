"""copy_reduce by the spmm of a backend."""

from __future__ import annotations

from collections.abc import Callable

from .. import codes as C


def copy_reduce_by(spmm: Callable) -> Callable:
    def copy_reduce(x, rowptr, index, reduce):
        """Same signature and results as torch.ops.structops.copy_reduce."""
        x, e, col, message = (None, x, None, C.COPY_E) if index is None else (x, None, index, C.COPY_U)
        return spmm(x, e, rowptr, col, None, None, None, None, None, message, reduce, C.ARG_NONE, C.EMPTY[reduce], False, True)[0]

    return copy_reduce
