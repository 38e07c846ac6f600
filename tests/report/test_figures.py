"""Figures show what they are given: the right number of pictures, frames and marks."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from cskt.report import figures, style

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def house_style():
    style.set_style()
    yield
    plt.close("all")


def picture():
    return np.full((32, 16, 3), 128, dtype=np.uint8)


def test_right_and_wrong_hits_differ_in_frame_and_mark():
    query = "a man " * 40
    correct = [True, False, True]
    figure = figures.retrieval_strip(query, picture(), [picture()] * 3, correct, [0.5, 0.4, 0.3])
    hits = figure.axes[2:]
    assert [axes.get_title()[0] for axes in hits] == ["✓", "✗", "✓"]
    frames = [to_hex(axes.spines["left"].get_edgecolor()) for axes in hits]
    assert frames == [style.GREEN, style.RED, style.GREEN]
    assert "\n" in figure.get_suptitle()


def lines_of(figure):
    """The lines of a figure by their labels."""
    lines = {}
    for axes in figure.axes:
        for line in axes.get_lines():
            lines[line.get_label()] = line
    return lines


def test_training_curves_plot_the_history():
    history = []
    for epoch in (1, 2, 3):
        history.append(
            {
                "epoch": epoch,
                "lr": 0.1 / epoch,
                "loss": 3.0 / epoch,
                "val R@1": 10.0 * epoch,
                "val mAP": 5.0,
                "test R@1": 8.0 * epoch,
                "test mAP": 4.0,
            }
        )
    figure = figures.training_curves(history, best_epoch=3, zero_shot=7.5)
    lines = lines_of(figure)
    assert list(lines["val R@1"].get_ydata()) == [10.0, 20.0, 30.0]
    assert list(lines["test R@1"].get_ydata()) == [8.0, 16.0, 24.0]
    assert lines["val mAP"].get_linestyle() == "-"
    assert lines["test mAP"].get_linestyle() == "--"
    assert set(lines["zero-shot val R@1"].get_ydata()) == {7.5}
    assert "kept: epoch 3" in lines
    assert "val" in figure.axes[1].get_title(loc="left")


def test_method_comparison_draws_every_seed():
    rows = []
    for dataset in ("A", "B"):
        for method in ("zero-shot", "CSKT"):
            for seed in range(3):
                rows.append({"dataset": dataset, "method name": method, "R@1": 20.0 + seed})
    (axes,) = figures.method_comparison(pd.DataFrame(rows)).axes
    dots = sum(len(collection.get_offsets()) for collection in axes.collections)
    assert dots == 12
    assert "synthetic" in axes.get_ylabel()


def test_published_figures_stand_in_their_year_and_the_area_is_what_is_trained():
    literature = pd.DataFrame(
        {
            "group": ["old", "new", "new"],
            "method": ["A", "B", "C"],
            "venue": ["ECCV 2018", "CVPR 2023", "arXiv 2025 (2509.13754)"],
            "dataset": "RSTPReid",
            "R@1": ["40.10", "60.20", "70.30"],
        }
    )
    efficiency = pd.DataFrame({"method": ["B"], "trained parameters, millions": ["195"]})
    (axes,) = figures.published_over_years(literature, efficiency).axes
    marks = [collection for collection in axes.collections if len(collection.get_offsets())]
    places = [collection.get_offsets().tolist() for collection in marks]
    assert sorted(places) == [[[2018, 40.1]], [[2023, 60.2]], [[2025, 70.3]]]
    (disc,) = [mark for mark in marks if mark.get_offsets()[0, 0] == 2023]
    assert disc.get_sizes() == [195 * figures.AREA]


def test_equal_figures_are_equal_files(tmp_path):
    words = {"A": [20, 21, 22], "B": [30, 31, 31]}
    first = style.save(figures.caption_lengths(words), tmp_path / "one.svg")
    second = style.save(figures.caption_lengths(words), tmp_path / "two.svg")
    assert first.read_bytes() == second.read_bytes()


def test_identity_grid_hides_missing_images():
    images = [[picture()] * 3, [picture()]]
    titles = [["a", "b", "c"], ["d"]]
    figure = figures.identity_grid(images, titles, ["one", "two"])
    assert [axes.get_visible() for axes in figure.axes] == [True] * 4 + [False] * 2
