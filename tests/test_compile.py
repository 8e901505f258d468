"""Registration, opcheck, torch.compile, export and torch.func."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import structops
import torch
from attention_samples import attention_samples
from binary_samples import binary_samples
from block_spmm_samples import block_spmm_samples
from cases import random_coo, to_csr, values
from compare import assert_close
from edge_act_samples import edge_act_samples
from multi_reduce_samples import multi_reduce_samples
from poly_samples import poly_samples
from quantize_samples import layer_samples, plain_samples, quantize_samples
from rspmm_samples import rspmm_samples
from segment_attention_samples import segment_attention_samples
from segment_order_samples import segment_order_samples
from so2_samples import so2_samples
from structops import Graph, ScatterPlan, backends, scatter_reduce, sddmm, segment_gather, segment_reduce, segment_softmax, spmm
from structops.kernels import codes as C
from torch import Tensor
from tree_samples import tree_samples
from typed_matmul_samples import typed_matmul_samples

ROOT = Path(__file__).resolve().parent.parent
ops = torch.ops.structops
NUM_SRC, NUM_DST, EDGES = 7, 6, 16
COO = random_coo(NUM_SRC, NUM_DST, EDGES, seed=3)
PTR = torch.tensor([0, 3, 3, 9, 16])
INDEX = torch.tensor([3, 1, 0, 3, 1, 1, 3, 0, 0, 1, 3, 3, 1, 0, 1, 3])
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def schemas() -> list[str]:
    return sorted({s.name.partition("::")[2] for s in torch._C._jit_get_all_schemas() if s.name.startswith("structops::")})


# ---- registration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", schemas())
def test_every_operator_is_complete(op: str) -> None:
    """CPU and CUDA kernels, a fake, a reference, a test and a benchmark."""
    name = f"structops::{op}"
    for key in ("CPU", "CUDA"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, key), key
    assert torch._library.simple_registry.singleton.find(name).fake_impl.kernel is not None
    assert op in backends.OPS
    assert backends._implementation(op, "reference") is not None
    assert any(re.search(rf"\b{op}\b", p.read_text()) for p in (ROOT / "tests").glob("*/test_*.py")), "no test"
    stem = backends.OPS[op].rpartition(".")[2]
    assert any(re.search(rf"\b({op}|{stem})\b", p.read_text()) for p in (ROOT / "bench").glob("bench_*.py")), "no bench"


def test_the_lists_agree() -> None:
    assert set(backends.OPS) <= set(schemas())
    source = (ROOT / "csrc" / "torch" / "library.cpp").read_text()
    assert set(schemas()) == set(re.findall(r'm\.def\("(\w+)\(', source))


# ---- opcheck ---------------------------------------------------------------------------------------------------------


def samples(grad: bool) -> dict[str, list[tuple]]:
    """Arguments of every operator; floating operands need a gradient if ``grad``."""
    rowptr, col, eid = to_csr(COO, NUM_DST)
    s = (rowptr, col, eid)
    none = (None, None, None)
    leaf = lambda *shape: values(*shape).requires_grad_(grad)
    heads = torch.stack([torch.arange(6), torch.arange(6) // 3]).int()
    return {
        "spmm": [
            (leaf(NUM_SRC, 3), None, *s, *none, None, C.COPY_U, C.SUM, 0, 0.0, False, True),
            (leaf(NUM_SRC, 6), leaf(EDGES, 2), *s, *none, heads, C.MUL, C.MEAN, 0, 0.0, False, True),
            (None, leaf(2, EDGES, 3), rowptr, None, eid, *none, None, C.COPY_E, C.MAX, C.ARG_EDGE, 0.0, False, True),
            (leaf(NUM_SRC), leaf(EDGES), *s, *none, None, C.ADD, C.MIN, C.ARG_POSITION, 0.0, True, True),
            (leaf(NUM_SRC, 3), leaf(EDGES, 1), *s, *none, None, C.MUL, C.LOGSUMEXP, 0, 0.0, False, True),
            (leaf(NUM_SRC, 3), leaf(EDGES, 1), *s, *none, None, C.MUL, C.VAR, 0, 0.0, False, True),
        ],
        "sddmm": [
            (leaf(NUM_SRC, 6), leaf(NUM_DST, 6), *s, *none, None, C.EDGE_MUL, C.U, C.V, EDGES, 2, 3),
            (leaf(2, NUM_SRC, 3), None, *s, *none, None, C.EDGE_COPY, C.U, C.U, EDGES, 3, 1),
            (leaf(NUM_SRC), leaf(EDGES), *s, *none, None, C.EDGE_DIV, C.U, C.E, EDGES, 1, 1),
        ],
        "segment_softmax": [(leaf(EDGES, 3), PTR, None, False), (leaf(EDGES), rowptr, eid, True)],
        "segment_softmax_bwd": [(leaf(EDGES, 3), leaf(EDGES, 3), PTR, None, False), (leaf(EDGES), leaf(EDGES), rowptr, eid, True)],
        "scatter": [
            (leaf(EDGES, 3), INDEX, 5, C.SUM, False, 0.0, False),
            (leaf(EDGES), INDEX.int(), 5, C.MEAN, False, 0.0, False),
            (leaf(2, EDGES, 3), INDEX, 5, C.MAX, True, 0.0, True),
        ],
        "select": [(leaf(5, 3), torch.randint(-1, 5, (4, 3))), (leaf(5), torch.randint(-1, 5, (4,)).int())],
        "select_bwd": [(leaf(4, 3), torch.randint(-1, 5, (4, 3)), 5), (leaf(2, 4, 3), torch.randint(-1, 5, (2, 4, 3)), 5)],
        **attention_samples(leaf),
        **segment_attention_samples(leaf),
        **edge_act_samples(leaf),
        **multi_reduce_samples(leaf),
        **block_spmm_samples(leaf),
        **poly_samples(leaf),
        **rspmm_samples(leaf),
        **typed_matmul_samples(leaf),
        **tree_samples(leaf),
        # rotations
        **so2_samples(leaf),
        # bits
        **quantize_samples(leaf),
        **layer_samples(leaf),
    }  # fmt: skip


PLAIN = {
    "copy_reduce": [(values(EDGES, 3), PTR, None, C.MEAN), (values(2, NUM_SRC, 3), *to_csr(COO, NUM_DST)[:2], C.LOGSUMEXP), (values(EDGES), PTR, None, C.MAX)],
    "csr_build": [(INDEX, 5), (INDEX.int(), 4)], "csr_from_coo": [(INDEX, INDEX.flip(0), 5, False), (INDEX.int(), INDEX.int(), 4, True)],
    "csr_transpose": [(PTR, INDEX, None, 5), (PTR.int(), INDEX.int(), INDEX.int(), 4)], "index_range": [(INDEX,), (INDEX.int()[:0],)],
    # bits
    **binary_samples(), **plain_samples(),
    **segment_order_samples(),
}  # fmt: skip


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("op", samples(False))
def test_opcheck(op: str, grad: bool) -> None:
    for args in samples(grad)[op]:
        torch.library.opcheck(getattr(ops, op).default, args, test_utils=CHECKS)


@pytest.mark.parametrize("op", PLAIN)
def test_opcheck_of_structure(op: str) -> None:
    for args in PLAIN[op]:
        # The results of index_range are numbers read from the data: opcheck cannot compare those with a fake's.
        torch.library.opcheck(getattr(ops, op).default, args, test_utils=CHECKS[:2] if op == "index_range" else CHECKS)


def test_every_operator_is_opchecked() -> None:
    assert set(backends.OPS) == {*samples(False), *PLAIN}


# ---- torch.compile ---------------------------------------------------------------------------------------------------

GRAPH = Graph(COO, num_src=NUM_SRC, num_dst=NUM_DST)
SORTED = Graph(COO[:, torch.sort(COO[1], stable=True).indices], num_src=NUM_SRC, num_dst=NUM_DST)
PLAN = ScatterPlan(INDEX, 5)


def functions() -> dict[str, tuple[Callable, tuple[Tensor, ...]]]:
    x, e, y, src = values(NUM_SRC, 3), values(EDGES, 1, seed=1), values(NUM_DST, 3, seed=2), values(EDGES, 3, seed=3)
    hx, he = values(NUM_SRC, 2, 3), values(EDGES, 2, 1, seed=1)
    found: dict[str, tuple[Callable, tuple[Tensor, ...]]] = {
        "heads": (lambda x, e: spmm(GRAPH, x, e), (hx, he)),
        "sorted graph": (lambda x, e: spmm(SORTED, x, e), (x, e)),
        "batch": (lambda x, e: spmm(GRAPH, x, e, batch_dims=1), (values(2, NUM_SRC, 3), e)),
        "reverse": (lambda y, e: spmm(GRAPH.reverse(), y, e), (y, e)),
        "dot": (lambda x, y: sddmm(GRAPH, x, y), (x, y)),
        "sddmm add": (lambda x, e: sddmm(GRAPH, x, e, "add", "u", "e"), (x, e)),
        "softmax": (lambda s: segment_softmax(s, PTR), (src,)),
        "log softmax": (lambda s: segment_softmax(s, PTR, log=True), (src,)),
        "scatter softmax": (lambda s: structops.scatter_softmax(s, PLAN), (src,)),
        "edge activation": (lambda x, y: structops.sparse.add_act_reduce(SORTED, x, y, activation="silu"), (x, y)),
        "several aggregators": (
            lambda x, y: structops.sparse.multi_aggregate(SORTED, x, ("mean", "max", "std"), ("identity", "linear"), x_dst=y), (x, y)
        ),
        "fused attention": (lambda x, y: structops.sparse.dot_attention(SORTED, y[:, None], x[:, None], x[:, None]), (x, y)),
        "attention": (lambda x, y: spmm(SORTED, x, segment_softmax(sddmm(SORTED, x, y), SORTED.rowptr)), (x, y)),
    }
    for reduce in C.REDUCES:
        found[f"spmm {reduce}"] = (lambda x, e, r=reduce: spmm(GRAPH, x, e, "mul", r), (x, e))
        found[f"segment {reduce}"] = (lambda s, r=reduce: segment_reduce(s, PTR, r), (src,))
        found[f"scatter {reduce}"] = (lambda s, r=reduce: scatter_reduce(s, INDEX, 5, r), (src,))
    return found


@pytest.fixture(autouse=True)
def fresh_dynamo():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", functions())
def test_compile(name: str) -> None:
    """One graph, the same values, the same gradients."""
    fn, inputs = functions()[name]
    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    results = []
    for f in (fn, compiled):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = f(*leaves).nan_to_num(0, 0, 0)
        out.square().sum().backward()
        results.append([out.detach(), *(t.grad for t in leaves)])
        assert_close(f(*(t.detach() for t in leaves)).nan_to_num(0, 0, 0), out.detach(), terms=32)
    for a, b in zip(*results, strict=True):
        assert_close(b, a, terms=256, magnitude=8.0)


def test_compile_with_dynamic_features() -> None:
    compiled = torch.compile(lambda x, e: spmm(GRAPH, x, e), fullgraph=True, backend="aot_eager", dynamic=True)
    for F in (3, 5, 8):
        x, e = values(NUM_SRC, F), values(EDGES, 1)
        assert_close(compiled(x, e), spmm(GRAPH, x, e), terms=32)


def test_compile_of_a_module_with_a_graph_argument() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = torch.nn.Linear(3, 4)

        def forward(self, graph: Graph, x: Tensor) -> Tensor:
            return spmm(graph, self.lin(x), reduce="mean").relu()

    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for graph in (GRAPH, SORTED):
        x = values(NUM_SRC, 3, dtype=torch.float32)
        assert_close(compiled(graph, x), layer(graph, x).double(), torch.float32, terms=32)


ON_A_NEW_GRAPH = {
    "spmm": lambda g, x: spmm(g, x),
    "spmm_mul_mean": lambda g, x: spmm(g, x, x.new_ones(g.num_edges, 1), reduce="mean"),
    "sddmm": lambda g, x: sddmm(g, x, x, "dot"),
    "add_act_mean": lambda g, x: structops.sparse.add_act_reduce(g, x, x, reduce="mean"),
    "multi_aggregate": lambda g, x: structops.sparse.multi_aggregate(g, x),
    "dot_attention": lambda g, x: structops.sparse.dot_attention(g, *(x[:, None],) * 3),
    "total_variation": lambda g, x: structops.sparse.total_variation(g, x, p=2.0),
    "polynomial_filter": lambda g, x: structops.sparse.polynomial_filter(g, x, torch.tensor([1.0, 2.0])),
}


@pytest.mark.parametrize("name", ON_A_NEW_GRAPH)
def test_compile_with_gradients_on_a_new_graph(name: str) -> None:
    """What a graph keeps after its first eager gradient is not there yet."""
    fn = ON_A_NEW_GRAPH[name]
    new = lambda: Graph(torch.tensor([[0, 1, 2, 2], [1, 1, 0, 1]]), num_nodes=3)
    x = values(3, 4).requires_grad_()
    graph = new()
    (got,) = torch.autograd.grad(torch.compile(lambda x: fn(graph, x), fullgraph=True, backend="aot_eager")(x).square().sum(), x)
    (want,) = torch.autograd.grad(fn(new(), x).square().sum(), x)
    assert_close(got, want, torch.float64, terms=20)


def test_compile_return_arg() -> None:
    fn = lambda s: segment_reduce(s, PTR, "max", return_arg=True)
    out, arg = torch.compile(fn, fullgraph=True, backend="aot_eager")(values(EDGES, 3))
    assert torch.equal(arg, fn(values(EDGES, 3))[1]) and torch.equal(out, fn(values(EDGES, 3))[0])


class Small(torch.nn.Module):
    """Everything that export should take: buffers for the structure, several operators."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ptr", PTR)
        self.register_buffer("index", INDEX)
        self.lin = torch.nn.Linear(3, 3)

    def forward(self, src: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        src = self.lin(src)
        return segment_reduce(src, self.ptr, "mean"), segment_softmax(src, self.ptr), scatter_reduce(src, self.index, 5, "max")


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool) -> None:
    src = values(EDGES, 3, dtype=torch.float32)
    module = Small()
    program = torch.export.export(module, (src,), strict=strict)
    assert {"structops.spmm.default", "structops.segment_softmax.default"} <= {str(n.target) for n in program.graph.nodes}
    for a, b in zip(program.module()(src), module(src), strict=True):
        assert_close(a, b.double(), torch.float32, terms=16)


