"""e3nn's tensor products and spherical harmonics on structops: ``from structops.compat.e3nn import TensorProduct``.

The same constructors, attributes, weights, state dicts and results. ``patch_e3nn()`` puts them in the place of e3nn's own, so that
models built afterwards use them; ``unpatch_e3nn()`` undoes it. torch.compile, export, ``torch.jit.script`` and ``e3nn.util.jit``
take the modules; a saved TorchScript module needs this package imported before it is loaded.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from ..so2 import Irreps, tensor_product
from ..so2 import spherical_harmonics as _harmonics
from ..so2._harmonics import degrees
from . import _e3nn_script as script

__all__ = [
    "ElementwiseTensorProduct", "FullTensorProduct", "FullyConnectedTensorProduct", "SphericalHarmonics", "TensorProduct",
    "patch_e3nn", "spherical_harmonics", "unpatch_e3nn",
]  # fmt: skip


class InvalidPaths(ValueError, AssertionError):
    """Paths or irreps that do not fit; e3nn asserts these, so that its callers may catch AssertionError."""


class InvalidWeights(TypeError, ValueError, RuntimeError):
    """Weights that are missing or do not fit; RuntimeError in e3nn."""


def _theirs(irreps: Irreps) -> Any:
    """e3nn's Irreps where e3nn is installed, for the callers that use their methods."""
    if importlib.util.find_spec("e3nn") is None:
        return irreps
    from e3nn import o3

    return o3.Irreps(str(irreps))


class TensorProduct(tensor_product.TensorProduct):
    """``e3nn.o3.TensorProduct``: see there for the arguments.

    compile_left_right, compile_right, _specialized_code and _optimize_einsums have no effect. Everything of
    :class:`structops.so2.TensorProduct`, with ``conv`` for the fused convolution, and ``right``.

    >>> import torch
    >>> from structops.compat.e3nn import TensorProduct
    >>> cross = TensorProduct("2x1o", "2x1o", "2x1e", [(0, 0, 0, "uuu", False)])
    >>> cross(torch.ones(1, 6), torch.ones(1, 6)).abs().sum()
    tensor(0.)
    """

    def __init__(self, irreps_in1: Any, irreps_in2: Any, irreps_out: Any, instructions: Any, in1_var: Any = None,
                 in2_var: Any = None, out_var: Any = None, irrep_normalization: str | None = None,
                 path_normalization: str | None = None, internal_weights: bool | None = None,
                 shared_weights: bool | None = None, compile_left_right: bool = True, compile_right: bool = False,
                 normalization: str | None = None, _specialized_code: bool | None = None,
                 _optimize_einsums: bool | None = None) -> None:  # fmt: skip
        irrep_normalization = normalization or irrep_normalization or "component"
        path_normalization = path_normalization or "element"
        instructions = [tuple(i) for i in instructions]
        try:
            super().__init__(irreps_in1, irreps_in2, irreps_out, instructions, in1_var, in2_var, out_var, irrep_normalization,
                             path_normalization, internal_weights, shared_weights)  # fmt: skip
        except ValueError as error:
            raise InvalidPaths(str(error)) from None
        variances = [None if v is None else [float(f) for f in v] for v in (in1_var, in2_var, out_var)]
        self._description = script.described(
            str(self.spec.in1), str(self.spec.in2), str(self.spec.out), instructions, *variances, irrep_normalization,
            path_normalization, False, self.shared_weights,
        )  # fmt: skip
        self._specialized_code = True if _specialized_code is None else _specialized_code
        self._optimize_einsums = True if _optimize_einsums is None else _optimize_einsums

    __e3nn_compile_mode__ = "script"
    irreps_in1 = property(lambda self: _theirs(self.spec.in1))
    irreps_in2 = property(lambda self: _theirs(self.spec.in2))
    irreps_out = property(lambda self: _theirs(self.spec.out))

    def right(self, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The linear map that the product with ``y [..., irreps_in2.dim]`` is: ``[..., irreps_in1.dim, irreps_out.dim]``."""
        return script.right(self, y, weight)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return script.ScriptTensorProduct(self, self._description)

    def _weights(self, op: str, weight: Any, like: Tensor) -> Tensor | None:
        try:
            return super()._weights(op, weight, like)
        except (TypeError, ValueError) as error:
            raise InvalidWeights(str(error)) from None

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Tables that compiled modules of e3nn keep are of no use here."""
        for key in [k for k in state_dict if k.startswith(prefix + "_compiled_main")]:
            del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)


def _product(a, b) -> list[tuple[int, int]]:
    """(l, p) of the product of two terms."""
    return [(degree, a.p * b.p) for degree in range(abs(a.l - b.l), a.l + b.l + 1)]


def _simplified(irreps: Any) -> list[tuple[int, int, int]]:
    """Neighbouring equal irreps joined, empty ones dropped."""
    found: list[tuple[int, int, int]] = []
    for mul, degree, p in Irreps(irreps):
        if found and found[-1][1:] == (degree, p):
            found[-1] = (found[-1][0] + mul, degree, p)
        elif mul:
            found.append((mul, degree, p))
    return found


def _filter(filter_ir_out: Any):
    if filter_ir_out is None:
        return lambda ir: True
    kept = {(t.l, t.p) for ir in filter_ir_out for t in Irreps(str(ir))}
    return lambda ir: ir in kept


