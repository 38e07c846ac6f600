"""Noise: what it costs each method, in a table and a figure, beside what was published."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot as plt

from cskt.report import noise
from cskt.report.run_files import read_grid
from tests.run_records import grid_file

matplotlib.use("Agg")
PUBLISHED = Path(__file__).parents[2] / "book" / "data" / "noise.csv"


@pytest.fixture
def runs(tmp_path):
    """Two seeds of CSKT without noise and with two shares, one of full fine-tuning with noise
    only; the backbone as it came has R@1 20."""
    of_seeds = {"CSKT, 0%": (50, 54), "CSKT, 20%": (48, 50), "CSKT, 80%": (30, 32)}
    for row, (first, second) in of_seeds.items():
        grid_file(tmp_path, "noise", row, seed=0, r1=first)
        grid_file(tmp_path, "noise", row, seed=1, r1=second)
    folder = grid_file(tmp_path, "noise", "full fine-tuning, 20%", seed=0, r1=60)
    return read_grid(folder, "noise")


@pytest.fixture
def panels(runs):
    """The panel of our runs, and that of the published figures."""
    figure = noise.noise_curves(runs, noise.published_noise(PUBLISHED))
    yield figure.axes
    plt.close(figure)


def test_a_share_is_compared_with_no_noise_seed_by_seed(runs):
    table = noise.noise_table(runs).set_index("variant")
    lost = table["R@1 less without noise"]
    assert lost["CSKT, 20%"] == "-3.00 ± 1.41"  # 48 - 50 and 50 - 54
    assert lost["CSKT, 80%"] == "-21.00 ± 1.41"
    assert lost["CSKT, 0%"] == "—"
    assert lost["full fine-tuning, 20%"] == "—", "nothing to compare with"
    assert table.loc["CSKT, 80%", "R@1 less zero-shot"] == "11.00 ± 1.41"
    assert table.loc["CSKT, 20%", "95 % over people"] == "47.0 to 52.0"


def test_a_line_per_method_goes_through_the_means_over_seeds(panels):
    cskt, full = panels[0].containers
    assert cskt.get_label() == "CSKT"
    assert full.get_label() == "full fine-tuning"
    line, _, _ = cskt.lines
    assert list(line.get_xdata()) == [0, 20, 80]
    assert list(line.get_ydata()) == [52, 49, 31]


def test_published_curves_stand_apart_on_an_axis_as_many_points_high(panels):
    ours, published = panels
    [line] = published.lines
    assert line.get_label() == "RDE, CUHK-PEDES (real)"
    assert list(line.get_xdata()) == [0, 50, 80]
    low, high = ours.get_ylim()
    bottom, top = published.get_ylim()
    assert top - bottom == pytest.approx(high - low)


def test_published_figures_are_called_real_and_have_a_source():
    table = noise.published_noise(PUBLISHED)
    assert list(table["R@1"]) == ["75.94", "71.33", "64.99"]
    assert (table["dataset"] == "CUHK-PEDES (real)").all()
    assert (table["source"] == "RDE, CVPR 2024").all()
