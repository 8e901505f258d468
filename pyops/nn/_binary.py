"""Binary layers as modules."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from .. import binary as B
from .._dispatch import is_transformed


def _scale(layer: Any) -> Tensor | None:
    return layer.weight.detach().abs().flatten(1).mean(1) if layer.scaled else None


def _weight(layer: Any, groups: int = 1) -> Tensor | B.PackedWeight:
    """The weight; packed, and kept so, where nothing is trained."""
    if layer.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
        layer._packed = None
        return layer.weight
    layer._packed = B.PackedWeight.of(layer._packed, layer.weight, groups)
    return layer._packed


class _Packing:
    """What layers share that keep a packed weight; before the torch class in the bases."""

    _packed: B.PackedWeight | None = None

    def train(self, mode: bool = True) -> Any:
        """As ``torch.nn.Module.train``. What is packed is dropped: changes through ``.data`` leave no trace on the weight."""
        self._packed = None
        return super().train(mode)  # type: ignore[misc]


class BinaryLinear(_Packing, nn.Linear):
    """A linear layer of signs, computed on bits in training and inference: :func:`structops.binary.binary_linear`.

    Args:
        scale: multiply each output by the mean size of its weights, a constant of the backward.
        clip: the gradients of signs pass where abs <= clip.

    In evaluation mode without gradients the packed weight is kept and watched for changes; one through ``.data``, which leaves no
    trace, is noticed at the next ``eval()``.

    >>> import torch, structops
    >>> structops.nn.BinaryLinear(64, 10, bias=False).eval()(torch.ones(1, 64)).abs().max() <= 64
    tensor(True)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, scale: bool = False, clip: float = 1.0, **kwargs
    ) -> None:
        super().__init__(in_features, out_features, bias, **kwargs)
        self.scaled, self.clip = scale, clip

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, B.binary_linear(x, _weight(self), self.bias, scale=_scale(self), clip=self.clip))


class _BinaryConv(_Packing):
    """What convolutions of signs share; before the torch class in the bases."""

    _product: Any
    weight: Any
    bias: Any
    stride: Any
    padding: Any
    dilation: Any
    groups: Any

    def __init__(self, *args, bias: bool = False, pad_value: int = 0, scale: bool = False, clip: float = 1.0, **kwargs) -> None:
        super().__init__(*args, bias=bias, **kwargs)  # type: ignore[call-arg]
        self.pad_value, self.scaled, self.clip = pad_value, scale, clip

    def forward(self, x: Tensor) -> Tensor:
        return self._product(
            x, _weight(self, self.groups), self.bias, self.stride, self.padding, self.dilation, self.groups,
            pad_value=self.pad_value, scale=_scale(self), clip=self.clip,
        )  # fmt: skip


class BinaryConv1d(_BinaryConv, nn.Conv1d):
    """A convolution of signs: :func:`structops.binary.binary_conv1d`. Arguments as BinaryConv2d.

    >>> import torch, structops
    >>> structops.nn.BinaryConv1d(3, 4, 3)(torch.randn(2, 3, 9)).shape
    torch.Size([2, 4, 7])
    """

    _product = staticmethod(B.binary_conv1d)


class BinaryConv2d(_BinaryConv, nn.Conv2d):
    """A convolution of signs: :func:`structops.binary.binary_conv2d`.

    Args: as ``torch.nn.Conv2d`` (without bias by default); pad_value: what padding counts as, 0, 1 or -1; scale, clip: as
        :class:`BinaryLinear`.

    >>> import torch, structops
    >>> structops.nn.BinaryConv2d(3, 4, 3, padding=1, pad_value=-1)(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    _product = staticmethod(B.binary_conv2d)


class RSign(nn.Module):
    """:func:`structops.binary.rsign` with a learned shift a channel of dimension 1.

    >>> import torch, structops
    >>> structops.nn.RSign(2)(torch.tensor([[0.5, -0.5]])).tolist()
    [[1.0, -1.0]]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return B.rsign(x, self.shift)


class RPReLU(nn.Module):
    """:func:`structops.binary.rprelu` with learned vectors of the channels of dimension 1.

    >>> import torch, structops
    >>> structops.nn.RPReLU(2)(torch.tensor([[4.0, -4.0]])).tolist()
    [[4.0, -1.0]]
    """

    def __init__(self, channels: int, slope: float = 0.25) -> None:
        super().__init__()
        self.shift, self.offset = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), slope))

    def forward(self, x: Tensor) -> Tensor:
        return B.rprelu(x, self.shift, self.slope, self.offset)


class BinaryEmbedding(nn.Embedding):
    """:func:`structops.binary.binary_embedding` of a learned table.

    >>> import torch, structops
    >>> structops.nn.BinaryEmbedding(5, 3)(torch.tensor([4])).abs().tolist()
    [[1.0, 1.0, 1.0]]
    """

    def forward(self, index: Tensor) -> Tensor:
        return B.binary_embedding(index, self.weight)


