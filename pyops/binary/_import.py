"""Packed weights of other packages, in and out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from . import _ops as ops
from ._bits import BitTensor, pack
from ._weight import PackedWeight


def _words(op: str, data: Any, dtypes: tuple[str, ...], K: int, clear_tail: bool) -> Tensor:
    """Rows of bytes as int64 words: all three layouts put value k at bit k % 8 of byte k // 8."""
    t = data if isinstance(data, Tensor) else torch.as_tensor(_signed(op, data))
    names = str(t.dtype).removeprefix("torch.")
    if names not in dtypes:
        check.fail(TypeError, op, f"data of dtype {' or '.join(dtypes)}", names)
    K = check.size(op, "K", K)
    size = t.dtype.itemsize
    if t.dim() == 0 or t.shape[-1] != -(-K // (8 * size)):
        check.fail(ValueError, op, f"data [.., {-(-K // (8 * size))}] for K = {K}", list(t.shape))
    octets = t.contiguous().view(torch.uint8) if t.numel() else t.new_empty((*t.shape[:-1], t.shape[-1] * size), dtype=torch.uint8)
    octets = torch.nn.functional.pad(octets, (0, 8 * ops.words_of(K) - octets.shape[-1]))
    words = (
        octets.contiguous().view(torch.int64) if octets.numel() else octets.new_empty((*octets.shape[:-1], 0), dtype=torch.int64)
    )
    if K % 64 and words.numel():
        tail = words[..., -1] & (-1 << K % 64)
        if not clear_tail and bool(tail.any()):
            check.fail(ValueError, op, "tail bits 0", "a tail with bits")
        words[..., -1] ^= tail
    return words


def _signed(op: str, data: Any):
    """A NumPy array in a dtype that every torch has."""
    import numpy as np

    if not isinstance(data, np.ndarray):
        check.fail(TypeError, op, "data to be a torch.Tensor or a NumPy array", type(data).__name__)
    signed = {"uint64": np.int64, "uint32": np.int32}.get(data.dtype.name)
    return np.ascontiguousarray(data if signed is None else data.view(signed))


def from_larq(data: Any, K: int, dim: int = -1) -> BitTensor:
    """Bits of larq-compute-engine: int32 words [.., ceil(K / 32)], least bit first, bit 1 for negative, tail bits 0.

    Args:
        data: int32 tensor or array, the packed dimension last (LCE keeps channels last: filters are [O, kh, kw, words]).
        K: values along the packed dimension.
        dim: the place of the packed dimension in the result, e.g. 1 for filters [O, C, kh, kw].

    Returns:
        A :class:`BitTensor` of polarity -1; :class:`PackedWeight` takes it with ``dim=1``.

    >>> import torch
    >>> from structops import binary
    >>> binary.unpack(binary.from_larq(torch.tensor([[0b010]], dtype=torch.int32), 3))
    tensor([[ 1., -1.,  1.]])
    """
    return BitTensor(_words("from_larq", data, ("int32",), K, False), K, dim, polarity=-1)


def from_bitorch_engine(data: Any, K: int, dim: int = -1) -> BitTensor:
    """Bits of bitorch-engine: bytes [.., ceil(K / 8)], least bit first, bit 1 for x >= 0; tail bits are ignored.

    >>> import torch
    >>> from structops import binary
    >>> binary.unpack(binary.from_bitorch_engine(torch.tensor([[0b101]], dtype=torch.uint8), 3))
    tensor([[ 1., -1.,  1.]])
    """
    return BitTensor(_words("from_bitorch_engine", data, ("uint8",), K, True), K, dim)


def from_bnn_lab(data: Any, K: int, dim: int = -1) -> BitTensor:
    """Bits of bnn-lab's ``pack_binary_pm1``: uint64 words [.., ceil(K / 64)], least bit first, bit 1 for x <= 0; zero is -1.

    >>> import numpy as np
    >>> from structops import binary
    >>> binary.unpack(binary.from_bnn_lab(np.array([[0b010]], dtype=np.uint64), 3))
    tensor([[ 1., -1.,  1.]])
    """
    return BitTensor(_words("from_bnn_lab", data, ("int64", "uint64"), K, True), K, dim, polarity=-1, sign_zero=-1)


# ---- and back --------------------------------------------------------------------------------------------------------


def _exported(op: str, bits: Any, polarity: int, dtype: torch.dtype) -> Tensor:
    """The words of +-1 values with bit 1 for ``polarity``, as ``dtype`` and no longer than K values take."""
    if isinstance(bits, PackedWeight):
        if bits.kind != "pm1":
            check.fail(ValueError, op, "a weight of kind 'pm1': the layout holds -1 and 1", repr(bits.kind))
        bits = pack(bits.dense(), 1)
    if not isinstance(bits, BitTensor):
        check.fail(TypeError, op, "a BitTensor or a PackedWeight", type(bits).__name__)
    if bits.values != "pm1":
        check.fail(ValueError, op, "bits of values 'pm1': the layout holds -1 and 1", repr(bits.values))
    words, size = bits.with_polarity(polarity).words, dtype.itemsize
    width = -(-bits.K // (8 * size))
    if words.numel() == 0:
        return words.new_empty((*words.shape[:-1], width), dtype=dtype)
    return words.contiguous().view(dtype)[..., :width].clone()


def to_larq(bits: BitTensor | PackedWeight) -> Tensor:
    """+-1 values as larq-compute-engine packs them: int32 ``[.., ceil(K / 32)]``, least bit first, bit 1 for negative, tail bits 0.

    The packed dimension goes last, as there: filters [O, C, kh, kw] packed along channels become [O, kh, kw, words].
    :func:`from_larq` reads the result back.

    Raises:
        TypeError: not a BitTensor or PackedWeight.
        ValueError: values that are not -1 and 1 ({0, 1}, ternary, two bits), which the layout does not have.

    >>> import torch
    >>> from structops import binary
    >>> binary.to_larq(binary.pack(torch.tensor([[1.0, -1.0, 1.0]])))
    tensor([[2]], dtype=torch.int32)
    """
    return _exported("to_larq", bits, -1, torch.int32)


def to_bitorch_engine(bits: BitTensor | PackedWeight) -> Tensor:
    """+-1 values as bitorch-engine packs them: uint8 ``[.., ceil(K / 8)]``, least bit first, bit 1 for +1, tail bits 0.

    The packed dimension goes last. :func:`from_bitorch_engine` reads the result back. Errors as in :func:`to_larq`.

    >>> import torch
    >>> from structops import binary
    >>> binary.to_bitorch_engine(binary.pack(torch.tensor([[1.0, -1.0, 1.0]])))
    tensor([[5]], dtype=torch.uint8)
    """
    return _exported("to_bitorch_engine", bits, 1, torch.uint8)


def to_bnn_lab(bits: BitTensor | PackedWeight) -> Tensor:
    """+-1 values as bnn-lab packs them: words ``[.., ceil(K / 64)]``, least bit first, bit 1 for -1, tail bits 0; int64 with the
    bits of its uint64 (``.numpy().view("uint64")``).

    The packed dimension goes last. :func:`from_bnn_lab` reads the result back. Errors as in :func:`to_larq`.

    >>> import torch
    >>> from structops import binary
    >>> binary.to_bnn_lab(binary.pack(torch.tensor([[1.0, -1.0, 1.0]])))
    tensor([[2]])
    """
    return _exported("to_bnn_lab", bits, -1, torch.int64)
