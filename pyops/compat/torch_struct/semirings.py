"""torch_struct.semirings: what a sum over structures adds and multiplies.

A number of a semiring is a column of ``size()`` reals, the first dimension of every tensor here. ``query`` names the question that
the operators of structops answer without a semiring ("sum", "max", "kmax", "sample"); all others are evaluated in torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NINF = float("-inf")
SAMPLES = 16  # of a MultiSampledSemiring


def _column(v: Tensor, like: Tensor) -> Tensor:
    return v.to(like).reshape(-1, *(1,) * (like.dim() - 1))


class Semiring:
    """Base class. ``sum`` adds along a dimension, ``mul`` multiplies two numbers; the rest follows."""

    query: str | None = None
    zero: Tensor
    one: Tensor

    @classmethod
    def size(cls) -> int:
        return 1

    @classmethod
    def convert(cls, potentials: Tensor) -> Tensor:
        return potentials.unsqueeze(0)

    @classmethod
    def unconvert(cls, potentials: Tensor) -> Tensor:
        return potentials.squeeze(0)

    @staticmethod
    def sum(xs: Tensor, dim: int = -1) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def mul(a: Tensor, b: Tensor) -> Tensor:
        return a + b

    @staticmethod
    def prod(a: Tensor, dim: int = -1) -> Tensor:
        return a.sum(dim)

    @classmethod
    def times(cls, *ls: Tensor) -> Tensor:
        total = ls[0]
        for each in ls[1:]:
            total = cls.mul(total, each)
        return total

    @classmethod
    def plus(cls, *ls: Tensor) -> Tensor:
        return cls.sum(torch.stack(torch.broadcast_tensors(*ls), -1))

    @classmethod
    def dot(cls, a: Tensor, b: Tensor) -> Tensor:
        """The sum of products along the last dimension."""
        return cls.matmul(a.unsqueeze(-2), b.unsqueeze(-1)).squeeze(-1).squeeze(-1)

    @classmethod
    def matmul(cls, a: Tensor, b: Tensor) -> Tensor:
        return cls.sum(cls.times(a.unsqueeze(-2), b.transpose(-2, -1).unsqueeze(-3)))

    @classmethod
    def fill(cls, c: Tensor, mask: Tensor, v: Tensor) -> Tensor:
        """c with the number v where mask."""
        return torch.where(mask, _column(v, c), c)

    @classmethod
    def zero_(cls, xs: Tensor) -> Tensor:
        return xs.copy_(_column(cls.zero, xs).expand_as(xs))

    @classmethod
    def one_(cls, xs: Tensor) -> Tensor:
        return xs.copy_(_column(cls.one, xs).expand_as(xs))

    @classmethod
    def zero_mask_(cls, xs: Tensor, mask: Tensor) -> None:
        xs.copy_(cls.fill(xs, mask.unsqueeze(0), cls.zero))


# ---- one real --------------------------------------------------------------------------------------------------------


def logsumexp(xs: Tensor, dim: int = -1) -> Tensor:
    """-inf with the gradient 0 where all are -inf."""
    top = xs.detach().amax(dim, keepdim=True)
    top = torch.where(top.isfinite(), top, 0)
    total = (xs - top).exp().sum(dim)
    empty = total == 0
    return torch.where(empty, NINF, torch.where(empty, 1, total).log() + top.squeeze(dim))


class StdSemiring(Semiring):
    """Sums and products: counts, and sums of weights."""

    zero, one = torch.tensor([0.0]), torch.tensor([1.0])

    @staticmethod
    def sum(xs: Tensor, dim: int = -1) -> Tensor:
        return xs.sum(dim)

    @staticmethod
    def mul(a: Tensor, b: Tensor) -> Tensor:
        return a * b

    @staticmethod
    def prod(a: Tensor, dim: int = -1) -> Tensor:
        return a.prod(dim)

    @classmethod
    def matmul(cls, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)


class _Log(Semiring):
    zero, one = torch.tensor([NINF]), torch.tensor([0.0])


class LogSemiring(_Log):
    """Logarithms of sums of exponentials. Gradients are marginals."""

    query = "sum"
    sum = staticmethod(logsumexp)


class MaxSemiring(_Log):
    """The best structure. Gradients are its parts."""

    query = "max"

    @staticmethod
    def sum(xs: Tensor, dim: int = -1) -> Tensor:
        return xs.max(dim)[0]

    @staticmethod
    def sparse_sum(xs: Tensor, dim: int = -1) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The maximum, and where it is: (beam, class)."""
        top, at = xs.max(dim)
        return top, (torch.zeros_like(at), at)


class _Weighted(torch.autograd.Function):
    """``value(x, dim)`` whose gradient is ``weight(x, dim)``, itself differentiable, by definition."""

    @staticmethod
    def forward(ctx, x, dim, value, weight):
        ctx.save_for_backward(x)
        ctx.dim, ctx.weight = dim, weight
        return value(x, dim)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g.unsqueeze(ctx.dim) * ctx.weight(x, ctx.dim), None, None, None


