"""The SO(2) layers of fairchem 2.x."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...so2 import frame_order, so2_linear


class CoefficientMapping(nn.Module):
    """Degrees and orders of l-primary coefficients, and the permutation ``to_m`` to m-primary.

    Attributes: ``to_m [n, n]``, ``m_size`` (coefficients of +m per m), ``res_size``, ``l_harmonic``, ``m_harmonic`` (|m|),
    ``m_complex`` (m), ``coefficient_idx(lmax, mmax)``.
    """

    l_harmonic: Tensor
    m_harmonic: Tensor
    m_complex: Tensor
    to_m: Tensor

    def __init__(self, lmax: int, mmax: int):
        super().__init__()
        self.lmax, self.mmax = lmax, mmax
        rows = [(l, m) for l in range(lmax + 1) for m in range(-min(l, mmax), min(l, mmax) + 1)]
        self.res_size = len(rows)
        self.m_size = [lmax + 1 - m for m in range(mmax + 1)]
        place = {row: i for i, row in enumerate(rows)}
        to_m = torch.zeros(len(rows), len(rows))
        for i, row in enumerate(frame_order(lmax, mmax)):
            to_m[i, place[row]] = 1.0
        self._degrees(rows, to_m)

    def _degrees(self, rows: list[tuple[int, int]], to_m: Tensor, persistent: bool = False) -> None:
        self.register_buffer("l_harmonic", torch.tensor([l for l, _ in rows]), persistent=persistent)
        self.register_buffer("m_harmonic", torch.tensor([abs(m) for _, m in rows]), persistent=persistent)
        self.register_buffer("m_complex", torch.tensor([m for _, m in rows]), persistent=persistent)
        self.register_buffer("to_m", to_m, persistent=persistent)

    def coefficient_idx(self, lmax: int, mmax: int) -> Tensor:
        """Positions of the coefficients with l <= lmax and |m| <= mmax."""
        return torch.nonzero((self.l_harmonic <= lmax) & (self.m_harmonic <= mmax)).flatten()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lmax={self.lmax}, mmax={self.mmax})"


class RadialMLP(nn.Module):
    """Linear, LayerNorm and SiLU by turns, a Linear last; ``net.0``, ``net.1``, ... as in fairchem."""

    def __init__(self, channels_list: list[int]):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(channels_list, channels_list[1:], strict=False)):
            layers.append(nn.Linear(a, b))
            if i < len(channels_list) - 2:
                layers += [nn.LayerNorm(b), nn.SiLU()]
        self.net = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)


def _hooked(module: nn.Module) -> bool:
    """Whether a call of the module does more than its class says."""
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks) or "forward" in module.__dict__


def _plain(fc: nn.Module) -> bool:
    return type(fc) is nn.Linear and not _hooked(fc)


class SO2_m_Conv(nn.Module):
    """The complex linear map of one order m > 0: ``[E, 2, (lmax - m + 1) C_in]`` to a pair of ``[E, lmax - m + 1, C_out]``."""

    def __init__(self, m: int, sphere_channels: int, m_output_channels: int, lmax: int, mmax: int):
        super().__init__()
        if not 0 < m <= mmax:
            raise ValueError(f"SO2_m_Conv: expected 0 < m <= mmax = {mmax}, got {m}")
        self.m, self.sphere_channels, self.m_output_channels, self.lmax, self.mmax = (
            m,
            sphere_channels,
            m_output_channels,
            lmax,
            mmax,
        )
        rows = lmax - m + 1
        self.out_channels_half = rows * m_output_channels
        self.fc = nn.Linear(rows * sphere_channels, 2 * self.out_channels_half, bias=False)
        with torch.no_grad():
            self.fc.weight.mul_(0.5**0.5)

    def forward(self, x_m: Tensor) -> tuple[Tensor, Tensor]:
        y = self.fc(x_m)
        first, second = y.split(self.out_channels_half, -1)  # W1 x, W2 x of both signs
        shape = (x_m.shape[0], -1, self.m_output_channels)
        return (first[:, 0] - second[:, 1]).reshape(shape), (first[:, 1] + second[:, 0]).reshape(shape)


class SO2_Convolution(nn.Module):
    """All orders: ``forward(x [E, n, C_in] m-primary, x_edge) -> [E, n, C_out]``, then the extra m = 0 features if asked for.

    State dict: ``fc_m0.{weight,bias}``, ``so2_m_conv.{m-1}.fc.weight``, ``rad_func.net.*``. One fused product over all orders;
    where a submodule is not a plain ``Linear`` (MoLE), or has hooks (weight_norm), that module is called instead.
    """

    so2_m_conv: Any  # nn.ModuleList, which has no type for its modules

    def __init__(
        self, sphere_channels: int, m_output_channels: int, lmax: int, mmax: int, mappingReduced: CoefficientMapping | None = None,
        internal_weights: bool = True, edge_channels_list: list[int] | None = None, extra_m0_output_channels: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.sphere_channels, self.m_output_channels, self.lmax, self.mmax = sphere_channels, m_output_channels, lmax, mmax
        self.mappingReduced, self.internal_weights = mappingReduced, internal_weights
        self.edge_channels_list, self.extra_m0_output_channels = (
            edge_channels_list and list(edge_channels_list),
            extra_m0_output_channels,
        )
        rows = lmax + 1
        self.fc_m0 = nn.Linear(rows * sphere_channels, rows * m_output_channels + (extra_m0_output_channels or 0))
        self.so2_m_conv = nn.ModuleList(self._order(m, sphere_channels, m_output_channels, lmax, mmax) for m in range(1, mmax + 1))
        self.edge_split_sizes = [self.fc_m0.in_features, *(c.fc.in_features for c in self.so2_m_conv)]
        self.m_split_sizes = [rows, *(2 * (rows - m) for m in range(1, mmax + 1))]
        self.rad_func = None
        if not internal_weights:
            if edge_channels_list is None:
                raise ValueError("SO2_Convolution: expected edge_channels_list with internal_weights=False, got None")
            self.rad_func = self._radial([*edge_channels_list, sum(self.edge_split_sizes)])

    @staticmethod
    def _order(m: int, sphere_channels: int, m_output_channels: int, lmax: int, mmax: int) -> nn.Module:
        return SO2_m_Conv(m, sphere_channels, m_output_channels, lmax, mmax)

    @staticmethod
    def _radial(channels: list[int]) -> nn.Module:
        return RadialMLP(channels)

    def _scaled(self: SO2_Convolution | SO2_Linear, x: Tensor, x_edge: Tensor | None) -> Tensor:
        if self.rad_func is not None:
            x_edge = self.rad_func(x_edge)
        if x_edge is None:
            return x
        parts = x_edge.split(self.edge_split_sizes, 1)
        scale = torch.cat([p for m, p in enumerate(parts) for _ in range(2 if m else 1)], 1)
        return x * scale.reshape(x.shape)

    def forward(self, x: Tensor, x_edge: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        x = self._scaled(x, x_edge)
        extra = self.extra_m0_output_channels
        if _plain(self.fc_m0) and all(_plain(c.fc) and not _hooked(c) for c in self.so2_m_conv):
            weights = [self.fc_m0.weight, *(c.fc.weight for c in self.so2_m_conv)]
            out: Any = so2_linear(
                x, weights, self.fc_m0.bias, lmax=self.lmax, mmax=self.mmax, out_channels=self.m_output_channels, extra=extra or 0
            )
            if extra:
                return out[1], out[0]
            return (out, x.new_empty(x.shape[0], 0)) if extra is not None else out
        parts = x.split(self.m_split_sizes, 1)
        first = self.fc_m0(parts[0].flatten(1))
        rows = [first[:, extra or 0 :].unflatten(1, (-1, self.m_output_channels))]
        for conv, part in zip(self.so2_m_conv, parts[1:], strict=True):
            rows += conv(part.reshape(x.shape[0], 2, -1))
        out = torch.cat(rows, 1)
        return (out, first[:, :extra]) if extra is not None else out


class SO2_Linear(nn.Module):
    """The same without the imaginary part: ``W1`` acts on +m and on -m. Input and output l-primary, as in fairchem."""

    so2_m_fc: Any  # nn.ModuleList of nn.Linear

    def __init__(
        self, sphere_channels: int, m_output_channels: int, lmax: int, mmax: int, mappingReduced: CoefficientMapping,
        internal_weights: bool = False, edge_channels_list: list[int] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.sphere_channels, self.m_output_channels, self.lmax, self.mmax = sphere_channels, m_output_channels, lmax, mmax
        self.mappingReduced, self.internal_weights = mappingReduced, internal_weights
        self.edge_channels_list = edge_channels_list and list(edge_channels_list)
        rows = lmax + 1
        self.fc_m0 = nn.Linear(rows * sphere_channels, rows * m_output_channels)
        self.so2_m_fc = nn.ModuleList(
            nn.Linear((rows - m) * sphere_channels, (rows - m) * m_output_channels, bias=False) for m in range(1, mmax + 1)
        )
        self.edge_split_sizes = [self.fc_m0.in_features, *(fc.in_features for fc in self.so2_m_fc)]
        self.rad_func = None
        if not internal_weights:
            if edge_channels_list is None:
                raise ValueError("SO2_Linear: expected edge_channels_list with internal_weights=False, got None")
            self.rad_func = RadialMLP([*edge_channels_list, sum(self.edge_split_sizes)])

    def forward(self, x: Tensor, x_edge: Tensor) -> Tensor:
        index = self.mappingReduced.to_m.argmax(1)
        x = SO2_Convolution._scaled(self, x[:, index], x_edge if self.rad_func is not None else None)
        weights = [self.fc_m0.weight, *(torch.cat([fc.weight, torch.zeros_like(fc.weight)]) for fc in self.so2_m_fc)]
        out: Any = so2_linear(x, weights, self.fc_m0.bias, lmax=self.lmax, mmax=self.mmax, out_channels=self.m_output_channels)
        return out[:, index.argsort()]


def convert(model: nn.Module) -> nn.Module:
    """Replace fairchem's ``SO2_Convolution`` modules in ``model`` by ours, in place; parameters are the same objects.

    Returns the model. Modules whose ``fc`` is not a plain ``Linear`` are left alone.
    """
    children: list[tuple[str, Any]] = list(model.named_children())
    for name, child in children:
        theirs = type(child).__module__.startswith("fairchem.") and type(child).__name__ == "SO2_Convolution"
        if (
            theirs
            and hasattr(child, "lmax")
            and type(child.fc_m0) is nn.Linear
            and all(type(c.fc) is nn.Linear for c in child.so2_m_conv)
        ):
            ours = SO2_Convolution.__new__(SO2_Convolution)
            nn.Module.__init__(ours)
            for key in ("sphere_channels", "m_output_channels", "lmax", "mmax", "mappingReduced", "internal_weights",
                        "edge_channels_list", "extra_m0_output_channels", "fc_m0", "so2_m_conv", "rad_func", "m_split_sizes",
                        "edge_split_sizes"):  # fmt: skip
                setattr(ours, key, getattr(child, key))
            setattr(model, name, ours.train(child.training))
        else:
            convert(child)
    return model
