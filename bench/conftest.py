"""pytest over the benchmark cases.

``pytest bench --benchmark-disable`` runs every case at reduced size and checks the result against the reference.
``pytest bench`` times the short list of cases; the peers' medians, taken interleaved with ours, are in ``extra_info``.
"""

from __future__ import annotations

import pytest

from .case import OURS
from .run import OK, check


def pytest_addoption(parser):
    parser.addoption("--bench-device", default="cpu", help="device of the benchmarks: cpu or cuda")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore:.*(Sparse|masked_fill_|segment_reduce).*:UserWarning")


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".py" and file_path.name.startswith("bench_") and not parent.session.isinitpath(file_path):
        return pytest.Module.from_parent(parent, path=file_path)


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    level = "smoke" if metafunc.config.getoption("benchmark_disable") else "quick"
    cases = list(metafunc.module.cases(level))
    metafunc.parametrize("case", cases, ids=[c.key.replace(" ", "_") for c in cases])


@pytest.fixture
def bench_case(request, benchmark):
    """``bench_case(case)``: check all providers, then time ours; with every peer's median in ``extra_info``."""

    def run(case):
        device = request.config.getoption("--bench-device")
        prepared = case.build(device)
        error, status, _ = check(prepared)
        assert error <= prepared.tolerance, f"{case.key}: wrong result, error {error:.1e}"
        wrong = {name: s for name, s in status.items() if s.startswith(("wrong", "failed"))}
        if wrong:
            request.node.add_report_section("call", "peers", f"{case.key}: {wrong}")
        benchmark.group = case.key
        benchmark.extra_info |= {"error": error, "peers": status, **vars(case.traffic)}
        if not benchmark.disabled:
            from .timing import interleave

            fns = {p.name: p.run for p in prepared.peers if status[p.name] == OK}
            timed = interleave({OURS: prepared.ours.run, **fns}, 1.0, device, wall=case.graph == "10 nodes")
            benchmark.extra_info["interleaved_median_s"] = {name: t.median for name, t in timed.items()}
            once = timed[OURS].median
            benchmark.pedantic(prepared.ours.run, rounds=10, iterations=max(1, int(1e-3 / once)), warmup_rounds=1)
        else:
            benchmark.pedantic(prepared.ours.run, rounds=1)

    return run
