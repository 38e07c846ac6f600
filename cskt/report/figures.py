"""Figures of the data, of a run, and of what a search finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cskt.report.style import (
    BLUE,
    GREEN,
    INK,
    METHOD_COLOURS,
    MUTED,
    ORANGE,
    RED,
    describe,
    draw_picture,
    listed,
    wrap,
)

SIZES = {
    "encode_image": "images in a batch",
    "encode_text": "tokens per caption",
    "ranking": "images to rank",
}
AREA = 1.0  # of a disc, in square points, for a million trained parameters
History = Sequence[dict[str, Any]]  # of a run, an entry an epoch


# The data


def identity_grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[Sequence[str]], labels: Sequence[str]
) -> Figure:
    """One person per row, one image per column; ``rows[i][j]`` is (H, W, 3) uint8."""
    columns = max(len(images) for images in rows)
    size = (1.05 * columns + 0.9, 2.05 * len(rows))
    figure, grid = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for axes_row, images, names, label in zip(grid, rows, titles, labels, strict=True):
        for axes, image, name in zip(axes_row, images, names, strict=False):
            draw_picture(axes, image, title=name)
        axes_row[0].set_ylabel(label, fontsize=9)
        for axes in axes_row[len(images) :]:
            axes.set_visible(False)
    counts = []
    for images, label in zip(rows, labels, strict=True):
        counts.append(f"{label}: {len(images)} images")
    return describe(
        figure,
        "people",
        "People of the data set, one in each row, as its cameras see them.",
        f"A grid of pictures of pedestrians, a row for each person. {'; '.join(counts)}.",
    )


def caption_lengths(words: dict[str, Sequence[int]]) -> Figure:
    """How long captions are, in words, one curve per data set."""
    lengths = pd.DataFrame({"data set": words.keys(), "words": words.values()}).explode("words")
    lengths["words"] = lengths["words"].astype(int)
    figure, axes = plt.subplots(figsize=(6.4, 2.6))
    sns.ecdfplot(lengths.reset_index(drop=True), x="words", hue="data set", ax=axes)
    axes.set(xlabel="words in a caption", ylabel="share with no more")
    medians = lengths.groupby("data set", sort=False)["words"].median()
    return describe(
        figure,
        "caption-lengths",
        "Length of the captions: which share of them has so many words or fewer.",
        f"Rising curves, one for each data set. Median number of words: {listed(medians)}.",
    )


# A run


def training_curves(history: History, best_epoch: int, zero_shot: float | None = None) -> Figure:
    """Loss and learning rate, and R@1 and mAP on val (solid) and on test (dashed), over the epochs
    of one run; the kept epoch is marked. ``zero_shot``: R@1 on val before training."""
    epochs = pd.DataFrame(history)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.9))
    _draw_loss(left, epochs)
    for measure, colour in {"R@1": BLUE, "mAP": ORANGE}.items():
        on_val = f"val {measure}"
        on_test = f"test {measure}"
        right.plot(epochs["epoch"], epochs[on_val], "-o", color=colour, label=on_val)
        right.plot(
            epochs["epoch"],
            epochs[on_test],
            "--",
            color=colour,
            label=on_test,
            linewidth=1,
        )
    if zero_shot is not None:
        right.axhline(zero_shot, color=MUTED, linestyle=":", label="zero-shot val R@1")
    right.axvline(best_epoch, color=RED, linewidth=1, alpha=0.7, label=f"kept: epoch {best_epoch}")
    right.set(xlabel="epoch", ylabel="percent", title="text to image, val and test", ylim=(0, None))
    right.legend(fontsize=7, loc="lower right", ncols=2)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    last = epochs.iloc[-1]
    return describe(
        figure,
        "training-curves",
        "The training run: left loss and learning rate, right retrieval on val (solid) and on test "
        "(dashed) after each epoch.",
        f"Two panels over {len(epochs)} epochs. The loss goes from {epochs['loss'].iloc[0]:.2f} to "
        f"{last['loss']:.2f}. R@1 on val goes from {epochs['val R@1'].iloc[0]:.1f} to "
        f"{last['val R@1']:.1f} percent; epoch {best_epoch} is kept.",
    )


def _draw_loss(axes: Axes, epochs: pd.DataFrame) -> None:
    """Loss and, on an axis of its own, the learning rate."""
    axes.plot(epochs["epoch"], epochs["loss"], marker="o", color=BLUE)
    axes.set(xlabel="epoch", ylabel="SDM loss (train)", title="loss and learning rate")
    rate = axes.twinx()
    rate.plot(epochs["epoch"], epochs["lr"], color=MUTED, linestyle=":", label="learning rate")
    rate.set_ylabel("learning rate", color=MUTED)
    rate.spines["right"].set_visible(True)
    rate.grid(False)


def method_comparison(runs: pd.DataFrame, measure: str = "R@1") -> Figure:
    """Bars per data set and method, one dot per seed; ``runs`` with columns dataset, method name
    and the measure."""
    methods = [name for name in METHOD_COLOURS if name in set(runs["method name"])]
    columns = {"x": "dataset", "y": measure, "hue": "method name", "hue_order": methods}
    figure, axes = plt.subplots(figsize=(7.6, 3.0))
    sns.barplot(
        runs,
        **columns,
        palette=METHOD_COLOURS,
        errorbar=None,
        alpha=0.75,
        ax=axes,
    )
    sns.stripplot(
        runs,
        **columns,
        dodge=True,
        palette=f"dark:{INK}",
        size=3.5,
        ax=axes,
        legend=False,
    )
    axes.set(xlabel="", ylabel=f"{measure} (percent), synthetic data")
    axes.legend(title="", ncols=3, loc="upper left", bbox_to_anchor=(0, 1.16), fontsize=9)
    axes.grid(False, axis="x")
    means = runs.groupby(["dataset", "method name"], sort=False)[measure].mean()
    return describe(
        figure,
        "methods",
        f"{measure} of each method on the synthetic domains; a dot is a run with its own seed, "
        "a bar their mean.",
        f"Bars of {measure} in percent, in groups by data set. " + listed(means) + ".",
    )


def published_over_years(literature: pd.DataFrame, efficiency: pd.DataFrame) -> Figure:
    """Published R@1 over the years, a panel per benchmark, a colour per group of methods; the area
    of a disc says how many parameters are trained, a cross that this is not known.

    Args: both from :func:`cskt.report.tables.published`, of ``book/data/literature.csv`` and
        ``book/data/efficiency.csv``."""
    marks = _marks(literature, efficiency)
    groups = marks["group"].unique()
    colours = dict(zip(groups, sns.color_palette("colorblind", len(groups)), strict=True))
    datasets = sorted(marks["dataset"].unique())
    size = (10, 3.6)
    figure, panels = plt.subplots(1, len(datasets), figsize=size, sharex=True, sharey=True)
    for axes, dataset in zip(np.atleast_1d(panels), datasets, strict=True):
        for group, methods in marks[marks["dataset"] == dataset].groupby("group"):
            known = methods.dropna(subset="area")
            unknown = methods[methods["area"].isna()]
            look: dict[str, Any] = {"color": colours[group], "alpha": 0.75}
            axes.scatter(known["year"], known["R@1"], known["area"], **look)
            axes.scatter(unknown["year"], unknown["R@1"], 20, marker="x", **look)
        axes.set(title=dataset, ylabel="published R@1, percent")
        axes.label_outer()
    _draw_key(axes, colours)
    best = marks.groupby("dataset")["R@1"].max()
    return describe(
        figure,
        "published",
        "Published R@1 over the years. The area of a disc is the number of trained parameters; a "
        "cross means that it is not known.",
        f"A panel for each benchmark, with {len(marks)} marks from {marks['year'].min()} to "
        f"{marks['year'].max()}. Highest published R@1: {listed(best)} percent.",
    )


def _marks(literature: pd.DataFrame, efficiency: pd.DataFrame) -> pd.DataFrame:
    """The published figures as numbers, with the ``year`` and the ``area`` of each mark."""
    trained = efficiency.set_index("method")["trained parameters, millions"].astype(float)
    marks = literature.copy()
    marks["R@1"] = marks["R@1"].astype(float)
    marks["year"] = marks["venue"].str.extract(r"(\d{4})", expand=False).astype(int)
    marks["area"] = AREA * marks["method"].map(trained)
    return marks


def _draw_key(axes: Axes, colours: dict[str, Any]) -> None:
    """What colours and areas mean, to the right."""
    for group, colour in colours.items():
        axes.scatter([], [], color=colour, label=wrap(group, 22))
    for millions in (10, 200):
        label = f"{millions} million trained"
        axes.scatter([], [], AREA * millions, color=MUTED, label=label)
    axes.scatter([], [], 20, color=MUTED, marker="x", label="not known")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


# What a search finds


def retrieval_strip(
    query: str,
    truth: np.ndarray,
    images: Sequence[np.ndarray],
    correct: Sequence[bool],
    scores: Sequence[float],
) -> Figure:
    """A caption, the image it describes, and the gallery's best matches: right ones framed green
    and ticked, wrong ones orange and crossed."""
    count = len(images)
    widths = [1, 0.22, *[1] * count]
    size = (0.92 * (count + 1) + 0.3, 2.45)
    figure, grid = plt.subplots(1, count + 2, figsize=size, gridspec_kw={"width_ratios": widths})
    figure.suptitle(wrap(f"“{query}”", 118), x=0.01, ha="left", fontsize=9.5)
    draw_picture(grid[0], truth, title="described")
    grid[1].axis("off")
    hits = zip(grid[2:], images, correct, scores, strict=True)
    for rank, (axes, image, is_correct, score) in enumerate(hits, start=1):
        if is_correct:
            draw_picture(axes, image, GREEN, f"✓ {rank}")
        else:
            draw_picture(axes, image, RED, f"✗ {rank}")
        axes.set_xlabel(f"{score:.2f}", fontsize=7.5, color=MUTED, labelpad=2)
    rights = [str(rank) for rank, is_correct in enumerate(correct, start=1) if is_correct]
    found = f"ranks {', '.join(rights)}" if rights else "none of these ranks"
    return describe(
        figure,
        "search",
        f"What “{query}” finds: the image that it describes, then the best {count} matches.",
        f"A row of pictures: the described person and {count} hits with similarities from "
        f"{max(scores):.2f} to {min(scores):.2f}. The right person is at {found}.",
    )


# Speed


def scaling(points: pd.DataFrame) -> Figure:
    """Time over batch size, caption length and gallery size, a line per method; columns what,
    method, size, seconds."""
    figure, panels = plt.subplots(1, len(SIZES), figsize=(9.2, 2.8))
    for axes, (what, label) in zip(panels, SIZES.items(), strict=True):
        measured = points[points["what"] == what]
        for method, line in measured.groupby("method"):
            colour = METHOD_COLOURS.get(str(method), GREEN)
            axes.plot(line["size"], 1e3 * line["seconds"], "-o", color=colour, label=method)
        axes.set(title=what, xlabel=label, ylim=(0, None))
    panels[0].set_ylabel("milliseconds")
    panels[0].legend(fontsize=8)
    slowest = points.groupby("method")["seconds"].max() * 1e3
    return describe(
        figure,
        "scaling",
        "Time against the number of images in a batch, the length of a caption and the size of the "
        "gallery.",
        f"Three panels, a line for each method. Longest time, in milliseconds: {listed(slowest)}.",
    )
