"""Every plot of the book, in one house style: colour-blind safe, on a light ground that also reads
in dark mode."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

GROUND, INK, MUTED = "#fbfaf7", "#22252b", "#6b7280"
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#9467bd"
METHOD_COLOURS = {"zero-shot": MUTED, "full fine-tuning": ORANGE, "CSKT": BLUE}


def set_style() -> None:
    """Make the house style matplotlib's default, svg inline where IPython draws."""
    sns.set_theme(
        style="ticks",
        rc={
            "figure.facecolor": GROUND,
            "axes.facecolor": GROUND,
            "savefig.facecolor": GROUND,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "xtick.color": INK,
            "ytick.color": INK,
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e4e2dc",
            "grid.linewidth": 0.7,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "svg.fonttype": "path",
            "svg.hashsalt": "cskt",
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, MUTED]),
        },
    )


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure (svg or png by its suffix) without a date, so that equal figures are equal
    files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, bbox_inches="tight", dpi=160, metadata=metadata)
    return path


def show(figure: Figure) -> None:
    """Display a figure in a notebook once, and let it go."""
    from IPython.display import display

    display(figure)
    plt.close(figure)


def _picture(axes: Axes, image: np.ndarray, frame: str | None = None, title: str = "") -> None:
    axes.imshow(image, interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.set_title(title, fontsize=8.5, loc="center", color=frame or INK, pad=3)
    for spine in axes.spines.values():
        spine.set(visible=frame is not None, color=frame or MUTED, linewidth=2.6)


def identity_grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[Sequence[str]], labels: Sequence[str]
) -> Figure:
    """One person per row, one image per column; ``rows[i][j]`` is (H, W, 3) uint8."""
    columns = max(map(len, rows))
    figure, grid = plt.subplots(
        len(rows), columns, figsize=(1.05 * columns + 0.9, 2.05 * len(rows)), squeeze=False
    )
    for axes_row, images, names, label in zip(grid, rows, titles, labels, strict=True):
        for axes, image, name in zip(axes_row, images, names, strict=False):
            _picture(axes, image, title=name)
        axes_row[0].set_ylabel(label, fontsize=9)
        for axes in axes_row[len(images) :]:
            axes.set_visible(False)
    return figure


def caption_lengths(words: dict[str, Sequence[int]]) -> Figure:
    """How long captions are, in words, one curve per data set."""
    figure, axes = plt.subplots(figsize=(6.4, 2.6))
    frame = pd.DataFrame(
        [(name, length) for name, lengths in words.items() for length in lengths],
        columns=["data set", "words"],
    )
    sns.histplot(
        frame,
        x="words",
        hue="data set",
        binwidth=1,
        element="step",
        stat="probability",
        common_norm=False,
        fill=False,
        ax=axes,
    )
    axes.set(xlabel="words in a caption", ylabel="share of captions")
    return figure


def attribute_shares(shares: pd.DataFrame) -> Figure:
    """How often each attribute group is visible in an image: index attribute group, one column per
    domain, percent."""
    figure, axes = plt.subplots(figsize=(6.4, 0.32 * len(shares) + 0.9))
    sns.heatmap(
        shares,
        annot=True,
        fmt=".0f",
        cmap="crest",
        cbar=False,
        ax=axes,
        linewidths=1,
        linecolor=GROUND,
    )
    axes.set(xlabel="", ylabel="")
    axes.grid(False)
    return figure


