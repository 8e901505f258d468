"""Backends of the so2 family."""

from __future__ import annotations

# Operator -> stem of the modules here that hold its reference and other backends.
OPS: dict[str, str] = {
    # tensor products, spherical harmonics
    # frames, Wigner matrices, SO(2) convolutions
}
