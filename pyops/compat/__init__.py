"""Drop-in replacements of other libraries' operators, a subpackage per library: same names and semantics, our kernels.

Nothing is imported here. :func:`install` makes ``import <library>`` find the replacements; so does a subpackage's own ``install``.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

# Those whose subpackage takes the library's name; the others are imported under their own.
_LIBRARIES = ("torch_scatter", "torch_sparse", "pyg_lib", "dgl", "torch_struct", "supar", "bitorch")
# PyG decides while it is imported which of these it uses.
_BACKENDS_OF_PYG = ("torch_scatter", "torch_sparse", "pyg_lib")


def install(*libraries: str) -> None:
    """Make every later ``import`` of these libraries find the replacements: all of them, or none where one cannot be replaced.

    Args:
        libraries: names such as "torch_scatter", "torch_sparse", "pyg_lib". Installing one again changes nothing.

    Raises:
        ValueError: no name, or one that has no replacement here. RuntimeError: a library itself is imported already; or PyG is,
            and has chosen its backends without it.

    >>> import structops
    >>> structops.compat.install("torch_scatter", "torch_sparse")  # before torch_geometric is imported
    >>> import torch_sparse
    >>> torch_sparse.__name__
    'structops.compat.torch_sparse'
    """
    available = [name for name in _LIBRARIES if find_spec(f"{__name__}.{name}")]
    unknown = [name for name in libraries if name not in available]
    if unknown or not libraries:
        got = ", ".join(map(repr, unknown)) or "none"
        raise ValueError(f"install: expected names among {', '.join(available)}, got {got}")
    package = {name: importlib.import_module(f"{__name__}.{name}") for name in libraries}
    new = [name for name in libraries if sys.modules.get(name) is not package[name]]
    late = [name for name in new if name in _BACKENDS_OF_PYG]
    if late and "torch_geometric" in sys.modules:
        raise RuntimeError(f"install: torch_geometric is imported already; install {', '.join(late)} before it")
    done = []
    try:
        for name in new:
            package[name].install()
            done.append(name)
    except BaseException:
        for name in done:
            package[name].uninstall()
        raise
