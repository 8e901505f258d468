"""torch_struct.autoregressive: search and sampling in models that score one class after another."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

NINF = float("-inf")


class Autoregressive(Distribution):
    """Sequences of ``n_length`` classes scored by ``model(tokens [b, n], state) -> (logits [b, n, n_classes], state)``.

    ``initial_state``: tensors [batch, ..]. ``normalize``: whether logits are made log-probabilities. Events are one-hot,
    [batch, n_length, n_classes]. Everything but the model is torch.
    """

    arg_constraints: dict = {}  # noqa: RUF012

    def __init__(
        self,
        model: Any,
        initial_state: tuple[Tensor, ...],
        n_classes: int,
        n_length: int,
        normalize: bool = True,
        start_class: int = 0,
        end_class: int | None = None,
    ) -> None:
        self.model, self.init, self.n_classes, self.n_length = model, initial_state, n_classes, n_length
        self.normalize, self.start_class, self.end_class = normalize, start_class, end_class
        self.device = initial_state[0].device
        super().__init__(initial_state[0].shape[:1], torch.Size([n_length, n_classes]), validate_args=False)

    def _states(self, times: int) -> tuple[Tensor, ...]:
        """``times`` copies of the initial state, [times * batch, ..]."""
        return tuple(s.expand(times, *s.shape).flatten(0, 1) for s in self.init)

    def _logits(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1) if self.normalize else logits

    def log_prob(self, value: Tensor, sparse: bool = False) -> Tensor:
        """[samples, batch] of events [samples, batch, N, C], or of classes [samples, batch, N] with ``sparse``."""
        tokens = value.long() if sparse else value.argmax(-1)
        samples, batch = tokens.shape[:2]
        flat = tokens.flatten(0, 1)
        given = torch.cat([torch.full_like(flat[:, :1], self.start_class), flat], 1)
        logits = self._logits(self.model(given, self._states(samples))[0])
        return logits[:, :-1].gather(2, flat.unsqueeze(-1)).squeeze(-1).sum(-1).reshape(samples, batch)

    def _search(self, k: int, noise: bool = False, soft: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Beam search: one-hot paths [k, batch, N, C], values [k, batch], logits [k, batch, N, C].

        ``noise``: beams are the k largest of perturbed log-probabilities, sampled without replacement. ``soft``: the model reads
        softmax(soft * scores) instead of the class.
        """
        batch = self.batch_shape[0]
        first = torch.arange(k, device=self.device)[:, None] == 0
        value = torch.where(first, 0.0, NINF).expand(k, batch)
        key = value  # what beams are ordered by
        state, logits = self._states(k), []
        tokens: Tensor = torch.full((k * batch,), self.start_class, device=self.device)
        paths = torch.zeros(k, batch, 0, dtype=torch.int64, device=self.device)
        for _ in range(self.n_length):
            out, state = self.model(tokens.unsqueeze(1), state)
            step = out.squeeze(1).unflatten(0, (k, batch))
            step = step.log_softmax(-1) if noise else self._logits(step)
            logits.append(step)
            scores = value.unsqueeze(-1) + step
            keys = _perturbed(scores, key) if noise else scores
            top, at = keys.movedim(0, -1).flatten(1).topk(k)  # [batch, C k]
            beam, token = (at % k).t(), (at // k).t()
            key = top.t()
            value = scores.movedim(0, -1).flatten(1).gather(1, at).t()
            rows = (beam * batch + torch.arange(batch, device=self.device)).flatten()
            state = tuple(s[rows] for s in state)
            paths = torch.cat([paths.flatten(0, 1)[rows].unflatten(0, (k, batch)), token.unsqueeze(-1)], -1)
            tokens = token.flatten()
            if soft is not None:
                tokens = torch.softmax(soft * scores, -1).flatten(0, 1)
        return F.one_hot(paths, self.n_classes).to(value.dtype), value, torch.stack(logits, 2)

    def greedy_max(self) -> tuple[Tensor, Tensor, Tensor]:
        """The greedy path [batch, N, C], its value [batch] and the logits [batch, N, C]."""
        path, value, logits = self._search(1)
        return path[0], value[0], logits[0]

    def greedy_tempmax(self, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
        """As greedy_max, where the model reads softmax(alpha * scores): differentiable scheduled sampling (Goyal et al. 2017)."""
        path, value, logits = self._search(1, soft=alpha)
        return path[0], value[0], logits[0]

    def beam_topk(self, K: int) -> Tensor:
        """The paths of a beam of K, [K, batch, N, C]."""
        return self._search(K)[0]

    def _beam_max(self, K: int) -> Tensor:
        return self._search(K)[1]

    def sample_without_replacement(self, sample_shape: Any = (1,)) -> Tensor:
        """[K, batch, N, C] different sequences (Kool, van Hoof and Welling 2019). K is at most the number of sequences."""
        return self._search(torch.Size(sample_shape)[0], noise=True)[0]

    def sample(self, sample_shape: Any = (1,)) -> Tensor:
        """[S, batch, N, C] independent sequences."""
        samples = torch.Size(sample_shape)[0]
        batch = self.batch_shape[0]
        state, found = self._states(samples), []
        tokens = torch.full((samples * batch,), self.start_class, device=self.device)
        for _ in range(self.n_length):
            logits, state = self.model(tokens.unsqueeze(1), state)
            tokens = torch.distributions.Categorical(logits=logits.squeeze(1)).sample()
            found.append(tokens)
        return F.one_hot(torch.stack(found, 1).unflatten(0, (samples, batch)), self.n_classes)


def _perturbed(scores: Tensor, parent: Tensor) -> Tensor:
    """Gumbel noise around the log-probabilities [k, batch, C] of children whose maximum is the parent's."""
    noisy = scores - torch.empty_like(scores).exponential_().log()
    top = noisy.amax(-1, keepdim=True)
    dead = ~top.isfinite()
    top = torch.where(dead, 0, top)
    gap = parent.unsqueeze(-1) - noisy + torch.log1p(-(noisy - top).clamp(max=0).exp())
    found = parent.unsqueeze(-1) - gap.clamp(min=0) - torch.log1p(torch.exp(-gap.abs()))
    return torch.where(dead, NINF, found)
