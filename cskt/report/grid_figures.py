"""Figures of grids of runs: what varies from row to row, and over epochs, seeds and numerics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cskt.report.grid_tables import mean_interval
from cskt.report.style import BLUE, METHOD_COLOURS, MUTED, describe, listed


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
    means = runs.groupby("row", sort=False)["R@1"].mean()
    return describe(
        figure,
        "parts",
        "R@1 on test of each row of the table; a dot is a run with a seed of its own, a bar their "
        "mean, and the dotted line the whole method.",
        f"Dots in rows. Mean R@1 in percent: {listed(means)}.",
    )


def grid_lines(grids: dict[str, pd.DataFrame]) -> Figure:
    """R@1 over the settings of several grids, 95 % intervals over people; frames with columns row,
    R@1, interval."""
    size = (2.5 * len(grids), 2.7)
    figure, panels = plt.subplots(1, len(grids), figsize=size, sharey=True, squeeze=False)
    for axes, (grid, runs) in zip(panels[0], grids.items(), strict=True):
        rows = runs.groupby("row", sort=False)
        means = rows["R@1"].mean()
        ends = np.array([mean_interval(group) for _, group in rows])
        reach = np.abs(ends.T - means.to_numpy())
        axes.errorbar(means.index, means, yerr=reach, fmt="-o", color=BLUE, capsize=3)
        axes.set(title=grid)
    panels[0, 0].set_ylabel("R@1 on test, percent")
    ranges = []
    for grid, runs in grids.items():
        means = runs.groupby("row", sort=False)["R@1"].mean()
        ranges.append(f"{grid}: {listed(means)}")
    return describe(
        figure,
        "sizes",
        "R@1 on test as one setting at a time changes; bars are 95 % intervals over people.",
        f"A panel for each setting. R@1 in percent by {'; by '.join(ranges)}.",
    )


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
    means = runs.groupby("row", sort=False)["R@1"].mean()
    return describe(
        figure,
        "little-data",
        "R@1 on test against the share of the training identities, on a logarithmic scale; bands "
        "are standard deviations over seeds.",
        f"A line for each method. Mean R@1 in percent: {listed(means)}.",
    )


def method_histories(histories: pd.DataFrame) -> Figure:
    """R@1 on val and on test over the epochs, a panel per method, a pair of lines per seed; columns
    method, seed, epoch, val R@1, test R@1."""
    lines = histories.melt(["method", "seed", "epoch"], var_name="split", value_name="R@1")
    # seaborn lays its panels out by itself.
    with plt.rc_context({"figure.constrained_layout.use": False}):
        grid = sns.relplot(
            lines.replace({"split": {"val R@1": "val", "test R@1": "test"}}),
            kind="line",
            x="epoch",
            y="R@1",
            hue="split",
            style="split",
            units="seed",
            estimator=None,
            col="method",
            col_wrap=3,
            height=2.3,
            aspect=1.2,
            palette={"val": BLUE, "test": MUTED},
        )
    grid.set_titles("{col_name}")
    grid.set_ylabels("R@1, percent")
    last = histories[histories["epoch"] == histories["epoch"].max()]
    return describe(
        grid.figure,
        "histories",
        "R@1 on val and on test after each epoch, at the rate chosen for each method; a pair of "
        "lines is a run.",
        "A panel for each method. R@1 on val after the last epoch, in percent: "
        + listed(last.groupby("method")["val R@1"].mean())
        + ".",
    )
