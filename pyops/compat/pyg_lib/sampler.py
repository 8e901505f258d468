"""``pyg_lib.sampler``: the names only. PyG reads the parameters of ``neighbor_sample`` while it is imported."""

from typing import NoReturn


def _fail(name: str) -> NoReturn:
    raise NotImplementedError(
        f"pyg_lib.sampler.{name}: structops.compat.pyg_lib has no samplers; use pyg_lib itself, or uninstall() this package "
        "before importing torch_geometric so that it takes torch_sparse's"
    )


def neighbor_sample(
    rowptr,
    col,
    seed,
    num_neighbors,
    node_time=None,
    edge_time=None,
    seed_time=None,
    edge_weight=None,
    csc=False,
    replace=False,
    directed=True,
    disjoint=False,
    temporal_strategy="uniform",
    return_edge_id=True,
) -> NoReturn:
    """NotImplementedError."""
    _fail("neighbor_sample")


def hetero_neighbor_sample(*args, **kwargs) -> NoReturn:
    """NotImplementedError."""
    _fail("hetero_neighbor_sample")


def subgraph(rowptr, col, nodes, return_edge_id=True) -> NoReturn:
    """NotImplementedError."""
    _fail("subgraph")


def random_walk(rowptr, col, seed, walk_length, p=1.0, q=1.0) -> NoReturn:
    """NotImplementedError."""
    _fail("random_walk")


__all__ = ["hetero_neighbor_sample", "neighbor_sample", "random_walk", "subgraph"]
