"""supar.modules: biaffine and triaffine scorers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...tree import biaffine, triaffine


class MLP(nn.Module):
    """A linear layer, LeakyReLU(0.1) and dropout with one mask for all positions of a sentence. ``[B, N, n_in]``."""

    def __init__(self, n_in: int, n_out: int, dropout: float = 0, activation: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.activation = nn.LeakyReLU(0.1) if activation else nn.Identity()
        self.p = dropout
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.linear(x))
        if not self.training or not self.p:
            return x
        return x * nn.functional.dropout(torch.ones_like(x[:, :1]), self.p)


class _Affine(nn.Module):
    """A multilinear form over ``order`` inputs with optional biases on the first two, full or of low rank (``decompose``).

    ``n_proj``: each input first goes through an :class:`MLP` of this size.
    """

    order: int

    def __init__(
        self,
        n_in: int,
        n_out: int = 1,
        n_proj: int | None = None,
        dropout: float | None = 0,
        scale: int = 0,
        bias_x: bool = True,
        bias_y: bool = True,
        decompose: bool = False,
        init: Callable = nn.init.zeros_,
    ) -> None:
        super().__init__()
        self.n_in, self.n_out, self.n_proj, self.dropout = n_in, n_out, n_proj, dropout
        self.scale, self.bias_x, self.bias_y, self.decompose, self.init = scale, bias_x, bias_y, decompose, init
        self.n_model = n_proj or n_in
        if n_proj is not None:
            for name in "xyz"[: self.order]:
                setattr(self, f"mlp_{name}", MLP(n_in, n_proj, dropout or 0.0))
        sizes = [self.n_model + bias_x, self.n_model + bias_y, self.n_model][: self.order]
        weight: nn.ParameterList | nn.Parameter
        if decompose:
            weight = nn.ParameterList(nn.Parameter(torch.empty(n_out, size)) for size in sizes)
        elif self.order == 2:
            weight = nn.Parameter(torch.empty(n_out, *sizes))
        else:
            weight = nn.Parameter(torch.empty(n_out, sizes[0], sizes[2], sizes[1]))
        self.weight = weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in self.weight if self.decompose else [self.weight]:
            self.init(weight)

    def extra_repr(self) -> str:
        return f"n_in={self.n_in}, n_out={self.n_out}, scale={self.scale}, bias_x={self.bias_x}, bias_y={self.bias_y}"

    def _inputs(self, *inputs: Tensor) -> list[Tensor]:
        if self.n_proj is None:
            return list(inputs)
        return [getattr(self, f"mlp_{name}")(t) for name, t in zip("xyz", inputs, strict=False)]

    @property
    def _factor(self) -> float:
        return float(self.n_in) ** -self.scale if self.scale else 1.0

    def _reduced(self, *inputs: Tensor) -> list[Tensor]:
        """Of a form of low rank: every input by its own weights, [B, n_out, N]."""
        found = []
        for t, weight, biased in zip(inputs, self.weight, (self.bias_x, self.bias_y, False), strict=False):
            size = t.shape[-1]
            reduced = nn.functional.linear(t, weight[:, :size], weight[:, size] if biased else None)
            found.append(reduced.transpose(1, 2))
        found[0] = found[0] * self._factor if self.scale else found[0]
        return found


class Biaffine(_Affine):
    """``x^T W y / n_in^scale`` of every pair: x, y ``[B, N, n_in]`` -> ``[B, n_out, N, N]`` (x, y), without n_out if it is 1.

    >>> import torch
    >>> from structops.compat.supar import Biaffine
    >>> Biaffine(4, n_out=2)(torch.rand(1, 3, 4), torch.rand(1, 3, 4)).shape
    torch.Size([1, 2, 3, 3])
    """

    order = 2

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self._inputs(x, y)
        if self.decompose:
            wx, wy = self._reduced(x, y)
            return (wx[..., :, None] * wy[..., None, :]).squeeze(1)
        return biaffine(x, y, self.weight, self.bias_x, self.bias_y, self._factor).squeeze(1)


class Triaffine(_Affine):
    """``x^T z^T W y / n_in^scale`` of every triple: x, y, z ``[B, N, n_in]`` -> ``[B, n_out, N, N, N]`` (z, x, y), without n_out
    if it is 1. W is ``[n_out, x, z, y]``."""

    order = 3

    def __init__(self, n_in: int, n_out: int = 1, n_proj=None, dropout=0, scale=0, bias_x=False, bias_y=False, **kwargs) -> None:
        super().__init__(n_in, n_out, n_proj, dropout, scale, bias_x, bias_y, **kwargs)

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        x, y, z = self._inputs(x, y, z)
        if self.decompose:
            wx, wy, wz = self._reduced(x, y, z)
            return (wz[..., :, None, None] * wx[..., None, :, None] * wy[..., None, None, :]).squeeze(1)
        score = triaffine(x, y, z, self.weight.transpose(2, 3), self.bias_x, self.bias_y, self._factor)
        return score.movedim(-1, 2).squeeze(1)