def training_curves(
    history: Sequence[dict[str, Any]], best_epoch: int, zero_shot: float | None = None
) -> Figure:
    """Loss and learning rate, and R@1 and mAP on val (solid) and on test (dashed), over the epochs
    of one run; the kept epoch is marked. ``zero_shot``: R@1 on val before training."""
    epochs = [row["epoch"] for row in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.9))
    left.plot(epochs, [row["loss"] for row in history], marker="o", color=BLUE)
    left.set(xlabel="epoch", ylabel="SDM loss (train)", title="loss and learning rate")
    rate = left.twinx()
    rate.plot(
        epochs, [row["lr"] for row in history], color=MUTED, linestyle=":", label="learning rate"
    )
    rate.set_ylabel("learning rate", color=MUTED)
    rate.spines["right"].set_visible(True)
    rate.grid(False)
    for measure, colour in (("R@1", BLUE), ("mAP", ORANGE)):
        for split, style in (
            ("val", dict(marker="o")),
            ("test", dict(linestyle="--", linewidth=1)),
        ):
            name = f"{split} {measure}"
            right.plot(epochs, [row[name] for row in history], color=colour, label=name, **style)
    if zero_shot is not None:
        right.axhline(zero_shot, color=MUTED, linestyle=":", label="zero-shot val R@1")
    right.axvline(best_epoch, color=RED, linewidth=1, alpha=0.7, label=f"kept: epoch {best_epoch}")
    right.set(xlabel="epoch", ylabel="percent", title="text to image, val and test", ylim=(0, None))
    right.legend(fontsize=7, loc="lower right", ncols=2)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def method_comparison(runs: pd.DataFrame, measure: str = "R@1") -> Figure:
    """Bars per data set and method, one dot per seed; ``runs`` with columns dataset, method name
    and the measure."""
    figure, axes = plt.subplots(figsize=(7.6, 3.0))
    order = [name for name in METHOD_COLOURS if name in set(runs["method name"])]
    sns.barplot(
        runs,
        x="dataset",
        y=measure,
        hue="method name",
        hue_order=order,
        palette=METHOD_COLOURS,
        errorbar=None,
        alpha=0.75,
        ax=axes,
    )
    sns.stripplot(
        runs,
        x="dataset",
        y=measure,
        hue="method name",
        hue_order=order,
        dodge=True,
        palette="dark:#22252b",
        size=3.5,
        ax=axes,
        legend=False,
    )
    axes.set(xlabel="", ylabel=f"{measure} (percent), synthetic data")
    axes.legend(title="", ncols=3, loc="upper left", bbox_to_anchor=(0, 1.16), fontsize=9)
    axes.grid(False, axis="x")
    return figure


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
    figure, grid = plt.subplots(
        1,
        count + 2,
        figsize=(0.92 * (count + 1) + 0.3, 2.45),
        gridspec_kw={"width_ratios": [1, 0.22] + [1] * count},
    )
    figure.suptitle(_wrap(f"“{query}”", 118), x=0.01, ha="left", fontsize=9.5)
    _picture(grid[0], truth, title="described")
    grid[1].axis("off")
    for rank, (axes, image, right, score) in enumerate(
        zip(grid[2:], images, correct, scores, strict=True), start=1
    ):
        _picture(axes, image, GREEN if right else RED, f"{'✓' if right else '✗'} {rank}")
        axes.set_xlabel(f"{score:.2f}", fontsize=7.5, color=MUTED, labelpad=2)
    return figure


def missed_parts(table: pd.DataFrame) -> Figure:
    """How often a wrong first hit lacks what the caption names, beside chance; rows of
    :func:`cskt.failures.failure_table`. Filled: told from chance."""
    rows = table[table["failed"] > 0].iloc[::-1].reset_index(drop=True)
    figure, axes = plt.subplots(figsize=(6.4, 0.3 * len(rows) + 1.1))
    told = (rows["high"] < 0) | (rows["low"] > 0)
    axes.hlines(rows.index, rows["missed"], rows["by chance"], color=MUTED, linewidth=1.2, zorder=1)
    axes.scatter(
        rows["by chance"], rows.index, marker="|", s=110, color=INK, label="by chance", zorder=2
    )
    axes.scatter(
        rows["missed"],
        rows.index,
        s=42,
        edgecolors=BLUE,
        zorder=3,
        label="by the first hit",
        c=[BLUE if each else GROUND for each in told],
    )
    axes.set(
        yticks=rows.index,
        yticklabels=[f"{row.part} ({row.failed:,})" for row in rows.itertuples()],
        xlim=(0, 102),
        xlabel="missed, percent of the failed captions that name it",
    )
    axes.legend(loc="lower left", fontsize=8)
    return figure


def _wrap(text: str, width: int) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


BENCHMARK_COLOURS = {
    **METHOD_COLOURS,
    "plain CSKT": RED,
    "open_clip's own": GREEN,
    "CSKT, compiled": PURPLE,
    "BPT": "#56b4e9",
    "DAT": "#cc79a7",
    "LoRA": "#8c6d31",
}
PRECISION_COLOURS = {"fp32": MUTED, "bf16": BLUE}


