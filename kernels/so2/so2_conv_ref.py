"""Reference of the SO(2) linear map: the specification of csrc/so2/so2_conv.h in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def matrices(weight: Tensor, L: int, M: int, Cin: int, Cout: int, extra: int) -> list[Tensor]:
    """W_0 and then [W1; W2] of every m, as views of the flat weight."""
    found, at = [], 0
    for m in range(M + 1):
        n = L + 1 - m
        rows, columns = (2 if m else 1) * n * Cout + (0 if m else extra), n * Cin
        found.append(weight[at : at + rows * columns].reshape(rows, columns))
        at += rows * columns
    return found


def full_matrix(weight: Tensor, L: int, M: int, Cin: int, Cout: int, extra: int) -> Tensor:
    """The map of a whole row of x to a whole row of y, [out, in]."""
    blocks = []
    for m, w in enumerate(matrices(weight, L, M, Cin, Cout, extra)):
        if m == 0:
            blocks.append(w)
        else:
            w1, w2 = w.chunk(2)
            blocks.append(torch.cat([torch.cat([w1, -w2], 1), torch.cat([w2, w1], 1)]))
    return torch.block_diag(*blocks)


def so2_conv(x, weight, bias, lmax, mmax, in_channels, out_channels, extra, transpose, three):
    """Same signature and results as torch.ops.structops.so2_conv; ``three`` changes the rounding only."""
    W = full_matrix(weight, lmax, mmax, in_channels, out_channels, extra)
    if transpose:
        return x @ W
    y = x @ W.T
    if bias is not None:
        y = torch.cat([y[:, : bias.numel()] + bias, y[:, bias.numel() :]], 1)
    return y


def so2_conv_wgrad(x, grad, lmax, mmax, in_channels, out_channels, extra):
    """Same signature and results as torch.ops.structops.so2_conv_wgrad."""
    full, found, i, o = grad.T @ x, [], 0, 0
    for m in range(mmax + 1):
        n = lmax + 1 - m
        K, N = n * in_channels, n * out_channels + (0 if m else extra)
        if m == 0:
            found.append(full[:N, :K])
            i, o = K, N
        else:
            pp, pm = full[o : o + N, i : i + K], full[o : o + N, i + K : i + 2 * K]
            mp, mm = full[o + N : o + 2 * N, i : i + K], full[o + N : o + 2 * N, i + K : i + 2 * K]
            found += [pp + mm, mp - pm]
            i, o = i + 2 * K, o + 2 * N
    return torch.cat([f.reshape(-1) for f in found])
