"""The table and the figure of steps on several processes and in pieces."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from cskt.report import devices
from cskt.report.efficiency import read_measurements

BENCHMARKS = Path(__file__).parents[2] / "book" / "results" / "benchmarks"

MEASUREMENT = {
    "rows": [
        {"processes": 1, "batch": 8, "piece": None, "seconds": 2.0, "extra_memory_mb": 1500.0},
        {"processes": 1, "batch": 16, "piece": None, "seconds": 4.0, "extra_memory_mb": 3000.0},
        {"processes": 1, "batch": 16, "piece": 8, "seconds": 6.0, "extra_memory_mb": 1600.0},
        {"processes": 2, "batch": 16, "piece": None, "seconds": 2.5, "extra_memory_mb": 1500.0},
    ]
}


def test_the_table_says_how_each_batch_was_encoded():
    table = devices.device_table(MEASUREMENT)
    assert list(table["encoded"]) == [
        "the batch at once",
        "the batch at once",
        "8 pairs at a time",
        "the batch at once",
    ]
    assert list(table["processes"]) == [1, 1, 1, 2]
    assert list(table["GB"]) == [1.5, 3.0, 1.6, 1.5]


def test_the_figure_shows_one_process_in_gigabytes():
    figure = devices.memory_figure(MEASUREMENT)
    memory, seconds = figure.axes
    whole, pieces = memory.get_lines()[:2]
    assert list(whole.get_xdata()) == [8, 16]
    assert list(whole.get_ydata()) == pytest.approx([1.5, 3.0])
    assert list(pieces.get_ydata()) == pytest.approx([1.6])
    assert seconds.get_ylabel() == "seconds a step"
    plt.close(figure)


def test_the_committed_run_file_is_read_with_the_others():
    measurements = read_measurements(BENCHMARKS)
    assert measurements["devices-cpu"]["ratios"] == {}
    table = devices.device_table(measurements["devices-cpu"])
    assert {"the batch at once", "8 pairs at a time"} <= set(table["encoded"])
