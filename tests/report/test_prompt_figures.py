"""Figures of what the prompts do: every panel is there and shows its numbers."""

from __future__ import annotations

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from cskt.analysis import attention
from cskt.report import probe_figures, style

matplotlib.use("Agg")
PICTURE = np.full((64, 32, 3), 99, np.uint8)


@pytest.fixture(autouse=True)
def house_style():
    style.set_style()
    yield
    plt.close("all")


def test_traffic_has_a_map_per_tower_kind_and_time():
    rows = []
    readers = {"vision": "class token", "text": "end token"}
    places = itertools.product(readers, ("own", "projected"), range(2), range(3))
    for tower, kind, layer, head in places:
        row = {
            "tower": tower,
            "prompts": kind,
            "reader": readers[tower],
            "layer": layer,
            "head": head,
            "share": 0.2,
            "uniform": 0.1,
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    figure = probe_figures.traffic_maps(table, table, attention.FEATURE_READERS)
    maps = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(maps) == 8
    shown = maps[0].collections[0].get_array().ravel().tolist()
    assert shown == pytest.approx([1.0] * 6), "twice the even share is one power of two"


def test_prompt_overlays_have_a_panel_per_layer_and_prompt():
    maps = np.ones((2, 3, 4, 2))
    figure = probe_figures.prompt_overlays(PICTURE, maps, ["a", "b", "c"], [0, 5])
    assert len(figure.axes) == 6


def test_a_relevance_row_begins_with_the_picture():
    maps = {"zero-shot": np.ones((4, 2)), "CSKT": np.eye(4)[:, :2]}
    figure = probe_figures.relevance_row(PICTURE, maps, PICTURE[..., 0] > 0)
    assert len(figure.axes) == 3


def test_each_word_has_a_bar_of_each_model():
    effects = {"zero-shot": np.array([0.1, 0.0]), "CSKT": np.array([0.2, -0.3])}
    figure = probe_figures.word_effects(["red", "coat"], effects)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [0.1, 0.0, 0.2, -0.3]


def test_knock_out_curves_leave_out_what_is_lost_without_all_layers():
    columns = {
        "tower": ["vision", "vision", "vision", "text", "text", "text"],
        "part": "adapter",
        "layer": [-1, 0, 1, -1, 0, 1],
        "lost": [9.0, 0.0, 1.0, 9.0, 0.0, 1.0],
    }
    figure = probe_figures.knock_out_curves(pd.DataFrame(columns))
    curve = figure.axes[0].get_lines()[0]
    assert list(curve.get_ydata()) == [0, 1]


def test_space_has_a_row_per_labelling():
    random = np.random.default_rng(0)
    points = {"PCA": random.random((6, 2))}
    is_image = np.array([True, True, True, False, False, False])
    labels = {
        "person": [1, 1, 2, 1, 1, 2],
        "colour": ["red", "red", "blue", "blue", "green", "green"],
    }
    figure = probe_figures.space(points, is_image, labels)
    assert len(figure.axes) == 2
