"""What marked hits add: run files of ``python -m cskt feedback`` to a figure and a table."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cskt.errors import RunError
from cskt.report.run_files import METHOD_NAMES, read_run_file, run_table
from cskt.report.settings import require_one_setting
from cskt.report.style import METHOD_COLOURS, PURPLE

# Measure -> what its axis says.
MEASURES = {
    "R@1": "R@1 of what is\nnot seen, percent",
    "mAP": "mAP of what is\nnot seen, percent",
    "found": "right pictures\nseen, percent",
}


def read_feedback(folder: str | Path) -> pd.DataFrame:
    """The runs in ``folder`` (see :func:`cskt.report.run_files.run_table`), with their ``rounds``,
    as a list, in a column."""
    paths = sorted(Path(folder).glob("*.json"))
    runs = run_table(paths)
    rounds = []
    for path in paths:
        record = read_run_file(path)
        if not record.get("rounds"):
            raise RunError(f"run file {path} lacks rounds; delete it and measure again.")
        rounds.append(record["rounds"])
    return runs.assign(rounds=rounds)


def feedback_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds by ``method`` (its printed name), ``marks`` and ``round``: every measure of
    :data:`MEASURES`, the same ``... before`` without feedback and the ``... gain``, with the ends
    ``... low`` and ``... high`` of each one's 95 % interval over people; and what is ``left``.

    Args:
        runs: of one setting, from :func:`read_feedback`.
    """
    require_one_setting(runs)
    rows = []
    for run in runs.to_dict("records"):
        method = METHOD_NAMES.get(run["method"], run["method"])
        for row in run["rounds"]:
            values = {name: value for name, value in row.items() if name != "intervals"}
            for name, (low, high) in row["intervals"].items():
                values[f"{name} low"] = low
                values[f"{name} high"] = high
            rows.append({"method": method, **values})
    table = pd.DataFrame(rows)
    return table.groupby(["method", "marks", "round"], sort=False).mean().reset_index()


def feedback_curves(rows: pd.DataFrame) -> Figure:
    """A row of panels for each measure, a column for each number of marks: with feedback as a line
    with 95 % intervals over people, without it dashed; rows of :func:`feedback_rows`."""
    marks = sorted(rows["marks"].unique())
    figure, grid = plt.subplots(
        len(MEASURES), len(marks), figsize=(10, 7.5), sharex=True, sharey="row", squeeze=False
    )
    for panels, (measure, label) in zip(grid, MEASURES.items(), strict=True):
        for axes, count in zip(panels, marks, strict=True):
            _draw_rounds(axes, rows[rows["marks"] == count], measure)
        panels[0].set_ylabel(label)
    for axes, count in zip(grid[0], marks, strict=True):
        axes.set_title(f"{count} mark a round" if count == 1 else f"{count} marks a round")
    for axes in grid[-1]:
        axes.set_xlabel("rounds of marks")
        axes.set_xticks(sorted(rows["round"].unique()))
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _draw_rounds(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    for method, line in rows.groupby("method", sort=False):
        colour = METHOD_COLOURS.get(str(method), PURPLE)
        below = line[measure] - line[f"{measure} low"]
        above = line[f"{measure} high"] - line[measure]
        axes.errorbar(
            line["round"],
            line[measure],
            yerr=[below, above],
            marker="o",
            markersize=3.5,
            capsize=2,
            color=colour,
            label=f"{method}, with marks",
        )
        axes.plot(
            line["round"],
            line[f"{measure} before"],
            linestyle="--",
            color=colour,
            label=f"{method}, as asked",
        )


def feedback_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, number of marks and round after the first: each measure with its gain
    and the gain's 95 % interval over people, in points; rows of :func:`feedback_rows`."""
    lines = []
    for row in rows[rows["round"] > 0].to_dict("records"):
        line = {name: row[name] for name in ("method", "marks", "round")}
        line["queries left"] = f"{row['left']:.0f} %"
        for measure in MEASURES:
            gain = f"{row[f'{measure} gain']:+.1f}"
            low = f"{row[f'{measure} gain low']:+.1f}"
            high = f"{row[f'{measure} gain high']:+.1f}"
            line[measure] = f"{row[measure]:.1f} ({gain}, {low} to {high})"
        lines.append(line)
    return pd.DataFrame(lines)


def feedback_findings(rows: pd.DataFrame) -> list[str]:
    """A sentence for each method: what the most marks of the table gain in the first round and in
    all, and what they find beyond the same number of pictures without feedback; rows of
    :func:`feedback_rows`."""
    sentences = []
    for method, line in rows.groupby("method", sort=False):
        most = line[line["marks"] == line["marks"].max()].sort_values("round")
        first = most.iloc[1]
        last = most.iloc[-1]
        sentences.append(
            f"{method}: {int(first['marks'])} marks raise the mAP of what has not been seen by "
            f"{_gain(first, 'mAP')} points; after {int(last['round'])} such rounds "
            f"{last['found']:.1f} % of the right pictures have been seen, {_gain(last, 'found')} "
            "points more than in as many pictures of the first ranking."
        )
    return sentences


def _gain(row: pd.Series, measure: str) -> str:
    """A gain and its interval."""
    low = row[f"{measure} gain low"]
    high = row[f"{measure} gain high"]
    return f"{row[f'{measure} gain']:.1f} ({low:.1f} to {high:.1f})"