def _semiring(name: str, value: Callable, weight: Callable, doc: str, query: str | None = None) -> type[Semiring]:
    def add(xs: Tensor, dim: int = -1) -> Tensor:
        return _Weighted.apply(xs, dim, value, weight)

    return type(name, (_Log,), {"sum": staticmethod(add), "query": query, "__doc__": doc, "__module__": __name__})


def _one_hot(x: Tensor, at: Tensor, dim: int) -> Tensor:
    return torch.zeros_like(x).scatter(dim, at.unsqueeze(dim), 1)


def _gumbel(x: Tensor) -> Tensor:
    return x.detach() - torch.empty_like(x, requires_grad=False).exponential_().log()


def _sampled(x: Tensor, dim: int) -> Tensor:
    return _one_hot(x, _gumbel(x).argmax(dim), dim)


def _top(x: Tensor, dim: int) -> Tensor:
    return x.amax(dim)


def sparsemax(x: Tensor, dim: int = -1) -> Tensor:
    """The projection of x to the simplex."""
    ordered = x.sort(dim, descending=True)[0]
    shape = [1] * x.dim()
    shape[dim] = -1
    count = torch.arange(1, x.shape[dim] + 1, device=x.device).to(x.dtype).reshape(shape)
    excess = (ordered.cumsum(dim) - 1) / count
    k = (ordered > excess).sum(dim, keepdim=True).clamp(min=1)
    return (x - excess.gather(dim, k - 1)).clamp(min=0)


def _sparse_value(x: Tensor, dim: int) -> Tensor:
    w = sparsemax(x, dim)
    return (w * x - w * w / 2).sum(dim)


SampledSemiring = _semiring(
    "SampledSemiring", logsumexp, _sampled, "Logarithms of sums of exponentials. 'Gradients' are an exact sample.", "sample"
)
SparseMaxSemiring = _semiring(
    "SparseMaxSemiring",
    _sparse_value,
    sparsemax,
    "The maximum of <w, x> - |w|^2 / 2 over the simplex, the conjugate of sparsemax. Gradients are sparse.",
)


class MultiSampledSemiring(SampledSemiring):  # type: ignore[valid-type,misc]
    """As SampledSemiring, but ``marginals`` holds 16 samples of every part, one in each bit: see :meth:`to_discrete`."""

    query = "samples"

    @staticmethod
    def to_discrete(xs: Tensor, j: int) -> Tensor:
        """Sample j < 16 of marginals."""
        return (xs / 2**j).floor() % 2


def TempMax(alpha: float) -> type[Semiring]:
    """The maximum, with the gradient of softmax(alpha x)."""
    weight = lambda x, dim: torch.softmax(alpha * x, dim)
    found = _semiring("TempMax", _top, weight, "The maximum, with a soft gradient.")

    def sparse_sum(xs: Tensor, dim: int = -1) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        soft = torch.softmax(alpha * xs, dim)
        return xs.amax(dim), (torch.zeros(soft.shape[:-1], dtype=torch.int64, device=xs.device), soft)

    found.sparse_sum = staticmethod(sparse_sum)  # type: ignore[attr-defined]
    return found


def GumbelMaxSemiring(temp: float) -> type[Semiring]:
    """Samples by perturbation: 'gradients' are the best alternatives after Gumbel noise. The temperature changes no sample."""
    return _semiring("GumbelMaxSemiring", logsumexp, _sampled, "Samples by Gumbel noise.")


def GumbelCRFSemiring(temp: float) -> type[Semiring]:
    """As GumbelMaxSemiring, with the gradient of the softmax at temperature ``temp`` straight through (Fu et al. 2020)."""

    def weight(x: Tensor, dim: int) -> Tensor:
        soft = torch.softmax((x + (_gumbel(x) - x.detach())) / temp, dim)
        hard = _one_hot(x, soft.argmax(dim), dim)
        return hard - soft.detach() + soft

    return _semiring("GumbelCRFSemiring", logsumexp, weight, "Straight-through samples.")


# ---- several reals ---------------------------------------------------------------------------------------------------


