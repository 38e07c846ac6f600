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
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cskt.report.style import (
    BLUE,
    DIVERGING,
    GREEN,
    HEAT,
    METHOD_COLOURS,
    MUTED,
    ORANGE,
    PURPLE,
    draw_picture,
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
    return figure


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
    return figure


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
    return figure


def _draw_outline(axes: Axes, mask: np.ndarray, image: np.ndarray) -> None:
    """The edge of ``mask`` (rows, columns), stretched over the picture."""
    height, width = image.shape[:2]
    rows, columns = mask.shape
    down = (np.arange(rows) + 0.5) * height / rows
    right = (np.arange(columns) + 0.5) * width / columns
    axes.contour(
        right,
        down,
        mask,
        levels=[0.5],
        colors=[BLUE],
        linewidths=1.4,
    )


def word_effects(words: Sequence[str], effects: dict[str, np.ndarray]) -> Figure:
    """What each word adds to the similarity to the picture, a bar per model."""
    figure, axes = plt.subplots(figsize=(0.3 * len(words) + 1.4, 2.5))
    places = np.arange(len(words))
    width = 0.8 / len(effects)
    for number, (model, of_model) in enumerate(effects.items()):
        colour = METHOD_COLOURS.get(model, PURPLE)
        axes.bar(places + number * width, of_model, width, label=model, color=colour)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set(ylabel="added to the similarity")
    axes.set_xticks(places + 0.4 - width / 2, words, rotation=90, fontsize=8)
    axes.legend(title="", fontsize=8)
    axes.grid(False, axis="x")
    return figure


# Parts of the method


def knock_out_curves(lost: pd.DataFrame) -> Figure:
    """R@1 lost without each part, layer by layer; a panel per tower; rows of
    :func:`cskt.analysis.knockout.knock_out`."""
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 2.9), sharey=True)
    layers = lost[lost["layer"] >= 0]
    layers = layers.assign(layer=layers["layer"] + 1)
    colours = dict(zip(lost["part"].unique(), (BLUE, ORANGE, GREEN), strict=False))
    for axes, tower in zip(panels, TOWERS, strict=True):
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
        if axes.get_legend() is not None:
            axes.legend(title="", fontsize=8)
    return figure


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
    return figure


# The space of features


def space(
    points: dict[str, np.ndarray], is_image: np.ndarray, labels: dict[str, Sequence[Any]]
) -> Figure:
    """Images (dots) and captions (crosses) in the plane: a column per plane (N, 2), a row per
    labelling."""
    size = (3.1 * len(points), 2.9 * len(labels))
    figure, grid = plt.subplots(len(labels), len(points), figsize=size, squeeze=False)
    for row, (label, values) in zip(grid, labels.items(), strict=True):
        colours = _colours_of(values)
        tint = np.array([colours[value] for value in values])
        for axes, (name, plane) in zip(row, points.items(), strict=True):
            _draw_plane(axes, plane, is_image, tint)
            axes.set(title=f"{name}, by {label}")
        if len(colours) <= 12:
            _draw_key(row[-1], colours)
    return figure


def _colours_of(values: Sequence[Any]) -> dict[Any, tuple[float, float, float]]:
    """A colour for each distinct value."""
    names = list(dict.fromkeys(values))
    palette = "colorblind" if len(names) <= 10 else "husl"
    return dict(zip(names, sns.color_palette(palette, len(names)), strict=True))


def _draw_plane(axes: Axes, plane: np.ndarray, is_image: np.ndarray, tint: np.ndarray) -> None:
    """Points (N, 2) in the colours ``tint`` (N, 3)."""
    images = plane[is_image]
    captions = plane[~is_image]
    axes.scatter(
        images[:, 0],
        images[:, 1],
        c=tint[is_image],
        s=12,
        marker="o",
        linewidths=0,
    )
    axes.scatter(
        captions[:, 0],
        captions[:, 1],
        c=tint[~is_image],
        s=12,
        marker="x",
        linewidths=0.9,
    )
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def _draw_key(axes: Axes, colours: dict[Any, tuple[float, float, float]]) -> None:
    """The names of the colours, to the right."""
    marks = []
    for name, colour in colours.items():
        marks.append(
            Line2D(
                [],
                [],
                marker="o",
                linestyle="",
                color=colour,
                label=name,
            )
        )
    axes.legend(handles=marks, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
