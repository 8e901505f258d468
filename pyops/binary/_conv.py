"""Convolutions on bits."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from . import _ops as ops
from . import _quick
from ._bits import BitTensor, _sign, pack_words, unpack_words
from ._epilogue import Out, epilogue, finish_wide, kernel_args
from ._linear import activate, clip_of, first_order, flat, saved_mask, sign_test, train_only_float, trainable
from ._weight import PackedWeight, weight_of

PADDINGS = ("valid", "same", "same_tf")


@dataclass(frozen=True)
class Window:
    """Two spatial dimensions; a sequence has a first one of size 1."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]  # left, right, top, bottom, as F.pad
    size: tuple[int, int]  # of the result
    groups: int
    pad_value: int

    def numbers(self) -> list[int]:
        return [*self.kernel, *self.stride, self.pads[2], self.pads[0], *self.dilation, *self.size]

    def pad_code(self, polarity: int) -> int:
        return ops.PAD_ZERO if self.pad_value == 0 else ops.PAD_BIT1 if self.pad_value == polarity else ops.PAD_BIT0


def _numbers(op: str, name: str, value: Any, n: int, least: int) -> tuple[int, ...]:
    values = value if isinstance(value, (tuple, list)) else (value,) * n
    if len(values) != n:
        check.fail(ValueError, op, f"{name} to be an int or {n} of them", repr(value))
    try:
        found = tuple(operator.index(v) for v in values)
    except TypeError:
        check.fail(TypeError, op, f"{name} to be an int or {n} of them", repr(value))
    if any(v < least or v >= 2**31 for v in found) or any(isinstance(v, bool) for v in values):
        check.fail(ValueError, op, f"{name} of at least {least} and below 2**31", repr(value))
    return found


