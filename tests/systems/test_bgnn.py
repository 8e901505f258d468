"""BGNN: particles and the walls near them, closest points on triangles as virtual nodes, messages of a split linear layer.

Pairs of particles and walls come from all distances by torch.
"""

from __future__ import annotations

import torch
from agreement import agree, randn
from cases import generator
from molecules import rotation
from structops import Graph, sparse

SYSTEM = "BGNN: boundary graph networks for particles in geometries of triangles"
OPERATORS = ("structops.sparse.add_act_reduce",)
P, F, H, CUTOFF = 12, 3, 4, 0.9  # particles, features, hidden
TRIANGLES = randn(5, 3, 3, seed=1)
TRIANGLES[4] = TRIANGLES[4, :1]  # a point


def closest(points, triangles):
    """The nearest point of every triangle to every point ``[P, T, 3]``: the foot on the plane where it lies inside,
    else the nearest of the feet on the three sides."""
    a = triangles[:, 0]
    u, v = triangles[:, 1] - a, triangles[:, 2] - a
    w = points[:, None] - a
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(2), (w * v).sum(2)
    area = uu * vv - uv * uv
    flat = area <= 1e-12 * (uu * vv)
    s, t = ((n / torch.where(flat, 1, area)) for n in (vv * wu - uv * wv, uu * wv - uv * wu))
    inside = (s >= 0) & (t >= 0) & (s + t <= 1) & ~flat
    feet = []
    for k in range(3):
        p, d = triangles[:, k], triangles[:, (k + 1) % 3] - triangles[:, k]
        along = ((points[:, None] - p) * d).sum(2) / (d * d).sum(1).clamp(min=1e-300)
        feet.append(p + along.clamp(0, 1)[..., None] * d)
    sides = torch.stack(feet, 2)
    nearest = (points[:, None, None] - sides).square().sum(3).argmin(2)
    on_side = sides.gather(2, nearest[..., None, None].expand(*nearest.shape, 1, 3))[:, :, 0]
    return torch.where(inside[..., None], a + s[..., None] * u + t[..., None] * v, on_side)


def test_closest_points() -> None:
    """No sampled point of the triangle is nearer, and one is nearly as near; points over corners, sides and faces, a triangle that
    is a point; distances are those of a rotated and moved scene."""
    points = 1.5 * randn(300, 3, seed=2)
    near = closest(points, TRIANGLES)
    grid = torch.linspace(0, 1, 61, dtype=torch.float64)
    s, t = torch.cartesian_prod(grid, grid).T
    s, t = s[s + t <= 1 + 1e-12], t[s + t <= 1 + 1e-12]
    weights = torch.stack([1 - s - t, s, t], 1)  # [M, 3]
    regions = set()
    for k, triangle in enumerate(TRIANGLES):
        samples = torch.cdist(points, weights @ triangle, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        d = (points - near[:, k]).norm(dim=1)
        step = float(torch.pdist(triangle).max()) / 60
        assert (d <= samples + 1e-12).all() and (d >= samples - step - 1e-12).all()
        if k < 4:
            one = lambda n: torch.ones(1, n, dtype=torch.float64)
            barycentric = torch.linalg.lstsq(torch.cat([triangle.T, one(3)]), torch.cat([near[:, k].T, one(300)])).solution
            regions |= {tuple((c > 1e-9).tolist()) for c in barycentric.T}
    assert len(regions) == 7
    R = rotation(3)
    torch.testing.assert_close(closest(points @ R.T + 2.0, TRIANGLES @ R.T + 2.0), near @ R.T + 2.0)


def scene(points):
    """Edges into particles from particles and from the virtual nodes of walls; of a wall node its particle and its triangle."""
    gap = (points[:, None] - points[None]).norm(dim=2)
    dst, src = ((gap < CUTOFF) & ~torch.eye(P, dtype=torch.bool)).nonzero(as_tuple=True)
    particle, wall = ((points[:, None] - closest(points, TRIANGLES)).norm(dim=2) < CUTOFF).nonzero(as_tuple=True)
    virtual = P + torch.arange(len(particle))
    return torch.stack([torch.cat([src, virtual]), torch.cat([dst, particle])]), particle, wall


def features(points, index, particle, wall):
    """Vector, distance, direction and inverse distance of every edge ``[E, 8]``, the walls' feet moving with the particles."""
    places = torch.cat([points, closest(points, TRIANGLES)[particle, wall]])
    vec = places[index[0]] - points[index[1]]
    d = vec.norm(dim=1, keepdim=True)
    return torch.cat([vec, d, vec / d, 1 / d], 1)


def layer(x, walls, points, w_edge, w_dst, w_src, w_out, *, edges, reduce):
    """x_i + mean_j silu(W_e e + W_i x_i + W_j x_j) W, the sources particles and walls."""
    index, particle, wall = edges
    sources = torch.cat([x, walls[wall]])
    return x + reduce(index, sources @ w_src, x @ w_dst, features(points, index, particle, wall) @ w_edge) @ w_out


def fused(index, source, target, edge):
    graph = Graph(index, num_src=len(source), num_dst=P)
    return sparse.add_act_reduce(graph, source, target, edge, activation="silu", reduce="mean")


def loop(index, source, target, edge):
    rows = []
    for v in range(P):
        into = (index[1] == v).nonzero()[:, 0]
        m = torch.nn.functional.silu(source[index[0, into]] + target[v] + edge[into])
        rows.append(m.sum(0) / max(len(into), 1))
    return torch.stack(rows)


def test_layer() -> None:
    """Gradients to the particles' places through the feet on the walls too; particles far from everything."""
    points = torch.rand(P, 3, generator=generator(4), dtype=torch.float64) * 2 - 1
    points[5] = 50.0
    edges = scene(points)
    assert (edges[0][1] != 5).all() and len(edges[1]) > 5
    shapes = (P, F), (len(TRIANGLES), F), None, (8, H), (F, H), (F, H), (H, F)
    args = [points if s is None else randn(*s, seed=10 + i) for i, s in enumerate(shapes)]
    agree(lambda *t: layer(*t, edges=edges, reduce=fused), lambda *t: layer(*t, edges=edges, reduce=loop), *args)
