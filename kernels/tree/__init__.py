"""Backends of the tree family."""

from __future__ import annotations

# Operator -> stem of the modules here that hold its reference and other backends.
OPS = {
    "chart_logz": "chart",
    "chart_marginals": "chart",
    "chart_hvp": "chart",
    "chart_best": "chart",
    "chart_sample": "chart",
    "chart_max_marginals": "chart",
    "grand_logz": "grand",
    "grand_marginals": "grand",
    "grand_hvp": "grand",
    "grand_best": "grand",
    "grand_sample": "grand",
    "grand_max_marginals": "grand",
    "pcfg_logz": "pcfg",
    "pcfg_marginals": "pcfg",
    "pcfg_hvp": "pcfg",
    "pcfg_best": "pcfg",
    "pcfg_sample": "pcfg",
    "factored_logz": "factored",
    "factored_marginals": "factored",
    "factored_hvp": "factored",
    "chain_logz": "chain",
    "chain_marginals": "chain",
    "chain_hvp": "chain",
    "chain_best": "chain",
    "chain_sample": "chain",
    "matrix_tree_logz": "matrix_tree",
    "matrix_tree_marginals": "matrix_tree",
    "matrix_tree_hvp": "matrix_tree",
    "matrix_tree_sample": "matrix_tree",
    "arborescence": "arborescence",
    "tree_check": "arborescence",
}
