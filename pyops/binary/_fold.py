"""Functions of a layer's integers folded to thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check

_INT_MIN = -(2**31)


def fold_threshold(fn: Callable[[Tensor], Tensor], channels: int, low: int, high: int) -> Tensor:
    """The integer threshold that a per-channel function's sign comes to.

    Args:
        fn: int64 [1, channels] -> floats [1, channels], each channel monotone (in floating point) on [low, high]. Compositions of
            multiplications by and additions of constants are, whatever their rounding.
        channels, low, high: the columns and the range of the integers.

    Returns:
        int32 [2, channels], threshold and flip (0 or -1): ``fn(d) >= 0`` is ``(d >= threshold) ^ flip`` at every integer of the
        range, found by bisection on ``fn`` itself, so the rounding of ``fn`` is reproduced exactly.

    >>> import torch
    >>> from structops import binary
    >>> binary.fold_threshold(lambda d: d * torch.tensor([0.5, -1.0]) - 1, 2, -9, 9)
    tensor([[ 2,  0],
            [ 0, -1]], dtype=torch.int32)
    """
    op = "fold_threshold"
    channels = check.size(op, "channels", channels)
    if not -(2**31) < low <= high < 2**31:
        check.fail(ValueError, op, "-2**31 < low <= high < 2**31", f"{low}, {high}")

    def bit(d: Tensor) -> Tensor:
        with torch.no_grad():
            y = fn(d[None])
        if not isinstance(y, Tensor) or y.shape != (1, channels):
            check.fail(ValueError, op, f"fn to give [1, {channels}]", check.describe(y))
        return y[0] >= 0

    first = torch.full((channels,), low, dtype=torch.int64)
    last = torch.full((channels,), high, dtype=torch.int64)
    at_first, at_last = bit(first), bit(last)
    changes = at_first != at_last
    while bool((first + 1 < last).any()):
        middle = (first + last) // 2
        as_first = bit(middle) == at_first
        first, last = torch.where(as_first, middle, first), torch.where(as_first, last, middle)
    threshold = torch.where(changes, last if low < high else first, _INT_MIN)
    flip = torch.where(changes, ~at_last, ~at_first).to(torch.int64).neg()
    return torch.stack([threshold, flip]).to(torch.int32)


@autocast.promotes
def fold_batch_norm(
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    K: int,
    scale: Tensor | None = None,
    layer_bias: Tensor | None = None,
) -> Tensor:
    """Batch norm in evaluation mode followed by a sign, as a threshold on the integers of the layer before it.

    sign(batch_norm(dot * scale + layer_bias)) >= 0 becomes (dot >= threshold) ^ flip, equal to torch's float32 (or float64)
    arithmetic at every integer -K..K, also where a channel's weight is negative or 0.

    Args:
        running_mean, running_var, weight, bias: [N], of the batch norm.
        eps: its epsilon.
        K: the largest abs(dot): inputs of a linear layer, taps times channels of a group of a convolution.
        scale, layer_bias: [N], of the layer.

    Returns:
        int32 [2, N], the ``threshold`` of :func:`binary_linear` and :func:`binary_conv2d`.

    >>> import torch
    >>> from structops import binary
    >>> binary.fold_batch_norm(torch.tensor([2.5]), torch.tensor([4.0]), K=9)
    tensor([[3],
            [0]], dtype=torch.int32)
    """
    op = "fold_batch_norm"
    named: dict[str, Any] = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    named |= {"scale": scale, "layer_bias": layer_bias}
    check.dense(op, "running_mean", running_mean)
    N, dtype = running_mean.numel(), running_mean.dtype
    for name, t in named.items():
        if t is None:
            continue
        check.dense(op, name, t)
        if t.numel() != N or t.dtype != dtype:
            check.fail(ValueError, op, f"{name} [{N}] of {dtype}, as running_mean", check.describe(t))
    K = check.size(op, "K", K)
    vectors = {name: None if t is None else t.detach().reshape(N).cpu() for name, t in named.items()}

    def norm(d: Tensor) -> Tensor:
        y = d.to(dtype)
        if vectors["scale"] is not None:
            y = y * vectors["scale"]
        if vectors["layer_bias"] is not None:
            y = y + vectors["layer_bias"]
        mean, var, w, b = (vectors[k] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(y, mean, var, w, b, False, 0.0, eps)

    with torch.device("cpu"):
        return fold_threshold(norm, N, -K, K).to(running_mean.device)


def power_of_two(t: Tensor) -> Tensor:
    """The nearest powers of two (in the exponent) of positive values: slopes of a Q-PReLU that a shift can apply.

    Differentiable as the identity in log2 (straight through the rounding). Source: A&B BNN (arXiv:2403.03739).

    >>> import torch
    >>> from structops import binary
    >>> binary.power_of_two(torch.tensor([0.25, 0.3, 3.0]))
    tensor([0.2500, 0.2500, 4.0000])
    """
    check.dense("power_of_two", "t", t)
    exponent = t.log2()
    return torch.exp2(exponent + (exponent.round() - exponent).detach())
