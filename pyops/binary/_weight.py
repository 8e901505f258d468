"""Weights packed once."""

from __future__ import annotations

import math
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _check as check
from .._dispatch import state
from . import _ops as ops
from ._bits import BitTensor, _sign, bits_of, pack_words, unpack_words

# Kind -> (coefficient of every plane, whether its bits stand for -1 and 1 rather than 0 and 1).
KINDS: dict[str, tuple[tuple[int, ...], bool]] = {
    "pm1": ((1,), True),
    "01": ((1,), False),
    "ternary": ((1, -1), False),
    "int2": ((1, -2), False),
    "odd2": ((1, 2), True),
}


def form(a_values: str, kind: str, K: int, polarity: int) -> tuple[list[int], list[int], int, int, bool]:
    """(coef, col, row, base, halve) of csrc/binary/gemm.h for activations of ``a_values`` and weights of ``kind``."""
    coefficients, signs = KINDS[kind]
    total = polarity * sum(coefficients)
    c = [polarity * v for v in coefficients]
    if a_values == "pm1":
        if signs:
            return [-2 * v for v in c], [0] * len(c), 0, total * K, False
        return [-v for v in c], [0] * len(c), total, 0, False
    if signs:
        return [-v for v in c], c, 0, 0, False
    return [-v for v in c], c, total, 0, True


def mixed_form(kind: str, integers: bool) -> tuple[list, float]:
    """(coef, base) of csrc/binary/mixed.h for int8 or floats times weights of ``kind``."""
    c, signs = KINDS[kind]
    if integers:
        return ([2 * v for v in c], -sum(c)) if signs else (list(c), 0)
    return ([float(v) for v in c], 0.0) if signs else ([v / 2 for v in c], sum(c) / 2)