def step_times(steps: pd.DataFrame) -> Figure:
    """Time and extra memory of a training step; columns method, precision, seconds, extra_memory_mb
    (NaN: unknown)."""
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 2.6), sharey=True)
    for axes, column, label in zip(
        panels,
        ("seconds", "extra_memory_mb"),
        ("seconds per training step", "extra memory of it, MB"),
        strict=True,
    ):
        sns.barplot(
            steps,
            y="method",
            x=column,
            hue="precision",
            palette=PRECISION_COLOURS,
            ax=axes,
            legend=axes is panels[0],
        )
        for bars in axes.containers:
            axes.bar_label(
                bars, fmt=lambda v: f"{v:,.0f}" if v >= 100 else f"{v:.3g}", padding=2, fontsize=8
            )
        axes.set(xlabel=label, ylabel="")
        axes.margins(x=0.12)
        axes.grid(False, axis="y")
    panels[0].legend(title="", fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.98))
    return figure


def roofline(rows: pd.DataFrame, rates: dict[str, float]) -> Figure:
    """What was computed per second over how much is computed per byte moved, below what the machine
    can do.

    ``rows`` with columns what, method, precision, seconds, flops and bytes; ``rates``, per second:
    ``copy`` in bytes, ``matmul_fp32`` and where it was measured ``matmul_bf16`` in FLOPs.
    """
    figure, axes = plt.subplots(figsize=(7.6, 3.8))
    rows = rows.dropna(subset=["flops"]).assign(
        intensity=lambda table: table["flops"] / table["bytes"],
        rate=lambda table: table["flops"] / table["seconds"] / 1e9,
    )
    limits = {
        name.removeprefix("matmul_"): rate
        for name, rate in rates.items()
        if name.startswith("matmul_")
    }
    ridge = rates["matmul_fp32"] / rates["copy"]
    span = np.geomspace(min(rows["intensity"].min(), ridge) / 3, 2 * rows["intensity"].max(), 200)
    for precision, rate in limits.items():
        axes.plot(
            span,
            np.minimum(rates["copy"] * span, rate) / 1e9,
            color=PRECISION_COLOURS[precision],
            linestyle="--",
            label=f"limit in {precision}",
        )
    sns.scatterplot(
        rows,
        x="intensity",
        y="rate",
        hue="method",
        style="what",
        s=60,
        palette=BENCHMARK_COLOURS,
        ax=axes,
        zorder=3,
    )
    for row in rows.itertuples():
        axes.annotate(
            row.precision,
            (row.intensity, row.rate),
            xytext=(5, -3),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set(xscale="log", yscale="log", xlabel="FLOPs per byte moved", ylabel="GFLOPs per second")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(LogFormatter())
        axis.set_minor_formatter(LogFormatter())
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def scaling(points: pd.DataFrame) -> Figure:
    """Time over batch size, caption length and gallery size; columns what, method, size,
    seconds."""
    panels = {
        "encode_image": "images in a batch",
        "encode_text": "tokens per caption",
        "ranking": "images to rank",
    }
    figure, grid = plt.subplots(1, len(panels), figsize=(9.2, 2.8))
    for axes, (what, label) in zip(grid, panels.items(), strict=True):
        for method, line in points[points["what"] == what].groupby("method"):
            axes.plot(
                line["size"],
                1e3 * line["seconds"],
                marker="o",
                color=BENCHMARK_COLOURS[method],
                label=method,
            )
        axes.set(
            title=what,
            xlabel=label,
            ylabel="milliseconds" if axes is grid[0] else "",
            ylim=(0, None),
        )
    grid[0].legend(fontsize=8)
    return figure


def grid_dots(runs: pd.DataFrame, reference: str) -> Figure:
    """R@1 of every run of a grid, a mark per seed and a bar at their mean; columns row, R@1."""
    order = list(dict.fromkeys(runs["row"]))
    figure, axes = plt.subplots(figsize=(7.6, 0.34 * len(order) + 0.9))
    for place, row in enumerate(order):
        values, colour = runs.loc[runs["row"] == row, "R@1"], BLUE if row == reference else MUTED
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.75)
        axes.plot([values.mean()] * 2, [place - 0.32, place + 0.32], color=colour, linewidth=2.2)
    axes.set(yticks=range(len(order)), yticklabels=order, xlabel="R@1 on test, percent")
    axes.axvline(
        runs.loc[runs["row"] == reference, "R@1"].mean(), color=BLUE, linewidth=0.8, linestyle=":"
    )
    axes.invert_yaxis()
    return figure


