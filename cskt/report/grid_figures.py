"""Figures of grids of runs: what varies from row to row, and over epochs, seeds and numerics."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cskt.report.grid_tables import mean_interval
from cskt.report.style import BLUE, GREEN, METHOD_COLOURS, MUTED, ORANGE, RED


def grid_dots(runs: pd.DataFrame, reference: str) -> Figure:
    """R@1 of every run of a grid, a mark per seed and a bar at their mean; columns row, R@1."""
    rows = list(runs["row"].unique())
    figure, axes = plt.subplots(figsize=(7.6, 0.34 * len(rows) + 0.9))
    for place, row in enumerate(rows):
        values = runs[runs["row"] == row]["R@1"]
        colour = MUTED
        if row == reference:
            colour = BLUE
            axes.axvline(values.mean(), color=BLUE, linewidth=0.8, linestyle=":")
        places = np.full(len(values), place)
        axes.plot(values, places, "o", color=colour, alpha=0.75)
        axes.vlines(values.mean(), place - 0.32, place + 0.32, color=colour, linewidth=2.2)
    axes.set(yticks=range(len(rows)), yticklabels=rows)
    axes.set_xlabel("R@1 on test, percent")
    axes.invert_yaxis()
    return figure


def grid_lines(grids: dict[str, pd.DataFrame]) -> Figure:
    """R@1 over the settings of several grids, 95 % intervals over people; frames with columns row,
    R@1, interval."""
    size = (2.5 * len(grids), 2.7)
    figure, panels = plt.subplots(1, len(grids), figsize=size, sharey=True, squeeze=False)
    for axes, (grid, runs) in zip(panels[0], grids.items(), strict=True):
        _draw_row_means(axes, runs)
        axes.set(title=grid)
    panels[0, 0].set_ylabel("R@1 on test, percent")
    return figure


def _draw_row_means(axes: Axes, runs: pd.DataFrame) -> None:
    """A line through the means of the rows, each with its interval."""
    names = []
    means = []
    below = []
    above = []
    for row, group in runs.groupby("row", sort=False):
        mean = group["R@1"].mean()
        interval = mean_interval(group)
        names.append(row)
        means.append(mean)
        below.append(mean - interval["low"])
        above.append(interval["high"] - mean)
    places = range(len(names))
    spread = [below, above]
    axes.errorbar(
        places,
        means,
        yerr=spread,
        marker="o",
        color=BLUE,
        capsize=3,
        linewidth=1.2,
    )
    axes.set(xticks=places, xticklabels=names)


def less_data(runs: pd.DataFrame) -> Figure:
    """R@1 over the share of the training identities, a line per method; ``row`` reads ``method,
    share``."""
    labels = runs["row"].str.rsplit(", ", n=1, expand=True)
    percent = labels[1].str.rstrip("%").astype(float)
    figure, axes = plt.subplots(figsize=(6.2, 3.2))
    sns.lineplot(
        runs.assign(method=labels[0], share=percent),
        x="share",
        y="R@1",
        hue="method",
        marker="o",
        palette=METHOD_COLOURS,
        errorbar=("sd", 1),
        ax=axes,
    )
    shares = sorted(percent.unique())
    axes.set(
        xscale="log",
        xticks=shares,
        xlabel="percent of the training identities",
        ylabel="R@1 on test, percent",
    )
    axes.set_xticks([], minor=True)
    axes.set_xticklabels([f"{share:g}" for share in shares])
    axes.legend(title="")
    return figure


def method_histories(histories: pd.DataFrame) -> Figure:
    """R@1 on val and on test over the epochs, a panel per method, a pair of lines per seed; columns
    method, seed, epoch, val R@1, test R@1. The mark on val's line is the epoch that val chooses."""
    methods = list(histories["method"].unique())
    columns = min(3, len(methods))
    rows = math.ceil(len(methods) / columns)
    size = (2.8 * columns, 2.3 * rows)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=size,
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axes in grid.flat[len(methods) :]:
        axes.set_visible(False)
    for axes, method in zip(grid.flat, methods, strict=False):
        for _, run in histories[histories["method"] == method].groupby("seed"):
            _draw_history(axes, run)
        axes.set(title=method)
        axes.tick_params(labelbottom=True)  # the panel below may be empty
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("R@1, percent")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))  # a label once, of many seeds
    figure.supxlabel("epoch", fontsize=10)
    figure.legend(named.values(), named.keys(), ncols=3, fontsize=8, loc="outside upper right")
    return figure


def _draw_history(axes: Axes, run: pd.DataFrame) -> None:
    epochs = run["epoch"].to_numpy()
    on_val = run["val R@1"].to_numpy()
    on_test = run["test R@1"].to_numpy()
    best = on_val.argmax()
    axes.plot(epochs, on_val, color=BLUE, label="val")
    axes.plot(epochs, on_test, color=MUTED, linestyle="--", label="test")
    axes.plot(epochs[best], on_val[best], "o", color=RED, label="chosen on val")


def numerics_dots(rows: pd.DataFrame) -> Figure:
    """R@1 of the last epoch under each numerics, a panel per method; the band is the committed mean
    -+ 2 sd. Rows of :func:`cskt.report.variation.variation_rows`."""
    methods = list(rows["method"].unique())
    numerics = list(rows["numerics"].unique())
    width = 3.6 * len(methods) + 1
    height = 0.3 * len(numerics) + 1.1
    size = (width, height)
    figure, panels = plt.subplots(1, len(methods), figsize=size, sharey=True, squeeze=False)
    for axes, method in zip(panels[0], methods, strict=True):
        _draw_numerics(axes, rows[rows["method"] == method], numerics)
        axes.set(title=method, xlabel="R@1, last epoch")
        axes.margins(y=0.1)
    panels[0, 0].invert_yaxis()
    panels[0, -1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _draw_numerics(axes: Axes, rows: pd.DataFrame, numerics: list[str]) -> None:
    """The rows of one method over the committed band, a line of the panel for each of
    ``numerics``."""
    low = rows["low"].iloc[0]
    high = rows["high"].iloc[0]
    if low <= high:  # not so where nothing is committed to compare with (NaN)
        axes.axvspan(
            low,
            high,
            color=GREEN,
            alpha=0.15,
            linewidth=0,
            label="seeds, ± 2 sd",
        )
    for precision, dots in rows.groupby("precision"):
        places = [numerics.index(name) for name in dots["numerics"]]
        colour = BLUE if precision == "fp32" else ORANGE
        axes.plot(dots["R@1"], places, "o", label=precision, color=colour)
    axes.set(yticks=range(len(numerics)), yticklabels=numerics)
