"""DependencyCRF at its edges: degenerate batches, padding, forbidden arcs, dtypes, bad input, defects of other libraries."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, generator
from compare import assert_close, assert_same
from structops import tree
from structops.tree import DependencyCRF
from tree_cases import NINF, chart, forbid

orders = pytest.mark.parametrize(("multiroot", "second"), [(m, s) for m in (False, True) for s in (False, True)])


# ---- edges and defects of other libraries ----------------------------------------------------------------------------


@orders
def test_degenerate_batches(multiroot: bool, second: bool) -> None:
    for B, N, lengths in [(0, 4, None), (2, 1, None), (3, 4, [0, 0, 0]), (2, 4, [1, 0])]:
        arc, sib = chart(B, N, second)
        arc.requires_grad_()
        d = DependencyCRF(arc, lengths, sib, multiroot)
        assert d.log_partition.shape == (B,) and d.entropy().shape == (B,) and d.argmax.shape == (B, N)
        assert (d.entropy().abs() < 1e-12).all() and (d.log_count.abs() < 1e-12).all()
        d.log_partition.sum().backward()
        assert arc.grad.isfinite().all()
        assert (d.log_prob(torch.zeros(B, N, dtype=torch.int64)).abs() < 1e-12).all()
        assert d.mbr().shape == (B, N) and d.sample((2,)).shape == (2, B, N)


@orders
def test_padding_is_never_read(multiroot: bool, second: bool) -> None:
    arc, sib = chart(2, 7, second)
    lengths = torch.tensor([4, 6])
    clean = DependencyCRF(arc.clone(), lengths, None if sib is None else sib.clone(), multiroot)
    arc[0, 5:] = arc[0, :, 5:] = arc[:, 0] = float("nan")
    arc.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    arc.requires_grad_()
    dirty = DependencyCRF(arc, lengths, sib, multiroot)
    gold = clean.argmax
    for query in (
        lambda d: d.log_partition,
        lambda d: d.entropy(),
        lambda d: d.log_prob(gold),
        lambda d: d.max,
        lambda d: d.kl_divergence(clean),
    ):
        assert_same(query(dirty).detach(), query(clean))
    (dirty.entropy() + dirty.log_prob(gold) + dirty.log_prob(gold, partial=True)).sum().backward()
    assert arc.grad.isfinite().all() and (arc.grad[0, 5:] == 0).all()


@orders
def test_forbidden_arcs_give_zeros_not_nan(multiroot: bool, second: bool) -> None:
    arc, sib = chart(3, 7, second)
    arc = forbid(arc, 0.3, seed=3)
    arc[1, 3] = NINF  # a word without any head
    arc.requires_grad_()
    d = DependencyCRF(arc, None, sib, multiroot)
    post = d.marginals[0] if second else d.marginals
    assert d.log_partition[1] == NINF and (post[1] == 0).all() and (post[arc == NINF] == 0).all()
    alive = d.log_partition > NINF
    assert alive.any() and post[alive].sum(2)[:, 1:].sub(1).abs().max() < 1e-12
    (d.log_partition[alive].sum() + d.entropy()[alive].sum()).backward()
    assert arc.grad.isfinite().all()
    gold = d.argmax.clamp(min=0)
    arc.grad = None
    d.log_prob(gold)[alive].sum().backward()
    assert arc.grad.isfinite().all() and d.log_prob(gold)[1] == NINF


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    """16-bit scores are summed in float32: no overflow, errors of float32."""
    arc, sib = chart(4, 13, True, dtype)
    d, wide = (DependencyCRF(a, None, s) for a, s in ((arc, sib), (arc.double(), sib.double())))
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    assert_close(d.log_partition, wide.log_partition, accumulator, terms=64)
    assert_close(d.marginals[0], wide.marginals[0], dtype, terms=64)
    gold = wide.argmax
    assert_close(d.log_prob(gold), wide.log_prob(gold), accumulator, terms=128)
    arc.requires_grad_()
    DependencyCRF(arc).log_prob(gold).sum().backward()
    assert arc.grad.dtype == dtype


def test_the_root_mode_belongs_to_the_object() -> None:
    arc = chart(1, 5)[0]
    multi = DependencyCRF(arc, multiroot=True)
    before = multi.log_partition
    single = DependencyCRF(arc, multiroot=False)
    assert_same(multi.log_partition, before)
    assert single.log_partition < before
    assert multi.multiroot and not single.multiroot


def test_the_callers_tensors_are_left_alone() -> None:
    arc, sib = chart(2, 5, True)
    copies = arc.clone(), sib.clone()
    d = DependencyCRF(arc, [4, 2], sib)
    d.log_prob(d.argmax.clamp(min=0)), d.entropy(), d.sample(), d.kbest(3), d.mbr(), d.marginals, d.log_count
    assert_same(arc, copies[0])
    assert_same(sib, copies[1])
    assert not arc.requires_grad and not sib.requires_grad
    assert not d.marginals[0].requires_grad  # no graph is kept where none is wanted


def test_inference_mode_and_strides() -> None:
    arc, sib = chart(2, 6, True)
    d = DependencyCRF(arc, None, sib)
    with torch.inference_mode():
        inside = DependencyCRF(arc.clone(), None, sib.clone())
        assert_same(inside.argmax, d.argmax)
        assert_same(inside.log_partition, d.log_partition)
        assert inside.sample(2).shape == (2, 2, 6) and inside.entropy().isfinite().all()
    turned = DependencyCRF(
        arc.transpose(1, 2).contiguous().transpose(1, 2), None, sib.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    )
    assert_same(turned.log_partition, d.log_partition)


def test_several_values_at_once() -> None:
    arc, sib = chart(2, 5, True)
    d = DependencyCRF(arc, None, sib, True)
    values = d.sample((3, 2), generator(0))
    got = d.log_prob(values)
    assert got.shape == (3, 2, 2)
    assert_same(got[1, 1], d.log_prob(values[1, 1]))
    assert_same(d.log_prob(values[:, 0].int(), partial=True).shape and got, got)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    arc, sib = chart(2, 4, True)
    heads = torch.zeros(2, 4, dtype=torch.int64)
    bad = [
        (TypeError, "arc to be a torch.Tensor", lambda: DependencyCRF([1.0])),
        (TypeError, "arc of dtype", lambda: DependencyCRF(arc.long())),
        (ValueError, "arc of shape", lambda: DependencyCRF(arc[:, :3])),
        (ValueError, "arc of shape", lambda: DependencyCRF(torch.zeros(2, 0, 0))),
        (ValueError, "arc of shape", lambda: DependencyCRF(torch.zeros(2, 3, 3, 0))),
        (ValueError, "lengths of shape", lambda: DependencyCRF(arc, torch.tensor([3]))),
        (ValueError, "lengths within 0..3", lambda: DependencyCRF(arc, [3, 4])),
        (ValueError, "lengths within 0..3", lambda: DependencyCRF(arc, [3, -1])),
        (TypeError, "lengths of dtype", lambda: DependencyCRF(arc, torch.tensor([3.0, 2.0]))),
        (TypeError, "lengths", lambda: DependencyCRF(arc, "33")),
        (ValueError, "sib of shape", lambda: DependencyCRF(arc, None, sib[:, :3])),
        (TypeError, "sib of dtype", lambda: DependencyCRF(arc, None, sib.float())),
        (TypeError, "multiroot", lambda: DependencyCRF(arc, None, None, 1)),
        (TypeError, "value", lambda: DependencyCRF(arc).log_prob(heads.float())),
        (ValueError, "value of shape", lambda: DependencyCRF(arc).log_prob(heads[:, :3])),
        (ValueError, "value of shape", lambda: DependencyCRF(arc).log_prob(heads[0])),
        (IndexError, "heads between 0", lambda: DependencyCRF(arc).log_prob(heads + 4)),
        (IndexError, "heads between 0", lambda: DependencyCRF(arc).log_prob(heads - 1)),
        (IndexError, "heads between 0", lambda: DependencyCRF(arc, [3, 2]).log_prob(heads + 3)),
        (IndexError, "heads between -1", lambda: DependencyCRF(arc).log_prob(heads - 2, partial=True)),
        (TypeError, "partial", lambda: DependencyCRF(arc).log_prob(heads, partial=1)),
        (ValueError, "k >= 1", lambda: DependencyCRF(arc).kbest(0)),
        (TypeError, "k to be an int", lambda: DependencyCRF(arc).kbest(1.5)),
        (TypeError, "a DependencyCRF", lambda: DependencyCRF(arc).kl_divergence(torch.distributions.Normal(0, 1))),
        (ValueError, "one root mode", lambda: DependencyCRF(arc).cross_entropy(DependencyCRF(arc, multiroot=True))),
        (ValueError, "same lengths", lambda: DependencyCRF(arc).cross_entropy(DependencyCRF(arc, [3, 2]))),
        (ValueError, "scores of shape", lambda: DependencyCRF(arc).cross_entropy(DependencyCRF(arc[:, :3, :3]))),
        (IndexError, "labels between 0 and 1", lambda: DependencyCRF(torch.zeros(1, 2, 2, 2)).log_prob(torch.tensor([[[0, 0], [0, 2]]]))),
        (ValueError, "heads of shape", lambda: tree.adjacent_siblings(heads[0])),
        (TypeError, "multiroot", lambda: tree.dependency_log_partition(arc, None, None, "yes")),
    ]  # fmt: skip
    for kind, message, call in bad:
        with pytest.raises(kind, match=message):
            call()


def test_functions_and_objects_agree() -> None:
    for second in (False, True):
        arc, sib = chart(2, 6, second)
        args = (arc, [5, 3], sib, True)
        d = DependencyCRF(*args)
        assert_same(tree.dependency_log_partition(*args), d.log_partition)
        for a, b in zip(tree.dependency_marginals(*args), d.marginals, strict=True):
            assert_same(a, b)
        value, heads = tree.dependency_best(*args, k=2)
        assert_same(heads[:, 0], d.argmax)
        assert_same(value, d.kbest(2)[0])
        assert_same(tree.dependency_sample(*args, n=4, generator=generator(1)), d.sample((4,), generator(1)))
