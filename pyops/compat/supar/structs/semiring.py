"""supar.structs.semiring: the additions and multiplications, of plain tensors. The distributions here do not use them."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

NINF = float("-inf")


class Semiring:
    """Sums and products."""

    zero: float = 0.0
    one: float = 1.0

    @staticmethod
    def sum(x: Tensor, dim: int = -1) -> Tensor:
        return x.sum(dim)

    @staticmethod
    def mul(x: Tensor, y: Tensor) -> Tensor:
        return x * y

    @staticmethod
    def prod(x: Tensor, dim: int = -1) -> Tensor:
        return x.prod(dim)

    @classmethod
    def add(cls, x: Tensor, y: Tensor) -> Tensor:
        return cls.sum(torch.stack([x, y]), 0)

    @classmethod
    def times(cls, *x: Tensor) -> Tensor:
        return reduce(cls.mul, x)

    @classmethod
    def dot(cls, x: Tensor, y: Tensor, dim: int = -1) -> Tensor:
        return cls.sum(cls.mul(x, y), dim)


class LogSemiring(Semiring):
    """Logarithms of sums of exponentials."""

    zero, one = NINF, 0.0

    @staticmethod
    def sum(x: Tensor, dim: int = -1) -> Tensor:
        return x.logsumexp(dim)

    @staticmethod
    def mul(x: Tensor, y: Tensor) -> Tensor:
        return x + y

    @staticmethod
    def prod(x: Tensor, dim: int = -1) -> Tensor:
        return x.sum(dim)


class MaxSemiring(LogSemiring):
    """The best structure."""

    @staticmethod
    def sum(x: Tensor, dim: int = -1) -> Tensor:
        return x.max(dim)[0]
