"""Figures of grids show every row, seed and interval."""

from __future__ import annotations

import matplotlib
import pytest
from matplotlib import pyplot as plt

from cskt.report import grid_figures, style
from cskt.report.choices import chosen_histories
from cskt.report.run_files import read_grid
from tests.run_records import grid_file, search_file

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def house_style():
    style.set_style()
    yield
    plt.close("all")


def texts(labels):
    return [label.get_text() for label in labels]


@pytest.fixture
def depths(tmp_path):
    """A seed of each of three prompt depths: R@1 40, 41 and 42, from 2 below to 3 above."""
    grid_file(tmp_path, "prompt depth", "1", 0, 40.0)
    grid_file(tmp_path, "prompt depth", "3", 0, 41.0)
    folder = grid_file(tmp_path, "prompt depth", "all", 0, 42.0)
    return read_grid(folder, "prompt depth")


def test_a_line_shows_every_row_with_its_interval(depths):
    (axes,) = grid_figures.grid_lines({"prompt depth": depths}).axes
    assert texts(axes.get_xticklabels()) == ["1", "3", "all"]
    (container,) = axes.containers
    _, _, (bars,) = container.lines
    last_bar = bars.get_segments()[2]
    assert last_bar[:, 1] == pytest.approx([40.0, 45.0])  # of 42


def test_dots_show_every_row(depths):
    (axes,) = grid_figures.grid_dots(depths, "all").axes
    assert texts(axes.get_yticklabels()) == ["1", "3", "all"]


def test_little_data_is_a_line_per_method(tmp_path):
    grid_file(tmp_path, "identities", "CSKT, 5%", 0, 40.0)
    folder = grid_file(tmp_path, "identities", "full fine-tuning, 100%", 0, 41.0)
    (axes,) = grid_figures.less_data(read_grid(folder, "identities")).axes
    assert set(texts(axes.get_legend().get_texts())) == {"CSKT", "full fine-tuning"}
    assert texts(axes.get_xticklabels()) == ["5", "100"]


def test_histories_have_a_panel_per_method_with_val_and_test(tmp_path):
    search_file(tmp_path, "cskt", "CSKT", 0.01, 55.0)
    folder = search_file(tmp_path, "full", "full fine-tuning", 0.0003, 60.0)
    histories = chosen_histories(read_grid(folder, "learning rate"))
    panels = {}
    for axes in grid_figures.method_histories(histories).axes:
        panels[axes.get_title(loc="left")] = axes
    assert set(panels) == {"CSKT", "full fine-tuning"}
    lines = [list(line.get_ydata()) for line in panels["CSKT"].get_lines()]
    assert lines == [[55.0, 50.0], [45.0, 40.0]]
