"""The short way through an inference call: a packed weight, plain tensors, nothing that needs a gradient or a conversion.

The checks of the long way cost tens of microseconds, more than many a kernel here. Whatever these few tests do not recognise goes
there, also to be refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .._dispatch import is_eager
from . import _ops as ops
from ._bits import BitTensor
from ._weight import PackedWeight, form, mixed_form

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_PLAIN = (Tensor, torch.nn.Parameter)
_OUT: dict[Any, int] = {**ops.OUT_CODES, "bits": ops.OUT_BITS}
_gemm, _conv, _pack = ops.bits_gemm.below, ops.bits_conv.below, ops.bits_pack.below
_form = lru_cache(maxsize=256)(form)
_w1a8, _w1a16 = ops.bits_w1a8.below, ops.bits_w1a16.below
_mixed_form = lru_cache(maxsize=32)(mixed_form)


def _vector(t: Any, N: int, grad: bool) -> bool:
    if t is None:
        return True
    if type(t) not in _PLAIN or (grad and t.requires_grad):
        return False
    return t.dtype is torch.float32 and t.shape == (N,) and t.is_contiguous() and t.is_cpu


def _result(w: PackedWeight, N: int, default, scale, bias, shift, threshold, out) -> int:
    """The code of the result, or -1: the long way."""
    grad = torch.is_grad_enabled()
    if threshold is not None:
        if scale is not None or bias is not None or shift is not None or (out is not None and out != "bits"):
            return -1
        ok = type(threshold) in _PLAIN and threshold.dtype is torch.int32 and threshold.shape == (2, N)
        return ops.OUT_BITS if ok and threshold.is_contiguous() and threshold.is_cpu else -1
    if not (_vector(scale, N, grad) and _vector(bias, N, grad) and _vector(shift, N, grad)):
        return -1
    if out is None:
        return ops.OUT_CODES[default] if shift is None else ops.OUT_BITS
    code = _OUT.get(out, -1)
    if (shift is not None and code != ops.OUT_BITS) or (code == ops.OUT_I32 and (scale is not None or bias is not None)):
        return -1
    return code


def _floats(x: Any) -> bool:
    return type(x) in _PLAIN and x.dtype in _FLOATS and x.is_cpu and not (x.requires_grad and torch.is_grad_enabled())


def linear(x, w, bias, scale, shift, threshold, out, sign_zero) -> Tensor | BitTensor | None:
    """:func:`binary_linear`, or None."""
    if type(w) is not PackedWeight or not is_eager() or len(w.shape) != 2 or w.groups != 1 or not w.words.is_cpu:
        return None
    N, K = w.shape
    if type(x) is BitTensor:
        a = x.words
        if x.K != K or x.dim != a.dim() - 1 or not a.is_cpu:
            return None
        values, polarity, default = x.values, x.polarity, torch.float32
        lead = a.shape[:-1]
    elif _floats(x) and x.dim() and x.shape[-1] == K and K and x.is_contiguous() and (sign_zero == 1 or sign_zero == -1):
        lead, default, values, polarity = x.shape[:-1], x.dtype, "pm1", 1
        a = _pack(x.detach() if x.dim() == 2 else x.detach().view(-1, K), None, ops.GE if sign_zero == 1 else ops.GT, 0.0, False)
    else:
        return None
    code = _result(w, N, default, scale, bias, shift, threshold, out)
    if code < 0:
        return None
    flat = len(lead) == 1
    if not flat and a.dim() != 2:
        a = a.reshape(lead.numel(), a.shape[-1])
    y = _gemm(a, w.words, w.panels, K, *_form(values, w.kind, K, polarity), scale, bias, None, None, shift, threshold, code)
    if code == ops.OUT_BITS:
        return BitTensor._made(y if flat else y.reshape(*lead, y.shape[-1]), N, len(lead))
    return y if flat else y.reshape(*lead, N)


def mixed(x, w) -> Tensor | None:
    """:func:`packed_linear` without scale and bias, or None."""
    if type(w) is not PackedWeight or not is_eager() or len(w.shape) != 2 or w.groups != 1:
        return None
    words = w.words
    if type(x) not in _PLAIN or not x.is_cpu or not words.is_cpu:
        return None
    if x.dim() != 2 or x.shape[1] != w.shape[1] or not x.is_contiguous():
        return None
    if x.dtype is torch.int8:
        return _w1a8(x, words, w.panels, *_mixed_form(w.kind, True))
    if not _floats(x):
        return None
    y = _w1a16(x.detach(), words, w.panels, *_mixed_form(w.kind, False))
    return y if x.dtype is torch.float32 else y.to(x.dtype)


def conv2d(x, w, bias, geometry, scale, shift, threshold, out, sign_zero) -> Tensor | BitTensor | None:
    """:func:`binary_conv2d` of ``geometry(spatial, kernel)`` -> (Window, numbers), or None."""
    if type(w) is not PackedWeight or not is_eager() or len(w.shape) != 4 or not w.words.is_cpu or w.kind != "pm1":
        return None
    O, Cg, kh, kw = w.shape
    if type(x) is BitTensor:
        a, polarity, default = x.words, x.polarity, torch.float32
        if a.dim() != 4 or x.dim != 1 or x.values != "pm1" or not a.is_cpu or Cg * w.groups != x.K:
            return None
        spatial = (a.shape[1], a.shape[2])
    elif _floats(x) and x.dim() == 4 and x.shape[1] == Cg * w.groups and x.is_contiguous() and x.numel() and sign_zero in (1, -1):
        B, C, H, W = x.shape
        polarity, default, spatial = 1, x.dtype, (H, W)
        a = _pack(x.detach().view(B, C, H * W), None, ops.GE if sign_zero == 1 else ops.GT, 0.0, False).view(B, H, W, -1)
    else:
        return None
    code = _result(w, O, default, scale, bias, shift, threshold, out)
    if code < 0:
        return None
    found = geometry(spatial, (kh, kw))
    if found is None:
        return None
    win, numbers = found
    if win.groups != w.groups:
        return None
    words = w.words
    taps = w.taps if win.pad_value == 0 and any(win.pads) else None
    y = _conv(
        a, words[0], w.panels, taps, Cg * w.groups, w.groups, numbers, win.pad_code(polarity), polarity == -1,
        scale, bias, None, None, shift, threshold, code,
    )  # fmt: skip
    if code == ops.OUT_BITS:
        return BitTensor._made(y, O, 1)
    return y.permute(0, 3, 1, 2)
