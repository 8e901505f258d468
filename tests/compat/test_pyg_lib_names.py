"""structops.compat.pyg_lib: names, signatures, the dispatcher, the installation and what PyG takes of it."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
import textwrap

import pytest
import structops.compat.pyg_lib as pyg
import torch
from structops.compat.pyg_lib import _names, ops

SCATTER = ["src", "index", "dim=-1", "out=None", "dim_size=None"]
COO, CSR = ["src", "index", "out=None", "dim_size=None"], ["src", "indptr", "out=None"]
SIGNATURES = {
    **{f"scatter_{r}": SCATTER for r in ("sum", "add", "mul", "mean", "min", "max")},
    **{f"segment_{r}_coo": COO for r in ("sum", "add", "mean", "min", "max")},
    **{f"segment_{r}_csr": CSR for r in ("sum", "add", "mean", "min", "max")},
    **{f"sampled_{r}": ["left", "right", "left_index=None", "right_index=None"] for r in ("add", "sub", "mul", "div")},
    "scatter": [*SCATTER, "reduce='sum'"],
    "segment_coo": [*COO, "reduce='sum'"],
    "segment_csr": [*CSR, "reduce='sum'"],
    "gather_coo": ["src", "index", "out=None"],
    "gather_csr": CSR,
    "scatter_softmax": ["src", "index", "dim=-1", "dim_size=None"],
    "scatter_log_softmax": ["src", "index", "dim=-1", "dim_size=None", "eps=1e-12"],
    "scatter_logsumexp": [*SCATTER, "eps=1e-12"],
    "scatter_std": [*SCATTER, "unbiased=True"],
    "grouped_matmul": ["inputs", "others", "biases=None"],
    "segment_matmul": ["inputs", "ptr", "other", "bias=None"],
    "index_sort": ["inputs", "max_value=None"],
    "softmax_csr": ["src", "ptr", "dim=0"],
    "fused_scatter_reduce": ["inputs", "index", "dim_size", "reduce_list"],
}


def test_names():
    assert set(ops.__all__) == set(SIGNATURES)
    assert ops.scatter_add is ops.scatter_sum and ops.segment_add_csr is ops.segment_sum_csr
    for name in ops._ABSENT:
        assert not hasattr(ops, name)
    with pytest.raises(ImportError):
        from structops.compat.pyg_lib.ops import spline_basis  # noqa: F401


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    parameters = inspect.signature(getattr(ops, name)).parameters.values()
    assert [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters] == SIGNATURES[name]


def test_sampler_shows_the_parameters_that_pyg_reads():
    assert {"edge_time", "edge_weight"} <= set(inspect.signature(pyg.sampler.neighbor_sample).parameters)


@pytest.mark.parametrize("name", _names.SCHEMAS)
def test_dispatcher(name):
    schema = getattr(torch.ops.pyg, name).default._schema
    assert len(schema.arguments) == _names.SCHEMAS[name].split(" -> ")[0].count("=") + sum(
        not a.has_default_value() for a in schema.arguments
    )
    src, index, indptr = torch.randn(4, 2), torch.tensor([0, 0, 1, 3]), torch.tensor([0, 2, 3, 3, 4])
    where = (index, 0) if name.startswith("scatter") else (indptr,) if name.endswith("csr") else (index,)
    if name.startswith(("scatter", "segment_m", "segment_s", "gather")) and name != "segment_matmul":
        got, want = getattr(torch.ops.pyg, name)(src, *where), getattr(ops, name)(src, *where)
        pairs = zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_of_the_dispatcher():
    @torch.jit.script
    def largest(src: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.ops.pyg.scatter_max(src, index, 0, None, 3)[0]

    assert largest(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0, 0, 2])).tolist() == [5.0, 0.0, 2.0]


# ---- install ---------------------------------------------------------------------------------------------------------


def run(program):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_install_and_uninstall():
    run("""
        import sys
        import structops.compat.pyg_lib as ours
        ours.install(); ours.install()
        import pyg_lib, pyg_lib.sampler
        from pyg_lib.ops.scatter_reduce import fused_scatter_reduce
        from pyg_lib.testing import onlyCUDA, onlyTriton, withCUDA, withSeed
        assert pyg_lib is ours and pyg_lib.ops.fused_scatter_reduce is fused_scatter_reduce
        assert isinstance(pyg_lib.cuda_version(), int)
        assert "torch_scatter" not in sys.modules and "structops.compat.torch_scatter" not in sys.modules
        ours.uninstall()
        assert not any(name.split(".")[0] == "pyg_lib" for name in sys.modules)
        """)


def test_a_loaded_library_keeps_its_names():
    run("""
        import sys, types, torch
        real = sys.modules["pyg_lib"] = types.ModuleType("pyg_lib")
        library = torch.library.Library("pyg", "FRAGMENT")
        library.define("segment_matmul(Tensor input, Tensor ptr, Tensor other) -> Tensor")
        import structops.compat.pyg_lib as ours
        assert ours._names.taken() and not hasattr(torch.ops.pyg, "index_sort")
        try:
            ours.install()
        except RuntimeError as error:
            assert "force=True" in str(error)
        else:
            raise AssertionError
        ours.install(force=True)
        import pyg_lib
        assert pyg_lib is ours
        ours.uninstall()
        import pyg_lib
        assert pyg_lib is real
        """)


def test_importing_the_library_over_registered_names_raises(tmp_path):
    (tmp_path / "pyg_lib.py").write_text("raise SystemExit('loaded')")
    run(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import structops.compat.pyg_lib as ours
        try:
            import pyg_lib
        except ImportError as error:
            assert "install()" in str(error)
        else:
            raise AssertionError
        """)


