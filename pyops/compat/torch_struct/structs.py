"""torch_struct's classes of dynamic programs: sums over structures in any semiring.

LogSemiring, MaxSemiring, KMaxSemiring and the sampling semirings go to the operators of structops. Every other semiring is
evaluated by the recurrences written out below, sentences of one length at a time, in torch: for inspection and small inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import _check as check
from .._lazy import own_leaves, recording
from .chains import LinearChainCRF, SemiMarkovCRF
from .distributions import DependencyCRF, StructDistribution, TreeCRF, arcs_from_diagonal
from .semirings import SAMPLES, LogSemiring, Semiring

Potentials = Any  # a tensor, a pair of them, or the three of a grammar


class Struct:
    """Sums, marginals and scores of one kind of structure in a semiring."""

    _kind: type[StructDistribution] | None = None

    def __init__(self, semiring: type[Semiring] = LogSemiring, **options: Any) -> None:
        self.semiring, self.options = semiring, options

    # ---- what a kind of structure must say ----

    def _inside(self, edge: Tensor) -> Tensor:
        """Converted potentials [size, b, ..] of sentences of full length -> their sums [size, b]."""
        raise NotImplementedError

    @staticmethod
    def _cut(potentials: Tensor, n: int) -> Tensor:
        """The potentials of sentences of length n."""
        raise NotImplementedError

    @staticmethod
    def _longest(potentials: Potentials) -> int:
        raise NotImplementedError

    # ---- queries ----

    def sum(self, edge: Potentials, lengths: Any = None, _raw: bool = False, **_: Any) -> Tensor:
        """The sum over all structures, [b]; ``_raw``: as numbers of the semiring, [size, b]."""
        v = self.logpartition(edge, lengths)[0]
        return v if _raw else self.semiring.unconvert(v)

    def marginals(self, edge: Potentials, lengths: Any = None, _raw: bool = False, **_: Any) -> Any:
        """The gradient of the sum: marginals, best structures or samples, in the layout of the potentials."""
        query, dist = self.semiring.query, self._distribution(edge, lengths)
        if dist is not None and query != "sum" and query is not None:
            if query == "kmax":
                found = dist.topk(self.semiring.size())
                return found if _raw else found[0]
            if query == "samples":
                drawn = dist.sample((SAMPLES,))
                found = sum(drawn[j] * 2**j for j in range(SAMPLES))
            else:
                found = dist.argmax if query == "max" else dist.sample((1,))[0]
            return found.unsqueeze(0) if _raw else found
        if dist is not None and query == "sum":
            return dist.marginals.unsqueeze(0) if _raw else dist.marginals
        return self._gradient(edge, lengths)

    def _gradient(self, edge: Potentials, lengths: Any) -> Any:
        several = isinstance(edge, tuple)
        given = edge if several else (edge,)
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in given)
        with recording():
            leaves = own_leaves(given, wanted)
            v = self._evaluate(tuple(leaves) if several else leaves[0], lengths)
            found = torch.autograd.grad(self.semiring.unconvert(v).sum(), leaves, create_graph=wanted, materialize_grads=True)
        return found if several else found[0]

    def score(self, potentials: Tensor, parts: Tensor, batch_dims: tuple[int, ...] = (0,)) -> Tensor:
        """The score of structures given by their parts, [b]."""
        score = torch.where(parts != 0, potentials * parts, 0)
        return score.flatten(len(batch_dims)).sum(-1)

    def logpartition(self, log_potentials: Potentials, lengths: Any = None, force_grad: bool = False) -> tuple[Tensor, list]:
        """([size, b], [potentials])."""
        query, dist = self.semiring.query, self._distribution(log_potentials, lengths)
        if dist is None or query is None:
            v = self._evaluate(log_potentials, lengths)
        elif query == "kmax":
            v = dist.kmax(self.semiring.size())
        else:
            v = (dist.max if query == "max" else dist.partition).unsqueeze(0)
        return v, [log_potentials]

    def _dp_standard(self, edge: Potentials, lengths: Any = None, force_grad: bool = False) -> tuple[Tensor, list]:
        """As logpartition, always by the recurrence."""
        return self._evaluate(edge, lengths), [edge]

    def _distribution(self, potentials: Potentials, lengths: Any) -> StructDistribution | None:
        if self._kind is None or self.semiring.query is None or not isinstance(potentials, Tensor):
            return None
        return self._kind(potentials, lengths)  # type: ignore[call-arg]

    def _evaluate(self, potentials: Potentials, lengths: Any) -> Tensor:
        full = self._longest(potentials)
        B = (potentials[0] if isinstance(potentials, tuple) else potentials).shape[0]
        wanted = [full] * B if lengths is None else [int(n) for n in lengths]
        if len(wanted) != B or any(n < 1 or n > full for n in wanted):
            check.fail(ValueError, type(self).__name__, f"{B} lengths within 1..{full}", wanted)
        sums: list[Any] = [None] * B
        for n in sorted(set(wanted)):
            rows = [b for b in range(B) if wanted[b] == n]
            given: Any
            if self._parts_differ:
                given = tuple(self.semiring.convert(self._part(i, t[rows], n)) for i, t in enumerate(potentials))
            elif isinstance(potentials, tuple):  # of two distributions
                given = self.semiring.convert(tuple(self._cut(t[rows], n) for t in potentials))  # type: ignore[arg-type]
            else:
                given = self.semiring.convert(self._cut(potentials[rows], n))
            for b, v in zip(rows, self._inside(given).unbind(1), strict=True):
                sums[b] = v
        return torch.stack(sums, 1)

    _parts_differ = False  # whether potentials are a tuple of tensors of different shapes

    def _part(self, which: int, t: Tensor, n: int) -> Tensor:
        raise NotImplementedError

    # ---- layouts ----

    @classmethod
    def to_parts(cls, sequence: Tensor, extra: Any, lengths: Any = None) -> Tensor:
        return cls._kind.to_event(sequence, extra, lengths)  # type: ignore[union-attr]

    @classmethod
    def from_parts(cls, edge: Tensor) -> tuple[Tensor, Any]:
        return cls._kind.from_event(edge)  # type: ignore[union-attr]


def _sizes(*bounds: tuple[int, int]) -> list[int]:
    return [int(torch.randint(low, high, ())) for low, high in bounds]


# ---- chains ----------------------------------------------------------------------------------------------------------


class LinearChain(Struct):
    """Tags: potentials [b, N - 1, C, C] at [n, tag at n + 1, tag at n]; lengths count tags."""

    _kind = LinearChainCRF

    @staticmethod
    def _longest(potentials: Potentials) -> int:
        return (potentials[0] if isinstance(potentials, tuple) else potentials).shape[1] + 1

    @staticmethod
    def _cut(potentials: Tensor, n: int) -> Tensor:
        return potentials[:, : n - 1]

    def _check_potentials(self, edge: Tensor, lengths: Any = None) -> tuple[Tensor, int, int, int, Tensor]:
        """(converted potentials, b, N, C, lengths)."""
        batch, N, C = edge.shape[0], edge.shape[1] + 1, edge.shape[2]
        lengths = torch.full((batch,), N) if lengths is None else torch.as_tensor(lengths)
        return self.semiring.convert(edge), batch, N, C, lengths

    def _inside(self, edge: Tensor) -> Tensor:
        s = self.semiring
        alpha = s.one_(edge.new_empty(edge.shape[0], edge.shape[1], edge.shape[-1]))
        for n in range(edge.shape[2]):
            alpha = s.dot(edge[:, :, n], alpha.unsqueeze(2))
        return s.sum(alpha)

    @staticmethod
    def hmm(transition: Tensor, emission: Tensor, init: Tensor, observations: Tensor) -> Tensor:
        """The potentials of a hidden Markov model: ``transition [C, C]`` at [to, from], ``emission [V, C]``, ``init [C]``."""
        seen = emission[observations]
        edge = transition + seen[:, 1:, :, None]
        first = (init + seen[:, 0])[:, None, None, :]
        return torch.cat([edge[:, :1] + first, edge[:, 1:]], 1)

    @staticmethod
    def _rand(min_n: int = 2) -> tuple[Tensor, tuple[int, int]]:
        b, N, C = _sizes((2, 4), (min_n, 4), (2, 4))
        return torch.rand(b, N, C, C), (b, N + 1)


class SemiMarkov(Struct):
    """Segments: potentials [b, N - 1, K, C, C] at [n, k, tag at n + k, tag at n], k < K; lengths count nodes."""

    _kind = SemiMarkovCRF
    _longest = staticmethod(LinearChain._longest)

    @staticmethod
    def _cut(potentials: Tensor, n: int) -> Tensor:
        return potentials[:, : n - 1]

    def _inside(self, edge: Tensor) -> Tensor:
        s = self.semiring
        N, K = edge.shape[2:4]
        alpha = [s.one_(edge.new_empty(edge.shape[0], edge.shape[1], edge.shape[-1]))]
        for n in range(1, N + 1):
            ends = [s.dot(edge[:, :, n - k, k], alpha[n - k].unsqueeze(2)) for k in range(1, min(K - 1, n) + 1)]
            alpha.append(s.sum(torch.stack(ends, -1)))
        return s.sum(alpha[N])

    @staticmethod
    def hsmm(init_z_1: Tensor, transition_z_to_z: Tensor, transition_z_to_l: Tensor, emission_n_l_z: Tensor) -> Tensor:
        """The potentials of a hidden semi-Markov model: init [b, C] or [C], transition [C, C] at [from, to], of lengths [C, K],
        emission [b, N, K, C] of the segments that begin at n."""
        batch, _, K, C = emission_n_l_z.shape
        edge = transition_z_to_z.t() + transition_z_to_l.t()[:, :, None] + emission_n_l_z[..., None]
        first = init_z_1.expand(batch, C)[:, None, None, None, :].expand(batch, 1, K, C, C)
        return torch.cat([edge[:, :1] + first, edge[:, 1:]], 1)

    @staticmethod
    def _rand(min_n: int = 2) -> tuple[Tensor, tuple[int, int]]:
        b, N, K, C = _sizes((2, 4), (min_n, 4), (2, 4), (2, 4))
        return torch.rand(b, N, K, C, C), (b, N + 1)


# ---- dependency trees ------------------------------------------------------------------------------------------------


class DepTree(Struct):
    """Projective trees: potentials [b, N, N] (head, child) or [b, N, N, L], root scores on the diagonal. ``multiroot=False``: one
    dependent of the root."""

    _kind = DependencyCRF

    def _distribution(self, potentials: Potentials, lengths: Any) -> StructDistribution | None:
        if self.semiring.query is None or not isinstance(potentials, Tensor):
            return None
        return DependencyCRF(potentials, lengths, multiroot=self.options.get("multiroot", True))

    @staticmethod
    def _longest(potentials: Potentials) -> int:
        return (potentials[0] if isinstance(potentials, tuple) else potentials).shape[1]

    @staticmethod
    def _cut(potentials: Tensor, n: int) -> Tensor:
        return potentials[:, :n, :n]

    def _inside(self, edge: Tensor) -> Tensor:
        s = self.semiring
        if edge.dim() == 5:  # labels
            edge = s.sum(edge)
        n = edge.shape[2]
        # Position 0 is the root: arc(h, m) of words h, m > 0 is edge[h - 1, m - 1], arc(0, m) is on the diagonal.
        arc = lambda h, m: edge[:, :, (h or m) - 1, m - 1]
        one = s.one_(edge.new_empty(edge.shape[:2]))
        left: dict[tuple[int, int], Tensor] = {(i, i): one for i in range(n + 1)}  # complete, headed at the right end
        right = dict(left)
        to_left: dict[tuple[int, int], Tensor] = {}  # an arc over the span
        to_right: dict[tuple[int, int], Tensor] = {}
        add = lambda pairs: s.sum(torch.stack([s.mul(a, b) for a, b in pairs], -1))
        for w in range(1, n + 1):
            for i in range(n + 1 - w):
                j = i + w
                halves = add([(right[i, r], left[r + 1, j]) for r in range(i, j) if (i, r) in right])
                to_right[i, j] = s.mul(halves, arc(i, j))
                if i > 0:
                    to_left[i, j] = s.mul(halves, arc(j, i))
                    left[i, j] = add([(left[i, r], to_left[r, j]) for r in range(i, j)])
                if i > 0 or j == n or self.options.get("multiroot", True):
                    right[i, j] = add([(to_right[i, r], right[r, j]) for r in range(i + 1, j + 1)])
        return right[0, n]

    @classmethod
    def to_parts(cls, sequence: Tensor, extra: Any = None, lengths: Any = None) -> Tensor:
        return DependencyCRF.to_event(sequence, extra, lengths)

    @staticmethod
    def _rand(min_n: int = 2) -> tuple[Tensor, tuple[int, int]]:
        b, N = _sizes((2, 4), (min_n, 4))
        return torch.rand(b, N, N), (b, N)


def convert(logits: Tensor) -> Tensor:
    """[b, N, N(, L)] with root scores on the diagonal -> [b, N + 1, N + 1(, L)] (head, child), root 0; -1e9 where there is no arc.
    """
    arcs = arcs_from_diagonal(logits).transpose(1, 2)
    position = torch.arange(arcs.shape[1], device=logits.device)
    none = (position[:, None] == position) | (position == 0)
    return arcs.masked_fill(none.reshape(*none.shape, *(1,) * (arcs.dim() - 3)), -1e9)


def unconvert(logits: Tensor) -> Tensor:
    """The inverse of :func:`convert`."""
    words = logits[:, 1:, 1:].clone()
    index = torch.arange(words.shape[1], device=logits.device)
    words[:, index, index] = logits[:, 0, 1:]
    return words


# ---- constituency trees ----------------------------------------------------------------------------------------------


class CKY_CRF(Struct):
    """Labelled spans without rules: potentials [b, N, N, NT] of inclusive spans."""

    _kind = TreeCRF
    _longest = staticmethod(DepTree._longest)
    _cut = staticmethod(DepTree._cut)

    def _inside(self, edge: Tensor) -> Tensor:
        s = self.semiring
        span = s.sum(edge)
        n = span.shape[2]
        beta = {(i, i): span[:, :, i, i] for i in range(n)}
        for w in range(1, n):
            for i in range(n - w):
                j = i + w
                splits = torch.stack([s.mul(beta[i, r], beta[r + 1, j]) for r in range(i, j)], -1)
                beta[i, j] = s.mul(s.sum(splits), span[:, :, i, j])
        return beta[0, n - 1]

    @staticmethod
    def _rand(min_n: int = 2) -> tuple[Tensor, tuple[int, int]]:
        b, N, NT = _sizes((2, 5), (min_n, 5), (2, 5))
        return torch.rand(b, N, N, NT), (b, N)


class CKY(Struct):
    """Grammars in Chomsky normal form: (terms [b, N, T], rules [b, NT, S, S], roots [b, NT]), S = NT + T.

    ``marginals``: the gradients of the three.
    """

    _parts_differ = True

    @staticmethod
    def _longest(potentials: Potentials) -> int:
        return potentials[0].shape[1]

    def _part(self, which: int, t: Tensor, n: int) -> Tensor:
        return t[:, :n] if which == 0 else t

    def _inside(self, edge: Any) -> Tensor:
        s = self.semiring
        terms, rules, roots = edge
        n, T, NT = terms.shape[2], terms.shape[3], roots.shape[2]
        if n < 2:
            check.fail(ValueError, "CKY", "sentences of at least 2 words: a root is no terminal", n)
        size, b = terms.shape[:2]
        # By width of the parts: single words have only terms, longer spans only nonterminals.
        part = lambda width: slice(NT, NT + T) if width == 1 else slice(0, NT)
        beta = {(i, i): terms[:, :, i] for i in range(n)}
        for w in range(2, n + 1):
            for i in range(n + 1 - w):
                ways = []
                for u in range(1, w):
                    x, y = beta[i, i + u - 1], beta[i + u, i + w - 1]
                    pair = s.mul(x.unsqueeze(-1), y.unsqueeze(-2)).unsqueeze(2)
                    rule = rules[:, :, :, part(u), part(w - u)]
                    ways.append(s.sum(s.mul(rule, pair).reshape(size, b, NT, -1)))
                beta[i, i + w - 1] = s.sum(torch.stack(ways, -1))
        return s.sum(s.mul(beta[0, n - 1], roots))

    def score(self, potentials: Any, parts: Any, batch_dims: tuple[int, ...] = (0,)) -> Tensor:
        return sum(super(CKY, self).score(p, q, batch_dims) for p, q in zip(potentials, parts, strict=True))  # type: ignore[return-value]


for _struct in (LinearChain, SemiMarkov, DepTree, CKY_CRF):
    _struct._kind.struct = _struct  # type: ignore[union-attr]
