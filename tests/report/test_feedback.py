"""The figure and the table of marked hits, from run files written by hand."""

from __future__ import annotations

import matplotlib
import pytest
from matplotlib import pyplot as plt

from cskt.errors import RunError
from cskt.report import feedback, grid_tables
from tests.run_records import run_file

matplotlib.use("Agg")


def round_row(marks: int, number: int, r1: float) -> dict:
    row = {"marks": marks, "round": number, "left": 100.0 - number, "intervals": {}}
    for measure in feedback.MEASURES:
        values = {measure: r1, f"{measure} before": r1 - 3, f"{measure} gain": 3.0}
        row |= values
        for name, value in values.items():
            row["intervals"][name] = [value - 1, value + 2]
    return row


@pytest.fixture
def folder(tmp_path):
    """Two seeds of CSKT and one of the bare backbone, with two rounds of 1 and 5 marks."""
    for method, seed, r1 in (("cskt", 0, 40.0), ("cskt", 1, 50.0), ("zero-shot", 0, 20.0)):
        rounds = []
        for marks in (1, 5):
            rounds += [round_row(marks, number, r1 + marks * number) for number in range(3)]
        run_file(tmp_path, f"{method}-{seed}", method=method, seed=seed, rounds=rounds)
    return tmp_path


@pytest.fixture
def rows(folder):
    ((_, runs),) = grid_tables.by_data(feedback.read_feedback(folder))
    return feedback.feedback_rows(runs)


def test_rows_are_means_over_seeds(rows):
    found = rows.set_index(["method", "marks", "round"])
    row = found.loc["CSKT", 5, 2]
    assert row["R@1"] == 55
    assert row["mAP before low"] == 51
    assert row["left"] == 98
    assert len(rows) == 2 * 2 * 3


def test_the_table_says_what_marks_gain(rows):
    table = feedback.feedback_table(rows)
    assert len(table) == 2 * 2 * 2
    line = table.iloc[0]
    assert line["method"] == "CSKT"
    assert line["R@1"] == "46.0 (+3.0, +2.0 to +5.0)"
    assert line["queries left"] == "99 %"


def test_a_panel_for_each_measure_and_number_of_marks(rows):
    figure = feedback.feedback_curves(rows)
    assert len(figure.axes) == 3 * 2
    titles = [figure.axes[0].get_title(loc=side) for side in ("left", "center")]
    assert "1 mark a round" in titles
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(labels) == [
        "CSKT, as asked",
        "CSKT, with marks",
        "zero-shot, as asked",
        "zero-shot, with marks",
    ]
    plt.close(figure)


def test_a_run_file_without_rounds_is_named(tmp_path):
    path = run_file(tmp_path, "other")
    with pytest.raises(RunError, match=f"{path.name} lacks rounds"):
        feedback.read_feedback(tmp_path)


def test_findings_are_sentences_with_the_figures_of_the_run_files(rows):
    sentences = feedback.feedback_findings(rows)
    assert len(sentences) == 2
    assert sentences[0] == (
        "CSKT: 5 marks raise the mAP of what has not been seen by 3.0 (2.0 to 5.0) points; after "
        "2 such rounds 55.0 % of the right pictures have been seen, 3.0 (2.0 to 5.0) points more "
        "than in as many pictures of the first ranking."
    )
