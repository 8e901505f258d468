"""compat.fairchem: layers of 2.x and 1.x against their formulas, and against fairchem itself where it is installed."""

from __future__ import annotations

import types

import pytest
import torch
from compare import assert_close, assert_same
from fairchem_parts import uma
from so2_block_cases import directions
from structops import so2
from structops.compat import fairchem as ours
from structops.compat.fairchem import v1
from structops.kernels.so2 import wigner_ref
from torch import nn


@pytest.fixture
def theirs():
    return types.SimpleNamespace(
        layers=uma("nn.so2_layers"), backends=uma("nn.execution_backends"), activation=uma("nn.activation")
    )


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def formula(conv, x: torch.Tensor, x_edge: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The convolution order by order, as the layout is documented."""
    L, M, extra = conv.lmax, conv.mmax, conv.extra_m0_output_channels or 0
    scale = None if x_edge is None else conv.rad_func(x_edge)
    at = rad = 0
    out, first = [], None
    for m in range(M + 1):
        rows = L + 1 - m
        width = rows * conv.sphere_channels
        s = 1 if scale is None else scale[:, None, rad : rad + width]
        rad += width
        part = x[:, at : at + (2 if m else 1) * rows].reshape(x.shape[0], -1, width) * s
        at += (2 if m else 1) * rows
        if m == 0:
            y = part[:, 0] @ conv.fc_m0.weight.T + conv.fc_m0.bias
            first, y = y[:, :extra], y[:, extra:]
            out.append(y.reshape(x.shape[0], rows, -1))
        else:
            w1, w2 = conv.so2_m_conv[m - 1].fc.weight.chunk(2)
            plus, minus = part[:, 0], part[:, 1]
            out.append((plus @ w1.T - minus @ w2.T).reshape(x.shape[0], rows, -1))
            out.append((minus @ w1.T + plus @ w2.T).reshape(x.shape[0], rows, -1))
    return torch.cat(out, 1), first


CASES = [(2, 2, 4, 3, [5, 6], 7), (4, 2, 3, 5, None, None), (3, 1, 2, 2, [4], 1), (1, 0, 2, 3, None, 0)]


@pytest.mark.parametrize("L,M,Cin,Cout,edge,extra", CASES)
def test_convolution(L, M, Cin, Cout, edge, extra) -> None:
    mapping = ours.CoefficientMapping(L, M)
    conv = ours.SO2_Convolution(Cin, Cout, L, M, mapping, edge is None, edge, extra).double()
    x = rand(6, mapping.res_size, Cin).requires_grad_()
    x_edge = None if edge is None else rand(6, edge[0], seed=1)
    got, (want, first) = conv(x, x_edge), formula(conv, x, x_edge)
    if extra is not None:
        got, more = got
        assert_close(more.detach(), first.detach(), terms=64)
    assert_close(got.detach(), want.detach(), terms=64)
    leaves = (x, *conv.parameters())
    for a, b in zip(
        torch.autograd.grad(got.sin().sum(), leaves, allow_unused=True),
        torch.autograd.grad(want.sin().sum(), leaves, allow_unused=True),
        strict=True,
    ):
        if b is not None:
            assert_close(a, b, terms=256, magnitude=2)


def test_a_replaced_linear_is_called() -> None:
    """As MoLE does: the product then goes through the module."""
    conv = ours.SO2_Convolution(3, 4, 2, 2, None).double()
    x, calls = rand(5, 9, 3), []

    class Mixed(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            calls.append(1)
            return self.inner(x)

    want = conv(x)
    for part in conv.so2_m_conv:
        part.fc = Mixed(part.fc)
    assert_close(conv(x).detach(), want.detach(), terms=64)
    assert len(calls) == 2


def test_mapping() -> None:
    m = ours.CoefficientMapping(2, 2)
    assert m.to_m.argmax(1).tolist() == [0, 2, 6, 3, 7, 1, 5, 8, 4]
    assert m.m_size == [3, 2, 1] and m.coefficient_idx(1, 1).tolist() == [0, 1, 2, 3]
    assert "to_m" in v1.CoefficientMappingModule([2], [1]).state_dict() and not m.state_dict()


def test_linear_keeps_the_signs_apart() -> None:
    layer = ours.SO2_Linear(3, 2, 2, 1, ours.CoefficientMapping(2, 1), internal_weights=True).double()
    x = rand(4, 7, 3)
    order = [(l, m) for l in range(3) for m in range(-min(l, 1), min(l, 1) + 1)]
    want = torch.zeros(4, 7, 2, dtype=torch.float64)
    for m, w in ((0, layer.fc_m0.weight), (1, layer.so2_m_fc[0].weight), (-1, layer.so2_m_fc[0].weight)):
        rows = [order.index((l, m)) for l in range(abs(m), 3)]
        want[:, rows] = (x[:, rows].flatten(1) @ w.T + (layer.fc_m0.bias if m == 0 else 0)).unflatten(1, (len(rows), 2))
    assert_close(layer(x, x).detach(), want.detach(), terms=64)


def test_same_numbers_state_dicts_and_conversion_as_fairchem(theirs) -> None:
    for L, M, Cin, Cout, edge, extra in CASES[:3]:
        mapping = ours.CoefficientMapping(L, M)
        peer = theirs.layers.SO2_Convolution(Cin, Cout, L, M, mapping, edge is None, edge, extra).double()
        mine = ours.SO2_Convolution(Cin, Cout, L, M, mapping, edge is None, edge, extra).double()
        assert list(mine.state_dict()) == list(peer.state_dict())
        mine.load_state_dict(peer.state_dict())
        x, x_edge = rand(6, mapping.res_size, Cin), None if edge is None else rand(6, edge[0], seed=1)
        flat = lambda y: torch.cat([t.flatten(1) for t in (y if isinstance(y, tuple) else (y,))], 1).detach()
        assert_close(flat(mine(x, x_edge)), flat(peer(x, x_edge)), terms=64)
        model = nn.Sequential(nn.Identity(), peer)
        weight = peer.fc_m0.weight
        ours.convert(model)
        assert type(model[1]) is ours.SO2_Convolution and model[1].fc_m0.weight is weight
        assert_close(flat(model[1](x, x_edge)), flat(peer(x, x_edge)), terms=64)


@pytest.mark.parametrize("L,M", [(2, 2), (4, 2), (3, 1)])
def test_execution_backend(theirs, L: int, M: int) -> None:
    """Every step of the general backend, with gradients in features and Wigner matrices."""
    backend, general = ours.execution_backend(), theirs.backends.ExecutionBackend
    backend.validate(L, M, None)
    E, N, C = 20, 5, 3
    index = torch.randint(0, N, (2, E), generator=torch.Generator().manual_seed(1))
    full = ours.CoefficientMapping(L, L)
    D = so2.wigner_dense(so2.wigner(directions(E), L), L)[:, full.to_m.argmax(0)].requires_grad_()
    mapping = ours.CoefficientMapping(L, M)
    mapping.to_m = mapping.to_m.double()
    x, message, radial = (
        rand(N, (L + 1) ** 2, C).requires_grad_(),
        rand(E, mapping.res_size, C, seed=1),
        rand(E, (L + 1) * C, seed=2),
    )
    env = rand(E, 1, seed=3)
    results = []
    for b in (backend, general):
        w, inv = b.prepare_wigner(D, D.mT, mapping, full.coefficient_idx(L, M) if M < L else None)
        inv = inv * (env if inv.dim() == 2 else env[..., None])
        out = (
            b.node_to_edge_wigner_permute(x, index, w),
            b.permute_wigner_inv_edge_to_node(message, inv, index[1], N),
            b.edge_degree_scatter(x, radial, inv, index[1], L + 1, C, 5.0),
        )
        grads = torch.autograd.grad(sum(o.sin().sum() for o in out), (x, D))
        results.append(
            (
                *(o.detach() for o in out),
                grads[0],
                torch.block_diag(*(torch.ones(2 * l + 1, 2 * l + 1) for l in range(L + 1))) * grads[1],
            )
        )
    for a, b in zip(*results, strict=True):
        assert_close(a, b, terms=128, magnitude=2)


def test_v1_block() -> None:
    """Rotate, convolve, rotate back with the rescaling, reduce: against dense matrices."""
    L, M, C, H, E, N = 3, 2, 4, 5, 11, 4
    mapping = v1.CoefficientMappingModule([L], [M])
    conv = v1.SO2_Convolution(C, H, [L], [M], mapping, False, [6, 7], 2).double()
    R = wigner_ref.frame(directions(E), rand(E))
    rotation = v1.SO3_Rotation(L)
    rotation.set_wigner(R)
    dense = torch.stack([torch.block_diag(*(d[e] for d in wigner_ref.wigner_full(R, L))) for e in range(E)])
    assert_same(rotation.wigner, dense)
    x = v1.SO3_Embedding(N, [L], C, "cpu", torch.float64)
    x.set_embedding(rand(N, 16, C))
    index = torch.randint(0, N, (2, E), generator=torch.Generator().manual_seed(0))
    m = x.expand_edge(index[0])
    m._rotate([rotation], [L], [M])
    keep = [l * l + l + k for l in range(L + 1) for k in range(-min(l, M), min(l, M) + 1)]
    assert_close(m.embedding, (dense @ x.embedding[index[0]])[:, keep], terms=16)
    z = m.embedding[:, mapping.to_m.argmax(1)]
    x_edge = rand(E, 6, seed=1)
    want, first = formula(conv, z, x_edge)
    m, extra = conv(m, x_edge)
    assert_close(extra.detach(), first.detach(), terms=64)
    m._rotate_inv([rotation], mapping)
    scale = torch.tensor(
        [1.0 if l <= M else ((2 * l + 1) / (2 * M + 1)) ** 0.5 for l in range(L + 1) for _ in range(2 * l + 1)], dtype=torch.float64
    )
    wide = torch.zeros(E, 16, H, dtype=torch.float64)
    wide[:, keep] = want.detach()[:, mapping.to_m.argmax(0)]
    assert_close(m.embedding.detach(), dense.mT @ wide * scale[:, None], terms=64)
    m._reduce_edge(index[1], N)
    assert m.embedding.shape == (N, 16, H)
    clone = m.clone()
    assert clone.embedding is not m.embedding


def test_v1_wigner_keeps_the_gradient_if_asked() -> None:
    vec = directions(4, poles=False).requires_grad_()
    rotation = v1.SO3_Rotation(2)
    for wanted in (False, True):
        rotation.set_wigner(wigner_ref.frame(vec), differentiable=wanted)
        assert rotation.rotate(rand(4, 9, 2), 2, 1).requires_grad is wanted


def test_errors() -> None:
    with pytest.raises(NotImplementedError, match="one resolution"):
        v1.SO3_Embedding(1, [2, 3], 4, "cpu", torch.float32)
    with pytest.raises(ValueError, match="edge_channels_list"):
        ours.SO2_Convolution(2, 2, 1, 1, None, internal_weights=False)
    with pytest.raises(ValueError, match="out_lmax"):
        v1.SO3_Rotation(2).rotate(torch.zeros(1, 9, 2), 1, 1)


@pytest.mark.parametrize("at", ["fc_m0", "so2_m_conv.1", "so2_m_conv.0.fc"])
def test_hooks_of_submodules_run(at: str) -> None:
    conv = ours.SO2_Convolution(3, 4, 2, 2).double()
    x = rand(5, 9, 3)
    want = conv(x)
    module, calls = conv.get_submodule(at), []
    handle = module.register_forward_hook(lambda module, args, out: calls.append(1))
    assert_close(conv(x).detach(), want.detach(), terms=64)
    assert calls == [1]
    handle.remove()
    forward = module.forward
    module.forward = lambda x: calls.append(2) or forward(x)
    assert_close(conv(x).detach(), want.detach(), terms=64)
    assert calls == [1, 2]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_norm_is_trained() -> None:
    conv = ours.SO2_Convolution(3, 4, 2, 2)
    nn.utils.weight_norm(conv.so2_m_conv[0].fc)
    x = torch.randn(5, 9, 3)
    for _ in range(2):
        conv(x).square().sum().backward()
    assert conv.so2_m_conv[0].fc.weight_g.grad.abs().sum() > 0
