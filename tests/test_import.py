"""Import, backends, environment variables: each case in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import structops
import torch
from compare import assert_close
from conftest import ISAS
from structops import Graph, backends, spmm

COMMON = """
    import torch, structops
    from structops import backends
    graph = structops.Graph(torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]]), num_nodes=3)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    def works():
        out = structops.spmm(graph, x, torch.ones(4, 1))
        assert out.tolist() == [[5.0, 6.0], [4.0, 6.0], [1.0, 2.0]], out
        out.sum().backward()
        assert x.grad.tolist() == [[2.0, 2.0], [1.0, 1.0], [1.0, 1.0]], x.grad
        assert structops.segment_reduce(x.detach(), torch.tensor([0, 2, 3]), "max", return_arg=True)[1].tolist() == [[1, 1], [2, 2]]
        assert structops.scatter_reduce(x.detach(), torch.tensor([1, 0, 1])).tolist() == [[3.0, 4.0], [6.0, 8.0]]
        assert structops.segment_softmax(torch.zeros(4), torch.tensor([0, 2, 4])).tolist() == [0.5] * 4
        assert structops.sddmm(graph, x.detach(), x.detach()).tolist() == [[11.0], [25.0], [17.0], [17.0]]
        assert structops.segment_gather(x.detach(), torch.tensor([0, 0, 1, 3])).shape == (3, 2)
"""


def run(code: str, common: bool = True, **env: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STRUCTOPS_")}
    text = (textwrap.dedent(COMMON) if common else "") + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300, env={**clean, **env})


def passes(code: str, common: bool = True, **env: str) -> str:
    done = run(code, common, **env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_import_is_light() -> None:
    """No optional or heavy dependency is imported with the package."""
    passes(
        """
        import sys, torch
        before = set(sys.modules)
        import structops
        new = {m.partition(".")[0] for m in set(sys.modules) - before}
        heavy = {"triton", "numba", "cupy", "matplotlib", "scipy", "llvmlite", "torch_scatter", "torch_geometric", "dgl", "pytest", "numpy"}
        assert not new & heavy, new & heavy
        assert "torch._dynamo" not in set(sys.modules) - before
        """,
        common=False,
    )


def test_default_backend() -> None:
    passes("works(); assert backends.status()['cpp'][0]; assert backends.isa() in ('baseline', 'avx2', 'avx512')")


def test_status_gives_reasons() -> None:
    status = backends.status()
    assert set(status) == {"cpp", "cuda", "nvrtc", "triton", "numba", "reference"}
    for name, (ok, reason) in status.items():
        assert isinstance(ok, bool) and isinstance(reason, str) and len(reason) > 3, name
    assert status["reference"][0]
    assert backends.isa() in status["cpp"][1]


def test_without_the_library() -> None:
    """numba takes over, and says why."""
    pytest.importorskip("numba", reason="numba is not installed")
    passes(
        """
        ok, reason = backends.status()["cpp"]
        assert not ok and "STRUCTOPS_DISABLE_CPP" in reason, reason
        assert backends.isa() == "none"
        assert "numba" in backends.implementation("spmm").__module__
        works()
        """,
        STRUCTOPS_DISABLE_CPP="1",
    )


BLOCK = """
    import sys
    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("numba", "llvmlite"):
                raise ModuleNotFoundError(name)
    sys.modules["numba"] = None
    import importlib.util as util
    find = util.find_spec
    util.find_spec = lambda name, package=None: None if name.partition(".")[0] == "numba" else find(name, package)
    sys.meta_path.insert(0, Block())
