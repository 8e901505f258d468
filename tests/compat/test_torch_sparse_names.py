"""structops.compat.torch_sparse: names, signatures, TorchScript, sampling, and the installation in place of the library."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import warnings

import pytest
import structops
import structops.compat.torch_sparse as ts
import torch
from sparse_samples import matrix, same
from structops.compat.torch_sparse import SparseStorage, SparseTensor, ops
from torch import Tensor

# ---- names -----------------------------------------------------------------------------------------------------------

SIGNATURES = {
    "add": "src other", "add_": "src other", "add_nnz": "src other layout=None", "add_nnz_": "src other layout=None",
    "cat": "tensors dim", "coalesce": "index value m n op='add'", "eye": "m dtype=None device=None",
    "fill_diag": "src fill_value k=0", "from_scipy": "A", "from_torch_sparse": "A", "get_diag": "src",
    "index_select": "src dim idx", "index_select_nnz": "src idx layout=None", "masked_select": "src dim mask",
    "masked_select_nnz": "src mask layout=None", "matmul": "src other reduce='sum'", "max": "src dim=None", "mean": "src dim=None",
    "min": "src dim=None", "mul": "src other", "mul_": "src other", "mul_nnz": "src other layout=None",
    "mul_nnz_": "src other layout=None", "narrow": "src dim start length",
    "partition": "src num_parts recursive=False weighted=False node_weight=None balance_edge=False", "permute": "src perm",
    "random_walk": "src start walk_length", "remove_diag": "src k=0", "reverse_cuthill_mckee": "src is_symmetric=None",
    "saint_subgraph": "src node_idx", "sample": "src num_neighbors subset=None",
    "sample_adj": "src subset num_neighbors replace=False", "select": "src dim idx", "set_diag": "src values=None k=0",
    "spadd": "indexA valueA indexB valueB m n", "spmm": "index value m n matrix",
    "spspmm": "indexA valueA indexB valueB m k n coalesced=False", "sum": "src dim=None", "t": "src",
    "to_scipy": "index value m n", "to_torch_sparse": "index value m n", "transpose": "index value m n coalesced=True",
    "__narrow_diag__": "src start length",
    "SparseStorage": "row=None rowptr=None col=None value=None sparse_sizes=None rowcount=None colptr=None colcount=None "
    "csr2csc=None csc2csr=None is_sorted=False trust_data=False",
    "SparseTensor": "row=None rowptr=None col=None value=None sparse_sizes=None is_sorted=False trust_data=False",
}  # fmt: skip

STORAGE = ["empty", "has_row", "row", "has_rowptr", "rowptr", "col", "has_value", "value", "set_value_", "set_value", "sparse_sizes", "sparse_size", "sparse_resize", "sparse_reshape", "has_rowcount", "rowcount", "has_colptr", "colptr", "has_colcount", "colcount", "has_csr2csc", "csr2csc", "has_csc2csr", "csc2csr", "is_coalesced", "coalesce", "fill_cache_", "clear_cache_", "cached_keys", "num_cached_keys", "copy", "clone", "type", "type_as", "to_device", "device_as", "cuda", "pin_memory", "is_pinned", "share_memory_", "is_shared"]
METHODS = ["from_storage", "from_edge_index", "from_dense", "from_torch_sparse_coo_tensor", "from_torch_sparse_csr_tensor", "eye", "copy", "clone", "type", "type_as", "to_device", "device_as", "coo", "csr", "csc", "has_value", "set_value_", "set_value", "sparse_sizes", "sparse_size", "sparse_resize", "sparse_reshape", "is_coalesced", "coalesce", "fill_cache_", "clear_cache_", "fill_value_", "fill_value", "sizes", "size", "dim", "nnz", "numel", "density", "sparsity", "avg_row_length", "avg_col_length", "bandwidth", "avg_bandwidth", "bandwidth_proportion", "is_quadratic", "is_symmetric", "to_symmetric", "detach_", "detach", "requires_grad", "requires_grad_", "pin_memory", "is_pinned", "device", "cpu", "cuda", "is_cuda", "dtype", "is_floating_point", "bfloat16", "bool", "byte", "char", "half", "float", "double", "short", "int", "long", "to_dense", "to_torch_sparse_coo_tensor", "to_torch_sparse_csr_tensor", "to_torch_sparse_csc_tensor", "share_memory_", "is_shared", "to", "t", "narrow", "__narrow_diag__", "select", "index_select", "index_select_nnz", "masked_select", "masked_select_nnz", "permute", "remove_diag", "set_diag", "fill_diag", "get_diag", "sum", "mean", "min", "max", "add", "add_", "add_nnz", "add_nnz_", "mul", "mul_", "mul_nnz", "mul_nnz_", "matmul", "spmm", "spspmm", "random_walk", "partition", "reverse_cuthill_mckee", "saint_subgraph", "sample", "sample_adj", "from_scipy", "to_scipy", "__matmul__", "__getitem__", "__add__", "__radd__", "__iadd__", "__mul__", "__rmul__", "__imul__", "__repr__", "__eq__"]


def test_names():
    assert set(ts.__all__) == {*SIGNATURES, "__version__"} and ts.__version__ == "0.6.18"
    assert all(callable(getattr(SparseStorage, name)) for name in STORAGE)
    assert all(callable(getattr(SparseTensor, name)) for name in METHODS)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    parameters = inspect.signature(getattr(ts, name)).parameters.values()
    got = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    assert got == SIGNATURES[name].split()


PYG = {  # schemas by which PyG calls them
    "spmm_sum": "(Tensor? _0, Tensor _1, Tensor _2, Tensor? _3, Tensor? _4, Tensor? _5, Tensor _6) -> Tensor",
    "spmm_max": "(Tensor _0, Tensor _1, Tensor? _2, Tensor _3) -> (Tensor, Tensor)",
    "ptr2ind": "(Tensor _0, int _1) -> Tensor",
    "neighbor_sample": "(Tensor _0, Tensor _1, Tensor _2, int[] _3, bool _4, bool _5) -> (Tensor, Tensor, Tensor, Tensor)",
}


def test_dispatcher():
    for name in ops.SCHEMAS:
        getattr(torch.ops.torch_sparse, name)
    for name, schema in PYG.items():
        assert str(getattr(torch.ops.torch_sparse, name).default._schema) == f"torch_sparse::{name}{schema}"
    rows = torch.tensor([0, 0, 2])
    assert torch.ops.torch_sparse.ind2ptr(rows, 4).tolist() == [0, 2, 2, 3, 3]
    assert torch.ops.torch_sparse.ptr2ind(torch.tensor([0, 2, 2, 3, 3]), 3).equal(rows)
    assert torch.ops.torch_sparse.non_diag_mask(torch.tensor([0, 1]), torch.tensor([1, 0]), 2, 2, 0).tolist() == [False, True, True, False]
    assert isinstance(torch.ops.torch_sparse.cuda_version(), int)
    for call in (lambda: ts._index.ind2ptr(rows.flip(0), 3), lambda: ts._index.ptr2ind(rows, 3), lambda: ts._index.ptr2ind(rows[:0], 0)):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(IndexError):
        torch.ops.torch_sparse.ind2ptr(rows, 2)
    with pytest.raises(ValueError, match="rowptr"):
        torch.ops.torch_sparse.partition(rows, rows, None, 2, True)


# ---- TorchScript -----------------------------------------------------------------------------------------------------


def script_case(a: SparseTensor, x: Tensor):
    d = ts.remove_diag(ts.set_diag(ts.fill_diag(a, 2.0)), 1)
    d = ts.mul(d, ts.sum(d, dim=1).view(-1, 1))
    d = ts.mul(d, ts.max(d, dim=0).view(1, -1))
    d = ts.masked_select_nnz(d, torch.ones(d.nnz(), dtype=torch.bool), layout="coo")
    d = ts.masked_select(d, 1, torch.ones(d.size(1), dtype=torch.bool))
    d = ts.add(ts.mul(d, d), d).coalesce().fill_cache_().set_value(d.storage.value(), "csc")
    return ts.matmul(d, x, "mean"), ts.matmul(d, d).to_dense(), d.fill_value(2.0).csc(), ts.get_diag(d), d.coo()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript():
    a, _ = matrix(6, 6)
    value = a.storage.value().requires_grad_()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    got, want = torch.jit.script(script_case)(a, x), script_case(a, x)
    flat = lambda out: [t for o in out for t in (o if isinstance(o, tuple) else (o,))]
    for g, w in zip(flat(got), flat(want), strict=True):
        torch.testing.assert_close(g, w)
    for g, w in zip(torch.autograd.grad(got[0].sum(), (value, x)), torch.autograd.grad(want[0].sum(), (value, x)), strict=True):
        torch.testing.assert_close(g, w)


# ---- sampling --------------------------------------------------------------------------------------------------------


def graph(n=40, seed=0):
    a, dense = matrix(n, n, seed=seed, has_value=True)
    return a, dense


def test_random_walk():
    a, dense = graph()
    start = torch.arange(40).repeat(20)
    walk = a.random_walk(start, 5)
    assert walk.shape == (800, 6) and torch.equal(walk[:, 0], start)
    for i in range(5):
        assert (dense[walk[:, i], walk[:, i + 1]] != 0).all()
    assert len(walk[start == 0, 1].unique()) > 5
    stuck = SparseTensor(row=torch.tensor([0]), col=torch.tensor([1]), sparse_sizes=(2, 2))
    assert stuck.random_walk(torch.tensor([0, 1]), 3).tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]


def test_sample():
    a, dense = graph()
    subset = torch.tensor([3, 7, 3])
    drawn = a.sample(50, subset)
    assert drawn.shape == (3, 50) and (dense[subset[:, None], drawn] != 0).all()
    assert set(drawn[0].tolist()) > set(drawn[0, :3].tolist()) and a.sample(2).shape == (40, 2)


@pytest.mark.parametrize("k", [-1, 0, 1, 4, 100])
@pytest.mark.parametrize("replace", [False, True])
def test_sample_adj(k, replace):
    a, dense = graph()
    subset = torch.tensor([5, 0, 17])
    out, nodes = a.sample_adj(subset, k, replace)
    assert torch.equal(nodes[:3], subset) and len(nodes.unique()) == len(nodes)
    row, col, value = out.coo()
    assert torch.equal(value, dense[nodes[row], nodes[col]])
    degree = (dense[subset] != 0).sum(1)
    assert out.storage.rowcount().equal(degree if k < 0 else torch.full((3,), k) if replace else degree.clamp(max=k))
    assert replace or out.is_coalesced()
    assert out.sparse_sizes() == (3, len(nodes))


def test_sampling_without_replacement_is_uniform():
    ptr, ind = torch.tensor([0, 5]), torch.arange(5)
    edges = torch.cat([ts._sampling.draw(ptr, torch.zeros(1, dtype=torch.int64), 2, False)[1] for _ in range(2000)])
    assert ((torch.bincount(edges, minlength=5) / 4000 - 0.2).abs() < 0.03).all() and ind.numel() == 5


def test_saint_subgraph_and_relabel():
    a, dense = graph()
    nodes = torch.tensor([9, 2, 30, 4])
    out, edge = a.saint_subgraph(nodes)
    same(out, dense[nodes][:, nodes])
    assert torch.equal(a.coo()[0][edge], nodes[out.coo()[0]])
    col, ids = torch.ops.torch_sparse.relabel(torch.tensor([7, 9, 7, 2]), torch.tensor([9, 4]))
    assert col.tolist() == [2, 0, 2, 3] and ids.tolist() == [9, 4, 7, 2]
    rowptr, col, value = a.csr()
    for bipartite in (True, False):
        ptr, local, v, ids = torch.ops.torch_sparse.relabel_one_hop(rowptr, col, value, nodes, bipartite)
        assert ptr.numel() - 1 == (4 if bipartite else ids.numel()) and ptr[-1] == local.numel()
        row = torch.repeat_interleave(torch.arange(ptr.numel() - 1), ptr.diff())
        assert torch.equal(v, dense[ids[row], ids[local]]) and v.numel() == (dense[nodes] != 0).sum()


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("directed", [False, True])
def test_neighbor_sample(replace, directed):
    a, dense = graph()
    colptr, row, _ = a.csr()  # read as csc: dense[w, v] is the edge v -> w
    seeds = torch.tensor([3, 11])
    nodes, rows, cols, edges = torch.ops.torch_sparse.neighbor_sample(colptr, row, seeds, [4, 2], replace, directed)
    assert torch.equal(nodes[:2], seeds) and len(nodes.unique()) == len(nodes)
    assert torch.equal(row[edges], nodes[rows]) and torch.equal(a.coo()[0][edges], nodes[cols])
    if directed:
        assert torch.equal(torch.bincount(cols, minlength=2)[:2], torch.tensor([4, 4]))
        assert replace or len(edges.unique()) == len(edges)
    else:
        assert len(edges) == (dense[nodes][:, nodes] != 0).sum()
    everything = torch.ops.torch_sparse.neighbor_sample(colptr, row, seeds, [-1], False, True)
    assert torch.equal(everything[3].sort()[0], torch.cat([torch.arange(colptr[s], colptr[s + 1]) for s in seeds]))
    twice = torch.ops.torch_sparse.neighbor_sample(colptr, row, torch.tensor([3, 3]), [-1], False, True)
    assert twice[0][:2].tolist() == [3, 3] and torch.equal(row[twice[3]], twice[0][twice[1]])


def hetero():
    (ab, dab), (bb, dbb) = matrix(9, 6), matrix(9, 9, seed=2)  # rows are destinations: "a to b" and "b in b"
    types = [("a", "to", "b"), ("b", "in", "b")]
    names = ["__".join(t) for t in types]
    colptr = {n: s.storage.rowptr() for n, s in zip(names, (ab, bb), strict=True)}
    row = {n: s.storage.col() for n, s in zip(names, (ab, bb), strict=True)}
    return types, names, colptr, row, {names[0]: dab, names[1]: dbb}


@pytest.mark.parametrize("directed", [False, True])
def test_hetero_neighbor_sample(directed):
    types, names, colptr, row, dense = hetero()
    seeds = {"b": torch.tensor([0, 5])}
    nodes, rows, cols, edges = torch.ops.torch_sparse.hetero_neighbor_sample(
        ["a", "b"], types, colptr, row, seeds, {name: [2, 2] for name in names}, 2, False, directed
    )
    assert nodes["b"][:2].tolist() == [0, 5] and all(len(n.unique()) == len(n) for n in nodes.values())
    for t, name in zip(types, names, strict=True):
        assert torch.equal(row[name][edges[name]], nodes[t[0]][rows[name]])
        assert (dense[name][nodes[t[2]][cols[name]], nodes[t[0]][rows[name]]] != 0).all()
        if not directed:
            assert len(edges[name]) == (dense[name][nodes[t[2]]][:, nodes[t[0]]] != 0).sum()
    assert len(edges[names[0]])
    with pytest.raises(ValueError, match="2 hops"):
        torch.ops.torch_sparse.hgt_sample(colptr, row, seeds, {"b": [3, 1]}, 2)
    with pytest.raises(IndexError):
        torch.ops.torch_sparse.hetero_neighbor_sample(
            ["a", "b"], types, colptr, row, {"b": torch.tensor([9])}, {name: [2] for name in names}, 1, False, True
        )


def test_hgt_sample():
    types, names, colptr, row, dense = hetero()
    seeds = {"b": torch.tensor([0, 5])}
    nodes, rows, cols, edges = torch.ops.torch_sparse.hgt_sample(colptr, row, seeds, {"a": [2, 1], "b": [3, 1]}, 2)
    assert nodes["b"][:2].tolist() == [0, 5] and len(nodes["a"]) <= 3 and 2 < len(nodes["b"]) <= 6
    for t, name in zip(types, names, strict=True):
        assert len(nodes[t[0]].unique()) == len(nodes[t[0]])
        block = dense[name][nodes[t[2]]][:, nodes[t[0]]]
        got = torch.zeros_like(block)
        got[cols[name], rows[name]] = 1
        assert torch.equal(got != 0, block != 0) and torch.equal(row[name][edges[name]], nodes[t[0]][rows[name]])


@pytest.mark.parametrize("replace", [False, True])
def test_ego_k_hop_sample_adj(replace):
    a, dense = graph(12)
    rowptr, col, _ = a.csr()
    idx = torch.tensor([4, 0, 4])
    out_ptr, local, nodes, edges, ptr, roots = torch.ops.torch_sparse.ego_k_hop_sample_adj(rowptr, col, idx, 2, 2, replace)
    assert torch.equal(nodes[roots], idx) and ptr[-1] == nodes.numel() and out_ptr.numel() == nodes.numel() + 1
    row = torch.repeat_interleave(torch.arange(nodes.numel()), out_ptr.diff())
    graph_of = torch.repeat_interleave(torch.arange(3), ptr.diff())
    assert torch.equal(graph_of[row], graph_of[local]) and torch.equal(col[edges], nodes[local])
    for g in range(3):
        members = nodes[ptr[g] : ptr[g + 1]]
        assert len(members.unique()) == len(members) <= 1 + 2 + 4
        assert (graph_of[row] == g).sum() == (dense[members][:, members] != 0).sum()


def test_partition():
    a, _ = graph()
    out, ptr, perm = a.partition(1)
    assert out is a and ptr.tolist() == [0, 40] and perm.equal(torch.arange(40))


# ---- installation ----------------------------------------------------------------------------------------------------


def run(code: str):
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


def test_install_several():
    run("""
        import sys, structops
        structops.compat.install("torch_scatter", "torch_sparse")
        structops.compat.install("torch_sparse")
        import torch_scatter, torch_sparse
        from torch_sparse.storage import SparseStorage, get_layout
        from torch_sparse.matmul import spmm_max
        from torch_sparse.tensor import SparseTensor
        assert torch_sparse is sys.modules["structops.compat.torch_sparse"] and torch_scatter.__version__ == "2.1.2"
        assert isinstance(torch_sparse.SparseTensor.eye(2), SparseTensor) and callable(torch_sparse.spmm)
        structops.compat.torch_sparse.uninstall()
        assert "torch_sparse" not in sys.modules and "torch_sparse.tensor" not in sys.modules
        """)


def test_install_is_all_or_nothing():
    run("""
        import sys, types, structops
        real = sys.modules["torch_sparse"] = types.ModuleType("torch_sparse")
        try:
            structops.compat.install("torch_scatter", "torch_sparse")
        except RuntimeError as error:
            assert "torch_sparse is imported already" in str(error)
        else:
            raise AssertionError
        assert "torch_scatter" not in sys.modules and sys.modules["torch_sparse"] is real
        """)


def test_install_after_pyg_raises():
    run("""
        import sys, types, structops
        sys.modules["torch_geometric"] = types.ModuleType("torch_geometric")
        try:
            structops.compat.install("torch_sparse")
        except RuntimeError as error:
            assert "torch_geometric is imported already" in str(error)
        else:
            raise AssertionError
        """)


def test_install_errors():
    for names in ((), ("torch_cluster",), ("torch_sparse", "e3nn")):
        with pytest.raises(ValueError, match="torch_scatter, torch_sparse"):
            structops.compat.install(*names)
    assert "torch_sparse" not in sys.modules


def test_import_is_quiet():
    run("""
        import warnings
        warnings.simplefilter("error")
        import structops.compat.torch_sparse
        """)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SparseTensor(row=torch.tensor([0]), col=torch.tensor([0])).fill_cache_()
