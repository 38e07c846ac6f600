"""The table and the figure of steps on several processes and in pieces."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from cskt.report import devices
from cskt.report.efficiency import read_measurements

BENCHMARKS = Path(__file__).parents[2] / "book" / "results" / "benchmarks"

MEASUREMENT = {
    "settings": {"trained": 1_000_000},
    "rows": [
        {"processes": 1, "batch": 8, "piece": None, "seconds": 2.0, "extra_memory_mb": 1500.0},
        {"processes": 1, "batch": 16, "piece": None, "seconds": 4.0, "extra_memory_mb": 3000.0},
        {"processes": 1, "batch": 16, "piece": 8, "seconds": 6.0, "extra_memory_mb": 1600.0},
        {"processes": 2, "batch": 16, "piece": None, "seconds": 2.5, "extra_memory_mb": 1500.0},
    ],
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


def test_one_batch_on_more_processes_is_measured_first_and_modelled_beyond():
    table = devices.scaling_table(MEASUREMENT)
    assert list(table["source"]) == ["measured"] * 2 + ["modelled"] * 3
    assert list(table["processes"]) == [1, 2, 8, 16, 32]
    assert list(table["pairs"]) == [16, 8, 2, 1, 1]
    # 4 s for 16 pairs; 8 processes encode 2 each and send 2 * 7/8 of 4 MB at 10 Gbit/s.
    assert table["seconds"][2] == pytest.approx(0.5 + 7e6 * 8 / 10e9)
    assert table["GB"][2] == pytest.approx(2 * 1.5 / 8)  # the two batches lie on a line through 0
    assert list(table["seconds"][:2]) == [4.0, 2.5]


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
