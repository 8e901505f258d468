"""FAENet: of the edge network only the relative position depends on the frame; distances, their basis and the graph are shared."""

from __future__ import annotations

import itertools

import torch
from agreement import agree, randn
from structops import Graph, sddmm, segment_gather, segment_reduce, spmm
from structops.so2 import frame_average, frames
from torch.nn.functional import silu

SYSTEM = "FAENet: interaction block under full, proper and stochastic frames; energies and forces"
OPERATORS = (
    "structops.so2.frames", "structops.so2.frame_average", "structops.spmm", "structops.sddmm", "structops.segment_reduce",
    "structops.segment_gather",
)  # fmt: skip
PTR = torch.tensor([0, 5, 11])
N, F, B = 11, 5, 4
SIZES = PTR.diff().tolist()
EDGES = torch.cat([torch.combinations(torch.arange(a, b)).T for a, b in zip(PTR.tolist(), PTR.tolist()[1:], strict=False)], 1)
EDGES = torch.cat([EDGES, EDGES.flip(0)], 1)
GRAPH = Graph(EDGES, num_nodes=N)
SHAPES = {"a": (3, F), "b": (B, F), "two": (2 * F, F), "gate": (3 * F, F), "down": (F, F), "up": (F, F), "energy": (F, 1), "force": (F, 3)}


def basis(d):
    return torch.exp(-((d - torch.arange(float(B))) ** 2))


def model(pos, h, *weights, group="O(3)", **kwargs):
    """Energies [G] and forces [N, 3]."""
    w = dict(zip(SHAPES, weights, strict=True))
    f = frames(pos, PTR, group, **kwargs)
    r = sddmm(GRAPH, f.pos, f.pos, "sub", batch_dims=1)
    shared = silu(basis(sddmm(GRAPH, pos, pos, "sub").norm(dim=1, keepdim=True)) @ w["b"]) @ w["two"][F:]
    e = silu(silu(r @ w["a"]) @ w["two"][:F] + shared)
    ge, gi, gj = w["gate"].split(F)
    h = h.expand(len(r), N, F)
    for _ in range(2):
        gate = silu(sddmm(GRAPH, h @ gj, h @ gi, "add", batch_dims=1) + e @ ge)
        m = spmm(GRAPH, silu(h @ w["down"]), gate, batch_dims=1)
        m = m - segment_gather(segment_reduce(m, PTR, "mean", 1), PTR, 1)
        m = m / segment_gather(segment_reduce(m.square(), PTR, "mean", 1) + 1e-5, PTR, 1).sqrt()
        h = h + silu(m @ w["up"])
    energy = segment_reduce(h @ w["energy"], PTR, dim=1)
    return frame_average(f, energy, per_cloud=True)[:, 0], frame_average(f, h @ w["force"], "vector")


def dense(pos, h, *weights):
    """Each graph and frame on its own, inputs of every linear layer concatenated."""
    w = dict(zip(SHAPES, weights, strict=True))
    energies, forces = [], []
    for x, features in zip(pos.split(SIZES), h.split(SIZES), strict=True):
        n, c = len(x), x - x.mean(0)
        U = torch.linalg.eigh(c.T @ c).eigenvectors
        other = ~torch.eye(n, dtype=torch.bool)
        E, V = [], []
        for signs in itertools.product((1.0, -1.0), repeat=3):
            R, t = U * torch.tensor(signs, dtype=x.dtype), features
            r = (c @ R)[None, :] - (c @ R)[:, None]  # [i, j] = x_j - x_i
            d = torch.where(other[..., None], r, torch.ones_like(r)).norm(dim=2, keepdim=True)
            e = silu(torch.cat([silu(r @ w["a"]), silu(basis(d) @ w["b"])], 2) @ w["two"])
            for _ in range(2):
                gate = silu(torch.cat([e, t[:, None].expand(n, n, F), t[None].expand(n, n, F)], 2) @ w["gate"])
                m = (gate * silu(t @ w["down"])[None] * other[..., None]).sum(1)
                m = m - m.mean(0)
                t = t + silu(m / (m.square().mean(0) + 1e-5).sqrt() @ w["up"])
            E.append((t @ w["energy"]).sum())
            V.append(t @ w["force"] @ R.T)
        energies.append(torch.stack(E).mean())
        forces.append(torch.stack(V).mean(0))
    return torch.stack(energies), torch.cat(forces)


def inputs():
    return randn(N, 3), randn(N, F, seed=1), *(randn(*s, seed=10 + k) / s[0] ** 0.5 for k, s in enumerate(SHAPES.values()))


def joined(function):
    return lambda *a: torch.cat([t.flatten() for t in function(*a)])


def test_layer_under_all_frames() -> None:
    agree(joined(model), joined(dense), *inputs(), tolerance=1e-9)


def test_symmetries() -> None:
    """O(3), translations and permutations; the frames of determinant +1 fail reflections, as they must."""
    pos, h, *w = inputs()
    Q = torch.linalg.qr(randn(3, 3, seed=3)).Q
    Q = Q * torch.linalg.det(Q)
    for group, R, equal in (("O(3)", Q, True), ("O(3)", -Q, True), ("SO(3)", Q, True), ("SO(3)", -Q, False)):
        energy, force = model(pos, h, *w, group=group)
        e, f = model(pos @ R.T + 2.0, h, *w, group=group)
        assert (torch.allclose(e, energy, atol=1e-9) and torch.allclose(f, force @ R.T, atol=1e-9)) is equal
    order = torch.tensor([4, 2, 0, 1, 3, 5, 10, 9, 8, 7, 6])  # graphs are complete: the edge list stays right
    for a, b in zip(model(pos[order], h[order], *w), model(pos, h, *w), strict=True):
        assert torch.allclose(a, b[order] if len(b) == N else b, atol=1e-9)


def test_stochastic_frames_average_to_all() -> None:
    args = inputs()
    draws = [model(*args, stochastic=True, generator=torch.Generator().manual_seed(i))[0] for i in range(200)]
    single = torch.stack(draws)
    assert (single.std(0) > 1e-6).all()
    assert ((single.mean(0) - model(*args)[0]).abs() < 5 * single.std(0) / len(draws) ** 0.5).all()


def test_predicted_forces_are_not_the_gradient_but_those_are_equivariant_too() -> None:
    pos, h, *w = inputs()
    Q = -torch.linalg.qr(randn(3, 3, seed=3)).Q

    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(model(x, h, *w)[0].sum(), x)[0]

    assert torch.allclose(gradient(pos @ Q.T), gradient(pos) @ Q.T, atol=1e-8)
