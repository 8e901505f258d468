"""Lower bounds on the bytes that an operator moves, and its flops.

``min_bytes``: every operand is read from memory once and every result written once (perfect reuse in cache).
``max_bytes``: no reuse; every edge reads its operand again.
Sizes: E edges, N rows, F features, values of S and indices of I bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

S, I = 4, 4


@dataclass(frozen=True)
class Traffic:
    min_bytes: int
    max_bytes: int
    flops: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.min_bytes + other.min_bytes, self.max_bytes + other.max_bytes, self.flops + other.flops)


def spmm(
    E: int, num_src: int, num_dst: int, F: int, *, weighted: bool = False, extreme: bool = False, backward: bool = False
) -> Traffic:
    """Rows of x through E edges; backward: the same on the reversed edges, or through the winners of min and max."""
    structure = E * (I + S * weighted) + (num_dst + 1) * I
    forward = Traffic(structure + (num_src + num_dst) * F * S, structure + (E + num_dst) * F * S, E * F * (2 if weighted else 1))
    if not backward:
        return forward
    if extreme:
        winners = num_dst * F * I
        both = winners * 2 + num_dst * F * S + num_src * F * S
        return forward + Traffic(both, both, num_dst * F)
    result = forward + spmm(E, num_dst, num_src, F, weighted=weighted)
    return result + sddmm(E, num_src, num_dst, F) if weighted else result


def segment(E: int, N: int, F: int, *, backward: bool = False, extreme: bool = False) -> Traffic:
    """Messages in memory, grouped by a pointer: read once, write once."""
    size = E * F * S + N * F * S + (N + 1) * I
    forward = Traffic(size, size, E * F)
    return forward + Traffic(size + N * F * I * 2 * extreme, size, E * F) if backward else forward


def scatter(E: int, N: int, F: int, *, backward: bool = False, extreme: bool = False, planned: bool = False) -> Traffic:
    """Messages in memory with an int64 index each (planned: an int32 permutation).

    At worst the result is read and written once per message.
    """
    index = E * I + (N + 1) * I if planned else E * 8
    low = index + E * F * S + N * F * S
    forward = Traffic(low, low if planned else low + 2 * E * F * S, E * F)
    return forward + Traffic(low + N * F * I * 2 * extreme, low, E * F) if backward else forward


def sddmm(E: int, num_src: int, num_dst: int, F: int) -> Traffic:
    """One dot product per edge."""
    structure = E * (I + S) + (num_dst + 1) * I
    return Traffic(structure + (num_src + num_dst) * F * S, structure + 2 * E * F * S, 2 * E * F)


def softmax(E: int, N: int, F: int, *, backward: bool = False) -> Traffic:
    """Logits read once and results written once (a second read at worst); backward reads result and gradient."""
    size = 2 * E * F * S + (N + 1) * I
    forward = Traffic(size, size + E * F * S, 4 * E * F)
    return forward + Traffic(size + E * F * S, size + 2 * E * F * S, 3 * E * F) if backward else forward


def select(N: int, F: int) -> Traffic:
    """One value and one index per result."""
    size = N * F * (2 * S + I)
    return Traffic(size, size, 0)


def csr(E: int, N: int, index: int = 8) -> Traffic:
    """Index read once, pointer and permutation written once; a counting sort reads the index twice."""
    low = E * 2 * index + N * index
    return Traffic(low, low + E * index, 0)


def chart(lengths: list[int], *, second: bool = False, backward: bool = False) -> Traffic:
    """Arc scores read and posteriors written once; second order also a third of the siblings, and their whole gradient.

    flops: one multiplication and one addition for each way to split a span.
    """
    size = splits = 0
    for n in lengths:
        N = n + 1
        size += N * N * S + (N**3 // 3 * S if second else 0)
        splits += (5 if second else 3) * N**3 // 6
        if backward:
            size += N * N * S + (N**3 * S if second else 0)
    return Traffic(size, size, 2 * splits * (2 if backward else 1))


def grand(lengths: list[int]) -> Traffic:
    """Grandparent charts with gradient: all scores read, all posteriors written; four items with a lane for every grandparent."""
    cells = sum((n + 1) ** 3 for n in lengths)
    return Traffic(2 * cells * S, 2 * cells * S, sum((n + 1) ** 4 // 3 * 2 * 2 for n in lengths))


def pcfg(lengths: list[int], NT: int, T: int, *, backward: bool = False) -> Traffic:
    """Grammars: scores read and counts written once; a multiplication and an addition for each split of each pair of nonterminals,
    and for each rule at each span."""
    S_ = NT + T
    size = (sum(lengths) * T + len(lengths) * NT * (S_ * S_ + 1)) * S * (2 if backward else 1)
    flops = sum(2 * (n**3 // 6 * NT * NT + n * n // 2 * NT * S_ * S_) for n in lengths)
    return Traffic(size, size, flops * (3 if backward else 1))
