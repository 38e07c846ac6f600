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
    r1 = {"CSKT, 0%": (50, 54), "CSKT, 20%": (48, 50), "CSKT, 80%": (30, 32)}
    for row, values in r1.items():
        for seed, value in enumerate(values):
            grid_file(tmp_path, "noise", row, seed, value)
    folder = grid_file(tmp_path, "noise", "full fine-tuning, 20%", 0, 60)
    return read_grid(folder, "noise")


def test_a_share_is_compared_with_no_noise_seed_by_seed(runs):
    table = noise.noise_table(runs).set_index("variant")
    lost = table["R@1 less without noise"]
    assert lost["CSKT, 20%"] == "-3.00 ± 1.41"  # 48 - 50 and 50 - 54
    assert lost["CSKT, 80%"] == "-21.00 ± 1.41"
    assert lost["CSKT, 0%"] == ""
    assert lost["full fine-tuning, 20%"] == "", "nothing to compare with"
    assert table.loc["CSKT, 80%", "R@1 less zero-shot"] == "+11.00 ± 1.41"
    assert table.loc["CSKT, 20%", "95 % over people"] == "47.0 to 52.0"


def test_curves_of_this_code_and_published_ones_stand_apart(runs):
    figure = noise.noise_curves(runs, noise.published_noise(PUBLISHED))
    ours, published = figure.axes
    lines = {container.get_label(): container.lines[0] for container in ours.containers}
    assert list(lines["CSKT"].get_xdata()) == [0, 20, 80]
    assert list(lines["CSKT"].get_ydata()) == [52, 49, 31]
    assert list(lines["full fine-tuning"].get_xdata()) == [20]
    assert list(ours.lines[-1].get_ydata()) == [20, 20]
    (line,) = published.lines
    assert line.get_label() == "RDE, CUHK-PEDES"
    assert list(line.get_xdata()) == [0, 50, 80]
    heights = [high - low for low, high in (axes.get_ylim() for axes in figure.axes)]
    assert heights[0] == pytest.approx(heights[1]), "slopes compare"
    plt.close(figure)


def test_published_figures_are_called_real_and_have_a_source():
    table = noise.published_noise_table(noise.published_noise(PUBLISHED))
    assert set(table["data"]) == {"CUHK-PEDES (real)"}
    assert list(table["R@1"]) == ["75.94", "71.33", "64.99"]
    assert set(table["source"]) == {"RDE, CVPR 2024"}
