"""Backends of the binary family."""

from __future__ import annotations

# Operator -> stem of the modules here that hold its reference and other backends.
OPS: dict[str, str] = {
    "quantize": "quantize",
    "quantize_bwd": "quantize",
    "channel_stats": "quantize",
    "topk_mask": "mask",
    "mask_apply": "mask",
    "fff_descend": "fff",
    "fff_leaf": "fff",
    "fff_leaf_bwd": "fff",
}
