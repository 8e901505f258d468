"""Eigen-decomposition of small symmetric matrices, and frame averaging."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from .. import _autocast as autocast
from .. import _check as check
from .._ladder import _eigh_small as ladder
from ..graph import checked_pointer
from ..sparse import segment_matmul, segment_reduce

GROUPS = {"O(2)": (2, False), "SO(2)": (2, True), "O(3)": (3, False), "SO(3)": (3, True)}


def eigh_small(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[..., n]``, ascending, and eigenvectors ``[..., n, n]`` of symmetric matrices of size 2 to 8.

    ``a @ v[..., k] = w[..., k] * v[..., k]`` with orthonormal columns ``v[..., k]``. ``v`` is a rotation (determinant +1): of every
    column but the last the entry of largest magnitude is positive, the last one makes the determinant.

    Args:
        a: ``[..., n, n]``, 2 <= n <= 8; float32, float64, bfloat16 or float16 (computed in float32). Its symmetric part is taken.

    Accurate to a few roundings of the largest entry for any spectrum; equal eigenvalues give some orthonormal basis of their space.
    Differentiable in ``a`` to any order, with a symmetric gradient; saves the results. Eigenvectors of equal eigenvalues have no
    derivative: a gradient that comes through eigenvectors is NaN or infinite there, as in ``torch.linalg.eigh``, and large where
    eigenvalues are nearly equal; one that comes through eigenvalues alone is exact. NaN and infinities give NaN in their matrix.
    Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype or shape.

    By Jacobi rotations; csrc/so2/eigh_small.h.

    >>> import torch, structops
    >>> w, v = structops.so2.eigh_small(torch.tensor([[2., 1.], [1., 2.]]))
    >>> w, v.round(decimals=4)
    (tensor([1., 3.]), tensor([[ 0.7071,  0.7071],
            [-0.7071,  0.7071]]))
    """
    op = "eigh_small"
    check.dense(op, "a", a)
    if a.dim() < 2 or a.shape[-1] != a.shape[-2] or not 2 <= a.shape[-1] <= 8:
        check.fail(ValueError, op, "a of shape [..., n, n] with n = 2 to 8", list(a.shape))
    n = a.shape[-1]
    wide = a.float() if a.dtype.itemsize == 2 else a
    w, v = ladder.eigh_small(wide.reshape(-1, n, n).contiguous())
    return w.reshape(a.shape[:-1]).to(a.dtype), v.reshape(a.shape).to(a.dtype)


@dataclass(frozen=True)
class Frames:
    """Frames of point clouds, made by :func:`frames`.

    Attributes:
        pos: ``[O, N, D]``, the centred points in the coordinates of each of O frames: a batch for ``spmm(..., batch_dims=1)``.
        axes: ``[G, D, D]``, principal axes in columns. signs: ``[1, O, D]`` or, of a drawn frame, ``[G, 1, D]``.
        center: ``[G, D]``. eigenvalues: ``[G, D]`` of the covariance, ascending.
        ptr: ``[G + 1]``, the points of every cloud.
    """

    pos: Tensor
    axes: Tensor
    signs: Tensor
    center: Tensor
    eigenvalues: Tensor
    ptr: Tensor

    @property
    def rotation(self) -> Tensor:
        """``[G, O, D, D]``: the axes of every frame in columns."""
        return self.axes[:, None] * self.signs[:, :, None]

    def gap(self) -> Tensor:
        """The least distance of two eigenvalues relative to the largest, ``[G]``; 0 for a cloud without extent.

        Frames are determined, and continuous in the points, only where it is not 0.
        """
        most = self.eigenvalues[:, -1]
        least = self.eigenvalues.diff(dim=1).amin(1)
        return torch.where(most > 0, least / torch.where(most > 0, most, 1), 0)


