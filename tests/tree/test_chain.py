"""chain_logz, chain_marginals, chain_hvp, chain_best and chain_sample, and the distributions made of them."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FLOATS, generator, remembered
from chain_cases import INF, KINDS, as_tags, chain, paths
from compare import assert_close, assert_same
from structops.kernels.tree import chain_ref
from structops.tree import LinearChainCRF, SemiMarkovCRF
from structops.tree import _chain as ladder
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

chain_ref = remembered(chain_ref)

ops = torch.ops.structops
CASES = [(kind, K) for kind in KINDS for K in (0, 1, 3) if not (kind == "full" and K == 0)]


def directions(scores, seed: int):
    rng = generator(seed)
    return [None if t is None else torch.randn(t.shape, generator=rng, dtype=torch.float64).to(t.dtype) for t in scores]


def assert_all_close(got, want, dtype, what) -> None:
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        size = 1.0 if w.numel() == 0 or not w.isfinite().any() else float(w[w.isfinite()].abs().max())
        assert_close(g, w.double(), g.dtype, terms=256, magnitude=max(size, 1.0), what=(what, i))
    assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


# ---- truth: every path ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind,K", CASES)
def test_enumeration(kind: str, K: int) -> None:
    """Log-partition, posteriors, the best paths and the number of paths, against a list of all paths."""
    for seed, forbid in enumerate((0.0, 0.0, 0.15)):
        scores, lengths = chain(kind, K, B=5, N=4, T=2 + seed % 2, seed=seed, forbid=forbid)
        logz, post, *_ = ops.chain_marginals(*scores, lengths, None)
        value, tags = ops.chain_best(*scores, lengths, 5)
        assert_same(ops.chain_logz(*scores, lengths), logz)
        for b in range(5):
            found = {p: s for p, s in paths(scores, lengths, b).items() if s > -INF}
            total = torch.stack([*found.values(), torch.tensor(-INF, dtype=torch.float64)]).logsumexp(0)
            assert_close(logz[b], total, terms=64, magnitude=4.0)
            expected = torch.zeros_like(post[b])
            for path, s in found.items():
                ends = [i for i, _ in path[1:]] + [int(lengths[b])] * bool(path)
                for (i, t), e in zip(path, ends, strict=True):
                    expected[i:e, t] += (s - total).exp()
            assert_close(post[b], expected, terms=64)
            ranked = sorted(found.items(), key=lambda x: -x[1])[:5]
            for m in range(5):
                if m < len(ranked):
                    assert_close(value[b, m], ranked[m][1], terms=32, magnitude=4.0)
                    assert tags[b, m].tolist() == as_tags(ranked[m][0], 4)
                else:
                    assert value[b, m] == -INF and (tags[b, m] == -1).all()


def test_uniform_scores_count_paths() -> None:
    for n in (1, 2, 7, 300):
        assert_close(LinearChainCRF(torch.zeros(1, n, 5, dtype=torch.float64)).log_partition[0], torch.tensor(n * math.log(5.0), dtype=torch.float64), terms=n)
        crf = SemiMarkovCRF(torch.zeros(1, n, n, 1, dtype=torch.float64))  # compositions of n
        assert_close(crf.log_count[0], torch.tensor((n - 1) * math.log(2.0), dtype=torch.float64), terms=n)


# ---- against the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind,K", CASES)
def test_reference(isa: str, kind: str, K: int, dtype: torch.dtype, poison: None, on_threads) -> None:
    for seed, (T, forbid) in enumerate(((1, 0.0), (9, 0.0), (17, 0.1))):
        scores, lengths = chain(kind, K, B=4, N=5, T=T, dtype=dtype, seed=seed, scale=1.0, forbid=forbid)
        weight = torch.randn(4, dtype=torch.float64, generator=generator(seed)).to(chain_ref._accumulator(scores[0]))
        v = directions(scores, seed)
        what = (kind, K, T)
        got = on_threads(lambda: ops.chain_logz(*scores, lengths), what)
        assert_all_close((got,), (chain_ref.chain_logz(*scores, lengths),), dtype, what)
        for w in (None, weight):
            got = on_threads(lambda: ops.chain_marginals(*scores, lengths, w), what)
            assert_all_close(got, chain_ref.chain_marginals(*scores, lengths, w), dtype, what)
        got = on_threads(lambda: ops.chain_hvp(*scores, lengths, weight, *v), what)
        assert_all_close(got, chain_ref.chain_hvp(*scores, lengths, weight, *v), dtype, what)


@pytest.mark.parametrize("kind,K", CASES)
def test_paths_of_the_reference(isa: str, kind: str, K: int, poison: None, on_threads) -> None:
    for seed, T in enumerate((1, 4, 17)):
        scores, lengths = chain(kind, K, B=4, N=5, T=T, seed=seed, forbid=0.1)
        for k in (1, 3):
            value, tags = on_threads(lambda: ops.chain_best(*scores, lengths, k))
            expected, expected_tags = chain_ref.chain_best(*scores, lengths, k)
            assert_close(value, expected, terms=32, magnitude=4.0)
            assert_same(tags, expected_tags)
        uniform = torch.rand(4, 4, 5 if max(K, 1) == 1 else 10, generator=generator(seed), dtype=torch.float64)
        got = on_threads(lambda: ops.chain_sample(*scores, lengths, uniform))
        assert_same(got, chain_ref.chain_sample(*scores, lengths, uniform))


def test_ties_go_to_the_smaller_tag() -> None:
    scores = (torch.zeros(1, 3, 4), None, None, torch.zeros(4, 4), None, None)
    for k in (1, 2):
        assert ops.chain_best(*scores, torch.tensor([3]), k)[1][0, 0].tolist() == [0, 0, 0]


def test_a_sentence_does_not_depend_on_its_batch() -> None:
    scores, _ = chain("shared", B=70, N=9, T=5, dtype=torch.float32, seed=4)
    lengths = torch.arange(70) % 10
    alone = [ops.chain_marginals(scores[0][b : b + 1], *scores[1:], lengths[b : b + 1], None) for b in range(70)]
    logz, post, *_ = ops.chain_marginals(*scores, lengths, None)
    assert_same(torch.cat([a[0] for a in alone]), logz)
    assert_same(torch.cat([a[1] for a in alone]), post)
    total = ops.chain_marginals(*scores, lengths, None)[4]
    assert_close(total, torch.stack([a[4] for a in alone]).double().sum(0), torch.float32, terms=700)


# ---- numbers that are hard -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["none", "shared", "batch", "position"])
def test_wide_ranges(isa: str, kind: str, dtype: torch.dtype) -> None:
    """Scores whose exponentials leave the range of the dtype, with and without forbidden transitions."""
    for seed, (scale, forbid) in enumerate([(30.0, 0.0), (30.0, 0.3), (300.0, 0.0), (300.0, 0.3), (3000.0, 0.3)]):
        scores, lengths = chain(kind, B=6, N=8, T=5, dtype=dtype, seed=seed, scale=scale, forbid=forbid)
        want = chain_ref.chain_marginals(*scores, lengths, None)
        got = ops.chain_marginals(*scores, lengths, None)
        assert_close(got[0], want[0].double(), dtype, terms=16, magnitude=scale)
        for g, w in zip(got[1:], want[1:], strict=True):
            assert_close(g, w.double(), dtype, terms=64 * scale, magnitude=1.0, what=(kind, scale, forbid))


def test_a_chain_that_only_the_end_decides(isa: str) -> None:
    """Two chains without a way between them; the one that falls behind by 3 nats a step is the one that may end."""
    N = 200
    emit = torch.zeros(1, N, 2)
    emit[..., 1] = -3.0
    trans = torch.tensor([[0.0, -INF], [-INF, 0.0]])
    for end in (torch.tensor([-INF, 0.0]), torch.tensor([-5000.0, 0.0])):
        logz, post, *_ = ops.chain_marginals(emit, None, None, trans, None, end, torch.tensor([N]), None)
        assert_close(logz, torch.tensor([-3.0 * N]).double(), torch.float32, terms=4)
        assert (post[0, :, 1] == 1).all() and (post[0, :, 0] == 0).all()


@pytest.mark.parametrize("K", [0, 2])
def test_special_values(isa: str, K: int) -> None:
    """No path: -inf, zeros and -1. NaN or +inf: NaN. Neither touches other sentences; what is past the end is not read."""
    for dtype in FLOATS:
        scores, _ = chain("batch", K, B=5, N=4, T=3, dtype=dtype)
        emit = scores[0].clone()
        emit[1, 1] = -INF
        emit[2, 0, 0] = float("nan")
        emit[3, 2, 1] = INF
        emit[4, 2:] = float("nan")
        lengths = torch.tensor([4, 4, 4, 4, 2])
        logz, post, *rest = ops.chain_marginals(emit, *scores[1:], lengths, None)
        assert logz[0].isfinite() and logz[1] == -INF and logz[2:4].isnan().all() and logz[4].isfinite()
        assert (post[1] == 0).all() and post[2:4].isnan().all() and (post[4, 2:] == 0).all() and post[4].isfinite().all()
        assert rest[3].isnan().all()  # start: shared by all
        assert_same(ops.chain_logz(emit, *scores[1:], lengths), logz)
        value, tags = ops.chain_best(emit, *scores[1:], lengths, 2)
        assert value[1].eq(-INF).all() and value[2:4].isnan().all() and (tags[1:4] == -1).all() and (tags[[0, 4], 0, 0] >= 0).all()
        uniform = torch.rand(2, 5, 8 if K else 4, dtype=torch.float64)
        assert (ops.chain_sample(emit, *scores[1:], lengths, uniform)[:, 1:4] == -1).all()


def test_empty() -> None:
    for B, N in ((0, 3), (2, 0), (0, 0), (2, 3)):
        scores, _ = chain("shared", B=B, N=N, T=2)
        lengths = torch.zeros(B, dtype=torch.int64)
        logz, *posts = ops.chain_marginals(*scores, lengths, None)
        assert logz.shape == (B,) and (logz == 0).all() and all((p == 0).all() for p in posts)
        value, tags = ops.chain_best(*scores, lengths, 2)
        assert tags.shape == (B, 2, N) and (tags == -1).all() and (value[:, 0] == 0).all() and (value[:, 1] == -INF).all()


# ---- derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind,K", [("none", 0), ("shared", 0), ("batch", 0), ("position", 0), ("shared", 2), ("full", 2)])
def test_gradients(kind: str, K: int, poison: None) -> None:
    scores, lengths = chain(kind, K, B=2, N=3, T=2, scale=1.0)
    lengths[1] = 1
    there = [i for i, t in enumerate(scores) if t is not None]
    leaves = [scores[i].clone().requires_grad_() for i in there]

    def full(given):
        found = [None] * 6
        for i, t in zip(there, given, strict=True):
            found[i] = t
        return found

    assert gradcheck(lambda *s: ladder.chain_logz(*full(s), lengths), leaves)
    assert gradgradcheck(lambda *s: ladder.chain_logz(*full(s), lengths), leaves)
    weight = torch.tensor([0.7, -1.3], dtype=torch.float64, requires_grad=True)
    present = lambda s, w: [t for t in ladder.chain_marginals(*full(s), lengths, w) if t.numel()]
    assert gradcheck(lambda w, *s: present(s, w), (weight, *leaves))
    v = [t.detach().sin().requires_grad_() for t in leaves]
    n = len(leaves)
    assert gradcheck(lambda *a: ladder.chain_hvp(*full(a[:n]), lengths, None, *full(a[n:]))[0], (*leaves, *v))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool) -> None:
    f = lambda emit, trans: LinearChainCRF(emit, trans).entropy()
    grads = []
    for call in (f, lambda *t: checkpoint(f, *t, use_reentrant=reentrant)):
        scores = [torch.randn(s, generator=generator(i)).requires_grad_() for i, s in enumerate(((2, 4, 3), (3, 3)))]
        call(*scores).sum().backward()
        grads.append([t.grad for t in scores])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_third_order_is_refused() -> None:
    emit = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(LinearChainCRF(emit).log_partition.sum(), emit, create_graph=True)
    (h,) = torch.autograd.grad((g * emit.detach()).sum(), emit, create_graph=True)
    with pytest.raises(NotImplementedError, match="third order"):
        h.sum().backward()


def test_gradients_with_forbidden_paths() -> None:
    """Finite, exactly 0 at what is forbidden, also where everything is."""
    emit = torch.randn(2, 4, 3, dtype=torch.float64)
    emit[0, 1, 2] = -INF
    emit[1, 2] = -INF
    trans = torch.randn(3, 3, dtype=torch.float64)
    trans[0, 1] = -INF
    leaves = emit.requires_grad_(), trans.requires_grad_()
    crf = LinearChainCRF(*leaves)
    for query in (crf.log_partition, crf.entropy()):
        g_emit, g_trans = torch.autograd.grad(query[0], leaves)
        assert g_emit.isfinite().all() and g_trans.isfinite().all() and g_emit[0, 1, 2] == 0 and g_trans[0, 1] == 0
    g_emit, g_trans = torch.autograd.grad(crf.log_partition.sum(), leaves)
    assert (g_emit[1] == 0).all() and g_emit.isfinite().all()


# ---- distributions ---------------------------------------------------------------------------------------------------


def distributions() -> dict:
    s, lengths = chain("shared", B=3, N=4, T=3, seed=1)
    z, _ = chain("shared", 3, B=3, N=4, T=2, seed=2)
    f, _ = chain("full", 2, B=3, N=4, T=2, seed=3)
    lengths = torch.tensor([4, 2, 0])
    return {
        "linear": LinearChainCRF(s[0], s[3], s[4], s[5], lengths),
        "positions": LinearChainCRF(s[0], chain("position", B=3, N=4, T=3)[0][3], lengths=lengths),
        "semi": SemiMarkovCRF(z[1], z[3], z[4], z[5], lengths, z[0], z[2]),
        "streaming": SemiMarkovCRF(None, z[3], lengths=lengths, emissions=z[0], durations=z[2]),
        "full": SemiMarkovCRF(None, f[3], f[4], lengths=lengths),
    }


@pytest.mark.parametrize("name", distributions())
def test_queries(name: str) -> None:
    """Probabilities, entropy, divergence, the best path and samples, by the list of all paths."""
    crf = distributions()[name]
    other = distributions()[name]
    other._scores = type(crf._scores)(*(None if t is None else t.cos() for t in crf._scores))
    B, N, _ = crf._scores.emit.shape
    entropy, cross, kl = crf.entropy(), crf.cross_entropy(other), torch.distributions.kl_divergence(crf, other)
    drawn = crf.sample((400,), generator(0))
    free = crf.log_prob(torch.full((B, N), -1), partial=True)
    for b in range(B):
        found = paths(crf._scores, crf.lengths, b)
        log_p = torch.stack(list(found.values())).log_softmax(0)
        log_q = torch.stack(list(paths(other._scores, crf.lengths, b).values())).log_softmax(0)
        tags = torch.tensor([as_tags(p, N) for p in found])
        every = tags[:, None].repeat(1, B, 1)
        if name not in ("linear", "positions"):
            every[:, [c for c in range(B) if c != b], 0] = every[:, [c for c in range(B) if c != b], 0].clamp(min=0)
        else:
            every = every.clamp(min=0)
        assert_close(crf.log_prob(every)[:, b], log_p, terms=64, magnitude=4.0)
        assert_close(entropy[b], -(log_p.exp() * log_p).sum(), terms=256, magnitude=4.0)
        assert_close(cross[b], -(log_p.exp() * log_q).sum(), terms=256, magnitude=4.0)
        assert_close(kl[b], (log_p.exp() * (log_p - log_q)).sum(), terms=256, magnitude=4.0)
        assert crf.argmax[b].tolist() == tags[log_p.argmax()].tolist()
        assert_close(free[b], torch.zeros((), dtype=torch.float64), terms=64)
        rows = {tuple(t): float(p.exp()) for t, p in zip(tags.tolist(), log_p, strict=True)}
        share = torch.tensor([rows[tuple(t)] for t in drawn[:, b].tolist()])  # a drawn path is a path
        wanted = sum(p * p for p in rows.values())
        assert abs(float(share.double().mean()) - wanted) < 0.1
    assert_close(crf.log_count[0], torch.tensor(float(len(paths(crf._scores, crf.lengths, 0)))).double().log(), terms=16)


@pytest.mark.parametrize("name", distributions())
@pytest.mark.parametrize("forbid", [0.0, 0.15])
def test_max_marginals_and_risk(name: str, forbid: float) -> None:
    """By the list of all paths; scores past the sentence are not read."""
    crf = distributions()[name]
    rng = generator(4)
    s = [None if t is None else torch.where(torch.rand(t.shape, generator=rng) < forbid, -INF, t) for t in crf._scores]
    past = torch.arange(s[0].shape[1]) >= crf.lengths[:, None]
    s[0] = torch.where(past[..., None], float("nan"), s[0])
    if s[1] is not None:
        s[1] = torch.where(past[..., None, None], float("nan"), s[1])
    crf._scores = type(crf._scores)(*s)
    segmented = isinstance(crf, SemiMarkovCRF)
    B, N, T = s[0].shape
    got, post, best = crf.max_marginals(), crf.marginals, crf.mbr()
    want = torch.full((B, N, crf._longest, T), -INF, dtype=torch.float64)
    for b in range(B):
        n, totals, gains = int(crf.lengths[b]), [], {}
        for path, score in paths(crf._scores, crf.lengths, b).items():
            ends = [i for i, _ in path[1:]] + [n]
            parts = [(i, e - i - 1, t) for (i, t), e in zip(path, ends, strict=False)]
            for at in parts:
                want[b][at] = want[b][at].maximum(score)
            totals.append(score)
            shares = [float(post[b][at] if segmented else post[b, at[0], at[2]]) for at in parts]
            gains[tuple(as_tags(path, N))] = sum(shares) if all(shares) or not segmented else -INF
        some = n > 0 and bool(torch.stack(totals).isfinite().any())
        assert abs(gains[tuple(best[b].tolist())] - max(gains.values())) < 1e-12 if some else (best[b] == -1).all()
    assert want.isfinite().any()
    assert_close(got, want if segmented else want[:, :, 0], terms=32, magnitude=4.0)


@pytest.mark.parametrize("name", ["linear", "semi"])
def test_partial_annotation(name: str) -> None:
    crf = distributions()[name]
    B, N, _ = crf._scores.emit.shape
    value = torch.full((2, B, N), -1)
    value[0, :, 1] = 1
    value[1, 0, :] = torch.tensor([0, -1, 1, 1])
    got = crf.log_prob(value, partial=True)
    for s in range(2):
        for b in range(B):
            found = paths(crf._scores, crf.lengths, b)
            keep = []
            for path, score in found.items():
                tags = as_tags(path, N)
                for i in range(1, int(crf.lengths[b])):
                    tags[i] = tags[i] if tags[i] >= 0 else tags[i - 1]
                agrees = all(v in (-1, t) for v, t in zip(value[s, b].tolist()[: int(crf.lengths[b])], tags, strict=False))
                keep.append(score if agrees else torch.tensor(-INF).double())
            total = torch.stack(list(found.values())).logsumexp(0)
            assert_close(got[s, b], torch.stack(keep).logsumexp(0) - total, terms=64, magnitude=4.0)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)])
@pytest.mark.parametrize("draws", [(), (0,), (2, 3)])
def test_partial_annotation_of_nothing(shape: tuple[int, int], draws: tuple[int, ...]) -> None:
    for crf in (LinearChainCRF(torch.randn(*shape, 3)), SemiMarkovCRF(torch.randn(*shape, 2, 3))):
        path = crf.sample(draws)
        assert_same(crf.log_prob(path, partial=True), torch.zeros(*draws, shape[0]))


def test_what_follows_the_sentence_is_ignored() -> None:
    emit, trans = torch.randn(2, 4, 3), torch.randn(3, 3)
    value = torch.tensor([[0, 2, 99, -7], [1, 99, 99, 99]])
    got = LinearChainCRF(emit, trans, lengths=[2, 1]).log_prob(value)
    assert_same(got[0], LinearChainCRF(emit[:1, :2], trans).log_prob(value[:1, :2])[0])
    assert_same(got[1], LinearChainCRF(emit[1:, :1], trans).log_prob(value[1:, :1])[0])


def test_best_path_is_differentiable() -> None:
    emit = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    crf = LinearChainCRF(emit, torch.randn(3, 3, dtype=torch.float64), lengths=[4, 2])
    (g,) = torch.autograd.grad(crf.max.sum(), emit)
    best = crf.argmax
    assert_same(g, torch.where(best[..., None] == torch.arange(3), 1.0, 0.0).double())


def test_posteriors_of_borders() -> None:
    crf = distributions()["linear"]
    pairs = crf.transition_marginals
    assert_close(pairs.sum(3)[0], crf.marginals[0, :-1].double(), terms=64)
    assert_close(pairs.sum(2)[0], crf.marginals[0, 1:].double(), terms=64)
    assert (crf.mbr()[1, 2:] == -1).all() and crf.mbr()[0].tolist() == crf.marginals[0].argmax(-1).tolist()


def test_bad_input() -> None:
    e, t = torch.zeros(2, 3, 4), torch.zeros(4, 4)
    wrong = [
        (ValueError, "emissions of shape", lambda: LinearChainCRF(torch.zeros(3, 4))),
        (TypeError, "emissions", lambda: LinearChainCRF(e.int())),
        (TypeError, "emissions", lambda: LinearChainCRF([[0.0]])),
        (ValueError, "transitions of shape", lambda: LinearChainCRF(e, torch.zeros(3, 4))),
        (ValueError, "start of shape", lambda: LinearChainCRF(e, t, torch.zeros(3))),
        (ValueError, "lengths between", lambda: LinearChainCRF(e, lengths=[4, 1])),
        (ValueError, "lengths of shape", lambda: LinearChainCRF(e, lengths=[1])),
        (ValueError, "segments of shape", lambda: SemiMarkovCRF(torch.zeros(2, 3, 4))),
        (ValueError, "emissions", lambda: SemiMarkovCRF()),
        (ValueError, "segments of shape", lambda: SemiMarkovCRF(torch.zeros(2, 3, 0, 4))),
        (ValueError, "value of shape", lambda: LinearChainCRF(e).log_prob(torch.zeros(2, 2, dtype=torch.int64))),
        (IndexError, "tags between 0 and 3", lambda: LinearChainCRF(e).log_prob(torch.full((2, 3), -1))),
        (IndexError, "tags between -1 and 3", lambda: LinearChainCRF(e).log_prob(torch.full((2, 3), 4), partial=True)),
        (ValueError, "first position", lambda: SemiMarkovCRF(emissions=e).log_prob(torch.full((2, 3), -1))),
        (ValueError, "k >= 1", lambda: LinearChainCRF(e).kbest(0)),
        (TypeError, "a LinearChainCRF", lambda: LinearChainCRF(e).kl_divergence(SemiMarkovCRF(emissions=e))),
        (RuntimeError, "lengths must lie in", lambda: ops.chain_logz(e, None, None, None, None, None, torch.tensor([4, 0]))),
        (RuntimeError, "trans does not fit", lambda: ops.chain_logz(e, None, None, e[0], None, None, torch.tensor([3, 3]))),
    ]
    for kind, text, call in wrong:
        with pytest.raises(kind, match=text):
            call()
