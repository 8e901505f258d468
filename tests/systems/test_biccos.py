"""BICCOS: cutting planes inferred from verified subproblems, as sparse rows in the bounds of a network."""

from __future__ import annotations

import itertools

import torch
from agreement import agree, randn
from structops import Graph, spmm

SYSTEM = "BICCOS: multipliers times a sparse matrix of inferred cuts"
OPERATORS = ("structops.spmm",)
UNITS = 6
# Of every cut: the fixed states of some ReLUs in a verified subproblem.
CUTS = [{0: 1, 3: -1}, {2: 1}, {1: -1, 4: -1, 5: 1}, {0: -1, 1: 1, 2: 1, 5: -1}]
CUT, UNIT = torch.tensor([(c, i) for c, states in enumerate(CUTS) for i in states]).T
STATE = torch.tensor([float(s) for states in CUTS for s in states.values()], dtype=torch.float64)
TO_UNITS = Graph(torch.stack([CUT, UNIT]), num_src=len(CUTS), num_dst=UNITS)
BIAS = torch.tensor([sum(s > 0 for s in states.values()) - 1.0 for states in CUTS], dtype=torch.float64)


def test_multipliers_times_cuts() -> None:
    """beta ``[2, specifications, batch, cuts]`` times the coefficients, and the gradient to beta and to the coefficients."""
    dense = lambda s: torch.zeros(len(CUTS), UNITS, dtype=torch.float64).index_put((CUT, UNIT), s)

    def ours(beta, states):
        rows = spmm(TO_UNITS, beta.flatten(0, 2).T.contiguous(), states[:, None])
        return rows.T.unflatten(0, beta.shape[:3])

    agree(ours, lambda beta, states: beta @ dense(states), randn(2, 3, 4, len(CUTS)), STATE)


def test_cuts_exclude_the_verified_boxes() -> None:
    """sum over Z+ of z less that over Z- is at most |Z+| - 1 exactly off the subproblem, on the whole Boolean cube."""
    cube = torch.tensor(list(itertools.product((0.0, 1.0), repeat=UNITS)), dtype=torch.float64)
    to_cuts = TO_UNITS.reverse()
    holds = spmm(to_cuts, cube.T.contiguous(), STATE[:, None]) <= BIAS[:, None]  # [cuts, points]
    for c, states in enumerate(CUTS):
        inside = torch.stack([cube[:, i] == (s > 0) for i, s in states.items()]).all(0)
        assert torch.equal(holds[c], ~inside)
