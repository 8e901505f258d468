"""Backends of the tree family."""