def window(
    op: str, spatial: tuple[int, ...], kernel: tuple[int, ...], stride, padding, dilation, groups: int, pad_value: int
) -> Window:
    n = len(spatial)
    stride, dilation = _numbers(op, "stride", stride, n, 1), _numbers(op, "dilation", dilation, n, 1)
    if pad_value not in (0, 1, -1) or isinstance(pad_value, bool):
        check.fail(ValueError, op, "pad_value to be 0, 1 or -1", repr(pad_value))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if isinstance(padding, str):
        check.choice(op, "padding", padding, PADDINGS)
        if padding == "same" and any(s != 1 for s in stride):
            check.fail(ValueError, op, "stride 1 with padding='same' ('same_tf' takes any)", repr(stride))
        total = [0] * n
        if padding == "same":
            total = [r - 1 for r in reach]
        elif padding == "same_tf":
            total = [max((-(-i // s) - 1) * s + r - i, 0) for i, s, r in zip(spatial, stride, reach, strict=True)]
        before = [t // 2 for t in total]
        after = [t - b for t, b in zip(total, before, strict=True)]
    else:
        before = after = list(_numbers(op, "padding", padding, n, 0))
    size = [(i + b + a - r) // s + 1 for i, b, a, r, s in zip(spatial, before, after, reach, stride, strict=True)]
    for i, b, a, r in zip(spatial, before, after, reach, strict=True):
        if not isinstance(i, torch.SymInt) and i + b + a < r:
            check.fail(ValueError, op, f"an image of at least the window's {r}, with its padding", i + b + a)
    one: Any = (1,) * (2 - n)  # with n more, two
    zero = (0,) * (2 - n)
    before, after = [*zero, *before], [*zero, *after]
    pads = (before[1], after[1], before[0], after[0])
    return Window((*one, *kernel), (*one, *stride), (*one, *dilation), pads, (*one, *size), groups, int(pad_value))


@lru_cache(maxsize=1024)
def _known_geometry(*args) -> tuple[Window, list[int]]:
    win = window("binary_conv2d", *args)
    return win, win.numbers()


def _geometry(*args) -> tuple[Window, list[int]] | None:
    """What :func:`window` makes of arguments seen before; None where it may have something to say."""
    try:
        return _known_geometry(*args)
    except (TypeError, ValueError):
        return None


class _Conv(torch.autograd.Function):
    """x [B, C, H, W], w [O, C / groups, kh, kw], scale and bias [O] -> [B, O, OH, OW]. Saves bits."""

    @staticmethod
    def forward(ctx, x, w, scale, bias, clip, sign_zero, win):
        test = sign_test(sign_zero)
        xw = pack_words(x, 1, test)
        ww = pack_words(w.detach().movedim(1, -1).flatten(1), 1, test)
        needs_x, needs_w = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            xw, ww, saved_mask(x, 1, clip) if needs_x else None, saved_mask(w, 1, clip) if needs_w else None, scale
        )
        ctx.win, ctx.channels, ctx.w_shape = win, x.shape[1], tuple(w.shape)
        ctx.dtypes = x.dtype, w.dtype, None if scale is None else scale.dtype, None if bias is None else bias.dtype
        wide = x.dtype == torch.float64
        f32 = lambda t: None if t is None or wide else t.detach().float().contiguous()
        code = ops.OUT_I32 if wide else ops.OUT_CODES[x.dtype]
        y = ops.bits_conv(
            xw, ww, None, None, x.shape[1], win.groups, win.numbers(), win.pad_code(1), False,
            f32(scale), f32(bias), None, None, None, None, code,
        )  # fmt: skip
        if wide:
            y = y.double()
            y = y if scale is None else y * scale
            y = y if bias is None else y + bias
        return y.permute(0, 3, 1, 2)

    @staticmethod
    @autocast.disabled
    def backward(ctx, g):
        with torch.no_grad():
            grads = _conv_grads(ctx, g)
        return (*first_order(g, grads), None, None, None)


def _image(words: Tensor, C: int, dtype: torch.dtype, zero: float) -> Tensor:
    """Words [B, H, W, words of C] as [B, C, H, W], channels last in memory as they are in the words: nothing is transposed."""
    return unpack_words(words, C, 3, dtype, zero, 1.0).permute(0, 3, 1, 2)


def _conv_grads(ctx, g: Tensor) -> tuple:
    xw, ww, xm, wm, scale = ctx.saved_tensors
    win, C = ctx.win, ctx.channels
    x_dtype, w_dtype, s_dtype, b_dtype = ctx.dtypes
    O, Cg, kh, kw = ctx.w_shape
    needs_x, needs_w, needs_s, needs_b = ctx.needs_input_grad[:4]
    gx = gw = gs = gb = None
    scaled = g if scale is None else g * scale.to(g.dtype).reshape(1, -1, 1, 1)
    if needs_x or needs_w:
        x = _image(xw, C, g.dtype, -1.0)
        w = unpack_words(ww, Cg * kh * kw, 1, g.dtype, -1.0, 1.0).reshape(O, kh, kw, Cg).permute(0, 3, 1, 2)
        left, right, top, bottom = win.pads
        inside = win.pad_value == 0 and left == right and top == bottom  # the convolution pads by itself
        if not inside:
            x = F.pad(x, win.pads, value=float(win.pad_value))
        gx, gw, _ = torch.ops.aten.convolution_backward(
            scaled, x, w, None, win.stride, (top, left) if inside else (0, 0), win.dilation, False, (0, 0), win.groups,
            (needs_x, needs_w, False),
        )  # fmt: skip
        if needs_x:
            gx = gx if inside else gx[:, :, top : gx.shape[2] - bottom, left : gx.shape[3] - right]
            gx = (gx if xm is None else gx * _image(xm, C, g.dtype, 0.0)).to(x_dtype)
        if needs_w:
            gw = (gw if wm is None else gw * _image(wm, Cg, g.dtype, 0.0)).to(w_dtype)
    if scale is not None and needs_s:
        none = (None,) * 6
        dot = ops.bits_conv(xw, ww, None, None, C, win.groups, win.numbers(), win.pad_code(1), False, *none, ops.OUT_I32)
        gs = (g * dot.permute(0, 3, 1, 2)).sum((0, 2, 3)).to(s_dtype)
    if b_dtype is not None and needs_b:
        gb = g.sum((0, 2, 3)).to(b_dtype)
    return gx, gw, gs, gb


def _conv(
    op: str, n: int, x, weight, bias, stride, padding, dilation, groups, pad_value, scale, residual, prelu, shift, threshold, out,
    sign_zero, surrogate, clip,
):  # fmt: skip
    sign_zero = _sign(op, "sign_zero", sign_zero)
    limit = clip_of(op, surrogate, clip)
    groups = check.size(op, "groups", groups)
    letters = ("L",) if n == 1 else ("H", "W")
    if isinstance(x, BitTensor):
        if x.dim != 1 or x.words.dim() != n + 2 or x.values != "pm1":
            check.fail(ValueError, op, f"x [B, C, {', '.join(letters)}] of values 'pm1' packed along dimension 1", repr(x))
        default = torch.float32
    else:
        check.dense(op, "x", x, integers=True)
        if x.dim() != n + 2:
            check.fail(ValueError, op, f"x [B, C, {', '.join(letters)}]", list(x.shape))
        default = x.dtype if x.dtype.is_floating_point else torch.float32
    B, C, *spatial = x.shape
    if isinstance(weight, Tensor):
        check.dense(op, "weight", weight, integers=True)
    if isinstance(weight, (Tensor, BitTensor, PackedWeight)):
        shape = tuple(weight.shape)
        if len(shape) != n + 2 or any(k < 1 for k in shape[1:]):
            check.fail(ValueError, op, f"weight [O, C / groups, {n} kernel sizes], none 0", list(shape))
        if groups < 1 or shape[1] * groups != C or shape[0] % groups:
            check.fail(
                ValueError,
                op,
                f"weight [O, C / groups, ..] with C = {C}, and groups to divide O",
                f"{list(shape)}, groups={groups}",
            )
        if weight.device != x.device:
            check.fail(ValueError, op, f"weight on {x.device}, as x", weight.device)
    else:
        check.fail(TypeError, op, "weight to be a torch.Tensor, a BitTensor or a PackedWeight", type(weight).__name__)
    win = window(op, tuple(spatial), shape[2:], stride, padding, dilation, groups, pad_value)
    if win.kernel[0] >= 2**15 or win.kernel[1] >= 2**15 or win.kernel[0] * win.kernel[1] * shape[1] >= 2**31:
        check.fail(ValueError, op, "a window of fewer than 2**31 bits", list(shape))
    O = shape[0]
    sizes = (B, O, *win.size[2 - n :])
    learned = prelu if isinstance(prelu, (tuple, list)) else (prelu,)
    if trainable(x, weight, scale, bias, residual, *learned):
        if isinstance(x, Tensor) and isinstance(weight, Tensor) and default == x.dtype:
            train_only_float(op, out, default, shift, threshold)
            epilogue(op, O, sizes, x.device, default, scale, bias, residual, prelu, None, None, None)  # for its checks
            lift = (lambda t: t.unsqueeze(2)) if n == 1 else (lambda t: t)
            y = _Conv.apply(lift(x), lift(weight), flat(scale), flat(bias), limit, sign_zero, win)
            return activate(y.squeeze(2) if n == 1 else y, residual, prelu, 1)
        if trainable(x, weight):
            check.fail(TypeError, op, "x and weight as floating tensors where a gradient is wanted", "packed bits or integers")
    w = weight_of(op, weight, sign_zero, groups)
    if w.kind != "pm1":
        check.fail(ValueError, op, "a weight of kind 'pm1'", repr(w.kind))
    e = epilogue(op, O, sizes, x.device, default, scale, bias, residual, prelu, shift, threshold, out)
    if isinstance(x, BitTensor):
        words, polarity = x.words, x.polarity
    else:
        words, polarity = pack_words(x, 1, sign_test(sign_zero)), 1
    if e.residual is not None and not e.wide:
        e.residual = e.residual.movedim(1, -1).reshape(B, *win.size, O).contiguous()
    if n == 1:
        words = words.unsqueeze(1)
    taps = weight.taps if isinstance(weight, PackedWeight) and win.pad_value == 0 and any(win.pads) else None
    y = ops.bits_conv(
        words, w.words[0], w.panels, taps, C, groups, win.numbers(), win.pad_code(polarity), polarity == -1,
        *kernel_args(e),
    )  # fmt: skip
    if n == 1:
        y = y.squeeze(1)
    if e.out == ops.OUT_BITS:
        return BitTensor(y, O, 1, validate=False)
    y = y.movedim(-1, 1)
    if not e.wide:
        return y
    for name in ("scale", "bias"):
        t = getattr(e, name)
        setattr(e, name, None if t is None else t.reshape(-1, *(1,) * n))
    e.prelu = None if e.prelu is None else e.prelu.reshape(3, -1, *(1,) * n)
    return finish_wide(e, y)


def binary_conv2d(
    x: Tensor | BitTensor,
    weight: Tensor | BitTensor | PackedWeight,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    pad_value: int = 0,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
    prelu: Any = None,
    shift: Tensor | None = None,
    threshold: Tensor | None = None,
    out: Out = None,
    sign_zero: int = 1,
    surrogate: str = "clip",
    clip: float = 1.0,
) -> Tensor | BitTensor:
    """Convolution of sign(x) with sign(weight), computed on bits, and what follows it.

    Args:
        x: [B, C, H, W]: floats or integers (packed inside), or a BitTensor packed along dimension 1.
        weight: [O, C / groups, kh, kw]: floats, a BitTensor packed along dimension 1, or a :class:`PackedWeight` with ``groups``.
        bias, stride, dilation, groups: as torch.nn.functional.conv2d.
        padding: ints, "valid", "same" (as torch: stride 1), or "same_tf" (as TensorFlow: any stride, more at the end).
        pad_value: what the padding counts as after the sign: 0 (not at all; torch.sign's convention), 1 or -1. Exact.
        scale, residual, prelu, shift, threshold, out, sign_zero, surrogate, clip: as :func:`binary_linear`, per channel O;
            residual [B, O, OH, OW].

    Returns:
        [B, O, OH, OW] in channels-last memory, or a :class:`BitTensor` of that shape packed along dimension 1, which the next
        layer takes as it is. Exact in int32 for kh * kw * C / groups < 2**31; deterministic.

    Differentiable as :func:`binary_linear`; 2 bits saved a value of x and weight.

    Raises:
        TypeError, ValueError, IndexError: naming the argument. NotImplementedError: a second derivative.

    >>> import torch
    >>> from structops import binary
    >>> x, w = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    >>> binary.binary_conv2d(x, w, padding=1)[0, 0]
    tensor([[4., 6., 4.],
            [6., 9., 6.],
            [4., 6., 4.]])
    >>> binary.binary_conv2d(x, w, padding=1, pad_value=-1)[0, 0, 0]
    tensor([-1.,  3., -1.])
    """
    if residual is None and prelu is None and surrogate == "clip" and clip == 1.0:
        geometry = lambda spatial, kernel: _geometry(spatial, kernel, stride, padding, dilation, groups, pad_value)
        quick = _quick.conv2d(x, weight, bias, geometry, scale, shift, threshold, out, sign_zero)
        if quick is not None:
            return quick
    return _conv(
        "binary_conv2d", 2, x, weight, bias, stride, padding, dilation, groups, pad_value, scale, residual, prelu, shift, threshold,
        out, sign_zero, surrogate, clip,
    )  # fmt: skip


def binary_conv1d(
    x: Tensor | BitTensor,
    weight: Tensor | BitTensor | PackedWeight,
    bias: Tensor | None = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] | str = 0,
    dilation: int | tuple[int] = 1,
    groups: int = 1,
    *,
    pad_value: int = 0,
    scale: Tensor | None = None,
    residual: Tensor | None = None,
    prelu: Any = None,
    shift: Tensor | None = None,
    threshold: Tensor | None = None,
    out: Out = None,
    sign_zero: int = 1,
    surrogate: str = "clip",
    clip: float = 1.0,
) -> Tensor | BitTensor:
    """As :func:`binary_conv2d`, of sequences: x [B, C, L], weight [O, C / groups, k] -> [B, O, OL].

    >>> import torch
    >>> from structops import binary
    >>> binary.binary_conv1d(torch.tensor([[[1.0, -1.0, 1.0]]]), torch.tensor([[[1.0, -1.0]]]))
    tensor([[[ 2., -2.]]])
    """
    return _conv(
        "binary_conv1d", 1, x, weight, bias, stride, padding, dilation, groups, pad_value, scale, residual, prelu, shift, threshold,
        out, sign_zero, surrogate, clip,
    )  # fmt: skip