# ---- PyG -------------------------------------------------------------------------------------------------------------

LAYERS = """
    import torch
    {install}
    import torch_geometric
    from torch_geometric import typing
    from torch_geometric.nn import HGTConv, RGCNConv
    from torch_geometric.nn.dense import HeteroDictLinear, HeteroLinear
    from torch_geometric.utils import index_sort, softmax

    assert typing.WITH_PYG_LIB is {with_pyg} and typing.WITH_SOFTMAX is {with_pyg}
    from importlib.util import find_spec
    assert typing.WITH_METIS is ({with_pyg} and find_spec("pymetis") is not None)
    torch_geometric.backend.use_segment_matmul = True
    torch.manual_seed(0)
    x, edge = torch.randn(30, 16, requires_grad=True), torch.randint(30, (2, 200))
    ptr = torch.tensor([0, 4, 4, 20, 30])
    kind = torch.randint(4, (30,)).sort()[0]
    outs = [softmax(x, ptr=ptr), HeteroLinear(16, 8, 4, is_sorted=True)(x, kind)]
    outs.append(RGCNConv(16, 8, 5, aggr="sum")(x, edge, torch.randint(5, (200,))))
    names = [f"t{{i}}" for i in range(11)]
    outs += HeteroDictLinear({{n: 16 for n in names}}, 8)({{n: x[i:] for i, n in enumerate(names)}}).values()
    conv = HGTConv(16, 8, (names, [(a, "to", b) for a, b in zip(names, names[1:])]), heads=2)
    found = conv({{n: x for n in names}}, {{(a, "to", b): edge for a, b in zip(names, names[1:])}})
    outs += [t for t in found.values() if t is not None]
    outs += torch.autograd.grad(sum(t.sin().sum() for t in outs), x)
    sorted_, order = index_sort(edge[0], 30)
    outs.append(sorted_)
    torch.save([t.detach() for t in outs], {path!r})
    """


@pytest.mark.skipif(importlib.util.find_spec("torch_geometric") is None, reason="PyG is not installed")
@pytest.mark.skipif(importlib.util.find_spec("pyg_lib") is not None, reason="pyg_lib itself is installed")
def test_pyg_layers_agree_with_and_without(tmp_path):
    found = []
    for install in ("", "import structops.compat.pyg_lib as ours; ours.install()"):
        path = str(tmp_path / f"{len(found)}.pt")
        run(LAYERS.format(install=install, with_pyg=bool(install), path=path))
        found.append(torch.load(path))
    assert len(found[0]) > 20
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_torchscript_of_the_functions_that_pyg_scripts():
    index = torch.tensor([3, 1, 2, 1])
    for max_value in (None, 4):
        for a, b in zip(torch.jit.script(pyg.ops.index_sort)(index, max_value), pyg.ops.index_sort(index, max_value), strict=True):
            assert torch.equal(a, b)
    src, ptr = torch.randn(4, 3), torch.tensor([0, 1, 4])
    assert torch.equal(torch.jit.script(pyg.ops.softmax_csr)(src, ptr), pyg.ops.softmax_csr(src, ptr))
    other, bias = torch.randn(2, 3, 5), torch.randn(2, 5)
    for b in (None, bias):
        assert torch.allclose(torch.jit.script(pyg.ops.segment_matmul)(src, ptr, other, b), pyg.ops.segment_matmul(src, ptr, other, b))
