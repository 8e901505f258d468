"""Entries of the operators on bits. None has a derivative: the layers bring theirs."""

from __future__ import annotations

import torch

from .._dispatch import define

TESTS = {"ge": 0, "gt": 1, "abs_le": 2, "abs_lt": 3}
GE, GT, ABS_LE, ABS_LT = range(4)
ONE, XOR, AND = range(3)
DTYPE_CODES = {
    torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3, torch.int32: 4, torch.int64: 5,
}  # fmt: skip
OUT_I32, OUT_F32, OUT_BF16, OUT_F16, OUT_BITS = range(5)
OUT_CODES = {torch.int32: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}
OUT_DTYPES = (torch.int32, torch.float32, torch.bfloat16, torch.float16, torch.int64)
PAD_ZERO, PAD_BIT0, PAD_BIT1 = range(3)
MAX_PLANES = 8


def words_of(K: int) -> int:
    """64-bit words of a row of K bits."""
    return (K + 63) // 64


def _pack_fake(x, shift, test, limit, invert):
    lead = x.shape[:1] if x.dim() == 2 else (x.shape[0], x.shape[2])
    return x.new_empty((*lead, words_of(x.shape[1])), dtype=torch.int64)


def _unpack_fake(words, K, dtype, zero, one):
    shape = (words.shape[0], K) if words.dim() == 2 else (words.shape[0], K, words.shape[1])
    return words.new_empty(shape, dtype=tuple(DTYPE_CODES)[dtype])


def _count_fake(a, b, op):
    return a.new_empty(a.shape[0], dtype=torch.int32)


def _panels_fake(words):
    P, N, W = words.shape
    return words.new_empty((P, words_of(N), 2 * W, 64), dtype=torch.int32)


def _result(like, lead, N, out):
    return like.new_empty((*lead, words_of(N) if out == OUT_BITS else N), dtype=OUT_DTYPES[out])


def _gemm_fake(a, b, *rest):
    return _result(a, a.shape[:-1], b.shape[-2], rest[-1])


def _conv_fake(x, w, panels, taps, channels, groups, window, *rest):
    return _result(x, (x.shape[0], *window[8:]), w.shape[0], rest[-1])


def _w1a8_fake(x, w, *_):
    return x.new_empty((x.shape[0], w.shape[1]), dtype=torch.int32)


def _w1a16_fake(x, w, *_):
    return x.new_empty((x.shape[0], w.shape[1]), dtype=torch.float32)


def _bag_fake(table, index, offsets, K, *_):
    return table.new_empty((offsets.shape[0] - 1, K), dtype=torch.float32)


bits_pack = define("bits_pack", _pack_fake, None, None, ())
bits_unpack = define("bits_unpack", _unpack_fake, None, None, ())
bits_count = define("bits_count", _count_fake, None, None, ())
bits_panels = define("bits_panels", _panels_fake, None, None, ())
bits_gemm = define("bits_gemm", _gemm_fake, None, None, ())
bits_conv = define("bits_conv", _conv_fake, None, None, ())
bits_w1a8 = define("bits_w1a8", _w1a8_fake, None, None, ())
bits_w1a16 = define("bits_w1a16", _w1a16_fake, None, None, ())
bits_bag = define("bits_bag", _bag_fake, None, None, ())