# ---- torch.func ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [k for k in functions() if k.split()[0] in ("spmm", "segment", "scatter", "softmax", "dot", "heads")]
)
def test_func_grad(name: str) -> None:
    """torch.func.grad, and its own gradient, agree with autograd."""
    fn, inputs = functions()[name]
    loss = lambda *a: fn(*a).nan_to_num(0, 0, 0).square().sum()
    every = tuple(range(len(inputs)))
    got = torch.func.grad(loss, every)(*inputs)
    leaves = [t.clone().requires_grad_() for t in inputs]
    want = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    for a, b in zip(got, want, strict=True):
        assert_close(a, b.detach(), terms=256, magnitude=8.0)
    inner = lambda *a: sum(g.sin().sum() for g in torch.func.grad(loss, every)(*a))
    second = torch.func.grad(inner, every)(*inputs)
    again = torch.autograd.grad(sum(g.sin().sum() for g in want), leaves, allow_unused=True)
    for a, b, t in zip(second, again, inputs, strict=True):
        assert_close(a, torch.zeros_like(t) if b is None else b, terms=4096, magnitude=64.0)


def test_gather_needs_values_and_says_so() -> None:
    """The result's size is in indptr: a graph break, never a wrong size."""
    with pytest.raises(Exception):  # noqa: B017
        torch.compile(lambda s, p: segment_gather(s, p), fullgraph=True, backend="aot_eager")(values(4, 2), PTR)
    torch._dynamo.reset()
    out = torch.compile(lambda s, p: segment_gather(s, p), backend="aot_eager")(values(4, 2), PTR)
    assert_close(out, values(4, 2).repeat_interleave(PTR.diff(), 0))
