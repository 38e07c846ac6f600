"""R@1 against the share of training captions that stand at wrong images: the grid "noise"."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cskt.report.grid_tables import grid_table, mean_interval
from cskt.report.style import METHOD_COLOURS, MUTED
from cskt.report.tables import formatted, spread


def noise_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per method and share of captions moved, and how far its R@1 lies from the same
    method's without noise and from the backbone as it came, in points, mean over seeds.

    Args:
        runs: of one setting, from :func:`cskt.report.run_files.read_grid`.
    """
    table = grid_table(runs).drop(columns=["trained parameters", "seconds a run"])
    lost = []
    gained = []
    for variant in table["variant"]:
        ours = runs[runs["row"] == variant]
        gain = ours["R@1"] - ours["zero-shot R@1"]
        gained.append(spread(gain, sign="+"))
        method, share = _method_and_share(variant)
        clean = runs[runs["row"] == f"{method}, 0%"]
        loss = _difference_by_seed(ours, clean)
        comparable = share > 0 and len(loss) > 0
        lost.append(spread(loss, sign="+") if comparable else "")
    table["R@1 less without noise"] = lost
    table["R@1 less zero-shot"] = gained
    return table


def _method_and_share(row: str) -> tuple[str, float]:
    """``("CSKT", 20.0)`` of ``"CSKT, 20%"``."""
    method, _, share = row.rpartition(", ")
    return method, float(share.removesuffix("%"))


def _difference_by_seed(ours: pd.DataFrame, clean: pd.DataFrame) -> pd.Series:
    """R@1 of each of our runs less that of the clean one of the same seed."""
    pairs = ours.merge(clean, on="seed", suffixes=("", " clean"))
    return pairs["R@1"] - pairs["R@1 clean"]


def noise_curves(runs: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Left R@1 of our runs, a line per method with 95 % intervals over people, the backbone as it
    came dotted; right what was ``published`` (of :func:`published_noise`), on an axis of its own
    that is as many points high, so that slopes compare."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3))
    _draw_runs(left, runs)
    for (method, dataset), points in published.groupby(["method", "dataset"], sort=False):
        percent = 100 * points["noise"]
        right.plot(percent, points["R@1"], "o-", color=MUTED, label=f"{method}, {dataset}")
    low, high = left.get_ylim()
    top = published["R@1"].max() + high - runs["R@1"].max()
    right.set_ylim(top - (high - low), top)
    left.set(title="runs of this code", ylabel="R@1 on test, percent")
    right.set(title="published, real data, another scale")
    for axes in (left, right):
        axes.set(xlabel="percent of the captions moved")
        axes.legend(title="")
    return figure


def _draw_runs(axes: Axes, runs: pd.DataFrame) -> None:
    """A line per method through the means of its shares, and the backbone as it came."""
    points = []
    for row, seeds in runs.groupby("row", sort=False):
        method, share = _method_and_share(str(row))
        mean = seeds["R@1"].mean()
        interval = mean_interval(seeds)
        below = mean - interval["low"]
        above = interval["high"] - mean
        points.append((method, share, mean, below, above))
    table = pd.DataFrame(points, columns=["method", "share", "mean", "below", "above"])
    for name, line in table.groupby("method", sort=False):
        method = str(name)
        axes.errorbar(
            line["share"],
            line["mean"],
            yerr=[line["below"], line["above"]],
            marker="o",
            capsize=3,
            color=METHOD_COLOURS[method],
            label=method,
        )
    bare = runs["zero-shot R@1"].mean()
    axes.axhline(bare, color=METHOD_COLOURS["zero-shot"], linestyle=":", label="zero-shot")


def published_noise(path: str | Path) -> pd.DataFrame:
    """Published R@1 on the real benchmarks under noise, with sources (``book/data/noise.csv``);
    nothing here is ours."""
    return pd.read_csv(path).rename(columns={"r1": "R@1"})


def published_noise_table(published: pd.DataFrame) -> pd.DataFrame:
    """What :func:`published_noise` gives, for people."""
    return pd.DataFrame(
        {
            "method": published["method"],
            "data": published["dataset"] + " (real)",
            "noise": published["noise"].map("{:.0%}".format),
            "R@1": formatted(published["R@1"], "{:.2f}"),
            "source": published["source"],
        }
    )
