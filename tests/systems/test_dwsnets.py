"""DWSNets: affine maps of networks' weights that commute with permutations of hidden neurons, on networks of different widths."""

from __future__ import annotations

import torch
from agreement import agree, randn
from cases import generator
from structops import scatter_reduce, segment_gather, segment_reduce

SYSTEM = "DWSNets: equivariant layers on weight spaces, batches of networks of any width"
OPERATORS = ("structops.segment_reduce", "structops.segment_gather", "structops.scatter_reduce")
IN, OUT, F, G = 2, 3, 4, 5  # inputs and outputs of the networks, features of the layer
WIDTHS = ((3, 4), (1, 2), (5, 1))  # hidden neurons of the networks with weights [IN, a], [a, b], [b, OUT]
FIRST, LAST = IN + 1, OUT + 1  # of a hidden neuron: weights of its fixed side and its bias
U, V, M = sum(a for a, _ in WIDTHS), sum(b for _, b in WIDTHS), sum(a * b for a, b in WIDTHS)


def index(widths):
    """Pointers of the networks in both hidden layers and in the entries of the middle matrix, and each entry's neurons."""
    ptr = lambda sizes: torch.tensor([0, *sizes]).cumsum(0)
    u, v = ptr([a for a, _ in widths]), ptr([b for _, b in widths])
    pairs = [torch.cartesian_prod(torch.arange(a) + s, torch.arange(b) + t) for (a, b), s, t in zip(widths, u, v, strict=False)]
    row, col = torch.cat(pairs).T
    return {"u": u, "v": v, "m": ptr([a * b for a, b in widths]), "row": row, "col": col}


def layer(u, v, m, *w, s):
    """First hidden neurons ``[U, f]``, second ``[V, f]``, middle weights ``[M, f]``: every map between the three that commutes
    with both permutations, each with its matrix (5 to u, 5 to v, 8 to m) and a bias."""
    pool = {name: segment_reduce(t, s[name], "mean") for name, t in (("u", u), ("v", v), ("m", m))}
    row = scatter_reduce(m, s["row"], len(u), reduce="mean")
    col = scatter_reduce(m, s["col"], len(v), reduce="mean")
    spread = lambda name, *terms: segment_gather(sum(pool[n] @ k for n, k in terms), s[name])
    new_u = u @ w[0] + row @ w[1] + spread("u", ("u", w[2]), ("m", w[3]), ("v", w[4])) + w[5]
    new_v = v @ w[6] + col @ w[7] + spread("v", ("v", w[8]), ("m", w[9]), ("u", w[10])) + w[11]
    new_m = m @ w[12] + (row @ w[13] + u @ w[14])[s["row"]] + (col @ w[15] + v @ w[16])[s["col"]] + w[17]
    return torch.cat([new_u, new_v, new_m + spread("m", ("m", w[18]), ("u", w[19]), ("v", w[20]))])


def dense(u, v, m, *w):
    """Network by network, the middle weights as a matrix ``[a, b, f]``."""
    found = [[], [], []]
    parts = zip(
        WIDTHS,
        u.split([a for a, _ in WIDTHS]),
        v.split([b for _, b in WIDTHS]),
        m.split([a * b for a, b in WIDTHS]),
        strict=True,
    )
    for (a, b), x, y, z in parts:
        z = z.reshape(a, b, -1)
        mx, my, mz = x.mean(0), y.mean(0), z.mean((0, 1))
        found[0].append(x @ w[0] + z.mean(1) @ w[1] + mx @ w[2] + mz @ w[3] + my @ w[4] + w[5])
        found[1].append(y @ w[6] + z.mean(0) @ w[7] + my @ w[8] + mz @ w[9] + mx @ w[10] + w[11])
        wide = (z.mean(1) @ w[13] + x @ w[14])[:, None] + (z.mean(0) @ w[15] + y @ w[16])[None]
        found[2].append((z @ w[12] + wide + w[17] + mz @ w[18] + mx @ w[19] + my @ w[20]).reshape(a * b, -1))
    return torch.cat([torch.cat(rows) for rows in found])


def weights(f_u: int = FIRST, f_v: int = LAST, f_m: int = 1):
    order = [f_u, f_m, f_u, f_m, f_v, 0, f_v, f_m, f_v, f_m, f_u, 0, f_m, f_m, f_u, f_m, f_v, 0, f_m, f_u, f_v]
    return [randn(*([n, G] if n else [G]), seed=10 + k) for k, n in enumerate(order)]


def test_layer_on_networks_of_different_widths() -> None:
    s = index(WIDTHS)
    agree(lambda *t: layer(*t, s=s), dense, randn(U, FIRST), randn(V, LAST, seed=1), randn(M, 1, seed=2), *weights())


def test_two_layers_on_real_networks() -> None:
    """Permuting the hidden neurons of a network, which computes the same, permutes what leaves, and leaves the pooled result."""
    a, b = 4, 3
    s = index(((a, b),))
    W, c = [randn(IN, a), randn(a, b, seed=1), randn(b, OUT, seed=2)], [randn(a, seed=3), randn(b, seed=4), randn(OUT, seed=5)]
    p, q = torch.randperm(a, generator=generator(1)), torch.randperm(b, generator=generator(2))
    first, second = weights(), weights(G, G, G)

    def network(x, W, c):
        return torch.tanh(torch.tanh(x @ W[0] + c[0]) @ W[1] + c[1]) @ W[2] + c[2]

    def run(W, c):
        inputs = torch.cat([W[0].T, c[0][:, None]], 1), torch.cat([W[2], c[1][:, None]], 1)  # bias of the output apart
        u, v, m = torch.relu(layer(inputs[0], inputs[1], W[1].reshape(-1, 1), *first, s=s)).split([a, b, a * b])
        return layer(u, v, m, *second, s=s).split([a, b, a * b])

    moved = [W[0][:, p], W[1][p][:, q], W[2][q]], [c[0][p], c[1][q], c[2]]
    x = randn(6, IN, seed=9)
    torch.testing.assert_close(network(x, *moved), network(x, W, c))
    turns = lambda t: t[p], lambda t: t[q], lambda t: t.reshape(a, b, G)[p][:, q].reshape(-1, G)
    for got, want, turn in zip(run(*moved), run(W, c), turns, strict=True):
        torch.testing.assert_close(got, turn(want))
        torch.testing.assert_close(got.mean(0), want.mean(0))
