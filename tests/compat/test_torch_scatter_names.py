"""structops.compat.torch_scatter: names, signatures, TorchScript, errors and the installation in place of the library."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap

import pytest
import structops.compat.torch_scatter as ts
import torch
from structops.compat.torch_scatter import ops

SRC, INDEX, INDPTR = torch.arange(18.0).reshape(6, 3), torch.tensor([0, 0, 1, 3, 3, 3]), torch.tensor([0, 2, 3, 3, 6])

# ---- names -----------------------------------------------------------------------------------------------------------

SCATTER = ["src", "index", "dim=-1", "out=None", "dim_size=None"]
COO = ["src", "index", "out=None", "dim_size=None"]
CSR = ["src", "indptr", "out=None"]
SIGNATURES = {
    **{f"scatter_{r}": SCATTER for r in ("sum", "add", "mul", "mean", "min", "max")},
    "scatter": [*SCATTER, "reduce='sum'"],
    **{f"segment_{r}_coo": COO for r in ("sum", "add", "mean", "min", "max")},
    "segment_coo": [*COO, "reduce='sum'"],
    "gather_coo": ["src", "index", "out=None"],
    **{f"segment_{r}_csr": CSR for r in ("sum", "add", "mean", "min", "max")},
    "segment_csr": [*CSR, "reduce='sum'"],
    "gather_csr": CSR,
    "scatter_softmax": ["src", "index", "dim=-1", "dim_size=None"],
    "scatter_log_softmax": ["src", "index", "dim=-1", "eps=1e-12", "dim_size=None"],
    "scatter_logsumexp": [*SCATTER, "eps=1e-12"],
    "scatter_std": [*SCATTER, "unbiased=True"],
}


def test_names():
    assert {n for n in ts.__all__ if n != "__version__"} == set(SIGNATURES)
    assert ts.__version__ == "2.1.2"


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    parameters = inspect.signature(getattr(ts, name)).parameters.values()
    got = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    assert got == SIGNATURES[name]


@pytest.mark.parametrize("name", ops.SCHEMAS)
def test_schema(name):
    expected = {
        "scatter": "(Tensor _0, Tensor _1, int _2, Tensor? _3, int? _4)",
        "coo": "(Tensor _0, Tensor _1, Tensor? _2, int? _3)",
        "csr": "(Tensor _0, Tensor _1, Tensor? _2)",
        "gather": "(Tensor _0, Tensor _1, Tensor? _2)",
        "cuda": "()",
    }[name.split("_")[0] if name.split("_")[0] != "segment" else name[-3:]]
    result = "int _0" if name == "cuda_version" else "Tensor _0"
    if "min" in name or "max" in name:
        result = "(Tensor _0, Tensor _1)"
    schema = str(getattr(torch.ops.torch_scatter, name).default._schema)
    assert schema == f"torch_scatter::{name}{expected} -> {result}"


def test_dispatcher_is_complete_and_works():
    assert len(ops.SCHEMAS) == 16
    src, index, indptr = SRC[:4, :2], torch.tensor([0, 0, 1, 3]), torch.tensor([0, 2, 3, 3, 4])
    assert isinstance(torch.ops.torch_scatter.cuda_version(), int)
    for name in ops.SCHEMAS:
        op, function = getattr(torch.ops.torch_scatter, name), getattr(ts, name, None)
        if name.startswith("scatter"):
            got, want = op(src, index, 0, None, 5), function(src, index, 0, None, 5)
        elif name.endswith("_coo") and name.startswith("segment"):
            got, want = op(src, index, None, 5), function(src, index, None, 5)
        elif name.endswith(("_csr", "_coo")):
            pointers = indptr if name.endswith("_csr") else index
            got, want = op(src, pointers, None), function(src, pointers)
        else:
            continue
        assert all(torch.equal(g, w) for g, w in zip(_tuple(got), _tuple(want), strict=True)), name


def _tuple(x):
    return x if isinstance(x, tuple) else (x,)


def arguments(name):
    """Positional arguments that suit every function."""
    if name.endswith("csr"):
        return (SRC[:4] if name.startswith("gather") else SRC), INDPTR
    if name.endswith("coo"):
        return SRC, INDEX
    return SRC, INDEX, 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SIGNATURES)
def test_torchscript(name):
    function = getattr(ts, name)
    got, want = torch.jit.script(function)(*arguments(name)), function(*arguments(name))
    assert all(torch.equal(g, w) for g, w in zip(_tuple(got), _tuple(want), strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_broadcast_and_gradient():
    from structops.compat.torch_scatter.utils import broadcast

    for function in (broadcast, torch.jit.script(broadcast)):
        assert torch.equal(function(torch.tensor([1, 2]), torch.zeros(3, 2, 4), 1)[2, :, 3], torch.tensor([1, 2]))
        assert function(torch.ones(3, 2), torch.zeros(3, 2, 4), -2).shape == (3, 2, 4)
    src = SRC.clone().requires_grad_()
    torch.jit.script(ts.scatter)(src, INDEX, 0, None, None, "max").sum().backward()
    assert src.grad.sum() == 9


# ---- errors ----------------------------------------------------------------------------------------------------------

ERRORS = [
    (IndexError, lambda: ts.scatter_sum(SRC, INDEX, 0, None, 3)),
    (IndexError, lambda: ts.scatter_mean(SRC, INDEX - 1, 0)),
    (IndexError, lambda: ts.scatter_max(SRC, INDEX - 1, 0, None, 9)),
    (IndexError, lambda: ts.scatter_mul(SRC.requires_grad_(False), INDEX, 0, torch.ones(2, 3))),
    (IndexError, lambda: ts.scatter_sum(SRC, INDEX[:, None].expand(6, 3) + torch.arange(3), 0, None, 4)),
    (IndexError, lambda: ts.scatter_softmax(SRC, INDEX, 0, 2)),
    (IndexError, lambda: ts.scatter_std(SRC, INDEX, 5)),
    (IndexError, lambda: ts.segment_sum_coo(SRC, INDEX, None, 3)),
    (IndexError, lambda: ts.segment_max_coo(SRC, INDEX - 1)),
    (IndexError, lambda: ts.segment_sum_csr(SRC, torch.tensor([0, 7]))),
    (IndexError, lambda: ts.segment_sum_csr(SRC, torch.tensor([-1, 6]))),
    (IndexError, lambda: ts.gather_coo(SRC, torch.tensor([0, 6]))),
    (ValueError, lambda: ts.segment_sum_coo(SRC, INDEX.flip(0))),
    (ValueError, lambda: ts.segment_min_coo(SRC.t(), torch.stack([INDEX, INDEX, INDEX.flip(0)]))),
    (ValueError, lambda: ts.gather_coo(SRC, torch.tensor([2, 1]))),
    (ValueError, lambda: ts.segment_csr(SRC, torch.tensor([0, 4, 2, 6]))),
    (ValueError, lambda: ts.gather_csr(SRC, torch.tensor([1, 2, 3, 4, 5, 6, 7]))),
    (ValueError, lambda: ts.gather_csr(SRC, INDPTR)),
    (ValueError, lambda: ts.scatter(SRC, INDEX, 0, reduce="median")),
    (ValueError, lambda: ts.segment_coo(SRC, INDEX, reduce="mul")),
    (ValueError, lambda: ts.segment_csr(SRC, INDPTR, reduce="mul")),
    (ValueError, lambda: ts.scatter_softmax(SRC.long(), INDEX, 0)),
    (ValueError, lambda: ts.scatter_log_softmax(SRC.long(), INDEX, 0)),
    (ValueError, lambda: ts.scatter_logsumexp(SRC.long(), INDEX, 0)),
    (ValueError, lambda: ts.scatter_sum(SRC, INDEX[:4], 0)),
    (ValueError, lambda: ts.scatter_sum(SRC, INDEX, 0, torch.zeros(4, 2))),
    (ValueError, lambda: ts.scatter_sum(SRC, INDEX, 0, None, -1)),
    (ValueError, lambda: ts.segment_csr(SRC, INDPTR, torch.zeros(3, 3))),
    (TypeError, lambda: ts.scatter_sum(SRC, INDEX, 0, torch.zeros(4, 3, dtype=torch.float64))),
    (TypeError, lambda: ts.scatter_sum(SRC, INDEX.float(), 0)),
    (TypeError, lambda: ts.scatter_max(SRC, [0, 1], 0)),
    (TypeError, lambda: ts.scatter_max(SRC, INDEX, 0, None, 2.5)),
    (TypeError, lambda: ts.scatter_max(SRC > 0, INDEX, 0)),
]


@pytest.mark.parametrize(("kind", "call"), ERRORS)
def test_errors(kind, call):
    with pytest.raises(kind, match=r"expected .*"):
        call()


# ---- install ---------------------------------------------------------------------------------------------------------


def run(program):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_install_and_uninstall():
    run("""
        import sys, torch
        import structops.compat.torch_scatter as ours
        ours.install(); ours.install()
        import torch_scatter, torch_scatter.composite.softmax as softmax
        from torch_scatter.scatter import scatter_sum
        from torch_scatter.utils import broadcast
        from torch_scatter.testing import devices, dtypes, grad_dtypes, reductions, tensor
        from torch_scatter.placeholder import scatter_placeholder
        from torch_scatter import *
        for name in ("segment_csr", "segment_coo", "composite", "composite.std", "composite.logsumexp"):
            assert f"torch_scatter.{name}" in sys.modules
        assert torch_scatter is ours and scatter_sum is ours.scatter_sum
        assert softmax.scatter_softmax is ours.scatter_softmax
        assert callable(torch_scatter.scatter) and callable(scatter_std)
        ours.uninstall()
        assert not any(name.split(".")[0] == "torch_scatter" for name in sys.modules)
        ours.install()
        import torch_scatter
        assert torch_scatter is ours
        """)


def test_install_refuses_to_replace_an_imported_library():
    run("""
        import sys, types
        real = sys.modules["torch_scatter"] = types.ModuleType("torch_scatter")
        import structops.compat.torch_scatter as ours
        try:
            ours.install()
        except RuntimeError as error:
            assert "force=True" in str(error)
        else:
            raise AssertionError
        ours.install(force=True)
        import torch_scatter
        assert torch_scatter is ours
        ours.uninstall()
        import torch_scatter
        assert torch_scatter is real
        """)


def test_names_taken_by_a_loaded_library_are_left_alone():
    run("""
        import torch
        library = torch.library.Library("torch_scatter", "FRAGMENT")
        library.define("scatter_max(Tensor _0, Tensor _1, int _2, Tensor? _3, int? _4) -> (Tensor _0, Tensor _1)")
        import structops.compat.torch_scatter as ours
        assert ours.ops.taken() and not hasattr(torch.ops.torch_scatter, "scatter_mul")
        assert ours.scatter_max(torch.ones(2), torch.tensor([1, 1]))[1].tolist() == [2, 0]
        """)


def test_importing_the_library_over_registered_names_raises(tmp_path):
    (tmp_path / "torch_scatter.py").write_text("raise SystemExit('loaded')")
    run(f"""
        import importlib.util, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import structops.compat.torch_scatter as ours
        assert importlib.util.find_spec("torch_scatter") is not None
        try:
            import torch_scatter
        except ImportError as error:
            assert "install()" in str(error)
        else:
            raise AssertionError
        ours.install()
        import torch_scatter
        """)
