"""torch.autocast: operands of several dtypes, and nothing within the package recast, forward or backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structops
import torch
from cases import generator
from structops import backends, binary, so2, sparse, tree
from torch import Tensor

SOURCES, TARGETS = [0, 1, 2, 0, 1, 3], [1, 0, 1, 2, 2, 0]
EDGES, NODES = 6, 4
PTR, TYPES, LENGTHS = torch.tensor([0, 2, 2, 6]), torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([3, 2])
H = (NODES, 2, 3)  # rows of two heads
EACH = (EDGES, 2, 3)
N, E = (NODES, 4), (EDGES, 4)

GRAPH = structops.Graph(torch.tensor([SOURCES, TARGETS]), num_nodes=NODES)
RELATIONS = sparse.RelationalGraph(torch.tensor([SOURCES, TARGETS]), TYPES, num_relations=2, num_nodes=NODES)
EDGE_BLOCK = dict(L=1, M=1, C=2, H=2)
PRODUCT = so2.TensorProduct("2x0e+2x1o", "0e+1o", "2x0e+2x1o", [(0, 0, 0, "uvu", True), (0, 1, 1, "uvu", True)], shared_weights=False)
CP = so2.CPTensorProduct(1, 1, 1)
CONTRACTION = so2.SymmetricContractionPlan("0e+1o", "0e+1o", correlation=2)
WIGNER = so2.wigner(torch.ones(1, 3), 1).shape[1]
CLIFFORD = so2.CliffordAlgebra((2,))
PLAN = sparse.RelationPlan(GRAPH, TYPES, 2)
HYPERGRAPH = sparse.Hypergraph(torch.tensor(SOURCES), torch.tensor(TARGETS))
KEPT = structops.Graph(torch.tensor([[0, 1, 3], [2, 0, 1]]), num_nodes=NODES)


def edge_block(x: Tensor, vec: Tensor, *weights: Tensor) -> Tensor:
    return so2.edge_block(x, vec, GRAPH, *weights, lmax=1, mmax=1)


def block_shapes() -> list[tuple[int, ...]]:
    L, M, C, hidden = EDGE_BLOCK.values()
    sizes = so2.weight_shapes(L, M, 2 * C, hidden, L * hidden), so2.weight_shapes(L, M, hidden, C)
    w1, w2 = ((sum(a * b for a, b in s),) for s in sizes)
    return [w1, ((2 * L + 1) * hidden,), w2, ((L + 1) * C,)]


# name -> (function of tensors, their shapes). Operands become autocast's dtype, as those of a matrix product do.
LOWERED: dict[str, tuple[Callable, tuple]] = {
    "gatv2_attention": (lambda s, d, a: sparse.gatv2_attention(GRAPH, s, d, a), (H, H, H[1:])),
    "dot_attention": (lambda q, k, v, b: sparse.dot_attention(GRAPH, q, k, v, bias=b), (H, H, H, EACH[:2])),
    "segment_attention": (lambda q, k, v: sparse.segment_attention(q, k, v, PTR, PTR), (EACH, EACH, EACH)),
    "typed_attention": (
        lambda q, k, v, a, b: sparse.typed_attention(PLAN, q, k, v, a, b),
        (H, H, H, (2, 2, 3, 3), (2, 2, 3, 3)),
    ),
    "typed_matmul": (lambda x, w, b: sparse.typed_matmul(x, w, TYPES, bias=b), (E, (2, 4, 3), (2, 3))),
    "segment_matmul": (lambda x, w: sparse.segment_matmul(x, PTR, w), (E, (3, 4, 3))),
    "rgcn_aggregate": (lambda x, w: sparse.rgcn_aggregate(GRAPH, x, TYPES, w), (N, (2, 4, 3))),
    "edge_conditioned_matmul": (lambda x, h, w: sparse.edge_conditioned_matmul(GRAPH, x, h, w), (N, (EDGES, 2), (2, 4, 3))),
    "polynomial_conv": (lambda x, w: sparse.polynomial_conv(GRAPH, x, w), (N, (3, 4, 2))),
    "biaffine": (lambda x, y, w: tree.biaffine(x, y, w, True, True), ((2, 5, 4), (2, 3, 4), (5, 5))),
    "triaffine": (lambda x, y, z, w: tree.triaffine(x, y, z, w), ((2, 5, 4), (2, 3, 4), (2, 3, 4), (4, 4, 4))),
    "irreps_attention": (lambda q, k, v: so2.irreps_attention(GRAPH, q, k, v, "1x0e+1x1o"), (N, N, N)),
    "sparse_linear": (lambda x, v: binary.sparse_linear(x, KEPT, v), (N, (3,))),
    "fff_soft": (lambda x, n, a, w1, a1, w2, a2: binary.fff_soft(x, n, a, w1, a1, w2, a2)[0], (N, (3, 4), (3,), (4, 4, 2), (4, 2), (4, 2, 3), (4, 3))),
}  # fmt: skip

# Operands of several dtypes become float32.
PROMOTED: dict[str, tuple[Callable, tuple]] = {
    "spmm": (lambda x, e: structops.spmm(GRAPH, x, e, "mul"), (N, E)),
    "sddmm": (lambda x, y: structops.sddmm(GRAPH, x, y), (N, N)),
    "gat_attention": (lambda v, s, d: sparse.gat_attention(GRAPH, v, s, d), (H, H[:2], H[:2])),
    "add_act_reduce": (lambda x, y, e: sparse.add_act_reduce(GRAPH, x, y, e, activation="silu"), (N, N, E)),
    "multi_aggregate": (lambda x, y, e: sparse.multi_aggregate(GRAPH, x, ["mean", "std"], x_dst=y, edge=e), (N, N, E)),
    "relational_spmm": (lambda r, x: sparse.relational_spmm(RELATIONS, r, x), ((2, 4), N)),
    "polynomial_filter": (lambda x, c: sparse.polynomial_filter(GRAPH, x, c), (N, (3,))),
    "block_spmm": (lambda b, x: sparse.block_spmm(GRAPH, b, x), ((EDGES, 2, 2), (NODES, 2, 3))),
    "total_variation": (lambda x, w: sparse.total_variation(GRAPH, x, w), (N, (EDGES,))),
    "attention_pool": (lambda v, s: sparse.attention_pool(v, s, PTR), (E, (EDGES,))),
    "hypergraph_conv": (lambda x, w: sparse.hypergraph_conv(HYPERGRAPH, x, edge_weight=w), (N, (3,))),
    "edge_block": (edge_block, ((NODES, 4, 2), (EDGES, 3), *block_shapes())),
    "so2_linear": (lambda x, w: so2.so2_linear(x, w, lmax=1, mmax=1, out_channels=3), ((EDGES, 4, 2), (sum(a * b for a, b in so2.weight_shapes(1, 1, 2, 3)),))),
    "rotate": (lambda x, v: so2.rotate(x, v, lmax=1), ((EDGES, 4, 2), (EDGES, WIGNER))),
    "tp_conv": (lambda x, y, w: PRODUCT.conv(GRAPH, x, y, w), ((NODES, 8), E, (EDGES, PRODUCT.weight_numel))),
    "TensorProduct": (lambda x, y, w: PRODUCT(x, y, w), ((EDGES, 8), E, (EDGES, PRODUCT.weight_numel))),
    "CPTensorProduct": (lambda x, y: CP(x, y), ((EDGES, 4, 2), (EDGES, 4, 2))),
    "symmetric_contraction": (lambda x, w: so2.symmetric_contraction(x, w, TYPES[:NODES], CONTRACTION), ((NODES, 2, 4), (2, CONTRACTION.num_paths, 2))),
    "gaunt_product": (lambda x, y: so2.gaunt_product(x, y, 2, "grid"), ((EDGES, 4, 2), (EDGES, 4, 2))),
    "geometric_product": (lambda x, y: CLIFFORD.geometric_product(x, y), (N, N)),
    "egnn_step": (lambda x, s, d, r: so2.egnn_step(GRAPH, x, s, d, r)[1], ((NODES, 3), N, N, (4,))),
    "DependencyCRF": (lambda a, s: tree.DependencyCRF(a, LENGTHS, sib=s).log_partition, ((2, 4, 4), (2, 4, 4, 4))),
    "entropy": (lambda a, s: tree.DependencyCRF(a, LENGTHS, sib=s).entropy(), ((2, 4, 4), (2, 4, 4, 4))),
    "PCFG": (lambda t, r, o: tree.PCFG(t, r, o, LENGTHS).log_partition, ((2, 3, 2), (2, 1, 3, 3), (2, 1))),
    "binary_attention": (lambda q, k, v: binary.binary_attention(q, k, v), ((2, 5, 4), (2, 3, 4), (2, 3, 4))),
    "s2_activation": (lambda x: so2.s2_activation(x, 1), ((5, 4, 2),)),
    "norm": (lambda x, w: so2.norm(x, "2x0e+1x1o", w), ((5, 5), (3,))),
    "hamiltonian": (lambda x: so2.hamiltonian_blocks(x, "1s1p"), ((5, 16),)),
    "LinearChainCRF": (lambda e, t: tree.LinearChainCRF(e, t, lengths=LENGTHS).log_partition, ((2, 3, 2), (2, 2))),
    "MatrixTreeCRF": (lambda a: tree.MatrixTreeCRF(a, LENGTHS).log_partition, ((2, 4, 4),)),
}  # fmt: skip
# Takes several dtypes without autocast too; the result has that of the first operand.
FIRST: dict[str, tuple[Callable, tuple]] = {
    "binary_linear": (lambda x, w, b: binary.binary_linear(x, w, b), ((5, 8), (3, 8), (3,))),
    "binary_conv2d": (lambda x, w, b: binary.binary_conv2d(x, w, b), ((1, 8, 4, 4), (3, 8, 3, 3), (3,))),
    "rprelu": (lambda x, a, b, c: binary.rprelu(x, a, b, c), ((2, 3, 4), (3,), (3,), (3,))),
    "rsign": (lambda x, a: binary.rsign(x, a), ((2, 3, 4), (3,))),
    "elastic": (lambda x, a: binary.elastic(x, a), ((2, 3, 4), (1,))),
    "edge_popup": (lambda w, s: binary.edge_popup(w, s, 0.5), (N, N)),
}  # fmt: skip
CASES = {**LOWERED, **PROMOTED, **FIRST}
# Products of torch in the forward, which torch's own backward recasts if it is run under autocast.
COMPOSED = ("biaffine", "CPTensorProduct", "gaunt_product", "binary_attention", "s2_activation", "hamiltonian")


def operands(name: str, mixed: int) -> list[Tensor]:
    """float32, and bfloat16 at every second place from ``mixed`` on."""
    return [
        torch.randn(s, generator=generator(i), dtype=torch.bfloat16 if i % 2 == mixed else torch.float32).requires_grad_()
        for i, s in enumerate(CASES[name][1])
    ]


@pytest.mark.parametrize("mixed", [0, 1])
@pytest.mark.parametrize(
    ("name", "backward"), [(n, "after") for n in CASES] + [(n, "within") for n in CASES if n not in COMPOSED]
)
def test_equals_the_call_on_one_dtype(name: str, mixed: int, backward: str) -> None:
    """Bit for bit, values and gradients."""
    fn = CASES[name][0]
    inside, outside = operands(name, mixed), operands(name, mixed)
    dtypes = {t.dtype for t in inside}
    dtype = torch.bfloat16 if name in LOWERED else torch.float32 if len(dtypes) > 1 else inside[0].dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = fn(*inside)
    want = fn(*(t if name in FIRST else t.to(dtype) for t in outside))
    assert got.dtype == want.dtype
    assert torch.equal(got, want)
    weight = torch.randn(got.shape, generator=generator(9), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=backward == "within"):
        (got * weight).sum().backward()
    (want * weight).sum().backward()
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a.grad, b.grad)


def test_float64_is_left_alone() -> None:
    x, w = torch.randn(NODES, 4, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert sparse.rgcn_aggregate(GRAPH, x, TYPES, w).dtype == torch.float64
        with pytest.raises(TypeError, match="float64"):
            sparse.rgcn_aggregate(GRAPH, x, TYPES, w.float())


def test_own_weights_are_operands() -> None:
    """Of a module, whose parameters are float32, and so are axes of frames."""
    product = so2.TensorProduct("2x0e+2x1o", "0e+1o", "2x0e", [(0, 0, 0, "uvw", True)])
    contraction = so2.SymmetricContraction("2x0e+2x1o", "2x0e", 2, num_elements=2)
    x, y = torch.randn(NODES, 8, dtype=torch.bfloat16), torch.randn(NODES, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(product(x, y), product(x.float(), y.float()))
        frames = so2.frames(torch.randn(5, 3))
        vectors = frames.pos.bfloat16()
        assert torch.equal(so2.frame_average(frames, vectors, "vector"), so2.frame_average(frames, vectors.float(), "vector"))
        assert contraction(x.reshape(NODES, 2, 4), TYPES[:NODES]).dtype == torch.float32


@pytest.mark.parametrize("name", ["gatv2_attention", "biaffine", "add_act_reduce", "edge_block", "tp_conv"])
def test_compiled(name: str) -> None:
    """In one graph, forward and backward, as in eager mode."""
    fn = CASES[name][0]

    def under(*t: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return fn(*t)

    compiled, eager = operands(name, 0), operands(name, 0)
    got, want = torch.compile(under, backend="aot_eager", fullgraph=True)(*compiled), under(*eager)
    assert torch.equal(got, want)
    got.float().square().sum().backward()
    want.float().square().sum().backward()
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("name", ["edge_block", "tp_conv", "symmetric_contraction", "gat_attention", "typed_matmul"])
def test_forces(name: str, backend: str) -> None:
    """Derivatives of derivatives, all of it under autocast; references multiply by torch's products."""

    def trained(autocast: bool) -> list[Tensor | None]:
        x = [t.detach().float().requires_grad_() for t in operands(name, 0)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            y = CASES[name][0](*(t.bfloat16() if name in LOWERED else t for t in x))
            forces = torch.autograd.grad(y.square().sum(), x[1], create_graph=True)[0]
            forces.square().sum().backward()
        return [t.grad for t in x]

    with backends.override(backend):
        got, want = trained(True), trained(False)
    for a, b in zip(got, want, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
