"""Figures show what they are given: the right number of pictures, frames and marks."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from cskt import figures

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    figures.set_style()
    yield
    plt.close("all")


def picture(value=128):
    return np.full((32, 16, 3), value, dtype=np.uint8)


def test_right_and_wrong_hits_differ_in_frame_and_mark():
    figure = figures.retrieval_strip(
        "a man " * 40, picture(), [picture()] * 3, [True, False, True], [0.5, 0.4, 0.3]
    )
    hits = figure.axes[2:]
    assert [axes.get_title()[0] for axes in hits] == ["✓", "✗", "✓"]
    frames = [to_hex(axes.spines["left"].get_edgecolor()) for axes in hits]
    assert frames == [figures.GREEN, figures.RED, figures.GREEN]
    assert "\n" in figure.get_suptitle()


def test_training_curves_plot_the_history():
    history = [
        {
            "epoch": e,
            "lr": 0.1 / e,
            "loss": 3.0 / e,
            "val R@1": 10.0 * e,
            "val mAP": 5.0,
            "test R@1": 8.0 * e,
            "test mAP": 4.0,
        }
        for e in (1, 2, 3)
    ]
    figure = figures.training_curves(history, best_epoch=3, zero_shot=7.5)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    assert list(lines["val R@1"].get_ydata()) == [10.0, 20.0, 30.0]
    assert list(lines["test R@1"].get_ydata()) == [8.0, 16.0, 24.0]
    assert (lines["val mAP"].get_linestyle(), lines["test mAP"].get_linestyle()) == ("-", "--")
    assert set(lines["zero-shot val R@1"].get_ydata()) == {7.5} and "kept: epoch 3" in lines
    assert "val" in figure.axes[1].get_title(loc="left")


def test_method_comparison_draws_every_seed():
    runs = pd.DataFrame(
        [
            dict(dataset=d, **{"method name": m, "R@1": 20.0 + s})
            for d in ("A", "B")
            for m in ("zero-shot", "CSKT")
            for s in range(3)
        ]
    )
    figure = figures.method_comparison(runs)
    dots = sum(len(collection.get_offsets()) for collection in figure.axes[0].collections)
    assert dots == 12 and "synthetic" in figure.axes[0].get_ylabel()


def test_equal_figures_are_equal_files(tmp_path):
    for name in ("one.svg", "two.svg"):
        figures.save(
            figures.caption_lengths({"A": [20, 21, 22], "B": [30, 31, 31]}), tmp_path / name
        )
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_identity_grid_hides_missing_images():
    figure = figures.identity_grid(
        [[picture()] * 3, [picture()]], [["a", "b", "c"], ["d"]], ["one", "two"]
    )
    assert [axes.get_visible() for axes in figure.axes] == [True] * 4 + [False] * 2


def test_missed_parts_are_filled_where_told_from_chance():
    table = pd.DataFrame(
        {
            "part": ["bag", "hair", "scarf"],
            "failed": [1000, 20, 0],
            "missed": [90.0, 40.0, np.nan],
            "by chance": [91.0, 80.0, np.nan],
            "low": [-3.0, -50.0, np.nan],
            "high": [2.0, -30.0, np.nan],
        }
    )
    (axes,) = figures.missed_parts(table).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hair (20)", "bag (1,000)"]
    chance, missed = axes.collections[1:]
    assert chance.get_offsets()[:, 0].tolist() == [80, 91] and missed.get_offsets()[
        :, 0
    ].tolist() == [40, 90]
    assert [to_hex(colour) for colour in missed.get_facecolors()] == [figures.BLUE, figures.GROUND]
