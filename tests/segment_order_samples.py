"""Arguments of the raw segment_order, for opcheck."""

from __future__ import annotations

import torch


def segment_order_samples() -> dict[str, list[tuple]]:
    ptr, src = torch.tensor([0, 2, 2, 7]), torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0])
    return {
        "segment_order": [
            (src, ptr, None, 3, True),
            (src[:, None].repeat(1, 2), ptr.int(), torch.tensor([[0, 1], [0, 0], [2, 3]]).int(), 2, False),
        ]
    }
