"""``python -m bench.train_digits``: trains a small binary network on the digits of scikit-learn, on bits and simulated in floats.

Both runs start from the same weights and see the same batches. Products of signs are exact integers either way; a rounding of
float gradients that turns one sign sends the runs apart (in float64 they are the same: tests/binary/test_training.py).
Prints loss, accuracy, memory kept for backward, size of the weights and times.
"""

from __future__ import annotations

import argparse
import time

import structops
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

B = structops.binary
PACKED, FLOAT = "packed bits", "simulated in float32"


class Simulated(torch.autograd.Function):
    """Sign with a clipped straight-through gradient, as in the public repositories."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0].abs() <= 1)


class Block(nn.Module):
    """Sign, 3 x 3 convolution of signs, batch norm, and the input added (Bi-Real Net)."""

    def __init__(self, channels: int, packed: bool) -> None:
        super().__init__()
        self.conv = structops.nn.BinaryConv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        if self.packed:
            y = self.conv(x)
        else:
            y = F.conv2d(Simulated.apply(x), Simulated.apply(self.conv.weight), padding=1)
        return x + self.norm(y)


class Net(nn.Module):
    def __init__(self, packed: bool, channels: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.blocks = nn.Sequential(*(Block(channels, packed) for _ in range(blocks)))
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def digits(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images [n, 1, 8, 8] and labels, 1347 and 450 of them."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (torch.from_numpy(data.images).float()[:, None] - 4.9) / 6.0
    y = torch.from_numpy(data.target).long()
    order = torch.randperm(len(y), generator=generator)
    return x[order[:1347]], y[order[:1347]], x[order[1347:]], y[order[1347:]]


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes that the binary blocks keep for backward, their inputs' own storage included once."""
    kept: dict[int, int] = {}

    def hook(t: Tensor) -> Tensor:
        kept[t.data_ptr()] = t.numel() * t.element_size()
        return t

    h = model.stem(x)
    with torch.autograd.graph.saved_tensors_hooks(hook, lambda t: t):
        for block in model.blocks:
            if block.packed:
                h = block.conv(h)
            else:
                h = F.conv2d(Simulated.apply(h), Simulated.apply(block.conv.weight), padding=1)
    return sum(kept.values())


def median(fn, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        fn()
        times.append(time.perf_counter() - begin)
    return sorted(times)[repeats // 2]


def train(name: str, epochs: int, channels: int, blocks: int, console: Console) -> dict:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    x, y, test_x, test_y = digits(g)
    model = Net(name == PACKED, channels, blocks)
    optimiser = torch.optim.Adam(model.parameters(), 0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    losses, begin = [], time.perf_counter()
    for _ in track(range(epochs), name, console=console, transient=True):
        for batch in torch.randperm(len(y), generator=g).split(64):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for block in model.blocks:
                    block.conv.weight.clamp_(-1, 1)
            losses.append(loss.item())
        schedule.step()
    seconds = time.perf_counter() - begin
    kept = saved_bytes(model, x[:64])
    model.eval()
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
        inference = median(lambda: model(test_x), 9)
        h = model.stem(test_x)
        layers = median(lambda: model.blocks(h), 9)
    weights = sum(b.conv.weight.numel() for b in model.blocks)
    size = weights // 8 if name == PACKED else weights * 4
    return {
        "losses": losses, "accuracy": accuracy, "seconds": seconds, "kept": kept, "inference": inference, "layers": layers,
        "weights": size,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.train_digits", description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=3)
    a = parser.parse_args()
    console = Console()
    runs = {name: train(name, a.epochs, a.channels, a.blocks, console) for name in (PACKED, FLOAT)}
    table = Table("", *runs, title=f"digits, {a.blocks} binary blocks of {a.channels} channels, {torch.get_num_threads()} threads")
    rows = {
        "loss, mean of the last 20 steps": lambda r: f"{sum(r['losses'][-20:]) / 20:.4f}",
        "test accuracy": lambda r: f"{100 * r['accuracy']:.1f} %",
        "training": lambda r: f"{r['seconds']:.1f} s",
        "kept for backward by the binary layers, batch 64": lambda r: f"{r['kept'] / 1024:.0f} KiB",
        "binary weights for inference": lambda r: f"{r['weights'] / 1024:.0f} KiB",
        "binary blocks, 450 images": lambda r: f"{1e3 * r['layers']:.2f} ms",
        "whole network, 450 images": lambda r: f"{1e3 * r['inference']:.2f} ms",
    }
    for title, show in rows.items():
        table.add_row(title, *(show(r) for r in runs.values()))
    console.print(table)


if __name__ == "__main__":
    main()