"""


def test_without_the_library_and_numba() -> None:
    """The reference is left, and does everything."""
    passes(
        textwrap.dedent(BLOCK)
        + textwrap.dedent(COMMON)
        + textwrap.dedent("""
        assert backends.status()["numba"] == (False, "numba is not installed"), backends.status()
        assert backends.implementation("spmm").__module__ == "structops.kernels.sparse.spmm_ref"
        works()
        """),
        common=False,
        STRUCTOPS_DISABLE_CPP="1",
    )


def test_library_that_does_not_load_is_explained() -> None:
    passes(
        """
        import pathlib, tempfile, torch
        from structops.kernels import backends
        folder = pathlib.Path(tempfile.mkdtemp())
        backends.load_library(folder)
        assert "not built" in backends._cpp_reason
        (folder / "_ops.so").write_bytes(b"not a library")
        backends.load_library(folder)
        assert backends.native is None and "failed to load" in backends._cpp_reason
        assert backends.status()["cpp"] == (False, backends._cpp_reason)
        """,
        common=False,
    )


@pytest.mark.parametrize("name", [n for n in ISAS if n != "none"])
def test_isa_from_the_environment(name: str) -> None:
    assert passes("works(); print(backends.isa())", STRUCTOPS_ISA=name).strip() == name


def test_unknown_isa() -> None:
    done = run("print(backends.isa())", STRUCTOPS_ISA="sse1")
    assert done.returncode == 0 and done.stdout.strip() == backends.native.detected_isa()
    before = backends.isa()
    for bad in ("sse1", "", "AVX2"):
        with pytest.raises(ValueError, match="instruction set"):
            backends.set_isa(bad)
    assert backends.isa() == before
    backends.set_isa("auto")
    assert backends.isa() == backends.native.detected_isa()
    backends.set_isa(before)


def test_set_isa_without_the_library() -> None:
    passes(
        """
        try:
            backends.set_isa("baseline")
        except RuntimeError as e:
            assert "STRUCTOPS_DISABLE_CPP" in str(e)
        else:
            raise SystemExit("accepted")
        """,
        STRUCTOPS_DISABLE_CPP="1",
    )


def test_backend_from_the_environment() -> None:
    check = "works(); print(*(backends.implementation(op).__module__ for op in ('spmm', 'sddmm')))"
    one = passes(check, STRUCTOPS_BACKEND="auto", STRUCTOPS_BACKEND_SPMM="reference").split()
    assert one[0] == "structops.kernels.sparse.spmm_ref" and not one[1].startswith("structops.kernels")
    mixed = passes(check, STRUCTOPS_BACKEND="reference", STRUCTOPS_BACKEND_SPMM="cpp").split()
    assert not mixed[0].startswith("structops.kernels") and mixed[1] == "structops.kernels.sparse.sddmm_ref"


@pytest.mark.parametrize("name", ["STRUCTOPS_BACKEND", "STRUCTOPS_BACKEND_SPMM"])
def test_unknown_backend_in_the_environment(name: str) -> None:
    done = run("pass", **{name: "fortran"})
    assert done.returncode != 0 and "unknown backend 'fortran'" in done.stderr


def test_override() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    x = torch.randn(2, 3, dtype=torch.float64)
    default = backends.implementation("spmm")
    expected = spmm(graph, x)
    with backends.override("reference"):
        assert backends.implementation("spmm").__module__.endswith("spmm_ref")
        assert_close(spmm(graph, x), expected)
        with backends.override(spmm="cpp"):
            assert backends.implementation("spmm") is default
            assert backends.implementation("sddmm").__module__.endswith("sddmm_ref")
        assert backends.implementation("spmm").__module__.endswith("spmm_ref")
    assert backends.implementation("spmm") is default
    with pytest.raises(ZeroDivisionError), backends.override("reference"):
        raise ZeroDivisionError
    assert backends.implementation("spmm") is default
    with pytest.raises(ValueError, match="unknown backend"), backends.override("fortran"):
        pass
    with pytest.raises(ValueError, match="unknown operator"), backends.override(nothing="cpp"):
        pass


def test_pickled_graph_crosses_processes() -> None:
    code = """
        import pickle, sys, torch, structops
        g = structops.Graph(torch.tensor([[0, 1, 2], [2, 1, 1]]), num_nodes=4)
        sys.stdout.write(pickle.dumps(g).hex())
    """
    import pickle

    graph = pickle.loads(bytes.fromhex(passes(code, common=False).strip()))
    assert graph.edge_index().tolist() == [[0, 1, 2], [2, 1, 1]] and graph.num_src == 4


def test_public_names() -> None:
    for name in structops.__all__:
        assert hasattr(structops, name)
    assert sorted(structops.__all__) == list(structops.__all__)


def test_docstring_examples() -> None:
    import doctest

    homes = {getattr(structops, name).__module__ for name in structops.__all__ if name != "backends"} | {"structops.tree"}
    for module in ("structops", *sorted(homes)):
        failed, tried = doctest.testmod(sys.modules[module])
        assert tried > 0 and failed == 0, module