@autocast.promotes
def frames(
    pos: Tensor,
    ptr: Tensor | None = None,
    group: str = "O(3)",
    *,
    stochastic: bool = False,
    generator: torch.Generator | None = None,
) -> Frames:
    """The frames of point clouds from their principal axes: a network averaged over them is equivariant, whatever the network.

    The eigenvectors of each cloud's ``sum (x - c) (x - c)'`` with every choice of signs are its frames: 8 for O(3) and 4 for O(2),
    and those of determinant +1 alone for SO(3) (4) and SO(2) (2).

    Args:
        pos: ``[N, D]``, D = 2 or 3; float32, float64, bfloat16 or float16.
        ptr: int32 or int64 ``[G + 1]``, non-decreasing from 0 to N: cloud g is ``pos[ptr[g]:ptr[g + 1]]``. None: one cloud.
        group: ``"O(3)"``, ``"SO(3)"``, ``"O(2)"`` or ``"SO(2)"``; translations are always included.
        stochastic: one frame of each cloud, drawn uniformly (O = 1): equivariant in expectation only.
        generator: of the draw; on the device of ``pos``.

    Returns:
        :class:`Frames`.

    Rotating, reflecting or moving a cloud turns its frames with it (in some order) and leaves ``Frames.pos`` as it is; permuting
    points permutes them. With equal eigenvalues (linear, symmetric or single points) axes are arbitrary and this does not hold:
    :meth:`Frames.gap` tells. A planar cloud is no such case. Differentiable in ``pos``, through the axes too, where no eigenvalues
    are equal; detach ``pos`` to hold frames fixed. Saved: the points and matrices of each cloud. Deterministic.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, pointer or group.

    Source: Puny et al. 2022 (arXiv:2110.03336); ``stochastic``: Duval et al. 2023 (FAENet, arXiv:2305.05577).

    >>> import torch, structops
    >>> pos = torch.tensor([[0., 0.], [4., 0.], [4., 2.], [0., 2.]])
    >>> f = structops.so2.frames(pos, group="SO(2)")
    >>> f.pos.shape, f.rotation.shape, f.eigenvalues.tolist()
    (torch.Size([2, 4, 2]), torch.Size([1, 2, 2, 2]), [[4.0, 16.0]])
    """
    op = "frames"
    check.dense(op, "pos", pos)
    D, proper = GROUPS[check.choice(op, "group", group, GROUPS)]
    if pos.dim() != 2 or pos.shape[1] != D:
        check.fail(ValueError, op, f"pos of shape [N, {D}]", list(pos.shape))
    check.flags(op, stochastic=stochastic)
    if generator is not None and not isinstance(generator, torch.Generator):
        check.fail(TypeError, op, "generator to be a torch.Generator", type(generator).__name__)
    N = pos.shape[0]
    ptr = torch.tensor([0, N], device=pos.device) if ptr is None else checked_pointer(op, "ptr", ptr, pos, N)
    G = ptr.numel() - 1
    wide = pos.float() if pos.dtype.itemsize == 2 else pos
    center = cast(Tensor, segment_reduce(wide, ptr, "mean"))
    centred = wide - center.index_select(0, _cloud(ptr, N))
    outer = (centred[:, :, None] * centred[:, None]).flatten(1)
    covariance = cast(Tensor, segment_reduce(outer, ptr)).reshape(G, D, D)
    eigenvalues, axes = eigh_small(covariance)
    signs = _signs(D, proper, wide)[None]
    if stochastic:
        signs = signs[0, torch.randint(signs.shape[1], (G, 1), generator=generator, device=pos.device)]
    projected = segment_matmul(centred, ptr, axes) * _per_point(signs, ptr, N)
    projected, axes, signs, center, eigenvalues = (t.to(pos.dtype) for t in (projected, axes, signs, center, eigenvalues))
    return Frames(projected, axes, signs, center, eigenvalues, ptr)