class FullyConnectedTensorProduct(TensorProduct):
    """``e3nn.o3.FullyConnectedTensorProduct``: every allowed path in mode uvw, with weights."""

    def __init__(self, irreps_in1: Any, irreps_in2: Any, irreps_out: Any, irrep_normalization: str | None = None,
                 path_normalization: str | None = None, **kwargs: Any) -> None:  # fmt: skip
        first, second, out = Irreps(irreps_in1), Irreps(irreps_in2), Irreps(irreps_out)
        paths = [
            (i, j, k, "uvw", True, 1.0)
            for i, a in enumerate(first) for j, b in enumerate(second) for k, c in enumerate(out) if (c.l, c.p) in _product(a, b)
        ]  # fmt: skip
        super().__init__(
            first, second, out, paths, irrep_normalization=irrep_normalization, path_normalization=path_normalization, **kwargs
        )


class ElementwiseTensorProduct(TensorProduct):
    """``e3nn.o3.ElementwiseTensorProduct``: copy u of x with copy u of y, mode uuu, without weights."""

    def __init__(self, irreps_in1: Any, irreps_in2: Any, filter_ir_out: Any = None, irrep_normalization: str | None = None,
                 **kwargs: Any) -> None:  # fmt: skip
        first, second = _simplified(irreps_in1), _simplified(irreps_in2)
        if sum(t[0] for t in first) != sum(t[0] for t in second):
            check.fail(ValueError, "ElementwiseTensorProduct", "irreps of equally many copies", f"{irreps_in1} and {irreps_in2}")
        n = 0
        while n < len(first):  # split so that the multiplicities agree term by term
            for a, b in ((first, second), (second, first)):
                if a[n][0] > b[n][0]:
                    a[n : n + 1] = [(b[n][0], *a[n][1:]), (a[n][0] - b[n][0], *a[n][1:])]
            n += 1
        keep, paths = _filter(filter_ir_out), []
        out: list[tuple[int, int, int]] = []
        for n, (one, two) in enumerate(zip(Irreps(first), Irreps(second), strict=True)):
            for ir in filter(keep, _product(one, two)):
                paths.append((n, n, len(out), "uuu", False))
                out.append((one.mul, *ir))
        super().__init__(first, second, out, paths, irrep_normalization=irrep_normalization, **kwargs)


class FullTensorProduct(TensorProduct):
    """``e3nn.o3.FullTensorProduct``: every copy of x with every copy of y, mode uvuv, without weights; results sorted by degree,
    odd before even."""

    def __init__(self, irreps_in1: Any, irreps_in2: Any, filter_ir_out: Any = None, irrep_normalization: str | None = None,
                 **kwargs: Any) -> None:  # fmt: skip
        first, second = Irreps(_simplified(irreps_in1)), Irreps(_simplified(irreps_in2))
        keep = _filter(filter_ir_out)
        found = [
            (*ir, n, a.mul * b.mul, i, j)
            for n, (i, a, j, b, ir) in enumerate(
                (i, a, j, b, ir) for i, a in enumerate(first) for j, b in enumerate(second) for ir in filter(keep, _product(a, b))
            )
        ]
        found.sort()
        out = [(mul, degree, p) for degree, p, _, mul, _, _ in found]
        listed = sorted((n, k, i, j) for k, (_, _, n, _, i, j) in enumerate(found))
        paths = [(i, j, k, "uvuv", False) for _, k, i, j in listed]
        super().__init__(first, second, out, paths, irrep_normalization=irrep_normalization, **kwargs)


def spherical_harmonics(l: Any, x: Tensor, normalize: bool, normalization: str = "integral") -> Tensor:
    """``e3nn.o3.spherical_harmonics``; :func:`structops.so2.spherical_harmonics` with e3nn's irreps as ``l`` too."""
    return _harmonics(l, x, bool(normalize), normalization)


class SphericalHarmonics(torch.nn.Module):
    """``e3nn.o3.SphericalHarmonics``."""

    __e3nn_compile_mode__ = "script"

    def __init__(self, irreps_out: Any, normalize: bool, normalization: str = "integral", irreps_in: Any = None) -> None:
        super().__init__()
        self._degrees = degrees("SphericalHarmonics", irreps_out)
        self.normalize, self.normalization = normalize, normalization
        given = Irreps(irreps_out) if isinstance(irreps_out, str) or hasattr(irreps_out, "lmax") else ()
        if irreps_in is None:
            irreps_in = "1e" if any(t.l % 2 and t.p == 1 for t in given) else "1o"
        source = Irreps(irreps_in)
        if source not in (Irreps("1o"), Irreps("1e")):
            check.fail(ValueError, "SphericalHarmonics", "irreps_in of one vector, 1o or 1e", irreps_in)
        self._p = source[0].p
        wrong = [str(t) for t in given if t.p != self._p**t.l]
        if wrong:
            check.fail(ValueError, "SphericalHarmonics", f"irreps_out of the parities that {source} gives", wrong[0])
        self.irreps_in = _theirs(source)
        self.irreps_out = _theirs(Irreps(_simplified([(1, d, self._p**d) for d in self._degrees])))

    def forward(self, x: Tensor) -> Tensor:
        return _harmonics(self._degrees, x, self.normalize, self.normalization)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return script.ScriptSphericalHarmonics(self, self._degrees)


_NAMES = (
    "TensorProduct",
    "FullyConnectedTensorProduct",
    "ElementwiseTensorProduct",
    "FullTensorProduct",
    "SphericalHarmonics",
    "spherical_harmonics",
)
_replaced: dict[str, Any] = {}


def patch_e3nn() -> None:
    """Put these in the place of ``e3nn.o3``'s own, for models built from now on; ImportError without e3nn."""
    from e3nn import o3

    for name in _NAMES:
        _replaced.setdefault(name, getattr(o3, name))
        setattr(o3, name, globals()[name])


def unpatch_e3nn() -> None:
    """Undo :func:`patch_e3nn`."""
    if _replaced:
        from e3nn import o3

        for name, original in _replaced.items():
            setattr(o3, name, original)
        _replaced.clear()
