"""supar.structs.fn."""

from __future__ import annotations

import torch
from torch import Tensor

from .... import _check as check
from ....tree import maximum_spanning_tree


def mst(scores: Tensor, mask: Tensor, multiroot: bool = False) -> Tensor:
    """Heads int64 [B, N] of the best tree, projective or not; 0 at the root and past the sentence.

    ``scores [B, N, N]`` (dependent, head); ``mask [B, N]``: True at the words, which are a prefix, False at the root. All on the
    device of the scores, without a loop over sentences; single roots are exact.

    >>> import torch
    >>> scores = torch.tensor([[[0.0, 0, 0], [1, 0, 5], [2, 5, 0]]])
    >>> mst(scores, torch.tensor([[False, True, True]]))
    tensor([[0, 2, 0]])
    """
    check.tensor("mst", "mask", mask)
    if mask.dtype != torch.bool or mask.shape != scores.shape[:2]:
        check.fail(ValueError, "mst", f"a mask of booleans {list(scores.shape[:2])}", f"{mask.dtype} {list(mask.shape)}")
    return maximum_spanning_tree(scores.detach(), mask.sum(1), multiroot)[1].clamp(min=0)
