"""PI-GGN: Chebyshev convolutions over a mesh and the weak form's residual, gathered by element and summed by node."""

from __future__ import annotations

import numpy as np
import torch
from agreement import agree, randn
from scipy.spatial import Delaunay
from structops import Graph, scatter_reduce, sparse

SYSTEM = "PI-GGN: physics-informed Galerkin networks, Chebyshev convolutions and finite-element residuals"
OPERATORS = ("structops.sparse.polynomial_conv", "structops.sparse.normalized_adjacency", "structops.scatter_reduce")
SIDE = 5


def mesh():
    """Nodes ``[N, 2]`` of a distorted grid on the unit square, triangles ``[T, 3]`` counter-clockwise, and the boundary."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, SIDE)] * 2, indexing="ij"), -1).reshape(-1, 2)
    edge = ((grid == 0) | (grid == 1)).any(1)
    grid = grid + 0.3 / SIDE * np.where(edge[:, None], 0, randn(SIDE * SIDE, 2, seed=1).clamp(-1, 1).numpy() / 2)
    triangles = torch.from_numpy(Delaunay(grid).simplices.astype(np.int64))
    points = torch.from_numpy(grid)
    a, b, c = (points[triangles[:, k]] for k in range(3))
    u, v = b - a, c - a
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    turned = torch.where((area < 0)[:, None], triangles[:, [0, 2, 1]], triangles)[area.abs() > 1e-9]
    return points, turned, torch.from_numpy(edge)


POINTS, TRIANGLES, BOUNDARY = mesh()
N = len(POINTS)


def residual(u, points, f):
    """sum_e P_e^T (K_e u_e - f_e), gradients of the linear functions from the triangles' sides, f constant on elements."""
    corners = points[TRIANGLES]
    side = corners.roll(-1, 1) - corners.roll(-2, 1)  # opposite each corner
    normal = torch.stack([side[..., 1], -side[..., 0]], 2)
    area = 0.5 * (side[:, 0, 0] * side[:, 1, 1] - side[:, 0, 1] * side[:, 1, 0])
    flux = torch.einsum("tkd,tk->td", normal, u[TRIANGLES])
    local = torch.einsum("tkd,td->tk", normal, flux) / (4 * area)[:, None] - (f * area / 3)[:, None]
    return scatter_reduce(local.reshape(-1), TRIANGLES.reshape(-1), N)


def stiffness(points):
    """K ``[N, N]`` and the load's matrix ``[N, T]``, from the inverse of every triangle's coordinate matrix."""
    K, load = torch.zeros(N, N, dtype=torch.float64), torch.zeros(N, len(TRIANGLES), dtype=torch.float64)
    for t, nodes in enumerate(TRIANGLES.tolist()):
        coordinates = torch.cat([torch.ones(3, 1, dtype=torch.float64), points[nodes]], 1)
        gradients = torch.linalg.inv(coordinates)[1:]  # [2, 3]
        area = torch.linalg.det(coordinates) / 2
        K = K.index_put((torch.tensor(nodes)[:, None], torch.tensor(nodes)), area * gradients.T @ gradients, accumulate=True)
        load = load.index_put((torch.tensor(nodes), torch.tensor(t)), area / 3)
    return K, load


def test_residual() -> None:
    """K u - f, with gradients to the field, the load and the mesh itself."""

    def dense(u, points, f):
        K, load = stiffness(points)
        return K @ u - load @ f

    agree(residual, dense, randn(N), POINTS, randn(len(TRIANGLES), seed=2))
    u = randn(N).requires_grad_()
    g = randn(N, seed=3)
    (du,) = torch.autograd.grad(residual(u, POINTS, torch.zeros(len(TRIANGLES)).double()), u, g)
    torch.testing.assert_close(du, stiffness(POINTS)[0].T @ g)


def test_known_solutions() -> None:
    """Constants are in the kernel; a linear field has no residual inside; the solved field has none with the load."""
    zero = torch.zeros(len(TRIANGLES), dtype=torch.float64)
    assert residual(torch.full((N,), 3.0).double(), POINTS, zero).abs().max() < 1e-12
    linear = 2 * POINTS[:, 0] - POINTS[:, 1] + 0.5
    assert residual(linear, POINTS, zero)[~BOUNDARY].abs().max() < 1e-12
    K, load = stiffness(POINTS)
    f, inside = zero + 1, ~BOUNDARY
    u = torch.zeros(N, dtype=torch.float64)
    u[inside] = torch.linalg.solve(K[inside][:, inside], (load @ f)[inside])
    assert residual(u, POINTS, f)[inside].abs().max() < 1e-12 and u[inside].min() > 0


def network(x, *matrices, conv, values):
    """Chebyshev layers, then the boundary values overwrite what the network says there."""
    for k, m in enumerate(matrices):
        x = conv(x, m)
        x = torch.tanh(x) if k < len(matrices) - 1 else x
    return torch.where(BOUNDARY, values, x[:, 0])


def test_network_and_its_loss() -> None:
    """The squared residual of the network's field, through both: against an eigendecomposition and the dense stiffness."""
    pairs = torch.cat([TRIANGLES[:, [i, j]] for i in range(3) for j in range(3) if i != j]).unique(dim=0)
    graph, weight = sparse.normalized_adjacency(Graph(pairs.T, num_nodes=N), dtype=torch.float64)
    A = torch.zeros(N, N, dtype=torch.float64)
    A[pairs[:, 1], pairs[:, 0]] = 1
    scale = A.sum(1) ** -0.5
    theta, basis = torch.linalg.eigh(-scale[:, None] * A * scale)  # L - 1, with the largest eigenvalue set to 2
    f, values = torch.ones(len(TRIANGLES)).double(), POINTS[:, 0]

    def spectral(x, matrices):
        T = [torch.cos(k * torch.acos(theta.clamp(-1, 1))) for k in range(len(matrices))]
        return sum(basis @ (t[:, None] * (basis.T @ x)) @ m for t, m in zip(T, matrices, strict=True))

    def dense(x, *m):
        K, load = stiffness(POINTS)
        r = K @ network(x, *m, conv=spectral, values=values) - load @ f
        return r[~BOUNDARY].square().sum()[None]

    def ours(x, *m):
        u = network(x, *m, conv=lambda x, m: sparse.polynomial_conv(graph, x, m, "chebyshev", -weight), values=values)
        return residual(u, POINTS, f)[~BOUNDARY].square().sum()[None]

    agree(ours, dense, POINTS, randn(6, 2, 4, seed=4) / 3, randn(6, 4, 1, seed=5) / 3)
