"""numba, where it is installed, and what the call is named in messages."""

from __future__ import annotations

try:
    import numba
    from numba.core.errors import NumbaError

    from ..kernels.sparse import common_numba as nb

    MISSING = ""
except ImportError as error:
    numba = nb = NumbaError = None  # type: ignore[assignment, misc]
    MISSING = str(error)

OP = "spmm"
CACHED = 128  # compiled pairs of functions kept
