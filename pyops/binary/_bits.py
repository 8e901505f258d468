"""Bits: packing, counting, and the tensor that holds them."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import torch
from torch import Tensor

from .. import _check as check
from . import _ops as ops

MAGIC, VERSION = b"STBITS\r\n", 1
VALUES = ("pm1", "01")
_HEADER = struct.Struct("<8sBBbbbxxxi")  # magic, version, values, polarity, sign_zero, ndim, dim
_MAX_K = 2**31 - 1


def _sign(op: str, name: str, value: Any) -> int:
    if value not in (1, -1) or isinstance(value, bool):
        check.fail(ValueError, op, f"{name} to be 1 or -1", repr(value))
    return int(value)


class BitTensor:
    """A tensor of two values stored as bits, packed along one dimension.

    ``words`` is int64 with the packed dimension last, ``ceil(K / 64)`` words a row: value k is bit ``k % 64`` of word
    ``k // 64``, and the padding bits are 0. Made by :func:`pack`, by operators that give bits, or from words of that layout.
    Saved by ``torch.save`` and ``pickle`` at one bit a value, with a checksum; a corrupt file is refused.

    Args:
        words: int64 [.., ceil(K / 64)]; shared, not copied.
        K: length of the packed dimension, at most 2**31 - 1.
        dim: its place in the shape (default: the last).
        values: "pm1" (bit 1 is ``polarity``) or "01" (the bits themselves).
        polarity: 1, or -1 where bit 1 stands for -1.
        sign_zero: what a zero was packed as, 1 or -1; kept for :meth:`pack_like`.
        validate: check that the padding bits are 0.

    Raises:
        TypeError, ValueError: words of another dtype or width, a padding bit that is 1.

    >>> import torch
    >>> from structops import binary
    >>> bits = binary.pack(torch.tensor([[0.5, -2.0, 0.0], [-1.0, -1.0, 3.0]]))
    >>> bits.shape, bits.words.tolist()
    (torch.Size([2, 3]), [[5], [4]])
    >>> binary.unpack(bits)
    tensor([[ 1., -1.,  1.],
            [-1., -1.,  1.]])
    """

    __slots__ = ("K", "__weakref__", "dim", "polarity", "sign_zero", "values", "words")

    def __init__(
        self,
        words: Tensor,
        K: int,
        dim: int = -1,
        *,
        values: str = "pm1",
        polarity: int = 1,
        sign_zero: int = 1,
        validate: bool = True,
    ):
        op = "BitTensor"
        check.tensor(op, "words", words)
        if words.dtype != torch.int64:
            check.fail(TypeError, op, "words of dtype int64", words.dtype)
        K = check.size(op, "K", K)
        if words.dim() == 0 or words.shape[-1] != ops.words_of(K):
            check.fail(ValueError, op, f"words [.., {ops.words_of(K)}], ceil(K / 64) of K = {K}", list(words.shape))
        if not isinstance(K, torch.SymInt) and K > _MAX_K:
            check.fail(ValueError, op, "K below 2**31", K)
        self.words = words.contiguous()
        self.K = K
        self.dim = check.axis(op, dim, words.dim())
        self.values = check.choice(op, "values", values, VALUES)
        self.polarity = _sign(op, "polarity", polarity)
        self.sign_zero = _sign(op, "sign_zero", sign_zero)
        if values == "01" and self.polarity != 1:
            check.fail(ValueError, op, "polarity 1 of values '01'", polarity)
        if validate:
            self.validate()

    @staticmethod
    def _made(words: Tensor, K: int, dim: int) -> BitTensor:
        """Words that a kernel made: nothing to check."""
        made = BitTensor.__new__(BitTensor)
        made.words, made.K, made.dim, made.values, made.polarity, made.sign_zero = words, K, dim, "pm1", 1, 1
        return made

    @property
    def shape(self) -> torch.Size:
        lead = list(self.words.shape[:-1])
        lead.insert(self.dim, self.K)
        return torch.Size(lead)

    @property
    def device(self) -> torch.device:
        return self.words.device

    @property
    def nbytes(self) -> int:
        """Bytes of the words."""
        return 8 * self.words.numel()

    def numel(self) -> int:
        return self.shape.numel()

    def validate(self) -> None:
        """ValueError if a padding bit is 1."""
        tail = self.K % 64
        if tail and self.words.numel() and bool((self.words[..., -1] & (-1 << tail)).any()):
            raise ValueError("BitTensor: expected padding bits 0, got a word with bits beyond K")

    def to(self, device: torch.device | str) -> BitTensor:
        return self._with(self.words.to(device))

    def _with(self, words: Tensor, **changes: Any) -> BitTensor:
        same = {"values": self.values, "polarity": self.polarity, "sign_zero": self.sign_zero, **changes}
        return BitTensor(words, self.K, self.dim, validate=False, **same)

    def with_polarity(self, polarity: int) -> BitTensor:
        """The same values with the other meaning of bits: valid bits are complemented where the polarity changes."""
        if _sign("with_polarity", "polarity", polarity) == self.polarity:
            return self
        if self.values == "01":
            check.fail(ValueError, "with_polarity", "values 'pm1'", "'01'")
        words = ~self.words
        if self.K % 64 and words.numel():
            words[..., -1] &= (1 << self.K % 64) - 1
        return self._with(words, polarity=polarity)

    def pack_like(self, x: Tensor) -> BitTensor:
        """``x`` packed with this tensor's dimension and conventions."""
        return pack(x, self.dim, values=self.values, polarity=self.polarity, sign_zero=self.sign_zero)

    def __repr__(self) -> str:
        meaning = f"values={self.values}, polarity={self.polarity}"
        return f"BitTensor(shape={tuple(self.shape)}, dim={self.dim}, {meaning}, device={self.device})"

    # ---- one bit a value -------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Header, ceil(numel / 8) bytes of bits in the order of the words, checksum."""
        import numpy as np

        shape = self.shape
        head = _HEADER.pack(MAGIC, VERSION, VALUES.index(self.values), self.polarity, self.sign_zero, len(shape), self.dim)
        head += struct.pack(f"<{len(shape)}q", *shape)
        width = 8 * self.words.shape[-1]
        rows = self.words.cpu().numpy().view(np.uint8).reshape(-1, width) if self.numel() else np.zeros((0, width), np.uint8)
        if self.K % 8 == 0:
            payload = np.ascontiguousarray(rows[:, : self.K // 8]).tobytes()
        else:
            payload = np.packbits(
                np.unpackbits(rows, axis=1, count=self.K, bitorder="little").reshape(-1), bitorder="little"
            ).tobytes()
        body = head + payload
        return body + struct.pack("<I", zlib.crc32(body))

    @staticmethod
    def from_bytes(data: bytes) -> BitTensor:
        """The inverse of :meth:`to_bytes`; ValueError for anything that it did not write."""
        import numpy as np

        def refuse(why: str):
            raise ValueError(f"BitTensor: corrupt data: {why}")

        data = bytes(data)
        if len(data) < _HEADER.size + 4 or data[:8] != MAGIC:
            refuse("no header")
        if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            refuse("the checksum differs")
        _, version, values, polarity, sign_zero, ndim, dim = _HEADER.unpack_from(data)
        if version != VERSION or values >= len(VALUES) or not 1 <= ndim <= 64 or not 0 <= dim < ndim:
            refuse("unknown version or header")
        if len(data) < _HEADER.size + 8 * ndim + 4:
            refuse("it ends in the header")
        shape = struct.unpack_from(f"<{ndim}q", data, _HEADER.size)
        numel = 1
        for n in shape:
            if n < 0:
                refuse("a negative size")
            numel *= n
        payload = data[_HEADER.size + 8 * ndim : -4]
        if len(payload) != (numel + 7) // 8:
            refuse(f"{len(payload)} bytes for {numel} bits")
        K = shape[dim]
        lead = [n for i, n in enumerate(shape) if i != dim]
        width = 8 * ops.words_of(K)
        if not numel:
            if max(lead, default=0) >= 2**31 or K > _MAX_K:
                refuse("an impossible size")
            words = torch.zeros((*lead, width // 8), dtype=torch.int64, device="cpu")
            return BitTensor(words, K, dim, values=VALUES[values], polarity=polarity, sign_zero=sign_zero)
        rows = numel // K
        found = np.zeros((rows, width), dtype=np.uint8)
        raw = np.frombuffer(payload, dtype=np.uint8)
        if K % 8 == 0:
            found[:, : K // 8] = raw.reshape(rows, K // 8)
        else:
            bits = np.unpackbits(raw, bitorder="little")
            if bits[numel:].any():
                refuse("bits beyond the last value")
            packed = np.packbits(bits[:numel].reshape(rows, K), axis=1, bitorder="little")
            found[:, : packed.shape[1]] = packed
        words = torch.from_numpy(found.view(np.int64))
        return BitTensor(words.reshape(*lead, width // 8), K, dim, values=VALUES[values], polarity=polarity, sign_zero=sign_zero)

    def __reduce__(self):
        return _load_bits, (torch.frombuffer(bytearray(self.to_bytes()), dtype=torch.uint8), str(self.device))


def _load_bits(data: Tensor, device: str = "cpu") -> BitTensor:
    if not isinstance(data, Tensor) or data.dtype != torch.uint8 or data.dim() != 1:
        raise ValueError("BitTensor: corrupt data: not a tensor of bytes")
    found = BitTensor.from_bytes(data.cpu().numpy().tobytes())
    return found if device == "cpu" or not torch.cuda.is_available() else found.to(device)


torch.serialization.add_safe_globals([_load_bits])


# ---- pack, unpack ----------------------------------------------------------------------------------------------------

_WIDENED = {torch.bool: torch.int32, torch.uint8: torch.int32, torch.int8: torch.int32, torch.int16: torch.int32}


def pack_words(x: Tensor, dim: int, test: int, limit: float = 0.0, invert: bool = False, shift: Tensor | None = None) -> Tensor:
    """Words of ``test`` of x along ``dim``, the packed dimension moved last. x is checked by the caller."""
    x = x.detach()
    if x.dtype in _WIDENED:
        x = x.to(_WIDENED[x.dtype])
    K = x.shape[dim]
    lead = [*x.shape[:dim], *x.shape[dim + 1 :]]
    width = ops.words_of(K)
    last = x.movedim(dim, -1)
    if last.is_contiguous() or not x.is_contiguous():  # rows, also of a channels-last image
        words = ops.bits_pack(last.contiguous().reshape(_product(lead), K), shift, test, limit, invert)
    else:
        words = ops.bits_pack(x.reshape(_product(x.shape[:dim]), K, _product(x.shape[dim + 1 :])), shift, test, limit, invert)
    return words.reshape(*lead, width)


def _product(sizes) -> int:
    n = 1
    for s in sizes:
        n *= s
    return n


def pack(
    x: Tensor, dim: int = -1, *, values: str = "pm1", polarity: int = 1, sign_zero: int = 1, shift: Tensor | None = None
) -> BitTensor:
    """The signs of a tensor as bits.

    Args:
        x: floats, integers or bool, any shape with at least one dimension, any strides.
        dim: the dimension to pack along, of any length up to 2**31 - 1.
        values: "pm1" packs signs; "01" packs whether x > 0 (bool: whether it is true).
        polarity: 1 stores +1 as bit 1; -1 stores -1 as bit 1.
        sign_zero: the sign of zero (and of -0.0), 1 or -1. NaN packs as -1.
        shift: [x.shape[dim]] in the dtype of x, added before the sign is taken (RSign); floating x only.

    Returns:
        A :class:`BitTensor`. Not differentiable; see :func:`binary_linear` for training. Deterministic.

    Raises:
        TypeError, ValueError, IndexError: naming the argument.

    >>> import torch
    >>> from structops import binary
    >>> binary.pack(torch.tensor([1.0, 0.0, -1.0]), sign_zero=-1).words.item()
    1
    """
    op = "pack"
    if isinstance(x, Tensor) and x.dtype == torch.bool:
        check.tensor(op, "x", x)
    else:
        check.dense(op, "x", x, integers=True)
    dim = check.axis(op, dim, x.dim())
    check.choice(op, "values", values, VALUES)
    polarity, sign_zero = _sign(op, "polarity", polarity), _sign(op, "sign_zero", sign_zero)
    if values == "01" and polarity != 1:
        check.fail(ValueError, op, "polarity 1 of values '01'", polarity)
    if shift is not None:
        shift = column(op, "shift", shift, x.shape[dim], x.dtype, x.device)
    test = ops.GT if values == "01" or sign_zero == -1 else ops.GE
    words = pack_words(x, dim, test, 0.0, polarity == -1, shift)
    return BitTensor(words, x.shape[dim], dim, values=values, polarity=polarity, sign_zero=sign_zero, validate=False)


def column(op: str, name: str, t: Any, N: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A per-channel parameter [N], contiguous in ``dtype``."""
    check.tensor(op, name, t)
    if not (t.dtype.is_floating_point and dtype.is_floating_point):
        check.fail(TypeError, op, f"floating {name}", t.dtype)
    if t.numel() != N or (t.dim() > 1 and max(t.shape) != N):
        check.fail(ValueError, op, f"{name} [{N}]", list(t.shape))
    if t.device != device:
        check.fail(ValueError, op, f"{name} on {device}", t.device)
    return t.detach().reshape(N).to(dtype).contiguous()


def bits_of(op: str, name: str, b: Any) -> BitTensor:
    if not isinstance(b, BitTensor):
        check.fail(TypeError, op, f"{name} to be a BitTensor (of binary.pack)", type(b).__name__)
    return b


def unpack_words(words: Tensor, K: int, dim: int, dtype: torch.dtype, zero: float, one: float) -> Tensor:
    """Words [.., W] as values, the packed dimension at ``dim``."""
    lead = words.shape[:-1]
    code = ops.DTYPE_CODES[dtype]
    if dim == len(lead):
        flat = ops.bits_unpack(_rows(words), K, code, zero, one)
    else:
        flat = ops.bits_unpack(words.reshape(_product(lead[:dim]), _product(lead[dim:]), words.shape[-1]), K, code, zero, one)
    return flat.reshape(*lead[:dim], K, *lead[dim:])


def unpack(bits: BitTensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values of packed bits: -1 and 1, or 0 and 1, in their original shape.

    Args:
        bits: of :func:`pack`.
        dtype: float32, float64, bfloat16, float16, int32 or int64.

    >>> import torch
    >>> from structops import binary
    >>> binary.unpack(binary.pack(torch.tensor([3, -4])), torch.int32)
    tensor([ 1, -1], dtype=torch.int32)
    """
    bits_of("unpack", "bits", bits)
    if dtype not in ops.DTYPE_CODES:
        check.fail(TypeError, "unpack", "dtype to be float32, float64, bfloat16, float16, int32 or int64", dtype)
    zero, one = (0.0, 1.0) if bits.values == "01" else (-float(bits.polarity), float(bits.polarity))
    return unpack_words(bits.words, bits.K, bits.dim, dtype, zero, one)


def popcount(bits: BitTensor) -> Tensor:
    """Bits that are 1 along the packed dimension, int32 [.., without that dimension].

    >>> import torch
    >>> from structops import binary
    >>> binary.popcount(binary.pack(torch.ones(2, 70)))
    tensor([70, 70], dtype=torch.int32)
    """
    words = bits_of("popcount", "bits", bits).words
    return ops.bits_count(_rows(words), None, ops.ONE).reshape(words.shape[:-1])


def hamming(a: BitTensor, b: BitTensor) -> Tensor:
    """Places along the packed dimension where a and b differ, int32; a and b have one shape. All pairs: :func:`bit_matmul`.

    >>> import torch
    >>> from structops import binary
    >>> x = binary.pack(torch.tensor([[1.0, -1.0, 1.0]]))
    >>> binary.hamming(x, binary.pack(torch.tensor([[1.0, 1.0, -1.0]])))
    tensor([2], dtype=torch.int32)
    """
    op = "hamming"
    bits_of(op, "a", a), bits_of(op, "b", b)
    if a.shape != b.shape or a.dim != b.dim:
        check.fail(ValueError, op, f"b of shape {list(a.shape)} packed along {a.dim}, as a", f"{list(b.shape)} along {b.dim}")
    if a.values != b.values:
        check.fail(ValueError, op, f"b of values '{a.values}', as a", f"'{b.values}'")
    check.same_device(op, a=a.words, b=b.words)
    counts = ops.bits_count(_rows(a.words), _rows(b.words), ops.XOR).reshape(a.words.shape[:-1])
    return counts if a.polarity == b.polarity else a.K - counts


def _rows(words: Tensor) -> Tensor:
    return words.reshape(_product(words.shape[:-1]), words.shape[-1])