class PackedWeight:
    """A weight as bit planes, with the panels that the CPU kernels read made once.

    A tensor given here is packed now. It is watched: where it was changed in place since (an optimiser step) or given other memory
    (``.data = ..``, as ``Module.to`` does), the next use packs it again, so that results are never those of an old weight. Writing
    through ``.data`` and changes of inference tensors leave no trace, and compiled graphs do not watch: call :meth:`refresh`.

    Args:
        weight: [N, K] of a linear layer, [O, C / groups, *kernel] of a convolution (``kind`` "pm1"), or a :class:`BitTensor` of
            that shape packed along dimension 1.
        kind: how values become bits:
            "pm1": the sign, -1 or 1;  "01": whether > 0;  "ternary": sign with 0, in {-1, 0, 1};
            "int2": integers -2, -1, 0, 1;  "odd2": integers -3, -1, 1, 3 (refused otherwise).
        sign_zero: the sign of a zero of kind "pm1".
        groups: of the convolution; panels are made per group.

    Saved by ``torch.save`` and ``pickle`` at one bit a plane and value.

    >>> import torch
    >>> from structops import binary
    >>> w = torch.tensor([[1.0, -2.0, 3.0]])
    >>> packed = binary.PackedWeight(w)
    >>> binary.binary_linear(torch.ones(1, 3), packed)
    tensor([[1.]])
    >>> _ = w.neg_()  # noticed
    >>> binary.binary_linear(torch.ones(1, 3), packed)
    tensor([[-1.]])
    """

    _source: weakref.ref[Tensor] | None
    _packed: tuple[int, int] | None  # version and address of what was packed
    _panels: Tensor | None
    _taps: Tensor | None

    def __init__(self, weight: Tensor | BitTensor, kind: str = "pm1", *, sign_zero: int = 1, groups: int = 1):
        op = "PackedWeight"
        self.kind = check.choice(op, "kind", kind, tuple(KINDS))
        self.sign_zero = _sign(op, "sign_zero", sign_zero)
        self.groups = check.size(op, "groups", groups)
        self._source = self._packed = self._panels = self._taps = None
        if isinstance(weight, BitTensor):
            self._adopt(op, weight)
        else:
            check.dense(op, "weight", weight, integers=True)
            if weight.dim() < 2 or weight.dim() > 4:
                check.fail(ValueError, op, "weight [N, K] or [O, C / groups, *kernel]", list(weight.shape))
            self.shape = torch.Size(weight.shape)
            self._check_groups(op)
            self._source = weakref.ref(weight)
            self._pack(weight)

    def _check_groups(self, op: str) -> None:
        if self.groups < 1 or self.shape[0] % self.groups:
            check.fail(ValueError, op, f"groups to divide {self.shape[0]} outputs", self.groups)
        if len(self.shape) > 2 and self.kind != "pm1":
            check.fail(ValueError, op, "kind 'pm1' of a convolution", repr(self.kind))

    def _pack(self, weight: Tensor) -> None:
        self._packed = state(weight)
        w = weight.detach()
        if w.dim() > 2:  # taps outside, channels inside
            w = w.movedim(1, -1).flatten(1)
        if self.kind in ("int2", "odd2"):
            low, high, step = (-2, 1, 1) if self.kind == "int2" else (-3, 3, 2)
            whole = w.to(torch.int64)
            if bool(((whole != w) | (whole < low) | (whole > high) | ((whole - low) % step != 0)).any()):
                check.fail(ValueError, "PackedWeight", f"values {list(range(low, high + 1, step))} of kind '{self.kind}'", "others")
            code = whole & 3 if self.kind == "int2" else (whole + 3) // 2
            planes = [pack_words(((code >> p) & 1).int(), 1, ops.GT) for p in (0, 1)]
        elif self.kind == "ternary":
            planes = [pack_words(w, 1, ops.GT), pack_words(w.neg(), 1, ops.GT)]
        else:
            test = ops.GE if self.kind == "pm1" and self.sign_zero == 1 else ops.GT
            planes = [pack_words(w, 1, test)]
        self._words = torch.stack(planes)
        self._panels = self._taps = None

    def _adopt(self, op: str, bits: BitTensor) -> None:
        if bits.dim != 1 or len(bits.shape) < 2 or len(bits.shape) > 4:
            check.fail(
                ValueError, op, "a BitTensor of 2 to 4 dimensions packed along dimension 1", f"{list(bits.shape)}, {bits.dim}"
            )
        if self.kind not in ("pm1", "01") or (self.kind == "01") != (bits.values == "01"):
            check.fail(ValueError, op, f"kind '{bits.values}', as the bits", repr(self.kind))
        bits = bits.with_polarity(1)
        self.shape, self.sign_zero = bits.shape, bits.sign_zero
        self._check_groups(op)
        if len(self.shape) == 2:
            words = bits.words
        elif bits.K % 64 == 0:
            words = bits.words.flatten(1)
        else:
            dense = unpack_words(bits.words, bits.K, bits.words.dim() - 1, torch.float32, -1.0, 1.0)
            words = pack_words(dense.flatten(1), 1, ops.GE)
        self._words = words[None].contiguous()

    def refresh(self) -> None:
        """Pack the watched tensor again now."""
        source = self._source() if self._source is not None else None
        if source is None:
            raise RuntimeError("PackedWeight: there is no tensor to pack again")
        self._pack(source)

    def _fresh(self) -> None:
        if self._source is None or torch.compiler.is_compiling():  # versions are not to be read while tracing
            return
        source = self._source()
        if source is not None and state(source) != self._packed:
            self._pack(source)

    @staticmethod
    def of(kept: PackedWeight | None, weight: Tensor, groups: int = 1) -> PackedWeight:
        """``kept`` where it is ``weight``, packed, and stays so; a new one otherwise, and for inference tensors always."""
        if kept is not None and kept._source is not None and kept._source() is weight and not weight.is_inference():
            return kept
        return PackedWeight(weight, groups=groups)

    @property
    def K(self) -> int:
        """Bits of a row: inputs of a linear layer, taps times channels of a group of a convolution."""
        return math.prod(self.shape[1:])

    @property
    def words(self) -> Tensor:
        """int64 [planes, N, ceil(K / 64)]; bit k of a convolution's row is channel c of tap t, k = t * C + c."""
        self._fresh()
        return self._words

    @property
    def panels(self) -> Tensor | None:
        """The copy that CPU kernels read; None on other devices."""
        self._fresh()
        if self._words.device.type != "cpu":
            return None
        if self._panels is None:
            P, N, W = self._words.shape
            self._panels = ops.bits_panels(self._words.reshape(P * self.groups, N // self.groups, W))
        return self._panels

    @property
    def taps(self) -> Tensor:
        """Ones in every tap of every filter, int32 [taps, O]: what zero padding leaves out."""
        self._fresh()
        if self._taps is None:
            C, O = self.shape[1], self.shape[0]
            dense = unpack_words(self._words[0], self.K, 1, torch.int32, 0.0, 1.0)
            self._taps = dense.reshape(O, -1, C).sum(2, dtype=torch.int32).t().contiguous()
        return self._taps

    @property
    def device(self) -> torch.device:
        return self._words.device

    @property
    def nbytes(self) -> int:
        """Bytes of the words; the CPU's panels are as many again."""
        return 8 * self._words.numel()

    def to(self, device: torch.device | str) -> PackedWeight:
        """A copy on another device, no longer tied to the tensor that it was made from."""
        return PackedWeight._from_words(self.words.to(device), self.shape, self.kind, self.sign_zero, self.groups)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values, in the shape of the weight."""
        c, signs = KINDS[self.kind]
        total: Any = sum(
            v * unpack_words(plane, self.K, 1, dtype, -1.0 if signs else 0.0, 1.0) for v, plane in zip(c, self.words, strict=True)
        )
        if len(self.shape) == 2:
            return total
        return total.reshape(self.shape[0], *self.shape[2:], self.shape[1]).movedim(-1, 1).contiguous()

    @staticmethod
    def _from_words(words: Tensor, shape, kind: str, sign_zero: int, groups: int) -> PackedWeight:
        made = PackedWeight.__new__(PackedWeight)
        made.kind, made.sign_zero, made.groups, made.shape = kind, sign_zero, groups, torch.Size(shape)
        made._source = made._packed = made._panels = made._taps = None
        made._words = words
        return made

    def __reduce__(self):
        planes = BitTensor(self.words, self.K, 2, values="01", validate=False)
        return _load_weight, (planes, tuple(self.shape), self.kind, self.sign_zero, self.groups)

    def __repr__(self) -> str:
        return f"PackedWeight(shape={tuple(self.shape)}, kind={self.kind}, groups={self.groups}, device={self.device})"


def _load_weight(planes: Any, shape: Any, kind: Any, sign_zero: Any, groups: Any) -> PackedWeight:
    bits_of("PackedWeight", "planes", planes)
    ok = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape) and 2 <= len(shape) <= 4
    ok = ok and kind in KINDS and sign_zero in (1, -1) and isinstance(groups, int) and groups >= 1 and shape[0] % groups == 0
    if not ok or planes.dim != 2 or tuple(planes.shape) != (len(KINDS[kind][0]), shape[0], math.prod(shape[1:])):
        raise ValueError("PackedWeight: corrupt data: the planes do not fit the shape and kind")
    return PackedWeight._from_words(planes.words, shape, kind, sign_zero, groups)


torch.serialization.add_safe_globals([_load_weight])


class CallWeight(NamedTuple):
    """A weight as the kernels of one call take it."""

    words: Tensor
    panels: Tensor | None
    kind: str
    shape: torch.Size


def weight_of(op: str, weight: Any, sign_zero: int, groups: int = 1) -> CallWeight:
    """A weight argument: packed before, or packed for this call alone."""
    if isinstance(weight, BitTensor):
        weight = PackedWeight(weight, weight.values, groups=groups)
    if isinstance(weight, PackedWeight):
        if weight.groups != groups:
            check.fail(ValueError, op, f"a weight packed with groups={groups}", weight.groups)
        return CallWeight(weight.words, weight.panels, weight.kind, weight.shape)
    if not isinstance(weight, Tensor):
        check.fail(TypeError, op, "weight to be a torch.Tensor, a BitTensor or a PackedWeight", type(weight).__name__)
    w = weight.detach()
    rows = w if w.dim() == 2 else w.movedim(1, -1).flatten(1)
    return CallWeight(pack_words(rows, 1, ops.GE if sign_zero == 1 else ops.GT)[None], None, "pm1", weight.shape)
