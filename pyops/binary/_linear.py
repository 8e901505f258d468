"""Linear layers and products on bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._dispatch import is_forward_mode
from . import _ops as ops
from . import _quick
from ._bits import BitTensor, _product, _sign, bits_of, pack_words, unpack_words
from ._epilogue import Out, epilogue, finish_wide, kernel_args
from ._weight import KINDS, PackedWeight, form, mixed_form, weight_of

SURROGATES = ("clip", "identity")
SECOND = (
    "structops.binary: second derivatives are not available: the surrogate gradient of a sign is not the derivative of anything"
)
NONE = (None,) * 6


class Refuse(torch.autograd.Function):
    """The identity; its derivative is refused."""

    @staticmethod
    def forward(ctx, *tensors):
        return tuple(None if t is None else t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx, *_):
        raise NotImplementedError(SECOND)


def first_order(g: Tensor, grads: tuple) -> tuple:
    """Gradients that say so when they are differentiated again."""
    if not torch.is_grad_enabled() or not g.requires_grad or torch.compiler.is_compiling():
        return grads
    return Refuse.apply(*(t if t is None else t.detach().requires_grad_() for t in grads))


def sign_test(sign_zero: int) -> int:
    return ops.GE if sign_zero == 1 else ops.GT


def clip_of(op: str, surrogate: Any, clip: Any) -> float | None:
    """The half-width of the straight-through estimator; None for the identity."""
    check.choice(op, "surrogate", surrogate, SURROGATES)
    if isinstance(clip, bool) or not isinstance(clip, (int, float)) or not clip >= 0:
        check.fail(ValueError, op, "clip to be a number >= 0", repr(clip))
    return float(clip) if surrogate == "clip" else None


def saved_mask(t: Tensor, dim: int, clip: float | None) -> Tensor | None:
    """Where the gradient passes, as bits."""
    return None if clip is None else pack_words(t, dim, ops.ABS_LE, clip)


def masked(grad: Tensor, mask: Tensor | None, dim: int, owned: bool = False) -> Tensor:
    """``owned``: nobody else holds ``grad``, which is overwritten."""
    if mask is None:
        return grad
    dtype = grad.dtype if grad.dtype in ops.DTYPE_CODES else torch.float32
    passes = unpack_words(mask, grad.shape[dim], dim, dtype, 0.0, 1.0)
    return grad.mul_(passes) if owned else grad * passes


def trainable(*tensors: Any) -> bool:
    """Whether a derivative may be asked for: in forward mode too, where the layers raise rather than be taken for constants."""
    return is_forward_mode() or (torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors))


def _dots(x: Tensor, w: Tensor, K: int) -> Tensor:
    return ops.bits_gemm(x, w[None], None, K, [-2], [0], 0, K, False, *NONE, ops.OUT_I32)


class _Linear(torch.autograd.Function):
    """x [M, K], w [N, K], scale and bias [N] -> [M, N]. Saves bits: signs of x and w, and where their gradients pass."""

    @staticmethod
    def forward(ctx, x, w, scale, bias, clip, sign_zero):
        test, K = sign_test(sign_zero), x.shape[1]
        xw, ww = pack_words(x, 1, test), pack_words(w, 1, test)
        needs_x, needs_w = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            xw, ww, saved_mask(x, 1, clip) if needs_x else None, saved_mask(w, 1, clip) if needs_w else None, scale
        )
        ctx.K, ctx.dtypes = K, (x.dtype, w.dtype, None if scale is None else scale.dtype, None if bias is None else bias.dtype)
        if x.dtype == torch.float64:
            y = _dots(xw, ww, K).double()
            y = y if scale is None else y * scale
            return y if bias is None else y + bias
        f32 = lambda t: None if t is None else t.detach().float().contiguous()
        code = ops.OUT_CODES[x.dtype]
        return ops.bits_gemm(xw, ww[None], None, K, [-2], [0], 0, K, False, f32(scale), f32(bias), None, None, None, None, code)

    @staticmethod
    @autocast.disabled
    def backward(ctx, g):
        with torch.no_grad():
            grads = _linear_grads(ctx, g)
        return (*first_order(g, grads), None, None)


def _linear_grads(ctx, g: Tensor) -> tuple:
    """Of the saved bits only one operand at a time is +-1 floats, for the length of its product. The kernel of floats and bits
    (w1a16) has the bits the other way round, transposed and packed again, and is not faster than unpacking and torch's product.
    """
    xw, ww, xm, wm, scale = ctx.saved_tensors
    K, (x_dtype, w_dtype, s_dtype, b_dtype) = ctx.K, ctx.dtypes
    gx = gw = gs = gb = None
    scaled = g if scale is None else g * scale.to(g.dtype)
    if ctx.needs_input_grad[0]:
        gx = masked(scaled @ unpack_words(ww, K, 1, g.dtype, -1.0, 1.0), xm, 1, owned=True).to(x_dtype)
    if ctx.needs_input_grad[1]:
        gw = masked(scaled.t() @ unpack_words(xw, K, 1, g.dtype, -1.0, 1.0), wm, 1, owned=True).to(w_dtype)
    if scale is not None and ctx.needs_input_grad[2]:
        gs = (g * _dots(xw, ww, K)).sum(0).to(s_dtype)
    if b_dtype is not None and ctx.needs_input_grad[3]:
        gb = g.sum(0).to(b_dtype)
    return gx, gw, gs, gb


def activate(y: Tensor, residual: Tensor | None, prelu: Any, dim: int) -> Tensor:
    """Residual and (R)PReLU in differentiable torch, channels at ``dim``."""
    if residual is not None:
        y = y + residual
    if prelu is not None:
        gamma, slope, zeta = prelu if isinstance(prelu, (tuple, list)) else (None, prelu, None)
        view = lambda t: t.reshape([-1 if i == dim % y.dim() else 1 for i in range(y.dim())])
        y = y if gamma is None else y + view(gamma)
        y = torch.where(y > 0, y, y * view(slope))
        y = y if zeta is None else y + view(zeta)
    return y


def train_only_float(op: str, out: Out, default: torch.dtype, shift: Any, threshold: Any) -> None:
    if shift is not None or threshold is not None or out not in (None, default):
        check.fail(
            ValueError, op, "a result in the dtype of x where a gradient is wanted (bits and integers have none)", f"out={out!r}"
        )


def binary_linear(
    x: Tensor | BitTensor,
    weight: Tensor | BitTensor | PackedWeight,
    bias: Tensor | None = None,
    *,
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
    """sign(x) times sign(weight) transposed, computed on bits, and what follows it.

    y = dot * scale + bias + residual;  with prelu: t = y + gamma, y = (t > 0 ? t : slope * t) + zeta.

    Args:
        x: [.., K]; floats or integers (packed inside), or a BitTensor packed along its last dimension, of values "pm1" or "01".
        weight: [N, K]: floats (packed inside), a BitTensor packed along dimension 1, or a :class:`PackedWeight` of any kind.
        bias, scale: [N], floating.
        residual: [.., N], floating.
        prelu: slope [N] or [1], or (gamma, slope, zeta) of RPReLU; None stands for 0. Q-PReLU: :func:`power_of_two` slopes.
        shift: [N]; the result is the bits of y + shift >= 0 (RSign of the next layer).
        threshold: int32 [2, N] of :func:`fold_batch_norm`; the result is the bits (dot >= threshold[0]) ^ threshold[1].
        out: torch.int32 (the integers), float32, bfloat16, float16, float64 or "bits"; by default "bits" with a shift or
            threshold, else the dtype of x, float32 for bits and integers.
        sign_zero: the sign of a zero of x and weight, 1 or -1. NaN counts as -1.
        surrogate, clip: of the gradient of sign: 1 where abs <= clip ("clip"), or 1 ("identity").

    Returns:
        [.., N], or a :class:`BitTensor` packed along its last dimension. Exact in int32 for K * sum of plane weights < 2**31;
        float32 afterwards, every step rounded. Deterministic; the same bits on every instruction set and number of threads.

    Differentiable in x, weight (float tensors), scale, bias, residual and prelu, once: the forward runs on bits, what is saved is
    the bits of x and weight and of where their gradients pass, 2 bits a value; scale's gradient counts again instead of saving.

    Raises:
        TypeError, ValueError, IndexError: naming the argument. NotImplementedError: a second derivative.

    Source: BinaryNet (arXiv:1602.02830), XNOR-Net (arXiv:1603.05279), ReActNet (arXiv:2003.03488).

    >>> import torch
    >>> from structops import binary
    >>> x, w = torch.tensor([[0.3, -2.0, 1.0]]), torch.tensor([[1.0, 1.0, 1.0], [-1.0, 2.0, -3.0]])
    >>> binary.binary_linear(x, w)
    tensor([[ 1., -3.]])
    >>> binary.unpack(binary.binary_linear(x, w, out="bits"))
    tensor([[ 1., -1.]])
    """
    op = "binary_linear"
    if residual is None and prelu is None and surrogate == "clip" and clip == 1.0:
        quick = _quick.linear(x, weight, bias, scale, shift, threshold, out, sign_zero)
        if quick is not None:
            return quick
    sign_zero = _sign(op, "sign_zero", sign_zero)
    limit = clip_of(op, surrogate, clip)
    if isinstance(x, BitTensor):
        if x.dim != x.words.dim() - 1:
            check.fail(ValueError, op, "x packed along its last dimension", f"dimension {x.dim}")
        lead, K, device, default = x.words.shape[:-1], x.K, x.device, torch.float32
    else:
        check.dense(op, "x", x, integers=True)
        if x.dim() == 0:
            check.fail(ValueError, op, "x [.., K]", "a scalar")
        lead, K, device = x.shape[:-1], x.shape[-1], x.device
        default = x.dtype if x.dtype.is_floating_point else torch.float32
    shape = tuple(weight.shape) if isinstance(weight, (Tensor, BitTensor, PackedWeight)) else ()
    if isinstance(weight, Tensor):
        check.dense(op, "weight", weight, integers=True)
    if shape and (len(shape) != 2 or shape[1] != K):
        check.fail(ValueError, op, f"weight [N, {K}], with K of x", list(shape))
    if shape and weight.device != device:
        check.fail(ValueError, op, f"weight on {device}, as x", weight.device)
    learned = prelu if isinstance(prelu, (tuple, list)) else (prelu,)
    if trainable(x, weight, scale, bias, residual, *learned):
        if isinstance(x, Tensor) and isinstance(weight, Tensor) and default == x.dtype:
            train_only_float(op, out, default, shift, threshold)
            N, sizes = shape[0], (*lead, shape[0])
            e = epilogue(op, N, sizes, device, default, scale, bias, residual, prelu, None, None, None)
            del e  # for its checks
            y = _Linear.apply(x.reshape(_product(lead), K), weight, flat(scale), flat(bias), limit, sign_zero)
            return activate(y.reshape(sizes), residual, prelu, -1)
        if trainable(x, weight):
            check.fail(TypeError, op, "x and weight as floating tensors where a gradient is wanted", "packed bits or integers")
    w = weight_of(op, weight, sign_zero)
    N = w.shape[0]
    e = epilogue(op, N, (*lead, N), device, default, scale, bias, residual, prelu, shift, threshold, out)
    if isinstance(x, BitTensor):
        words, values, polarity = x.words.reshape(_product(lead), x.words.shape[-1]), x.values, x.polarity
    else:
        words, values, polarity = pack_words(x.reshape(_product(lead), K), 1, sign_test(sign_zero)), "pm1", 1
    if e.residual is not None and not e.wide:
        e.residual = e.residual.reshape(words.shape[0], N)
    y = ops.bits_gemm(words, w.words, w.panels, K, *form(values, w.kind, K, polarity), *kernel_args(e))
    if e.out == ops.OUT_BITS:
        return BitTensor(y.reshape(*lead, y.shape[-1]), N, len(lead), validate=False)
    y = y.reshape(*lead, N)
    return finish_wide(e, y) if e.wide else y


def flat(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.reshape(-1)


def bit_matmul(a: BitTensor, b: BitTensor | PackedWeight, *, count: str = "dot") -> Tensor:
    """a times b transposed over packed bits, as integers.

    Args:
        a: BitTensor [.., M, K] packed along its last dimension, values "pm1" or "01".
        b: BitTensor [N, K] (or [.., N, K] with the leading dimensions of a), or a PackedWeight [N, K] of any kind.
        count: "dot", the sum of products; "hamming", the places where the bits differ.

    Returns:
        int32 [.., M, N], exact where it fits (K <= 2**31 - 1 for bits; 2**30 for "01" times "01"). Deterministic.

    >>> import torch
    >>> from structops import binary
    >>> x = binary.pack(torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]]))
    >>> binary.bit_matmul(x, x)
    tensor([[3, 1],
            [1, 3]], dtype=torch.int32)
    """
    op = "bit_matmul"
    bits_of(op, "a", a)
    check.choice(op, "count", count, ("dot", "hamming"))
    if a.dim != a.words.dim() - 1 or a.words.dim() < 2:
        check.fail(ValueError, op, "a [.., M, K] packed along its last dimension", f"{list(a.shape)} along {a.dim}")
    packed = isinstance(b, PackedWeight)
    if isinstance(b, PackedWeight):
        kind, polarity = b.kind, a.polarity
    else:
        bits_of(op, "b", b)
        if b.dim != b.words.dim() - 1 or b.words.dim() < 2:
            check.fail(ValueError, op, "b [.., N, K] packed along its last dimension", f"{list(b.shape)} along {b.dim}")
        kind, polarity = b.values, a.polarity * b.polarity
    if (packed and len(b.shape) != 2) or b.K != a.K:
        check.fail(ValueError, op, f"b [N, {a.K}], with K of a", list(b.shape))
    if b.device != a.device:
        check.fail(ValueError, op, f"b on {a.device}, as a", b.device)
    if count == "hamming":
        if len(KINDS[kind][0]) != 1 or (kind == "01") != (a.values == "01"):
            check.fail(ValueError, op, "operands of the same two values to count differences", f"'{a.values}' and '{kind}'")
        numbers = ([polarity], [0], 0, 0 if polarity == 1 else a.K, False)
    else:
        numbers = form(a.values, kind, a.K, polarity)
    lead, M, W = a.words.shape[:-2], a.words.shape[-2], a.words.shape[-1]
    if packed or b.words.dim() == 2:
        words = b.words if packed else b.words[None]
        flat_a = a.words.reshape(_product(lead) * M, W)
        y = ops.bits_gemm(flat_a, words, b.panels if isinstance(b, PackedWeight) else None, a.K, *numbers, *NONE, ops.OUT_I32)
        return y.reshape(*lead, M, y.shape[-1])
    if b.words.shape[:-2] != lead:
        check.fail(ValueError, op, f"b with the leading dimensions {list(lead)} of a", list(b.shape))
    G = _product(lead)
    groups = a.words.reshape(G, M, W), b.words.reshape(1, G, b.words.shape[-2], W)
    y = ops.bits_gemm(*groups, None, a.K, *numbers, *NONE, ops.OUT_I32)
    return y.reshape(*lead, M, y.shape[-1])


def packed_linear(x: Tensor, weight: PackedWeight, bias: Tensor | None = None, *, scale: Tensor | None = None) -> Tensor:
    """x times a packed weight transposed, x as it is: w1a8 for int8, w1a16 for floats.

    Args:
        x: [.., K]; int8, or float32, bfloat16, float16.
        weight: PackedWeight [N, K] of any kind: binary, ternary or two bits.
        bias, scale: [N], floating: y = dot * scale + bias in float32.

    Returns:
        int8 without scale and bias: int32, exact for K * 128 * (weights' largest sum) < 2**31; with them float32. Floats: the
        dtype of x, accumulated in float32, four neighbours first and the fours in order. Deterministic, the same on every
        instruction set. Not differentiable in x here; see :func:`binary_linear`.

    >>> import torch
    >>> from structops import binary
    >>> w = binary.PackedWeight(torch.tensor([[1.0, 0.0, -1.0]]), "ternary")
    >>> binary.packed_linear(torch.tensor([[5, 6, 7]], dtype=torch.int8), w)
    tensor([[-2]], dtype=torch.int32)
    """
    op = "packed_linear"
    if bias is None and scale is None:
        quick = _quick.mixed(x, weight)
        if quick is not None:
            return quick
    check.tensor(op, "x", x)
    if x.dtype not in (torch.int8, torch.float32, torch.bfloat16, torch.float16):
        check.fail(TypeError, op, "x of dtype int8, float32, bfloat16 or float16", x.dtype)
    if not isinstance(weight, PackedWeight):
        check.fail(TypeError, op, "weight to be a PackedWeight", type(weight).__name__)
    if trainable(x):
        check.fail(ValueError, op, "x without requires_grad: this product is for inference", "x that requires grad")
    if x.dim() == 0 or len(weight.shape) != 2 or weight.shape[1] != x.shape[-1]:
        check.fail(ValueError, op, "x [.., K] and weight [N, K]", f"{list(x.shape)} and {list(weight.shape)}")
    if weight.device != x.device:
        check.fail(ValueError, op, f"weight on {x.device}, as x", weight.device)
    N, lead = weight.shape[0], x.shape[:-1]
    if scale is not None or bias is not None:
        e = epilogue(op, N, (*lead, N), x.device, torch.float32, scale, bias, None, None, None, None, None)
        scale, bias = e.scale, e.bias
    flat_x = x.detach().reshape(_product(lead), x.shape[-1]).contiguous()
    integers = x.dtype == torch.int8
    product = ops.bits_w1a8 if integers else ops.bits_w1a16
    y = product(flat_x, weight.words, weight.panels, *mixed_form(weight.kind, integers))
    if integers:
        if scale is None and bias is None:
            return y.reshape(*lead, N)
        y = y.float()
    y = y if scale is None else y * scale
    y = y if bias is None else y + bias
    return y.reshape(*lead, N).to(torch.float32 if integers else x.dtype)
