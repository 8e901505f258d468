"""chain_max_marginals: the best path through every tagged segment. By enumeration: test_max_marginals_and_risk in test_chain.py."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, remembered
from chain_cases import INF, KINDS, chain
from compare import assert_close, assert_same
from structops import backends
from structops.kernels.tree import chain_ref
from structops.tree import LinearChainCRF

chain_ref = remembered(chain_ref)

CASES = [(kind, K) for kind in KINDS for K in (0, 1, 3) if not (kind == "full" and K == 0)]


def op(name: str):
    return backends.implementation(name)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind,K", CASES)
def test_reference(isa: str, kind: str, K: int, dtype: torch.dtype, poison: None, on_threads) -> None:
    """Scores past the sentence are not read; absent edges count as zeros."""
    for seed, (T, forbid) in enumerate(((1, 0.0), (9, 0.0), (17, 0.1), (70, 0.0))):
        scores, lengths = chain(kind, K, B=4, N=5, T=T, dtype=dtype, seed=seed, scale=1.0, forbid=forbid)
        emit = scores[0].masked_fill((torch.arange(5) >= lengths[:, None])[..., None], float("nan"))
        given = (emit, *scores[1:4], *(scores[4:] if seed else (None, None)))
        got = on_threads(lambda: op("chain_max_marginals")(*given, lengths))
        want = chain_ref.chain_max_marginals(*given, lengths)
        assert got.shape == (4, 5, max(K, 1), T)
        assert_close(got, want.double(), got.dtype, terms=64, magnitude=4.0, what=(kind, K, T))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "full"])
def test_every_position_of_a_linear_chain_has_the_best_path(isa: str, kind: str) -> None:
    scores, lengths = chain(kind, B=5, N=40, T=11, dtype=torch.float32, scale=3.0)
    through = op("chain_max_marginals")(*scores, lengths)[:, :, 0]
    value, tags = op("chain_best")(*scores, lengths, 1)
    for b, n in enumerate(lengths.tolist()):
        assert_close(through[b, :n].amax(1), value[b].double().expand(n), torch.float32, terms=64, magnitude=100.0)
        assert_same(through[b, :n].argmax(1), tags[b, 0, :n])
        assert (through[b, n:] == -INF).all()


@pytest.mark.parametrize("kind,K", [("batch", 0), ("position", 2), ("full", 2)])
def test_special_values(isa: str, kind: str, K: int) -> None:
    """No path: -inf. NaN or +inf: NaN within the sentence. Neither touches other sentences; empty sentences and batches."""
    for dtype in FLOATS:
        scores, _ = chain(kind, K, B=6, N=4, T=3, dtype=dtype)
        emit, trans = scores[0].clone(), scores[3].clone()
        emit[1, 1] = -INF
        emit[2, 0, 0] = float("nan")
        emit[3, 3, 1] = INF
        trans[4].view(-1)[-1] = float("nan")
        lengths = torch.tensor([4, 4, 4, 4, 4, 0])
        given = (emit, *scores[1:3], trans, *scores[4:])
        got = op("chain_max_marginals")(*given, lengths)
        want = chain_ref.chain_max_marginals(*given, lengths)
        assert (got[0] > -INF).any() and not got[0].isnan().any() and (got[[1, 5]] == -INF).all()
        # The last transition leads to a segment past the sentence where transitions know lengths, and is not read there.
        inside = torch.arange(4)[:, None] + torch.arange(1, max(K, 1) + 1) <= 4
        assert (got[2:4].isnan() == inside[..., None]).all() and (got[4].isnan().any() or kind == "full")
        assert_same(got.isnan(), want.isnan())
        empty = (emit[:0], None, None, None, None, None)
        assert op("chain_max_marginals")(*empty, lengths[:0]).shape == (0, 4, 1, 3)
        assert op("chain_max_marginals")(emit[:, :0], None, None, None, None, None, torch.zeros(6).long()).shape == (6, 0, 1, 3)


@pytest.mark.skipif(backends.native is None, reason="an operator in a graph needs the compiled library")
def test_compile() -> None:
    scores, lengths = chain("shared", B=3, N=5, T=4)
    through = lambda e, t: LinearChainCRF(e, t, lengths=lengths).max_marginals()
    compiled = torch.compile(through, fullgraph=True, backend="aot_eager")
    assert_same(compiled(scores[0], scores[3]), through(scores[0], scores[3]))
    torch._dynamo.reset()
