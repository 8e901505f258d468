"""The plan of a tensor product: its paths and sparse coefficients as the two arrays that the kernels read (csrc/so2/tp.h)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._shapes import Constants

HEADER = 16


class Block(NamedTuple):
    """``mul`` channels of ``d`` components; channel u, component i lies at offset + u * channel + i * component of a row."""

    mul: int
    d: int
    offset: int
    channel: int
    component: int


class Path(NamedTuple):
    """From block ``x`` and the columns of y to block ``out`` through ``table[i, j, k]`` or its terms ``(i, j, k, value)``, sorted
    by k, i, j; weight w + u * w_stride, none if w < 0."""

    x: int
    out: int
    columns: tuple[int, ...]
    table: np.ndarray | tuple[np.ndarray, ...]
    w: int
    w_stride: int


@dataclass(eq=False)
class Plan:
    """data int32, coefficients float64, and the header of data as ints."""

    constants: Constants
    sizes: tuple[int, ...]

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, list[int]]:
        """The operator's arguments, on a device."""
        data, cg = self.constants.on(device)
        return data, cg, list(self.sizes)


def _terms(table: np.ndarray | tuple[np.ndarray, ...]) -> Iterator[tuple[int, int, int, float]]:
    """(k, i, j, value) of the entries that are not 0, sorted."""
    if isinstance(table, tuple):
        i, j, k, value = table
    else:
        k, i, j = np.nonzero(table.transpose(2, 0, 1))
        value = table[i, j, k]
    return zip(k.tolist(), i.tolist(), j.tolist(), value.tolist(), strict=True)


def build(x: list[Block], out: list[Block], paths: list[Path], xdim: int, ydim: int, odim: int, wdim: int) -> Plan:
    """Sparse lists in the order of the header: every path's pairs (i, k) by k, then by i; entries of a pair by j."""
    path_rows: list[tuple] = []
    pair_ptr, entry_y, cg = [0], [], []
    runs: list[tuple] = []
    items: list[tuple] = []
    for path in paths:
        number: dict[tuple[int, int], int] = {}
        run = len(runs)
        for k, row in groupby(_terms(path.table), lambda term: term[0]):
            begin = len(items)
            for i, entries in groupby(row, lambda term: term[1]):
                number[i, k] = len(pair_ptr) - 1
                items.append((i, number[i, k]))
                for _, _, j, value in entries:
                    entry_y.append(path.columns[j])
                    cg.append(value)
                pair_ptr.append(len(entry_y))
            runs.append((k, begin, len(items)))
        run_t = len(runs)
        for i, group in groupby(sorted(number.items()), lambda pair: pair[0][0]):
            begin = len(items)
            items += [(k, q) for (_, k), q in group]
            runs.append((i, begin, len(items)))
        path_rows.append((path.x, path.out, path.w, path.w_stride, run, run_t, run_t, len(runs)))
    parts = [[*x, *out], path_rows, pair_ptr, entry_y, runs, items]
    flat = [np.asarray(p, np.int64).reshape(-1) for p in parts]
    starts = HEADER + np.cumsum([0, *(f.size for f in flat)])
    header = [len(x), len(out), len(paths), len(pair_ptr) - 1, len(entry_y), xdim, ydim, odim, wdim, *starts.tolist()]
    data = np.concatenate([np.asarray(header, np.int64), *flat])
    assert len(header) == HEADER and data.max() < 2**31
    return Plan(Constants(data.astype(np.int32), np.asarray(cg, np.float64)), tuple(map(int, header)))
