"""Figures of what the prompts do (:mod:`cskt.analysis`), and of the space of features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure

from cskt.report.style import (
    BLUE,
    DIVERGING,
    HEAT,
    METHOD_COLOURS,
    MUTED,
    ORANGE,
    PURPLE,
    describe,
    draw_picture,
    listed,
    wrap,
)

TOWERS = ("vision", "text")
TOWER_COLOURS = {"vision": BLUE, "text": ORANGE}
DIRECTION_COLOURS = {"T2V": BLUE, "V2T": ORANGE}


# Attention


def traffic_maps(before: pd.DataFrame, after: pd.DataFrame, readers: Sequence[str]) -> Figure:
    """Attention to prompts against an even share, layers x heads: a column per tower and kind of
    prompt, above before training and below after; frames of
    :func:`cskt.analysis.attention.traffic`. Zero is an even share, 1 twice that, -1 half."""
    columns = []
    for tower, kind in itertools.product(TOWERS, ("own", "projected")):
        if len(_of_prompts(after, tower, kind)):
            columns.append((tower, kind))
    size = (2.2 * len(columns) + 0.8, 4.6)
    figure, grid = plt.subplots(2, len(columns), figsize=size, squeeze=False)
    for column, (tower, kind) in enumerate(columns):
        is_last = column == len(columns) - 1
        for row, traffic in enumerate((before, after)):
            prompts = _of_prompts(traffic, tower, kind)
            ratios = _ratio_to_even(prompts[prompts["reader"].isin(readers)])
            _draw_ratios(grid[row, column], ratios, colour_bar=is_last)
        grid[0, column].set_title(f"{tower}, {kind}\nbefore training")
        grid[1, column].set_title(f"{tower}, {kind}\ntrained")
        grid[1, column].set_xlabel("head")
    for axes in grid[:, 0]:
        axes.set_ylabel("layer")
    means = after.groupby(["tower", "prompts"])["share"].mean() * 100
    return describe(
        figure,
        f"traffic-{'-'.join(readers).replace(' ', '-')}",
        f"Attention from {' and '.join(readers)} to prompts against an even share, by layer, head: "
        "zero is an even share, 1 twice that, -1 half of it.",
        "Maps of layers by heads, above before training and below after it. Mean share after "
        "training, in percent: " + listed(means) + ".",
    )


def _of_prompts(traffic: pd.DataFrame, tower: str, kind: str) -> pd.DataFrame:
    return traffic[(traffic["tower"] == tower) & (traffic["prompts"] == kind)]


def _ratio_to_even(traffic: pd.DataFrame) -> pd.DataFrame:
    """Logarithm (base 2) of the share of attention over an even share, layers x heads, both counted
    from one."""
    share = np.maximum(traffic["share"], 1e-4)
    table = pd.DataFrame(
        {
            "layer": traffic["layer"] + 1,
            "head": traffic["head"] + 1,
            "ratio": np.log2(share / traffic["uniform"]),
        }
    )
    return table.pivot_table(index="layer", columns="head", values="ratio")


def _draw_ratios(axes: Axes, ratios: pd.DataFrame, colour_bar: bool) -> None:
    sns.heatmap(
        ratios,
        cmap=DIVERGING,
        vmin=-4,
        vmax=4,
        ax=axes,
        cbar=colour_bar,
        cbar_kws={"label": "log2 of share / even"},
    )
    axes.set(xlabel="", ylabel="")
    axes.grid(False)


def prompt_overlays(
    image: np.ndarray, maps: np.ndarray, names: Sequence[str], layers: Sequence[int]
) -> Figure:
    """Where each prompt's key is read in a picture (H, W, 3): maps (layers, P, rows, columns), a
    row per layer. One colour scale for all."""
    rows, columns = maps.shape[:2]
    size = (0.82 * columns + 0.5, 1.42 * rows + 0.4)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        _draw_overlay(axes, image, maps[row, column], maps.max())
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=7.5, loc="center")
    for axes, layer in zip(grid[:, 0], layers, strict=True):
        axes.set_ylabel(f"layer {layer + 1}", fontsize=8)
    return describe(
        figure,
        "where-prompts-are-read",
        "Where in the picture each prompt (column) is read at each layer (row): the darker, the "
        "more. One colour scale for all.",
        f"The same picture {rows} by {columns} times, shaded. The strongest share is "
        f"{maps.max():.4f}.",
    )


def _draw_overlay(axes: Axes, image: np.ndarray, heat: np.ndarray, high: float) -> None:
    """``heat`` (rows, columns) from zero to ``high`` over a pale picture (H, W, 3)."""
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


# Relevance


def relevance_row(
    image: np.ndarray, maps: dict[str, np.ndarray], mask: np.ndarray | None = None
) -> Figure:
    """A picture (H, W, 3), and relevance maps (rows, columns) over it, each in its own scale, a
    ``mask`` outlined."""
    size = (1.15 * (len(maps) + 1), 2.25)
    figure, grid = plt.subplots(1, len(maps) + 1, figsize=size)
    draw_picture(grid[0], image, title="picture")
    for axes, (name, heat) in zip(grid[1:], maps.items(), strict=True):
        _draw_overlay(axes, image, heat, heat.max())
        axes.set_title(wrap(name, 15), fontsize=8, loc="center")
        if mask is not None:
            _draw_outline(axes, mask, image)
    outlined = ""
    if mask is not None:
        outlined = " The blue line is the outline of what the words name."
    return describe(
        figure,
        "relevance",
        f"Where the picture answers the words, each in a colour scale of its own.{outlined}",
        f"A picture and, shaded over it: {'; '.join(maps)}. "
        + " ".join(f"{name} is highest at {_place(heat)}." for name, heat in maps.items()),
    )


def _place(heat: np.ndarray) -> str:
    """Where a map (rows, columns) is highest, in words."""
    rows, columns = heat.shape
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    down = (row + 0.5) / rows  # of the middle of a cell
    across = (column + 0.5) / columns
    return f"{100 * down:.0f} percent from the top and {100 * across:.0f} from the left"


def _draw_outline(axes: Axes, mask: np.ndarray, image: np.ndarray) -> None:
    """The edge of ``mask`` (rows, columns), stretched over the picture."""
    height, width = image.shape[:2]
    extent = (0, width, 0, height)
    axes.contour(mask, [0.5], colors=[BLUE], linewidths=1.4, origin="lower", extent=extent)


def word_effects(words: Sequence[str], effects: dict[str, np.ndarray]) -> Figure:
    """What each word adds to the similarity to the picture, a bar per model."""
    figure, axes = plt.subplots(figsize=(0.3 * len(words) + 1.4, 2.5))
    colours: dict[Any, Any] = {model: METHOD_COLOURS.get(model, PURPLE) for model in effects}
    pd.DataFrame(effects).plot.bar(ax=axes, width=0.8, color=colours)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set_ylabel("added to the similarity")
    axes.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
    axes.legend(fontsize=8)
    axes.grid(False, axis="x")
    strongest = [f"{model}: {words[int(added.argmax())]}" for model, added in effects.items()]
    return describe(
        figure,
        "words",
        "What each word of the caption adds to its similarity to the picture.",
        f"Bars for {len(words)} words. The word that adds most: {'; '.join(strongest)}.",
    )


# Parts of the method


def knock_out_curves(lost: pd.DataFrame) -> Figure:
    """R@1 lost without each part, layer by layer; a panel per tower; rows of
    :func:`cskt.analysis.knockout.knock_out`."""
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 2.9), sharey=True)
    layers = lost[lost["layer"] >= 0]
    for axes, tower in zip(panels, TOWERS, strict=True):
        of_tower = layers[layers["tower"] == tower]
        for part, line in of_tower.groupby("part", sort=False):
            axes.plot(line["layer"] + 1, line["lost"], "-o", label=part)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set(title=f"{tower} tower", ylabel="R@1 lost, points", xlabel="removed at layer")
        if len(of_tower):
            axes.legend(fontsize=8)
    most = layers.groupby(["tower", "part"], sort=False)["lost"].max()
    return describe(
        figure,
        "knock-out",
        "R@1 lost on test, in points, where one part is taken out at one layer.",
        "A panel for each tower, a line for each part. Most that is lost, in points: "
        + listed(most)
        + ".",
    )


def coupling_curves(coupling: pd.DataFrame, history: Sequence[dict[str, Any]]) -> Figure:
    """Likeness of own and projected prompts over layers; norm and effective rank of the maps over
    epochs."""
    figure, (likeness, norm, rank) = plt.subplots(1, 3, figsize=(9.6, 2.7))
    for tower, layers in coupling.groupby("tower"):
        colour = TOWER_COLOURS[str(tower)]
        places = layers["layer"] + 1
        likeness.plot(places, layers["cosine"], "-o", color=colour, label=tower)
    likeness.set(xlabel="layer", title="cosine of own and projected prompts")
    epochs = pd.DataFrame(history)
    for direction, colour in DIRECTION_COLOURS.items():
        norm.plot(epochs["epoch"], epochs[f"{direction} norm"], "-o", color=colour, label=direction)
        rank.plot(epochs["epoch"], epochs[f"{direction} rank"], "-o", color=colour, label=direction)
    norm.set(xlabel="epoch", title="Frobenius norm")
    rank.set(xlabel="epoch", title="effective rank")
    for axes in (likeness, norm, rank):
        axes.legend(fontsize=7.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.3))
    means = coupling.groupby("tower")["cosine"].mean()
    alike = ", ".join(f"{tower} {value:.2f}" for tower, value in means.items())
    return describe(
        figure,
        "coupling",
        "Left: how alike own and projected prompts are at each layer. Middle and right: size and "
        "effective rank of the maps between the towers over the epochs (T2V: text to vision).",
        f"Three panels of lines. Mean cosine over layers: {alike}.",
    )


# The space of features


def space(
    points: dict[str, np.ndarray], is_image: np.ndarray, labels: dict[str, Sequence[Any]]
) -> Figure:
    """Images (dots) and captions (crosses) in the plane: a column per plane (N, 2), a row per
    labelling."""
    size = (3.1 * len(points), 2.9 * len(labels))
    figure, grid = plt.subplots(len(labels), len(points), figsize=size, squeeze=False)
    kind = np.where(is_image, "image", "caption")
    for row, (label, values) in zip(grid, labels.items(), strict=True):
        names = [str(value) for value in values]
        palette = _palette(names)
        for axes, (name, plane) in zip(row, points.items(), strict=True):
            sns.scatterplot(
                x=plane[:, 0],
                y=plane[:, 1],
                hue=names,
                style=kind,
                palette=palette,
                markers={"image": "o", "caption": "X"},
                s=16,
                linewidth=0.4,
                edgecolor=MUTED,
                legend=axes is row[-1] and len(palette) <= 13,
                ax=axes,
            )
            axes.set(xticks=[], yticks=[], title=f"{name}, by {label}")
        if row[-1].get_legend() is not None:
            row[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return describe(
        figure,
        "space",
        "Images (dots) and captions (crosses) of some test people in the plane, a column for each "
        f"projection, coloured by {' and by '.join(labels)}.",
        f"{len(labels)} rows of {len(points)} scatter plots with {np.sum(is_image)} images and "
        f"{np.sum(~np.asarray(is_image))} captions each: {'; '.join(points)}.",
    )


def _palette(names: Sequence[str]) -> dict[str, Any]:
    """A colour for each name: the one that it is the name of, if all are names of colours."""
    different = sorted(set(names))
    are_numbers = "".join(different).isdigit()  # which matplotlib would read as greys
    if not are_numbers and all(is_color_like(name) for name in different):
        return {name: name for name in different}
    kind = "husl"
    if len(different) <= 10:
        kind = "colorblind"
    colours = sns.color_palette(kind, len(different))
    return dict(zip(different, colours, strict=True))
