"""Speed-up bars per operator and width from one run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from .report import title

COLOURS = {
    "sum": "#2563a8", "mean": "#3a9a6b", "min": "#b5446e", "max": "#e08a1e",
    "hpo": "#2563a8", "skewed": "#e08a1e", "uniform": "#3a9a6b", "tiny": "#7a68b3",
}  # fmt: skip
SPARE = ("#2563a8", "#e08a1e", "#3a9a6b", "#b5446e")
LOWEST = -4  # log2; bars below are cut
# Beginning of the operator's name -> panel, for the families whose cases are shapes rather than graphs.
SHAPES = {
    "tp_conv": "tensor products", "harmonics": "spherical harmonics",
    "symmetric_contraction": "symmetric contractions", "gaunt_product": "Gaunt products",
    "CPTensorProduct": "products of low rank",
    "edge_block": "SO(2) convolutions", "so2_conv": "SO(2) convolutions", "wigner": "SO(2) convolutions",
    "linear": "linear layers on bits", "w1a": "linear layers on bits",
    "bit GEMM": "products of bits", "Hamming": "products of bits",
    "pack": "bits", "unpack": "bits", "popcount": "bits", "hamming": "bits",
    "conv,": "convolutions on bits", "depthwise": "convolutions on bits",
    "quantize": "quantizers", "fff": "fast feed-forward networks, masks", "edge_popup": "fast feed-forward networks, masks",
}  # fmt: skip


@dataclass
class Panel:
    """Bars by (slot, series), in the order of the run."""

    name: str
    bars: dict[tuple[str, str], dict] = field(default_factory=dict)

    @property
    def slots(self) -> list[str]:
        return list(dict.fromkeys(slot for slot, _ in self.bars))

    @property
    def series(self) -> list[str]:
        return list(dict.fromkeys(series for _, series in self.bars))


def panels(rows: list[dict]) -> list[Panel]:
    """The rows with a ratio, plans apart, as panels of at most some thirty bars."""
    found: dict[str, Panel] = {}
    many = len({r["features"] for r in rows if r["op"].startswith("spmm") and r["graph"] != "10 nodes"}) > 2
    for row in rows:
        if row.get("ratio") is None or row["direction"] == "plan" or not row["features"]:
            continue
        words = "forward + backward" if row["direction"] == "fwd+bwd" else "forward"
        first, _, rest = row["op"].partition(" ")
        width, graph = f"F={row['features']}", row["graph"]
        shapes = next((panel for start, panel in SHAPES.items() if row["op"].startswith(start)), None)
        if shapes:
            shape = row["graph"] if row["op"] in ("edge_block", "so2_conv", "wigner") else row["shape"].partition(", ")[0]
            op = row["op"].removeprefix("quantize ").replace(", ", "\n")
            name, slot, series = f"{shapes}, {words}", f"{op}\n{shape}", "fastest peer"
        elif graph in ("trees", "dense", "random"):
            kind = {"trees": "projective trees", "dense": "non-projective trees", "random": "chains"}[graph]
            op = row["op"].removeprefix("tree ").replace(", ", "\n").replace("chain_", "")
            shape = (row["shape"].rpartition(", N=")[0] or row["shape"]).replace("treebank, ", "treebank\n")
            name, slot, series = f"{kind}, {words}", f"{op}\n{shape}", "fastest peer"
        elif row["op"].endswith("call"):
            name, slot, series = "call on a 10-node graph", row["op"].removesuffix(" call"), words
        elif first.startswith("select"):
            name, slot, series = "select and its transpose", width, row["op"]
        elif first == "sddmm" or rest == "softmax":
            name, slot, series = f"{row['op']}, {words}", width, graph
        elif first == "spmm" and many:
            name, slot, series = f"spmm, {words}, {graph} graph", width, rest
        elif first == "spmm":
            name, slot, series = f"spmm, {words}", f"{graph}\n{width}", rest
        else:
            name, slot, series = f"{first}, {words}", width, rest or first
        found.setdefault(name, Panel(name)).bars[slot, series] = row
    return list(found.values())


def draw(run: dict, path: Path) -> None:
    """One PNG. Bars: time of the best correct peer / ours, log2; black lines: the target; most threads of the run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    most = max((r["threads"] for r in run["rows"]), default=1)
    found = panels([r for r in run["rows"] if r["threads"] == most])
    if not found:
        return
    columns = min(len(found), 2 if len(found) < 12 else 3)
    lines = math.ceil(len(found) / columns)
    size = (7 * columns, 2.9 * lines + 0.9)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.1)
    for axis, panel in zip(axes.flat, found, strict=False):
        _panel(axis, panel)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    meaning = "time of the fastest peer / time of structops (above 1x: structops is faster; black line: target)"
    figure.suptitle(f"{meaning}\n{title(run['machine'], [most])}", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _wanted(row: dict) -> float | None:
    return max((least for peer, least in row["targets"].items() if peer in ("best", row["best"])), default=None)


def _colour(series: list[str], name: str) -> str:
    return COLOURS.get(name.partition(" ")[0]) or SPARE[series.index(name) % len(SPARE)]


def _panel(axis, panel: Panel) -> None:
    slots, series = panel.slots, panel.series
    width = min(0.84 / len(series), 0.3)
    small = len(slots) * len(series) > 14
    for (slot, name), row in panel.bars.items():
        ratio, s = max(row["ratio"], 2.0**LOWEST), series.index(name)
        x = slots.index(slot) + (s - (len(series) - 1) / 2) * width
        hatch = "////" if name.endswith(("planned", "weighted")) else None
        style = {"color": _colour(series, name), "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        axis.bar(x, ratio - 1, width * 0.92, bottom=1, zorder=2, label=name, **style)
        text, above = f"{row['ratio']:.1f}" if row["ratio"] < 9.95 else f"{row['ratio']:.0f}", ratio >= 1
        place = {"ha": "center", "va": "bottom" if above else "top", "fontsize": 6 if small else 8, "zorder": 5}
        axis.annotate(text, (x, ratio), (0, 1.5 if above else -1.5), textcoords="offset points", **place)
        if _wanted(row):
            axis.hlines(_wanted(row), x - width / 2, x + width / 2, color="black", linewidth=1.6, zorder=3)
    _scale(axis, panel)
    axis.set_xticks(range(len(slots)), slots, fontsize=9 if max(map(len, slots)) < 20 else 6)
    if len(slots) > 8:
        axis.tick_params(axis="x", labelrotation=60)
    axis.set_xlim(-0.6, len(slots) - 0.4)
    axis.set_title(panel.name, fontsize=10, loc="left", fontweight="bold", pad=20)
    axis.spines[["top", "right"]].set_visible(False)
    handles = dict(reversed(list(zip(*reversed(axis.get_legend_handles_labels()), strict=True))))
    chosen = [handles[name] for name in series]
    box = {"loc": "lower left", "bbox_to_anchor": (-0.01, 0.985), "frameon": False, "borderpad": 0.1}
    legend = axis.legend(chosen, series, fontsize=7.5, ncols=8, handlelength=1.1, columnspacing=1.0, **box)
    legend.set_in_layout(False)


def _scale(axis, panel: Panel) -> None:
    ratios = [r["ratio"] for r in panel.bars.values()]
    top = max([*ratios, *(t for r in panel.bars.values() if (t := _wanted(r)))])
    low = max(math.floor(math.log2(max(min(*ratios, 0.9), 1e-9)) - 0.2), LOWEST) if ratios else -1
    high = math.ceil(math.log2(max(top * 1.3, 2)))
    axis.set_yscale("log", base=2)
    axis.set_ylim(2.0**low, 2.0**high)
    ticks = [2.0**i for i in range(low, high + 1)]
    axis.set_yticks(ticks, [f"{t:g}x" if t >= 1 else f"1/{1 / t:g}x" for t in ticks], fontsize=8)
    axis.minorticks_off()
    axis.axhline(1, color="#444444", linewidth=1, zorder=4)
    axis.grid(axis="y", color="#dddddd", linewidth=0.7, zorder=0)