def frame_average(frames: Frames, value: Tensor, kind: str = "scalar", *, per_cloud: bool = False) -> Tensor:
    """The mean over frames of what a network made of ``frames.pos``, turned back into the coordinates of the points.

    Args:
        frames: of :func:`frames`.
        value: ``[O, N, *features]``, one copy for each frame; vectors and positions have D as their last dimension.
        kind: ``"scalar"`` (the mean), ``"vector"`` (turned back) or ``"position"`` (turned back and moved to the centre).
        per_cloud: a row for each cloud rather than for each point, ``[O, G, *features]``.

    Returns:
        ``[N, *features]``, or ``[G, *features]``.

    Differentiable in ``value`` and in what ``frames`` came from, to any order. Deterministic.

    Raises:
        TypeError, ValueError: a wrong type, dtype, shape or kind.

    >>> import torch, structops
    >>> pos = torch.tensor([[0., 0., 1.], [4., 0., 0.], [4., 2., 0.], [0., 3., 0.]])
    >>> f = structops.so2.frames(pos)
    >>> torch.allclose(structops.so2.frame_average(f, f.pos, "position"), pos, atol=1e-5)
    True
    """
    op = "frame_average"
    if not isinstance(frames, Frames):
        check.fail(TypeError, op, "frames to be a structops.so2.Frames", type(frames).__name__)
    check.dense(op, "value", value)
    check.choice(op, "kind", kind, ("scalar", "vector", "position"))
    check.flags(op, per_cloud=per_cloud)
    return _average(op, frames, frames.pos, value, kind, per_cloud)


@autocast.promotes
def _average(op: str, frames: Frames, pos: Tensor, value: Tensor, kind: str, per_cloud: bool) -> Tensor:
    (O, N, D), G = pos.shape, frames.center.shape[0]
    rows = G if per_cloud else N
    ending = () if kind == "scalar" else (D,)
    if value.dim() < 2 + len(ending) or value.shape[:2] != (O, rows) or value.shape[value.dim() - len(ending) :] != ending:
        shape = ", ".join(map(str, (O, rows, "*features", *ending)))
        check.fail(ValueError, op, f"value of shape [{shape}]", list(value.shape))
    if kind == "scalar":
        return value.mean(0)
    if value.dtype != pos.dtype:
        check.fail(TypeError, op, f"value of dtype {pos.dtype}, as the frames", value.dtype)
    if value.device != pos.device:
        check.fail(ValueError, op, f"value on {pos.device}, as the frames", value.device)
    # Frames share their axes up to signs: the mean first, then one product.
    k = math.prod(value.shape[2:-1])
    flat = value.reshape(O, rows, k, D)
    signs = frames.signs.transpose(0, 1) if per_cloud else _per_point(frames.signs, frames.ptr, N)
    mean = (flat * signs[:, :, None]).mean(0)
    ptr = torch.arange(G + 1, device=value.device) if per_cloud else frames.ptr
    out = segment_matmul(mean.reshape(-1, D), ptr * k, frames.axes.mT.contiguous()).reshape(value.shape[1:])
    if kind == "vector":
        return out
    center = frames.center if per_cloud else frames.center.index_select(0, _cloud(frames.ptr, N))
    return out + center.reshape(rows, *(1,) * (value.dim() - 3), D)


def _cloud(ptr: Tensor, N: int) -> Tensor:
    """The cloud of every point, [N]."""
    return torch.repeat_interleave(torch.arange(ptr.numel() - 1, device=ptr.device), ptr.diff(), output_size=N)


def _per_point(signs: Tensor, ptr: Tensor, N: int) -> Tensor:
    """Signs [1 or G, O, D] as [O, 1 or N, D]."""
    return (signs if signs.shape[0] == 1 else signs.index_select(0, _cloud(ptr, N))).transpose(0, 1)


def _signs(D: int, proper: bool, like: Tensor) -> Tensor:
    """The signs of the axes [O, D], all + first."""
    chosen = [s for s in itertools.product((1.0, -1.0), repeat=D) if not proper or math.prod(s) > 0]
    return torch.tensor(chosen, dtype=like.dtype, device=like.device)