def grid_lines(grids: dict[str, pd.DataFrame]) -> Figure:
    """R@1 over the settings of several grids, 95 % intervals over people; frames with columns row,
    R@1, interval."""
    figure, panels = plt.subplots(
        1, len(grids), figsize=(2.5 * len(grids), 2.7), sharey=True, squeeze=False
    )
    for axes, (grid, runs) in zip(panels[0], grids.items(), strict=True):
        rows = runs.groupby("row", sort=False)
        means, ends = (
            rows["R@1"].mean(),
            rows["interval"].agg(lambda each: np.mean(list(each), axis=0)),
        )
        spread = np.abs(np.stack(list(ends), 1) - means.to_numpy())
        axes.errorbar(
            range(len(means)), means, yerr=spread, marker="o", color=BLUE, capsize=3, linewidth=1.2
        )
        axes.set(
            xticks=range(len(means)),
            xticklabels=means.index,
            title=grid,
            ylabel="R@1 on test, percent" if axes is panels[0, 0] else "",
        )
    return figure


def less_data(runs: pd.DataFrame) -> Figure:
    """R@1 over the share of the training identities, a line per method; ``row`` reads ``method,
    share``."""
    parts = runs["row"].str.rsplit(", ", n=1, expand=True)
    table = runs.assign(method=parts[0], share=parts[1].str.rstrip("%").astype(float))
    figure, axes = plt.subplots(figsize=(6.2, 3.2))
    sns.lineplot(
        table,
        x="share",
        y="R@1",
        hue="method",
        marker="o",
        palette=METHOD_COLOURS,
        errorbar=("sd", 1),
        ax=axes,
    )
    shares = sorted(set(table["share"]))
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
    methods = list(dict.fromkeys(histories["method"]))
    columns = min(3, len(methods))
    rows = -(-len(methods) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.8 * columns, 2.3 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axes, method in itertools.zip_longest(grid.flat, methods):
        if method is None:
            axes.set_visible(False)
            continue
        for _, run in histories[histories["method"] == method].groupby("seed"):
            best = run.loc[run["val R@1"].idxmax()]
            axes.plot(run["epoch"], run["val R@1"], color=BLUE, label="val")
            axes.plot(run["epoch"], run["test R@1"], color=MUTED, linestyle="--", label="test")
            axes.plot(best["epoch"], best["val R@1"], "o", color=RED, label="chosen on val")
        axes.set(title=method, ylabel="R@1, percent" if axes in grid[:, 0] else "")
        axes.tick_params(labelbottom=True)  # the panel below may be empty
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.supxlabel("epoch", fontsize=10)
    figure.legend(named.values(), named.keys(), ncols=3, fontsize=8, loc="outside upper right")
    return figure


def numerics_dots(rows: pd.DataFrame) -> Figure:
    """R@1 of the last epoch under each numerics, a panel per method; the band is the committed mean
    -+ 2 sd. Rows of :func:`cskt.variation.variation_rows`."""
    methods = list(dict.fromkeys(rows["method"]))
    order = list(dict.fromkeys(rows["numerics"]))
    size = 3.6 * len(methods) + 1, 0.3 * len(order) + 1.1
    figure, panels = plt.subplots(1, len(methods), figsize=size, sharey=True, squeeze=False)
    for axes, method in zip(panels[0], methods, strict=True):
        part = rows[rows["method"] == method]
        low, high = part["low"].iloc[0], part["high"].iloc[0]
        if low <= high:  # not so where nothing is committed to compare with (NaN)
            axes.axvspan(low, high, color=GREEN, alpha=0.15, linewidth=0, label="seeds, ± 2 sd")
        for precision, dots in part.groupby("precision"):
            places = [order.index(name) for name in dots["numerics"]]
            axes.plot(
                dots["R@1"],
                places,
                "o",
                label=precision,
                color={"fp32": BLUE}.get(precision, ORANGE),
            )
        axes.set(
            title=method, xlabel="R@1, last epoch", yticks=range(len(order)), yticklabels=order
        )
        axes.margins(y=0.1)
    panels[0, 0].invert_yaxis()
    panels[0, -1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# What the prompts do (cskt.probes)

HEAT, DIVERGING = "rocket_r", "vlag"


def traffic_maps(before: pd.DataFrame, after: pd.DataFrame, readers: Sequence[str]) -> Figure:
    """Attention to prompts against an even share, layers x heads: a column per tower and kind of
    prompt, above before training and below after; frames of :func:`cskt.probes.traffic`. Zero is an
    even share, 1 twice that, -1 half."""
    kinds = [
        (tower, kind)
        for tower, kind in itertools.product(("vision", "text"), ("own", "projected"))
        if len(after.query("tower == @tower and prompts == @kind"))
    ]
    figure, grid = plt.subplots(2, len(kinds), figsize=(2.2 * len(kinds) + 0.8, 4.6), squeeze=False)
    for row, (when, frame) in zip(
        grid, (("before training", before), ("trained", after)), strict=True
    ):
        for axes, (tower, kind) in zip(row, kinds, strict=True):
            part = frame[
                (frame["tower"] == tower)
                & (frame["prompts"] == kind)
                & frame["reader"].isin(readers)
            ]
            part = part.assign(ratio=np.log2(np.maximum(part["share"], 1e-4) / part["uniform"]))
            part = part.assign(layer=part["layer"] + 1, head=part["head"] + 1)
            table = part.pivot_table(index="layer", columns="head", values="ratio")
            sns.heatmap(
                table,
                cmap=DIVERGING,
                vmin=-4,
                vmax=4,
                ax=axes,
                cbar=axes is row[-1],
                cbar_kws={"label": "log2 of share / even"},
            )
            axes.set(
                title=f"{tower}, {kind}\n{when}",
                xlabel="head" if row is grid[1] else "",
                ylabel="layer" if axes is row[0] else "",
            )
            axes.grid(False)
    return figure


def _overlay(axes: Axes, image: np.ndarray, heat: np.ndarray, high: float) -> None:
    height, width = image.shape[:2]
    axes.imshow(image.mean(2), cmap="gray", vmin=-80, vmax=300)
    axes.imshow(
        heat,
        cmap=HEAT,
        alpha=0.62,
        vmin=0,
        vmax=high or 1.0,
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def prompt_overlays(
    image: np.ndarray, maps: np.ndarray, names: Sequence[str], layers: Sequence[int]
) -> Figure:
    """Where each prompt's key is read in a picture (H, W, 3): maps (layers, P, rows, columns), a
    row per layer. One colour scale for all."""
    shape = maps.shape[:2]
    figure, grid = plt.subplots(
        *shape, figsize=(0.82 * shape[1] + 0.5, 1.42 * shape[0] + 0.4), squeeze=False
    )
    for (row, column), axes in np.ndenumerate(grid):
        _overlay(axes, image, maps[row, column], maps.max())
        axes.set_title(names[column] if row == 0 else "", fontsize=7.5, loc="center")
        axes.set_ylabel(f"layer {layers[row] + 1}" if column == 0 else "", fontsize=8)
    return figure


def word_heat(words: Sequence[str], maps: dict[str, np.ndarray], layers: Sequence[int]) -> Figure:
    """How much each word of a caption reads the prompts: shares of attention, layers x words, per
    kind of prompt."""
    figure, grid = plt.subplots(
        len(maps), 1, figsize=(0.3 * len(words) + 1.2, 1.75 * len(maps) + 0.7), squeeze=False
    )
    high = max(heat.max() for heat in maps.values())
    for axes, (kind, heat) in zip(grid[:, 0], maps.items(), strict=True):
        last = axes is grid[-1, 0]
        sns.heatmap(
            heat,
            cmap=HEAT,
            vmin=0,
            vmax=high,
            ax=axes,
            xticklabels=words if last else False,
            yticklabels=[layer + 1 for layer in layers],
            cbar_kws={"label": "share"},
        )
        axes.set(title=f"{kind} prompts", ylabel="layer")
        axes.grid(False)
    grid[-1, 0].tick_params(axis="x", rotation=90, labelsize=8)
    return figure


def relevance_row(
    image: np.ndarray, maps: dict[str, np.ndarray], mask: np.ndarray | None = None
) -> Figure:
    """A picture (H, W, 3), and relevance maps (rows, columns) over it, each in its own scale, a
    ``mask`` outlined."""
    figure, grid = plt.subplots(1, len(maps) + 1, figsize=(1.15 * (len(maps) + 1), 2.25))
    _picture(grid[0], image, title="picture")
    for axes, (name, heat) in zip(grid[1:], maps.items(), strict=True):
        _overlay(axes, image, heat, heat.max())
        axes.set_title(_wrap(name, 15), fontsize=8, loc="center")
        if mask is not None:
            down, right = (
                (np.arange(n) + 0.5) * size / n
                for n, size in zip(mask.shape, image.shape, strict=False)
            )
            axes.contour(right, down, mask, levels=[0.5], colors=[BLUE], linewidths=1.4)
    return figure


def word_relevance(words: Sequence[str], values: dict[str, np.ndarray]) -> Figure:
    """Relevance of each word for the similarity to the picture, a bar per model, each model's sum
    being one."""
    frame = pd.DataFrame(
        [
            (f"{i} {word}", name, share)
            for name, each in values.items()
            for i, (word, share) in enumerate(
                zip(words, each / max(each.sum(), 1e-12), strict=True)
            )
        ],
        columns=["word", "model", "relevance"],
    )
    figure, axes = plt.subplots(figsize=(0.3 * len(words) + 1.4, 2.5))
    sns.barplot(
        frame,
        x="word",
        y="relevance",
        hue="model",
        ax=axes,
        errorbar=None,
        palette=[METHOD_COLOURS.get(name, PURPLE) for name in values],
    )
    axes.set(xlabel="", ylabel="share of the relevance")
    axes.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
    axes.legend(title="", fontsize=8)
    axes.grid(False, axis="x")
    return figure


def knock_out_curves(lost: pd.DataFrame) -> Figure:
    """R@1 lost without each part, layer by layer; a panel per tower; rows of
    :func:`cskt.probes.knock_out`."""
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 2.9), sharey=True)
    layers = lost[lost["layer"] >= 0].assign(layer=lambda rows: rows["layer"] + 1)
    colours = dict(zip(dict.fromkeys(lost["part"]), (BLUE, ORANGE, GREEN), strict=False))
    for axes, tower in zip(panels, ("vision", "text"), strict=True):
        sns.lineplot(
            layers[layers["tower"] == tower],
            x="layer",
            y="lost",
            hue="part",
            marker="o",
            palette=colours,
            ax=axes,
        )
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set(title=f"{tower} tower", ylabel="R@1 lost, points", xlabel="removed at layer")
        axes.legend(title="", fontsize=8) if axes.get_legend() else None
    return figure


def coupling_curves(coupling: pd.DataFrame, history: Sequence[dict[str, Any]]) -> Figure:
    """Likeness of own and projected prompts over layers; norm and effective rank of the maps over
    epochs."""
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 2.7))
    styles = {"cosine": "-", "CKA": "--"}
    for (tower, part), measure in itertools.product(coupling.groupby("tower"), styles):
        panels[0].plot(
            part["layer"] + 1,
            part[measure],
            styles[measure],
            marker="o",
            label=f"{tower}, {measure}",
            color={"vision": BLUE, "text": ORANGE}[tower],
        )
    panels[0].set(xlabel="layer", title="own and projected prompts")
    epochs = [row["epoch"] for row in history]
    for axes, measure in zip(panels[1:], ("norm", "rank"), strict=True):
        for direction, colour in (("T2V", BLUE), ("V2T", ORANGE)):
            values = [row[f"{direction} {measure}"] for row in history]
            axes.plot(epochs, values, marker="o", color=colour, label=direction)
        axes.set(
            xlabel="epoch", title={"norm": "Frobenius norm", "rank": "effective rank"}[measure]
        )
    for axes in panels:
        axes.legend(fontsize=7.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.3))
    return figure