class BinaryEmbeddingBag(nn.EmbeddingBag):
    """:func:`structops.binary.binary_embedding_bag` of a learned table, ``mode`` sum, mean or max.

    >>> import torch, structops
    >>> structops.nn.BinaryEmbeddingBag(5, 3)(torch.tensor([4, 4]), torch.tensor([0])).abs().tolist()
    [[1.0, 1.0, 1.0]]
    """

    def forward(self, index: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        return B.binary_embedding_bag(index, offsets, self.weight, self.mode)


class SparseLinear(nn.Module):
    """A linear layer that stores and differentiates only the weights of a mask: :func:`structops.binary.sparse_linear`.

    Args:
        mask: ``[O, I]``, bool or not 0. bias: whether to add one.

    :meth:`prune_regrow` moves the mask and returns ``origin`` for the state of an optimiser.

    >>> import torch, structops
    >>> structops.nn.SparseLinear(torch.eye(3))(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, mask: Tensor, bias: bool = True) -> None:
        super().__init__()
        self.graph = B.mask_graph(mask)
        O, I, E = self.graph.num_dst, self.graph.num_src, self.graph.num_edges
        bound = 1 / math.sqrt(max(E / max(O, 1), 1))
        self.in_features, self.out_features = I, O
        self.values = nn.Parameter(torch.empty(E).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(O).uniform_(-bound, bound)) if bias else None

    def _apply(self, fn, recurse: bool = True):
        module = super()._apply(fn, recurse)
        self.graph = self.graph.to(self.values.device)
        return module

    def get_extra_state(self) -> tuple[Tensor, Tensor, int]:
        return self.graph.rowptr, self.graph.col, self.graph.num_src

    def set_extra_state(self, state: tuple[Tensor, Tensor, int]) -> None:
        rowptr, col, num_src = state
        have, given = (self.out_features, self.in_features, self.values.numel()), (rowptr.numel() - 1, num_src, col.numel())
        if have != given:
            raise ValueError(f"SparseLinear: expected a mask of {have} outputs, inputs and weights, got {given}")
        self.graph = type(self.graph).from_csr(rowptr, col, num_src).to(self.values.device)

    def forward(self, x: Tensor) -> Tensor:
        return B.sparse_linear(x, self.graph, self.values, self.bias)

    @torch.no_grad()
    def prune_regrow(self, share: float, score: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Move ``share`` of the edges: :func:`structops.binary.prune_regrow`."""
        self.graph, values, origin = B.prune_regrow(self.graph, self.values, share, score, generator=generator)
        self.values.copy_(values)
        return origin


class FFF(nn.Module):
    """A fast feed-forward network: soft in training, one leaf a row in evaluation.

    Args:
        input_width, leaf_width, output_width, depth: of the network, 2 ** depth leaves.
        activation: identity, relu, gelu or silu. train_hardened: decide hard in training too. region_leak: of training.
        master_leaf: width of a leaf that every row takes, blended by a learned share (arXiv:2405.16836); 0: none.

    ``load_balance`` and ``entropy`` hold the losses of the last soft pass. Parameter names and shapes of ``fastfeedforward``.

    >>> import torch, structops
    >>> structops.nn.FFF(8, 4, 3, 2).eval()(torch.randn(5, 8)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, input_width: int, leaf_width: int, output_width: int, depth: int, activation: str = "relu", *,
        train_hardened: bool = False, region_leak: float = 0.0, master_leaf: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        n, L = 2**depth - 1, 2**depth
        a, b = 1 / math.sqrt(input_width), 1 / math.sqrt(leaf_width)
        uniform = lambda bound, *shape: nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
        self.node_weights, self.node_biases = uniform(a, n, input_width), uniform(a, n, 1)
        self.w1s, self.b1s = uniform(a, L, input_width, leaf_width), uniform(a, L, leaf_width)
        self.w2s, self.b2s = uniform(b, L, leaf_width, output_width), uniform(b, L, output_width)
        self.activation, self.train_hardened, self.region_leak = activation, train_hardened, region_leak
        self.master = (
            nn.Sequential(nn.Linear(input_width, master_leaf), nn.ReLU(), nn.Linear(master_leaf, output_width))
            if master_leaf
            else None
        )
        self.blend = nn.Parameter(torch.zeros(())) if master_leaf else None
        self.load_balance: Tensor | None = None
        self.entropy: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies have no pass behind them: losses belong to the graph of one, which cannot be copied."""
        return {**self.__dict__, "load_balance": None, "entropy": None}

    def forward(self, x: Tensor) -> Tensor:
        n = (self.node_weights, self.node_biases.reshape(-1), self.w1s, self.b1s, self.w2s, self.b2s)
        if self.training and not self.train_hardened:
            y, mixture, p = B.fff_soft(x, *n, activation=self.activation, region_leak=self.region_leak)
            self.load_balance, self.entropy = B.fff_load_balance(mixture), B.fff_entropy(p) if p.numel() else None
        else:
            y = B.fff_hard(x, *n, activation=self.activation)
        if self.master is None:
            return y
        k = torch.sigmoid(self.blend)
        return k * y + (1 - k) * self.master(x)
