"""Drop-in replacements of other libraries' operators, a subpackage per library: same names and semantics, our kernels.

Nothing is imported here; ``structops.compat.<library>.install()`` makes ``import <library>`` find the replacement.
"""
