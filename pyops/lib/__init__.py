"""Compiled libraries, put here by the build."""
