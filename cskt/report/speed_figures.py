"""Figures of what the benchmarks of speed measured."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from cskt.report.efficiency import short
from cskt.report.style import BLUE, GREEN, METHOD_COLOURS, MUTED, PURPLE, RED

COLOURS = {
    **METHOD_COLOURS,
    "plain CSKT": RED,
    "open_clip's own": GREEN,
    "CSKT, compiled": PURPLE,
    "BPT": "#56b4e9",
    "DAT": "#cc79a7",
    "LoRA": "#8c6d31",
}
PRECISION_COLOURS = {"fp32": MUTED, "bf16": BLUE}
SIZES = {
    "encode_image": "images in a batch",
    "encode_text": "tokens per caption",
    "ranking": "images to rank",
}


def step_times(steps: pd.DataFrame) -> Figure:
    """Time and extra memory of a training step; columns method, precision, seconds, extra_memory_mb
    (NaN: unknown)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.6), sharey=True)
    _draw_bars(left, steps, "seconds", "seconds per training step")
    _draw_bars(right, steps, "extra_memory_mb", "extra memory of it, MB")
    left.legend(title="", fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.98))
    right.get_legend().remove()
    return figure


def _draw_bars(axes: Axes, steps: pd.DataFrame, column: str, label: str) -> None:
    sns.barplot(
        steps,
        y="method",
        x=column,
        hue="precision",
        palette=PRECISION_COLOURS,
        ax=axes,
    )
    for bars in axes.containers:
        assert isinstance(bars, BarContainer)
        axes.bar_label(bars, fmt=short, padding=2, fontsize=8)
    axes.set(xlabel=label, ylabel="")
    axes.margins(x=0.12)
    axes.grid(False, axis="y")


def roofline(rows: pd.DataFrame, rates: dict[str, float]) -> Figure:
    """What was computed per second over how much is computed per byte moved, below what the machine
    can do.

    ``rows`` with columns what, method, precision, seconds, flops and bytes; ``rates``, per second:
    ``copy`` in bytes, ``matmul_fp32`` and where it was measured ``matmul_bf16`` in FLOPs.
    """
    rows = rows.dropna(subset=["flops"])
    intensity = rows["flops"] / rows["bytes"]
    rate = rows["flops"] / rows["seconds"] / 1e9
    figure, axes = plt.subplots(figsize=(7.6, 3.8))
    _draw_limits(axes, rates, intensity)
    sns.scatterplot(
        rows.assign(intensity=intensity, rate=rate),
        x="intensity",
        y="rate",
        hue="method",
        style="what",
        s=60,
        palette=COLOURS,
        ax=axes,
        zorder=3,
    )
    for precision, x, y in zip(rows["precision"], intensity, rate, strict=True):
        axes.annotate(precision, (x, y), xytext=(5, -3), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="FLOPs per byte moved", ylabel="GFLOPs per second")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(LogFormatter())
        axis.set_minor_formatter(LogFormatter())
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _draw_limits(axes: Axes, rates: dict[str, float], intensity: pd.Series) -> None:
    """For each precision the lower of two limits: bytes moved, and multiplications, a second."""
    ridge = rates["matmul_fp32"] / rates["copy"]
    lowest = min(intensity.min(), ridge) / 3
    span = np.geomspace(lowest, 2 * intensity.max(), 200)
    for name, rate in rates.items():
        if name.startswith("matmul_"):
            precision = name.removeprefix("matmul_")
            limit = np.minimum(rates["copy"] * span, rate) / 1e9
            axes.plot(
                span,
                limit,
                color=PRECISION_COLOURS[precision],
                linestyle="--",
                label=f"limit in {precision}",
            )


def scaling(points: pd.DataFrame) -> Figure:
    """Time over batch size, caption length and gallery size; columns what, method, size,
    seconds."""
    figure, panels = plt.subplots(1, len(SIZES), figsize=(9.2, 2.8))
    for axes, (what, label) in zip(panels, SIZES.items(), strict=True):
        _draw_times(axes, points[points["what"] == what])
        axes.set(title=what, xlabel=label, ylim=(0, None))
    panels[0].set_ylabel("milliseconds")
    panels[0].legend(fontsize=8)
    return figure


def _draw_times(axes: Axes, points: pd.DataFrame) -> None:
    """A line per method."""
    for method, line in points.groupby("method"):
        milliseconds = 1e3 * line["seconds"]
        axes.plot(line["size"], milliseconds, "-o", color=COLOURS[str(method)], label=method)
