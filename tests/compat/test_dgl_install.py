"""structops.compat.dgl inside an imported DGL: the same layers and operators before and after install(), in other processes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap

import pytest

# DGL 2.1 imports modules that it does not need here: graphbolt, built for other versions of torch, torchdata and pandas.
IMPORT = """
import sys, types
for name in ("dgl.graphbolt", "torchdata", "torchdata.datapipes", "torchdata.datapipes.iter", "torchdata.dataloader2",
             "torchdata.dataloader2.graph", "pandas"):
    sys.modules.setdefault(name, types.ModuleType(name))
import dgl
import dgl.function as fn
import structops
import structops.compat.dgl as ours
import torch

torch.set_num_threads(1)
torch.manual_seed(0)
dgl.seed(0)
"""


def run(program):
    done = subprocess.run([sys.executable, "-c", IMPORT + textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module", autouse=True)
def importable():
    if importlib.util.find_spec("dgl") is None:
        pytest.skip("DGL is not installed")
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"DGL cannot be imported: {done.stderr.strip().splitlines()[-1]}")


# ``results()`` of a program before install, after it, and after uninstall; each a list of tensors.
COMPARE = """
def same(a, b):
    assert len(a) == len(b) > 0
    for x, y in zip(a, b):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)

before = results()
ours.install(); ours.install()
from structops import sparse
called, calls = [], {name: getattr(sparse, name) for name in ("spmm", "sddmm", "edge_softmax", "segment_reduce",
    "segment_matmul", "typed_matmul", "scatter_softmax")}
for name, function in calls.items():
    def counted(*args, _name=name, _function=function, **kwargs):
        called.append(_name)
        return _function(*args, **kwargs)
    setattr(sparse, name, counted)