def KMaxSemiring(k: int) -> type[Semiring]:
    """The k best structures, in descending order. Gradients of the i-th value are the parts of the i-th structure."""

    class KMaxSemiring(Semiring):
        query = "kmax"
        zero, one = torch.full((k,), NINF), torch.tensor([0.0] + [NINF] * (k - 1))

        @classmethod
        def size(cls) -> int:
            return k

        @classmethod
        def convert(cls, potentials: Tensor) -> Tensor:
            rest = potentials.new_full((k - 1, *potentials.shape), NINF)
            return torch.cat([potentials.unsqueeze(0), rest])

        @classmethod
        def unconvert(cls, potentials: Tensor) -> Tensor:
            return potentials[0]

        @staticmethod
        def _flat(xs: Tensor, dim: int) -> Tensor:
            """[.., alternatives, k] of xs, flattened."""
            return xs.movedim(dim if dim < 0 else dim - xs.dim(), -1).movedim(0, -1).flatten(-2)

        @classmethod
        def sum(cls, xs: Tensor, dim: int = -1) -> Tensor:  # type: ignore[override]
            return cls._flat(xs, dim).topk(k)[0].movedim(-1, 0)

        @classmethod
        def sparse_sum(cls, xs: Tensor, dim: int = -1) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            top, at = cls._flat(xs, dim).topk(k)
            at = at.movedim(-1, 0)
            return top.movedim(-1, 0), (at % k, at // k)

        @staticmethod
        def mul(a: Tensor, b: Tensor) -> Tensor:
            return (a[:, None] + b[None]).flatten(0, 1).topk(k, 0)[0]

        @classmethod
        def prod(cls, a: Tensor, dim: int = -1) -> Tensor:  # type: ignore[override]
            return cls.times(*a.unbind(dim))

    return KMaxSemiring


def _share(log_weights: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sum, normalised weights and their logarithms, both 0 where a weight is 0."""
    total = logsumexp(log_weights, dim)
    live = log_weights != NINF
    log_p = torch.where(live, log_weights - torch.where(total == NINF, 0, total).unsqueeze(dim), 0)
    return total, torch.where(live, log_p.exp(), 0), log_p


class _Expectation(Semiring):
    """Columns of log-weights, and an expectation under the first in the last row."""

    @classmethod
    def unconvert(cls, potentials: Tensor) -> Tensor:
        return potentials[-1]

    @classmethod
    def size(cls) -> int:
        return len(cls.one)


class EntropySemiring(_Expectation):
    """The entropy of the distribution."""

    zero, one = torch.tensor([NINF, 0.0]), torch.tensor([0.0, 0.0])

    @classmethod
    def convert(cls, potentials: Tensor) -> Tensor:
        return torch.stack([potentials, torch.zeros_like(potentials)])

    @staticmethod
    def sum(xs: Tensor, dim: int = -1) -> Tensor:
        d = dim if dim < 0 else dim - xs.dim()
        total, p, log_p = _share(xs[0], d)
        return torch.stack([total, (p * (xs[1] - log_p)).sum(d)])


class _TwoDistributions(_Expectation):
    zero, one = torch.tensor([NINF, NINF, 0.0]), torch.tensor([0.0, 0.0, 0.0])

    @classmethod
    def convert(cls, potentials) -> Tensor:
        """A pair of potentials."""
        return torch.stack([potentials[0], potentials[1], torch.zeros_like(potentials[0])])


class CrossEntropySemiring(_TwoDistributions):
    """The cross-entropy of a pair of distributions."""

    @staticmethod
    def sum(xs: Tensor, dim: int = -1) -> Tensor:
        d = dim if dim < 0 else dim - xs.dim()
        (total, p, _), (other, _, log_q) = _share(xs[0], d), _share(xs[1], d)
        return torch.stack([total, other, (p * (xs[2] - log_q)).sum(d)])


class KLDivergenceSemiring(_TwoDistributions):
    """The divergence of a pair of distributions."""

    @staticmethod
    def sum(xs: Tensor, dim: int = -1) -> Tensor:
        d = dim if dim < 0 else dim - xs.dim()
        (total, p, log_p), (other, _, log_q) = _share(xs[0], d), _share(xs[1], d)
        return torch.stack([total, other, (p * (xs[2] + log_p - log_q)).sum(d)])


# ---- less memory -----------------------------------------------------------------------------------------------------


def CheckpointSemiring(cls: type[Semiring], min_size: int = 0) -> type[Semiring]:
    """``cls``, recomputing products of more than ``min_size`` elements in the backward pass."""

    class CheckpointSemiring(cls):  # type: ignore[valid-type,misc]
        @classmethod
        def matmul(own, a: Tensor, b: Tensor) -> Tensor:
            size = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]).numel() * a.shape[-2] * b.shape[-1]
            if size <= min_size:
                return cls.matmul(a, b)
            return checkpoint(cls.matmul, a, b, use_reentrant=False, preserve_rng_state=False)

    return CheckpointSemiring


def CheckpointShardSemiring(cls: type[Semiring], max_size: int, min_size: int = 0) -> type[Semiring]:
    """As CheckpointSemiring, in parts of about ``max_size`` products."""

    class CheckpointShardSemiring(cls):  # type: ignore[valid-type,misc]
        @classmethod
        def matmul(own, a: Tensor, b: Tensor) -> Tensor:
            lead = torch.broadcast_shapes(a.shape[1:-2], b.shape[1:-2])
            if lead.numel() * a.shape[-2] * b.shape[-1] <= min_size:
                return cls.matmul(a, b)
            rows = [t.expand(t.shape[0], *lead, *t.shape[-2:]).flatten(1, -3) if lead else t.unsqueeze(1) for t in (a, b)]
            step = max(1, max_size // max(1, b.shape[-2] * a.shape[-1]))
            parts = [
                checkpoint(cls.matmul, *(r[:, i : i + step] for r in rows), use_reentrant=False, preserve_rng_state=False)
                for i in range(0, lead.numel(), step)
            ]
            out = torch.cat(parts, 1)
            return out.reshape(out.shape[0], *lead, *out.shape[-2:])

    return CheckpointShardSemiring
