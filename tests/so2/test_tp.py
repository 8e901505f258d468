"""tp_conv, tp_conv_edge and TensorProduct: values, derivatives, symmetry, structure, determinism."""

from __future__ import annotations

import itertools

import pytest
import torch
from compare import assert_close, assert_same
from rotations import act, crystal, random_graph, random_rotation
from structops import Graph, backends
from structops.kernels.so2 import tp_ref
from structops.so2 import Irreps, TensorProduct, channelwise_instructions, spherical_harmonics, tp_conv, wigner_3j
from structops.so2._tp_ops import reverse
from structops.so2.tensor_product import by_sender
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

FILTER = "0e+1o+2e+3o"
ops = torch.ops.structops


def channelwise(
    irreps: str, keep: str = "0e+0o+1o+1e+2e+2o", sh: str = FILTER, layout: str = "mul_ir", weighted: bool = True
) -> TensorProduct:
    out, paths = channelwise_instructions(irreps, sh, keep)
    return TensorProduct(irreps, sh, out, [(*p[:4], weighted) for p in paths], shared_weights=False, layout=layout)


def operands(product: TensorProduct, graph: Graph, dtype=torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = (
        (graph.num_src, product.irreps_in1.dim),
        (graph.num_edges, product.irreps_in2.dim),
        (graph.num_edges, product.weight_numel),
    )
    x, y, w = (torch.randn(*s, generator=g, dtype=torch.float64).to(dtype) for s in shapes)
    return x, y, w


def dense(product: TensorProduct, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Row by row with the dense tables, an oracle of its own: mode uvu, one copy of each term of y, layout mul_ir."""
    outs = [torch.zeros(x.shape[0], t.mul, t.dim, dtype=x.dtype) for t in product.irreps_out]
    at = 0
    for i in product.instructions:
        a, b, c = product.irreps_in1[i.i_in1], product.irreps_in2[i.i_in2], product.irreps_out[i.i_out]
        table = wigner_3j(a.l, b.l, c.l, dtype=x.dtype) * i.path_weight
        xs = x[:, product.irreps_in1.slices()[i.i_in1]].reshape(-1, a.mul, a.dim)
        ys = y[:, product.irreps_in2.slices()[i.i_in2]]
        message = torch.einsum("zui,zj,ijk->zuk", xs, ys, table)
        if i.has_weight:
            message = message * w[:, at : at + a.mul, None]
            at += a.mul
        outs[i.i_out] = outs[i.i_out] + message
    return torch.cat([o.flatten(1) for o in outs], 1)


def oracle(product: TensorProduct, graph: Graph, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    src, dst = graph.edge_index().long()
    out = torch.zeros(graph.num_dst, product.irreps_out.dim, dtype=x.dtype)
    return out.index_add(0, dst, dense(product, x[src], y, w))


@pytest.mark.parametrize("mul", [1, 3, 48, 130, 257])
def test_against_dense_tables(mul: int, isa: str, on_threads, poison) -> None:
    irreps = f"{mul}x0e+{max(mul // 2, 1)}x1o+2x2e"
    graph = random_graph(9, 70)
    product = channelwise(irreps)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x, y, w = operands(product, graph, dtype)
        got = on_threads(lambda: tp_conv(graph, x, y, w, product))
        want = oracle(product, graph, x.double(), y.double(), w.double())
        assert_close(got, want, dtype, terms=400, magnitude=4.0)
        got = product(x[graph.edge_index()[0].long()], y, w)
        assert_close(
            got, dense(product, x.double()[graph.edge_index()[0].long()], y.double(), w.double()), dtype, terms=40, magnitude=4.0
        )


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
@pytest.mark.parametrize("weighted", [True, False])
def test_operators_against_the_reference(layout: str, weighted: bool, isa: str, on_threads, poison) -> None:
    """tp_conv both ways round and tp_conv_edge, alone and on a graph, each of its results alone too."""
    product = channelwise("150x0e+3x1o+33x2e", layout=layout, weighted=weighted)
    plan = (product.spec.weighted or product.spec.plain).on(torch.device("cpu"))
    graph = random_graph(5, 41)
    for dtype, s in itertools.product(
        (torch.float64, torch.float32), ((*graph.structure[:3], *graph.reversed_structure), (None,) * 6)
    ):
        rows = 5 if s[0] is not None else 41
        x, y, w = operands(product, graph, dtype)
        x = torch.randn(rows, x.shape[1], generator=torch.Generator().manual_seed(1)).to(dtype)
        w = w if weighted else None
        g = torch.randn(rows, product.irreps_out.dim, generator=torch.Generator().manual_seed(2)).to(dtype)
        for args in ((x, y, w, *s, *plan, False), (g, y, w, *reverse(s), *plan, True)):
            got = on_threads(lambda: ops.tp_conv(*args))
            want = tp_ref.tp_conv(*(t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in args))
            assert_close(got, want, dtype, terms=400, magnitude=4.0)
        wants = [(True, weighted), (True, False), *([(False, True)] if weighted else [])]
        for want_y, want_w in wants:
            args = (x, g, y, w, *s, *plan, want_y, want_w)
            got = on_threads(lambda: ops.tp_conv_edge(*args))
            want = tp_ref.tp_conv_edge(*(t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in args))
            for a, b in zip(got, want, strict=True):
                assert_close(a, b, dtype, terms=2000, magnitude=4.0)


def test_channelwise_instructions_are_in_the_order_of_e3nn():
    out, paths = channelwise_instructions("4x0e+3x1o", "0e+1o+2e")
    assert str(out) == "4x0e+3x0e+4x1o+3x1o+3x1o+3x1e+3x2o+4x2e+3x2e+3x3o"
    assert [(i, j) for i, j, *_ in paths] == [(0, 0), (1, 1), (0, 1), (1, 0), (1, 2), (1, 1), (1, 2), (0, 2), (1, 1), (1, 2)]


def test_gradients() -> None:
    product, graph = channelwise("3x0e+2x1o", sh="0e+1o+2e"), random_graph(4, 7)
    args = tuple(t.requires_grad_() for t in operands(product, graph))
    f = lambda x, y, w: tp_conv(graph, x, y, w, product)
    assert gradcheck(f, args) and gradgradcheck(f, args)
    alone = (args[0].detach()[:3].requires_grad_(), args[1].detach()[:3].requires_grad_(), args[2].detach()[:3].requires_grad_())
    assert gradcheck(product, alone) and gradgradcheck(product, alone)


def test_three_orders_against_dense_tables(isa: str) -> None:
    product, graph = channelwise("19x0e+5x1o+3x2e"), random_graph(6, 30)
    results = []
    for f in (oracle, lambda p, g, *a: tp_conv(g, *a, p)):
        args = [t.requires_grad_() for t in operands(product, graph)]
        first = torch.autograd.grad(f(product, graph, *args).sin().sum(), args, create_graph=True)
        second = torch.autograd.grad(sum(t.square().sum() for t in first), args, create_graph=True)
        results.append([*first, *second, *torch.autograd.grad(sum(t.square().sum() for t in second), args)])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= 1e-12 * a.abs().max()


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
def test_equivariance(layout: str) -> None:
    """Rotations of the positions and of the features rotate the result; the inversion too."""
    product, graph = channelwise("5x0e+3x1o+2x2e+2x1e", "0e+0o+1o+1e+2e+2o+3o", layout=layout), random_graph(6, 40)
    x, _, w = operands(product, graph)
    v = torch.randn(graph.num_edges, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    run = lambda x, v: tp_conv(graph, x, spherical_harmonics(range(4), v, True), w, product)
    for seed, inversion in ((0, False), (1, True)):
        R = random_rotation(seed)
        turned = run(act(product.irreps_in1, x, R, inversion, layout), (-1 if inversion else 1) * (v @ R.T))
        assert (turned - act(product.irreps_out, run(x, v), R, inversion, layout)).abs().max() < 1e-12


def test_layouts_agree() -> None:
    graph = random_graph(6, 30)
    a, b = (channelwise("17x0e+3x1o", layout=layout) for layout in ("mul_ir", "ir_mul"))
    x, y, w = operands(a, graph)

    def turned(irreps: Irreps, t: Tensor) -> Tensor:
        return torch.cat(
            [
                t[:, s].reshape(-1, k.mul, k.dim).transpose(1, 2).reshape(len(t), -1)
                for k, s in zip(irreps, irreps.slices(), strict=True)
            ],
            1,
        )

    assert_same(tp_conv(graph, turned(a.irreps_in1, x), y, w, b), turned(a.irreps_out, tp_conv(graph, x, y, w, a)))


def test_permuted_edges_give_the_same_bits() -> None:
    """Values and gradients, in whatever order the edges of a simple graph are listed."""
    pairs = torch.combinations(torch.arange(9), 2).T
    index = torch.cat([pairs, pairs.flip(0)], 1)
    product = channelwise("20x0e+3x1o")
    x, y, w = operands(product, Graph(index, num_nodes=9), torch.float32)
    results = []
    for seed in (0, 1):
        order = torch.randperm(index.shape[1], generator=torch.Generator().manual_seed(seed))
        args = [t.clone().requires_grad_() for t in (x, y[order], w[order])]
        out = tp_conv(Graph(index[:, order], num_nodes=9), *args, product)
        gx, gy, gw = torch.autograd.grad(out.sin().sum(), args)
        results.append((out.detach(), gx, gy[order.argsort()], gw[order.argsort()]))
    for a, b in zip(*results, strict=True):
        assert_same(b, a)


@pytest.mark.parametrize(("N", "E"), [(1, 0), (1, 5), (4, 0), (3, 1)])
def test_small_graphs(N: int, E: int, isa: str, poison) -> None:
    product, graph = channelwise("3x0e+2x1o"), random_graph(N, E)
    args = [t.requires_grad_() for t in operands(product, graph)]
    out = tp_conv(graph, *args, product)
    assert_close(out.detach(), oracle(product, graph, *args).detach(), terms=40)
    for a, b in zip(
        torch.autograd.grad(out.sum(), args), torch.autograd.grad(oracle(product, graph, *args).sum(), args), strict=True
    ):
        assert_close(a, b, terms=40)
    assert out[graph.in_degrees() == 0].abs().sum() == 0


def test_nan_stays_in_its_channel() -> None:
    product, graph = channelwise("20x0e+3x1o"), random_graph(5, 20)
    x, y, w = operands(product, graph)
    x[graph.edge_index()[0][0], 0] = float("nan")
    bad = tp_conv(graph, x, y, w, product).isnan()
    assert bad.any() and not bad[:, 1:20].any()
    assert torch.equal(bad, oracle(product, graph, x, y, w).isnan())


def test_forces_of_a_crystal() -> None:
    """Energy, forces and a force-matching gradient on copper, many of whose edges lie along y, against dense tables."""
    graph, positions, shift, (src, dst) = crystal(cutoff=3.7)
    product = channelwise("4x0e+3x1o", sh="0e+1o+2e")
    g = torch.Generator().manual_seed(0)
    x = torch.randn(graph.num_src, product.irreps_in1.dim, dtype=torch.float64, generator=g)
    mix = torch.randn(3, product.weight_numel, dtype=torch.float64, generator=g)
    results = []
    for conv in (lambda *a: tp_conv(graph, *a, product), lambda *a: oracle(product, graph, *a)):
        p, m = positions.clone().requires_grad_(), mix.clone().requires_grad_()
        v = p[src] - p[dst] + shift
        r = v.norm(dim=1, keepdim=True)
        energy = conv(x, spherical_harmonics(range(3), v, True), torch.cat([r, r.square(), r.cos()], 1) @ m).square().sum()
        (forces,) = torch.autograd.grad(energy, p, create_graph=True)
        results.append((energy.detach(), forces.detach(), *torch.autograd.grad(forces.square().sum(), (p, m))))
    along_y = (v[:, [0, 2]].abs().sum(1) == 0).sum()
    assert along_y > 0
    for a, b in zip(*results, strict=True):
        assert a.isfinite().all() and (a - b).abs().max() <= 1e-9 * max(1.0, float(b.abs().max()))


MODES = [
    ("uvw", "2x0e+1x1o", "1x0e+2x1o", "2x0e+3x1o", [(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1)]),
    ("uvu", "3x0e+2x1o", "2x0e+3x1o", "3x1o+2x1o+2x1e", [(0, 1, 0), (1, 0, 1), (1, 1, 2)]),
    ("uvv", "3x0e+2x1o", "2x0e+3x1o", "3x1o+2x1o+3x1e", [(0, 1, 0), (1, 0, 1), (1, 1, 2)]),
    ("uuw", "3x0e+2x1o", "3x1o+2x1o", "4x1o+5x0e", [(0, 0, 0), (1, 1, 1)]),
    ("uuu", "3x0e+2x1o", "3x1o+2x1o", "3x1o+2x2e", [(0, 0, 0), (1, 1, 1)]),
    ("uvuv", "3x0e+2x1o", "2x0e+3x1o", "9x1o+4x1o", [(0, 1, 0), (1, 0, 1)]),
    ("uvu<v", "3x1o", "3x1o", "3x1e", [(0, 0, 0)]),
    ("u<vw", "3x1o", "3x1o", "4x2e", [(0, 0, 0)]),
]


@pytest.mark.parametrize("layout", ["mul_ir", "ir_mul"])
@pytest.mark.parametrize("weights", ["shared", "each", "none"])
@pytest.mark.parametrize(("mode", "in1", "in2", "out", "paths"), MODES, ids=[m[0] for m in MODES])
def test_modes(mode, in1, in2, out, paths, weights: str, layout: str) -> None:
    """Every mode is equivariant, differentiable twice, and the same on a graph as edge by edge."""
    instructions = [(*p, mode, weights != "none", 0.5 + n) for n, p in enumerate(paths)]
    if weights == "none" and mode in ("uvw", "uuw", "u<vw"):
        pytest.skip("without weights these modes add channels up: not in e3nn")
    product = TensorProduct(in1, in2, out, instructions, shared_weights=weights == "shared", internal_weights=False, layout=layout)
    graph = random_graph(4, 9)
    x, y, w = operands(product, graph)
    w = None if weights == "none" else w[0] if weights == "shared" else w
    src, dst = graph.edge_index().long()
    edge = product(x[src], y, w)
    assert (
        tp_conv(graph, x, y, w, product) - torch.zeros(4, edge.shape[1], dtype=edge.dtype).index_add(0, dst, edge)
    ).abs().max() < 1e-12
    R = random_rotation(2)
    turned = product(*(act(i, t, R, True, layout) for i, t in ((product.irreps_in1, x[src]), (product.irreps_in2, y))), w)
    assert (turned - act(product.irreps_out, edge, R, True, layout)).abs().max() < 1e-12
    args = [t.requires_grad_() for t in (x, y, w) if t is not None]
    f = lambda *a: tp_conv(graph, *a, *([None] if w is None else []), product)
    assert gradcheck(f, args) and gradgradcheck(f, args, nondet_tol=0.0)


@pytest.mark.parametrize("weights", ["shared", "each"])
@pytest.mark.parametrize(("mode", "in1", "in2", "out", "paths"), MODES, ids=[m[0] for m in MODES])
def test_modes_equal_e3nn(mode, in1, in2, out, paths, weights: str) -> None:
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        instructions = [(*p, mode, True, 0.5 + n) for n, p in enumerate(paths)]
        for irrep, path in (("component", "element"), ("norm", "path")):
            kwargs = {
                "shared_weights": weights == "shared",
                "internal_weights": False,
                "irrep_normalization": irrep,
                "path_normalization": path,
            }
            kwargs["in1_var"] = [0.5 + n for n in range(len(Irreps(in1)))]
            theirs, ours = (t(in1, in2, out, instructions, **kwargs) for t in (o3.TensorProduct, TensorProduct))
            assert theirs.weight_numel == ours.weight_numel
            assert [tuple(i) for i in theirs.instructions] == [tuple(i) for i in ours.instructions]
            assert torch.equal(theirs.output_mask, ours.output_mask)
            x, y, w = torch.randn(5, ours.irreps_in1.dim), torch.randn(5, ours.irreps_in2.dim), torch.randn(5, ours.weight_numel)
            w = w[0] if weights == "shared" else w
            assert torch.allclose(theirs(x, y, w), ours(x, y, w), rtol=1e-12, atol=1e-12)
    finally:
        torch.set_default_dtype(before)


def test_compile_and_export() -> None:
    product, graph = channelwise("3x0e+2x1o"), random_graph(4, 9)
    x, y, w = operands(product, graph)
    f = lambda x, y, w: tp_conv(graph, x, y, w, product)
    got = torch.compile(f, fullgraph=True, backend="aot_eager")
    a, b = ([t.clone().requires_grad_() for t in (x, y, w)] for _ in range(2))
    assert_same(got(*a).detach(), f(*b).detach())
    for s, t in zip(torch.autograd.grad(got(*a).square().sum(), a), torch.autograd.grad(f(*b).square().sum(), b), strict=True):
        assert_close(s, t, terms=100)
    torch._dynamo.reset()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.product = product

        def forward(self, x, v, w):
            return self.product(x, spherical_harmonics(range(4), v, True), w)

    args = (x[:1].expand(9, -1).contiguous(), torch.randn(9, 3, dtype=torch.float64), w)
    program = torch.export.export(Model(), args)
    assert_same(program.module()(*args), Model()(*args))


def test_saved_memory() -> None:
    """x, y and w are all that is kept for the backward, besides the structure and the plan."""
    product, graph = channelwise("64x0e+64x1o"), random_graph(8, 200)
    args = [t.float().requires_grad_() for t in operands(product, graph)]
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        tp_conv(graph, *args, product)
    plan = product.spec.weighted
    known = {t.data_ptr() for t in (*args, *by_sender(graph, True), *plan.constants.tensors) if t is not None}
    assert set(kept) <= known


def test_reference_backend() -> None:
    product, graph = channelwise("2x0e+1x1o", sh="0e+1o"), random_graph(3, 5)
    args = operands(product, graph)
    with backends.override("reference"):
        want = tp_conv(graph, *args, product)
    assert_close(tp_conv(graph, *args, product), want, terms=20)


def bad_calls():
    graph = random_graph(4, 9)
    product = channelwise("3x0e+2x1o")
    x, y, w = operands(product, graph)
    make = lambda *paths, **k: TensorProduct("3x0e+2x1o", "0e+1o", "3x0e+2x1o", list(paths), **k)
    return [
        (TypeError, "graph", lambda: tp_conv(None, x, y, w, product)),
        (TypeError, "product", lambda: tp_conv(graph, x, y, w, None)),
        (ValueError, "x of shape", lambda: tp_conv(graph, x[:3], y, w, product)),
        (ValueError, "y of shape", lambda: tp_conv(graph, x, y[:, :3], w, product)),
        (TypeError, "y of dtype", lambda: tp_conv(graph, x, y.float(), w, product)),
        (ValueError, "weight of shape", lambda: tp_conv(graph, x, y, w[:3], product)),
        (ValueError, "weight of shape", lambda: tp_conv(graph, x, y, w[:, 1:], product)),
        (TypeError, "weight", lambda: tp_conv(graph, x, y, None, product)),
        (TypeError, "x of dtype", lambda: product(x.long(), y, w)),
        (ValueError, "broadcast", lambda: product(x, y, w)),
        (IndexError, r"instructions\[0\]", lambda: make((2, 0, 0, "uvu", True))),
        (ValueError, r"instructions\[0\]", lambda: make((0, 1, 0, "uvu", True))),
        (ValueError, "mode", lambda: make((0, 0, 0, "uvx", True))),
        (ValueError, "multiplicities", lambda: make((1, 1, 0, "uvu", True))),
        (ValueError, "layout", lambda: make((0, 0, 0, "uvu", True), layout="other")),
        (ValueError, "in1_var", lambda: make((0, 0, 0, "uvu", True), in1_var=[1.0])),
        (ValueError, "shared_weights", lambda: make((0, 0, 0, "uvu", True), internal_weights=True, shared_weights=False)),
    ]


@pytest.mark.parametrize("n", range(17))
def test_bad_input(n: int) -> None:
    kind, name, call = bad_calls()[n]
    with pytest.raises(kind, match=name):
        call()