same(before, results())
assert needed <= set(called), called
ours.uninstall()
del called[:]
same(before, results())
assert not called
"""

LAYERS = {
    "GraphConv": ("dgl.nn.GraphConv(8, 6)", "layer(g, x)", "spmm"),
    "GraphConv weights": ("dgl.nn.GraphConv(8, 6, norm='right')", "layer(g, x, edge_weight=w[:, 0])", "spmm"),
    "GATConv": ("dgl.nn.GATConv(8, 6, 3)", "layer(g, x)", "spmm sddmm edge_softmax"),
    "GATv2Conv": ("dgl.nn.GATv2Conv(8, 6, 3)", "layer(g, x)", "spmm sddmm edge_softmax"),
    "SAGEConv mean": ("dgl.nn.SAGEConv(8, 6, 'mean')", "layer(g, x)", "spmm"),
    "SAGEConv pool": ("dgl.nn.SAGEConv(8, 6, 'pool')", "layer(g, x)", "spmm"),
    "PNAConv": ("dgl.nn.PNAConv(8, 6, ['mean', 'max', 'sum'], ['identity'], 2.5)", "layer(g, x)", ""),
    "GINConv": ("dgl.nn.GINConv(torch.nn.Linear(8, 6), 'max')", "layer(g, x)", "spmm"),
    "RelGraphConv": ("dgl.nn.RelGraphConv(8, 6, 4)", "layer(g, x, kind)", "spmm typed_matmul"),
    "RelGraphConv sorted": ("dgl.nn.RelGraphConv(8, 6, 4)", "layer(g, x, kind.sort()[0], presorted=True)", "spmm segment_matmul"),
    "HGTConv": ("dgl.nn.HGTConv(8, 3, 2, 3, 4)", "layer(g, x, ntype, kind)", "spmm typed_matmul edge_softmax"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_agree(name):
    build, call, needed = LAYERS[name]
    run(f"""
        g = dgl.add_self_loop(dgl.rand_graph(30, 150))
        x, w = torch.randn(30, 8, requires_grad=True), torch.rand(180, 1) + 0.5
        kind, ntype = torch.randint(4, (180,)), torch.randint(3, (30,))
        layer = {build}
        needed = set({needed.split()!r})

        def results():
            torch.manual_seed(1)
            out = {call}
            inputs = [x, *(p for p in layer.parameters() if p.requires_grad)]
            grads = torch.autograd.grad(out.sin().sum(), inputs, allow_unused=True)
            return [out, *(t for t in grads if t is not None)]
        """ + textwrap.indent(COMPARE, " " * 8))  # fmt: skip


def test_message_passing_agrees():
    run("""
        g = dgl.rand_bipartite("a", "to", "b", 20, 30, 60)
        for fmt in ("coo", "csr", "csc"):
            h = g.formats(fmt)
            assert ours._backend.relations(h)[0].graph.edge_index().tolist() == torch.stack(g.edges(order="eid")).tolist()
        draw = lambda n: torch.randn(n, 2, 3)
        apart = lambda t: t.sign() * (t.abs() + 0.5)  # of divisors from 0
        x, y, w = (t.requires_grad_() for t in (draw(20), draw(30), apart(draw(60))))
        needed = {"spmm", "sddmm", "segment_reduce"}

        def results():
            out = []
            g.srcdata["x"], g.dstdata["y"], g.edata["w"] = x, y, w
            for message in (fn.u_add_e("x", "w", "m"), fn.u_sub_e("x", "w", "m"), fn.u_mul_e("x", "w", "m"), fn.copy_u("x", "m"),
                            fn.u_div_e("x", "w", "m"), fn.copy_e("w", "m")):
                for reduce in (fn.sum, fn.mean, fn.max, fn.min):
                    g.update_all(message, reduce("m", "h"))
                    out.append(g.dstdata["h"])
            for name in ("u_add_v", "u_dot_v", "v_sub_u", "e_mul_v", "u_div_e", "u_sub_e"):
                end = {"u": "x", "v": "y", "e": "w"}
                g.apply_edges(getattr(fn, name)(end[name[0]], end[name[-1]], "r"))
                out.append(g.edata["r"])
            eids = torch.tensor([3, 0, 59, 7, 8], dtype=g.idtype)
            out += [dgl.ops.edge_softmax(g, w, norm_by="src"), dgl.ops.edge_softmax(g, w[:5], eids)]
            many = dgl.batch([dgl.rand_graph(5, 8), dgl.rand_graph(0, 0), dgl.rand_graph(3, 2)])
            many.ndata["h"] = x[:8]
            out += [dgl.readout_nodes(many, "h", op=op) for op in ("sum", "max", "min", "mean")]
            return [*out, *torch.autograd.grad(sum(t.sin().sum() for t in out), (x, y, w))]
        """ + textwrap.indent(COMPARE, " " * 8))  # fmt: skip


def test_heterographs_agree():
    run("""
        ends = lambda a, b, n: (torch.randint(a, (n,)), torch.randint(b, (n,)))
        g = dgl.heterograph({("u", "f", "u"): ends(6, 6, 9), ("u", "p", "v"): ends(6, 5, 8), ("w", "q", "v"): ends(4, 5, 7)},
                            num_nodes_dict={"u": 6, "v": 5, "w": 4})
        x = {t: torch.randn(g.num_nodes(t), 3, requires_grad=True) for t in g.ntypes}
        e = {t: torch.randn(g.num_edges(t), 3, requires_grad=True) for t in g.canonical_etypes}
        needed = {"spmm", "sddmm", "scatter_softmax"}

        def results():
            out = []
            for t in g.ntypes:
                g.nodes[t].data["x"] = x[t]
            for t in g.canonical_etypes:
                g.edges[t].data["e"] = e[t]
            for message, reduce in ((fn.copy_u("x", "m"), fn.sum), (fn.copy_u("x", "m"), fn.max), (fn.copy_e("e", "m"), fn.min),
                                    (fn.u_mul_e("x", "e", "m"), fn.sum), (fn.u_add_e("x", "e", "m"), fn.sum)):
                g.update_all(message, reduce("m", "h"))
                out += [g.nodes[t].data["h"] for t in ("u", "v")]
                g.multi_update_all({t: (message, reduce("m", "h")) for t in g.canonical_etypes}, "max")
                out += [g.nodes[t].data["h"] for t in ("u", "v")]
            g.apply_edges(fn.u_add_v("x", "x", "r"))
            out += [g.edges[t].data["r"] for t in g.canonical_etypes]
            for norm_by in ("src", "dst"):
                out += dgl.ops.edge_softmax(g, e, norm_by=norm_by).values()
            return [*out, *torch.autograd.grad(sum(t.sin().sum() for t in out), [*x.values(), *e.values()])]
        """ + textwrap.indent(COMPARE, " " * 8))  # fmt: skip


def test_ops_take_dgl_graphs():
    run("""
        g = dgl.graph(([0, 1, 2, 0], [1, 1, 0, 0]), num_nodes=4, idtype=torch.int32)
        same = structops.Graph(torch.tensor([[0, 1, 2, 0], [1, 1, 0, 0]]), num_nodes=4)
        x, e = torch.randn(4, 2), torch.randn(4, 1)
        for name in ("u_mul_e_max", "u_mul_e_mean", "u_sub_e"):
            function = getattr(ours.ops, name)
            assert torch.equal(function(g, x, e), function(same, x, e))
        assert ours._backend.relations(g)[0].graph is ours._backend.relations(g)[0].graph
        ours.install()
        assert ours._backend.relations(g)[0].graph is ours._backend.relations(g["_E"])[0].graph
        assert g["_E"]["_E"]._graph is g["_E"]._graph
        ours.uninstall()
        assert g["_E"]._graph is not g["_E"]._graph
        assert dgl.ops.u_mul_e_max(g, x, e)[3].isinf().all() and not ours.ops.u_mul_e_max(g, x, e)[3].any()
        g.add_edges([3], [3])
        assert ours.ops.copy_u_sum(g, x)[3].equal(x[3])

        h = dgl.heterograph({("u", "f", "u"): ([0, 1], [1, 1]), ("w", "q", "u"): ([0, 0], [1, 2])}, num_nodes_dict={"u": 4, "w": 1})
        a, b = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([[-1.0]])
        out = ours.ops.copy_u_max(h, [a, b])
        assert out[0].flatten().tolist() == [0.0, 2.0, -1.0, 0.0] and out[1].numel() == 0
        assert ours.ops.u_add_v(h, [a, b], [a, b])[1].flatten().tolist() == [1.0, 2.0]
        scores = ours.ops.edge_softmax(h, {"f": torch.zeros(2), "q": torch.zeros(2)})
        assert scores["w", "q", "u"].tolist() == [1 / 3, 1.0] or torch.allclose(scores["w", "q", "u"], torch.tensor([1 / 3, 1.0]))
        for call in (lambda: ours.ops.copy_u_mean(h, [a, b]), lambda: ours.ops.edge_softmax(h, {"f": torch.zeros(2)}),
                     lambda: ours._backend.gspmm(h._graph, "copy_lhs", "sum", a, None)):
            try:
                call()
            except ValueError:
                pass
            else:
                raise AssertionError
        """)


def test_second_derivative_of_edge_softmax_is_right_once_installed():
    run("""
        g = dgl.graph(([0, 1, 2, 0], [1, 1, 0, 0]))
        logits = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
        function = lambda t: dgl.ops.edge_softmax(g, t)
        ours.install()
        assert torch.autograd.gradcheck(function, logits) and torch.autograd.gradgradcheck(function, logits)
        layer = dgl.nn.GATConv(3, 2, 2).double()
        x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
        g = dgl.add_self_loop(g)
        assert torch.autograd.gradgradcheck(lambda t: layer(g, t), x)
        """)
