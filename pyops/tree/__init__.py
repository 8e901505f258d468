"""Distributions over chains of tags."""

from .chain import LinearChainCRF, SemiMarkovCRF

__all__ = ["LinearChainCRF", "SemiMarkovCRF"]
