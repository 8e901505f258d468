"""Backends of the binary family."""

from __future__ import annotations

# Operator -> stem of the modules here that hold its reference and other backends.
OPS = {
    "bits_pack": "bits",
    "bits_unpack": "bits",
    "bits_count": "bits",
    "bits_panels": "bits",
    "bits_gemm": "gemm",
    "bits_conv": "gemm",
    "bits_w1a8": "mixed",
    "bits_w1a16": "mixed",
    "bits_bag": "bag",
    "quantize": "quantize",
    "quantize_bwd": "quantize",
    "channel_stats": "quantize",
    "topk_mask": "mask",
    "mask_apply": "mask",
    "fff_descend": "fff",
    "fff_leaf": "fff",
    "fff_leaf_bwd": "fff",
}