def space(
    points: dict[str, np.ndarray], is_image: np.ndarray, labels: dict[str, Sequence[Any]]
) -> Figure:
    """Images (dots) and captions (crosses) in the plane: a column per plane (N, 2), a row per
    labelling."""
    size = 3.1 * len(points), 2.9 * len(labels)
    figure, grid = plt.subplots(len(labels), len(points), figsize=size, squeeze=False)
    for row, (label, values) in zip(grid, labels.items(), strict=True):
        names = list(dict.fromkeys(values))
        palette = sns.color_palette("colorblind" if len(names) <= 10 else "husl", len(names))
        colours = dict(zip(names, palette, strict=True))
        tint = np.array([colours[value] for value in values])
        for axes, (name, place) in zip(row, points.items(), strict=True):
            axes.scatter(*place[is_image].T, c=tint[is_image], s=12, marker="o", linewidths=0)
            axes.scatter(*place[~is_image].T, c=tint[~is_image], s=12, marker="x", linewidths=0.9)
            axes.set(xticks=[], yticks=[], title=f"{name}, by {label}")
            axes.grid(False)
        if len(names) <= 12:
            marks = [
                plt.Line2D([], [], marker="o", linestyle="", color=colours[name], label=name)
                for name in names
            ]
            row[-1].legend(handles=marks, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
