"""Rotations: equivariant operators on irreducible representations of O(3), in e3nn's conventions."""

# tensor products, spherical harmonics

# frames, Wigner matrices, SO(2) convolutions

__all__: list[str] = []
