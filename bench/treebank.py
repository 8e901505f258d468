"""Gold trees from the turkish-treebanks package, read where it installed its files; without it, trees of the same lengths."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

# Sentences of 1, 2, ... 88 words in wiki.conllu, for machines without the package.
_LENGTHS = [
    0, 0, 13, 17, 24, 44, 47, 53, 65, 86, 91, 101, 91, 86, 100, 97, 95, 98, 109, 95, 91, 79, 75, 64, 42, 64, 49, 39, 43, 35, 51, 23,
    27, 27, 27, 31, 25, 17, 20, 14, 18, 13, 13, 9, 8, 6, 12, 9, 2, 9, 4, 3, 6, 3, 0, 8, 1, 2, 5, 2, 2, 1, 2, 2, 2, 2, 1, 1, 1, 2,
    0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1,
]  # fmt: skip


def conllu_file(name: str = "wiki.conllu") -> Path | None:
    """A file of the installed package, which is not meant to be imported."""
    try:
        files = importlib.metadata.files("turkish-treebanks") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if f.name == name and f.locate().is_file()), None)


@dataclass(frozen=True)
class Sentence:
    """Words, their universal parts of speech, and their heads counted from 1, 0 for the root."""

    words: list[str]
    tags: list[str]
    heads: list[int]


@cache
def sentences(name: str = "wiki.conllu") -> list[Sentence] | None:
    """Every sentence of a file of the package; None without the package."""
    path = conllu_file(name)
    if path is None:
        return None
    found, rows = [], []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        cells = line.split("\t")
        if cells[0].isdigit():  # neither a comment nor a multiword token
            rows.append((cells[1], cells[3], int(cells[6])))
        elif not line and rows:
            found.append(Sentence(*(list(column) for column in zip(*rows, strict=True))))
            rows = []
    return found


def lengths() -> tuple[str, torch.Tensor]:
    """(title, words of every sentence in the order of the file)."""
    real = sentences()
    if real is not None:
        return "Turkish wiki treebank", torch.tensor([len(s.heads) for s in real])
    made = torch.repeat_interleave(torch.arange(1, len(_LENGTHS) + 1), torch.tensor(_LENGTHS))
    return "synthetic lengths", made[torch.randperm(len(made), generator=torch.Generator().manual_seed(0))]
