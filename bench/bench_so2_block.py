"""The edge-wise eSCN block, its SO(2) convolutions, and Wigner matrices, on the neighbour lists of real structures.

The peer is fairchem's own layers in float32 (``pip install --no-deps fairchem-core`` is enough: only two of its modules are
imported). Its Wigner matrices come from ours, which costs it less than its own.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import structops
import torch
from structops import so2
from structops.kernels.so2.edge_block_ref import gate, scales
from structops.kernels.so2.so2_conv_ref import so2_conv
from torch import Tensor

from .case import BOTH, FWD, OURS, Case, Prepared, Provider, at_level, runner
from .models import Traffic
from .structures import available, structure

BLOCK, CONV, WIGNER = "edge_block", "so2_conv", "wigner"
FAIRCHEM, COMPOSED = "fairchem", "torch composed"
SHAPES = {  # lmax, mmax, C, H
    "UMA-S": (2, 2, 128, 128),
    "EqV2-31M": (4, 2, 128, 64),
    "UMA-M": (4, 2, 128, 128),
    "L3M1": (3, 1, 64, 64),
    "small": (2, 1, 8, 6),
}
K = 128  # radial network
CHUNK = 2048  # edges of the float64 reference at a time


def cases(level: str) -> Iterator[Case]:
    grid = at_level(
        level,
        smoke=[("small", "copper", 2)],
        quick=[("UMA-S", "copper", 2)],
        default=[("UMA-S", "copper", 4), ("UMA-S", "water", 4), ("UMA-S", "g2", 1), ("UMA-M", "copper", 2)],
        full=[(name, "copper", 6) for name in SHAPES if name != "small"] + [("UMA-S", "water", 5), ("UMA-S", "g2", 1)],
    )
    for name, kind, size in (g for g in grid if available(g[1])):
        for direction in (FWD, BOTH):
            yield _case(BLOCK, name, kind, size, direction)
        if kind == "copper":
            yield _case(CONV, name, kind, size, BOTH)
            yield _case(WIGNER, name, kind, size, BOTH)


def _conv_flops(L: int, M: int, inputs: int, outputs: int, extra: int = 0) -> int:
    """Of one edge, forward, with four real multiplications for a complex one; ``extra`` outputs beside those of order 0."""
    n = [L + 1 - m for m in range(M + 1)]
    return 2 * n[0] * inputs * (n[0] * outputs + extra) + sum(8 * k * k * inputs * outputs for k in n[1:])


def _flops(L: int, M: int, C: int, H: int) -> int:
    """Of the products of one edge, forward."""
    radial = 2 * K * sum(L + 1 - m for m in range(M + 1)) * 2 * C
    return _conv_flops(L, M, 2 * C, H, L * H) + _conv_flops(L, M, H, C) + radial


def _case(op: str, name: str, kind: str, size: int, direction: str) -> Case:
    L, M, C, H = SHAPES[name]
    atoms = structure(kind, size)
    E = atoms.num_edges
    factor = 1 if direction == FWD else 2
    if op == BLOCK:
        flops = E * _flops(*SHAPES[name]) * factor
        low = 4 * (atoms.num_nodes * (L + 1) ** 2 * C * 2 + E * (K + 4)) * factor
    elif op == CONV:
        flops, low = E * 2 * _conv_flops(L, M, H, C), 4 * E * len(so2.frame_order(L, M)) * (H + C) * 2
    else:
        flops, low = E * 400 * factor, 4 * E * (3 + sum((2 * min(l, M) + 1) * (2 * l + 1) for l in range(L + 1))) * factor
    targets = {}
    if op == BLOCK and name == "UMA-S":
        targets = {FAIRCHEM: 1.9 if direction == FWD else 2.0}
    elif op == BLOCK and name in ("UMA-M", "EqV2-31M"):
        targets = {FAIRCHEM: 1.3 if direction == FWD else 1.6}
    title, build = f"{name} L={L} M={M} C={C} H={H}, {atoms.title}", partial(_build, op, name, kind, size, direction)
    return Case(op, direction, f"{name}, {kind}", title, C, build, Traffic(low, low, flops), targets)


@lru_cache(maxsize=1)
def _inputs(name: str, kind: str, size: int, device: str) -> dict[str, Tensor]:
    L, M, C, H = SHAPES[name]
    rng = torch.Generator().manual_seed(1)
    draw = lambda *s: torch.randn(*s, generator=rng)
    _, edge_index, vec, N = structure(kind, size)
    E, widths = edge_index.shape[1], sum((L + 1 - m) * 2 * C for m in range(M + 1))
    w1 = torch.cat([(draw(*s) / s[1] ** 0.5).reshape(-1) for s in so2.weight_shapes(L, M, 2 * C, H, L * H)])
    w2 = torch.cat([(draw(*s) / s[1] ** 0.5).reshape(-1) for s in so2.weight_shapes(L, M, H, C)])
    found = {
        "x": draw(N, (L + 1) ** 2, C), "vec": vec.float(), "edge_index": edge_index, "w1": w1, "b1": draw((2 * L + 1) * H) / 4,
        "w2": w2, "b2": draw((L + 1) * C) / 4, "radial": draw(E, K), "wr": draw(widths, K) / K**0.5, "br": draw(widths),
        "env": torch.rand(E, generator=rng), "grad": draw(N, (L + 1) ** 2, C),
    }  # fmt: skip
    return {k: v.to(device) for k, v in found.items()}


def _composed(t: dict[str, Tensor], x: Tensor, vec: Tensor, name: str, part: slice, product: Callable = so2_conv) -> Tensor:
    """The block of some edges as torch writes it."""
    L, M, C, H = SHAPES[name]
    src, dst = t["edge_index"][:, part]
    D = so2.wigner_dense(so2.wigner(vec[part], L, M), L, M)
    z = (D @ torch.cat([x[src], x[dst]], 2)).flatten(1) * scales(t["radial"][part], t["wr"], t["br"], L, M, C)
    pre = product(z, t["w1"], t["b1"], L, M, 2 * C, H, L * H, False, False)
    mid = product(gate(pre, L, M, H), t["w2"], t["b2"], L, M, H, C, 0, False, False)
    return torch.zeros_like(x).index_add(0, dst, D.mT @ mid.unflatten(1, (-1, C)) * t["env"][part, None, None])


def _reference(name: str, kind: str, size: int, direction: str, device: str) -> tuple[Tensor, ...]:
    """float64, a few edges at a time."""
    t = {k: v.double() if v.is_floating_point() else v for k, v in _inputs(name, kind, size, device).items()}
    leaves = tuple(t[k].detach().requires_grad_(direction == BOTH) for k in ("x", "vec"))
    E, total = leaves[1].shape[0], None
    for k in range(0, E, CHUNK):
        out = _composed(t, *leaves, name, slice(k, k + CHUNK))
        grads = torch.autograd.grad(out, leaves, t["grad"]) if direction == BOTH else ()
        found = (out.detach(), *grads)
        total = found if total is None else tuple(a + b for a, b in zip(total, found, strict=True))
    return total


def fairchem_layers() -> tuple[object | None, str]:
    """The module of fairchem's SO(2) layers, imported without what the rest of the package needs."""
    try:
        home = importlib.metadata.distribution("fairchem-core").locate_file("fairchem")
    except importlib.metadata.PackageNotFoundError:
        return None, "fairchem-core is not installed"
    for name in ("fairchem", "fairchem.core", "fairchem.core.models", "fairchem.core.models.uma"):
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__path__ = [str(home.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = module
    try:
        names = ("so2_layers", "activation")
        layers, activation = (importlib.import_module(f"fairchem.core.models.uma.nn.{name}") for name in names)
    except ImportError as error:
        return None, f"does not import: {error}"
    return types.SimpleNamespace(so2=layers, activation=activation), ""


def _fairchem(module, t: dict[str, Tensor], name: str) -> tuple[Callable, object]:
    """(block, second convolution) of fairchem with our weights."""
    L, M, C, H = SHAPES[name]
    mapping = types.SimpleNamespace(m_size=[L + 1 - m for m in range(M + 1)])
    first = module.so2.SO2_Convolution(
        2 * C, H, L, M, mapping, internal_weights=False, edge_channels_list=[K], extra_m0_output_channels=L * H
    )
    second = module.so2.SO2_Convolution(
        H, C, L, M, mapping, internal_weights=True, edge_channels_list=None, extra_m0_output_channels=None
    )
    act = module.activation.GateActivation(L, M, H, m_prime=True)
    for conv, flat, bias, shapes in (
        (first, t["w1"], t["b1"], so2.weight_shapes(L, M, 2 * C, H, L * H)),
        (second, t["w2"], t["b2"], so2.weight_shapes(L, M, H, C)),
    ):  # fmt: skip
        at = 0
        for layer, s in zip((conv.fc_m0, *(c.fc for c in conv.so2_m_conv)), shapes, strict=True):
            layer.weight.data.copy_(flat[at : at + s[0] * s[1]].reshape(s))
            at += s[0] * s[1]
        conv.fc_m0.bias.data.copy_(bias)
    radial = first.rad_func.net[-1]
    radial.weight.data.copy_(t["wr"])
    radial.bias.data.copy_(t["br"])
    first.rad_func.net = torch.nn.Sequential(radial)
    for p in (*first.parameters(), *second.parameters()):
        p.requires_grad_(False)
    src, dst = t["edge_index"]

    def block(x: Tensor, vec: Tensor) -> Tensor:
        D = so2.wigner_dense(so2.wigner(vec, L, M), L, M)
        back = D.mT * t["env"][:, None, None]
        z = torch.bmm(D, torch.cat((x[src], x[dst]), dim=2))
        h, gates = first(z, t["radial"])
        return torch.zeros_like(x).index_add_(0, dst, torch.bmm(back, second(act(gates, h))))

    return block, second


def _build(op: str, name: str, kind: str, size: int, direction: str, device: str) -> Prepared:
    L, M = SHAPES[name][:2]
    t = _inputs(name, kind, size, device)
    module, reason = fairchem_layers()
    if op == WIGNER:
        return _build_wigner(name, t, direction)
    if op == CONV:
        return _build_conv(name, t, module, reason)
    graph = structops.Graph(t["edge_index"], num_nodes=t["x"].shape[0])
    leaves = tuple(t[k].detach().requires_grad_(direction == BOTH) for k in ("x", "vec"))
    do = lambda forward: runner(forward, direction, leaves, t["grad"])

    def ours(**options):
        return do(lambda: so2.edge_block(
            *leaves, graph, t["w1"], t["b1"], t["w2"], t["b2"], lmax=L, mmax=M, radial=t["radial"], radial_weight=t["wr"],
            radial_bias=t["br"], envelope=t["env"], **options,
        ))  # fmt: skip

    peers = [Provider(FAIRCHEM, None if module is None else do(partial(_fairchem(module, t, name)[0], *leaves)), reason)]
    peers.append(Provider("structops, 3 products", ours(three_products=True)))
    if direction == BOTH:
        peers.append(Provider("structops, 3 products, keep", ours(three_products=True, keep=True)))
    return Prepared(Provider(OURS, ours()), peers, lambda: _reference(name, kind, size, direction, device))


def _build_conv(name: str, t: dict[str, Tensor], module, reason: str) -> Prepared:
    L, M, C, H = SHAPES[name]
    n, E = len(so2.frame_order(L, M)), t["vec"].shape[0]
    rng = torch.Generator().manual_seed(2)
    h, grad = torch.randn(E, n, H, generator=rng).requires_grad_(), torch.randn(E, n, C, generator=rng)
    do = lambda forward, leaf=h, g=grad: runner(forward, BOTH, (leaf,), g)
    ours = Provider(OURS, do(lambda: so2.so2_linear(h, t["w2"], t["b2"], lmax=L, mmax=M, out_channels=C)))
    second = module and _fairchem(module, t, name)[1]
    wide = h.detach().double().requires_grad_()
    exact = lambda: so2_conv(wide.flatten(1), t["w2"].double(), t["b2"].double(), L, M, H, C, 0, False, False).unflatten(1, (n, C))
    return Prepared(ours, [Provider(FAIRCHEM, module and do(lambda: second(h)), reason)], do(exact, wide, grad.double()))


def _build_wigner(name: str, t: dict[str, Tensor], direction: str) -> Prepared:
    L = SHAPES[name][0]
    vec = t["vec"].detach().requires_grad_()
    size = sum((2 * l + 1) ** 2 for l in range(L + 1))
    grad = torch.randn(vec.shape[0], size, generator=torch.Generator().manual_seed(3))
    ours = Provider(OURS, runner(lambda: so2.wigner(vec, L), direction, (vec,), grad))
    from structops.kernels.so2.wigner_ref import frame, pack, wigner_full

    composed = lambda v: pack(wigner_full(frame(v), L), L)
    wide = vec.detach().double().requires_grad_()
    exact = runner(lambda: composed(wide), direction, (wide,), grad.double())
    return Prepared(ours, [Provider(COMPOSED, runner(lambda: composed(vec), direction, (vec,), grad))], exact)


def test_so2_block(case, bench_case):
    bench_case(case)
