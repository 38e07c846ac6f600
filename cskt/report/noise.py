"""R@1 against the share of training captions that stand at wrong images: the grid "noise"."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cskt.report.grid_tables import grid_table, mean_interval
from cskt.report.style import METHOD_COLOURS, MUTED, describe, listed
from cskt.report.tables import over_seeds, published

MOVED = "percent of the captions moved"


def noise_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per method and share of captions moved, and how far its R@1 lies from the same
    method's and seed's without noise (a dash: not known) and from the backbone as it came, in
    points.

    Args:
        runs: of one setting, from :func:`cskt.report.run_files.read_grid`.
    """
    runs = _with_shares(runs)
    alike = ["label", "seed"]
    noisy = runs["share"] > 0
    clean = runs[~noisy].set_index(alike)["R@1"]
    without_noise = runs[alike].join(clean, on=alike)["R@1"]
    loss = runs["R@1"] - without_noise
    runs["R@1 less without noise"] = loss.where(noisy)
    runs["R@1 less zero-shot"] = runs["R@1"] - runs["zero-shot R@1"]
    compared = ["R@1 less without noise", "R@1 less zero-shot"]
    table = grid_table(runs).drop(columns=["trained parameters", "seconds a run"])
    return table.join(over_seeds(runs, ["row"], compared)[compared])


def _with_shares(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with a row such as ``"CSKT, 20%"`` taken apart into ``label`` and ``share``."""
    parts = runs["row"].str.rsplit(", ", n=1, expand=True)
    share = parts[1].str.removesuffix("%").astype(float)
    return runs.assign(label=parts[0], share=share)


def noise_curves(runs: pd.DataFrame, theirs: pd.DataFrame) -> Figure:
    """Left R@1 of our runs, a line per method with 95 % intervals over people, the backbone as it
    came dotted; right ``theirs`` (of :func:`published_noise`), on an axis of its own that is as
    many points high, so that slopes compare."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3))
    _draw_runs(left, runs)
    theirs = theirs.astype({MOVED: float, "R@1": float})
    for (method, dataset), points in theirs.groupby(["method", "dataset"], sort=False):
        right.plot(points[MOVED], points["R@1"], "o-", color=MUTED, label=f"{method}, {dataset}")
    low, high = left.get_ylim()
    top = theirs["R@1"].max() + high - runs["R@1"].max()
    right.set_ylim(top - (high - low), top)
    left.set(title="runs of this code", ylabel="R@1 on test, percent")
    right.set(title="published, another scale")
    for axes in (left, right):
        axes.set(xlabel=MOVED)
        axes.legend(title="")
    means = runs.groupby("row", sort=False)["R@1"].mean()
    return describe(
        figure,
        "noise",
        "R@1 against the share of captions at wrong images: left runs of this code, with 95 % "
        "intervals over people; right published figures, on another scale that is as many points "
        "high.",
        f"Two panels of lines. Mean R@1 of this code's runs, in percent: {listed(means)}.",
    )


def _draw_runs(axes: Axes, runs: pd.DataFrame) -> None:
    """A line per method through the means of its shares, and the backbone as it came."""
    points = []
    for (label, share), seeds in _with_shares(runs).groupby(["label", "share"], sort=False):
        mean = seeds["R@1"].mean()
        interval = mean_interval(seeds)
        below = mean - interval["low"]
        above = interval["high"] - mean
        points.append((label, share, mean, below, above))
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
    """Published R@1 on the real benchmarks under noise, as printed in their sources
    (``book/data/noise.csv``); nothing here is ours."""
    table = published(path).rename(columns={"noise_percent": MOVED})
    return table.assign(dataset=table["dataset"] + " (real)")
