"""The figure and the table of robustness, from run files written by hand."""

from __future__ import annotations

import json

import matplotlib
import pytest
from matplotlib import pyplot as plt

from cskt.errors import RunError
from cskt.report import grid_tables, robustness, style
from tests.run_records import run_file

matplotlib.use("Agg")


def condition(corruption: str, level: float | str, r1: float) -> dict:
    return {
        "corruption": corruption,
        "level": level,
        "R@1": r1,
        "interval": [r1 - 2, r1 + 3],
        "mAP": r1 - 5,
    }


@pytest.fixture
def folder(tmp_path):
    """Two seeds of CSKT and one of the bare backbone under three conditions."""
    for method, seed, r1 in (("cskt", 0, 40.0), ("cskt", 1, 50.0), ("zero-shot", 0, 20.0)):
        rows = [
            condition("words dropped", 0.1, r1 - 4),
            condition("words dropped", 0.5, r1 - 16),
            condition("other wording", "B", r1 - 8),
            condition("upper part hidden", 0.25, r1 - 1),
            condition("upper part hidden", 0.5, r1 - 2),
        ]
        path = run_file(tmp_path, f"{method}-{seed}", method=method, seed=seed, conditions=rows)
        record = json.loads(path.read_text())
        record["metrics"]["text_to_image"] |= condition("", "", r1)
        record["metrics"]["text_to_image"]["intervals"] = {"R@1": [r1 - 2, r1 + 3]}
        path.write_text(json.dumps(record))
    return tmp_path


@pytest.fixture
def rows(folder):
    ((_, runs),) = grid_tables.by_data(robustness.read_robustness(folder))
    return robustness.robustness_rows(runs)


def test_rows_are_means_over_seeds(rows):
    places = ["corruption", "level", "method"]
    found = rows.set_index(places)
    half = found.loc["words dropped", "50%", "CSKT"]
    assert half.to_dict() == {"R@1": 29.0, "low": 27.0, "high": 32.0, "mAP": 24.0}
    assert found.loc["as it is", "", "zero-shot"]["R@1"] == 20
    assert len(rows) == 2 * 6


def test_the_table_has_a_column_per_method_and_keeps_the_order(rows):
    table = robustness.robustness_table(rows)
    assert list(table) == ["corruption", "level", "CSKT", "zero-shot"]
    assert list(table["level"]) == ["", "10%", "50%", "B", "25%", "50%"]
    assert table["CSKT"].iloc[2] == "29.0 (27.0 to 32.0)"


def test_a_panel_begins_with_the_split_as_it_is(rows):
    style.set_style()
    figure = robustness.robustness_curves(rows)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == ["words dropped", "other wording", "upper part hidden"]
    labels = [label.get_text() for label in panels[0].get_xticklabels()]
    assert labels == ["as it is", "10%", "50%"]
    line = panels[0].containers[0].lines[0]
    assert list(line.get_ydata()) == [45, 41, 29]
    plt.close(figure)


def test_without_files_there_is_nothing_to_show(tmp_path):
    assert grid_tables.by_data(robustness.read_robustness(tmp_path / "none")) == []


def test_settings_are_never_averaged(folder):
    run_file(folder, "bf16", precision="bf16", conditions=[condition("JPEG", 10, 1.0)])
    runs = robustness.read_robustness(folder)
    assert len(grid_tables.by_data(runs)) == 2
    with pytest.raises(RunError, match="cannot be averaged"):
        robustness.robustness_rows(runs)


def test_a_run_file_without_conditions_is_named(folder):
    run_file(folder, "other")
    with pytest.raises(RunError, match=r"other.json lacks conditions; delete it and measure again"):
        robustness.read_robustness(folder)
