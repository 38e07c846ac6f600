"""R@1 under worse descriptions and pictures: run files of ``python -m cskt robustness`` to a figure
and a table."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cskt.errors import RunError
from cskt.report.run_files import METHOD_NAMES, read_run_file, run_table
from cskt.report.settings import require_one_setting
from cskt.report.style import METHOD_COLOURS, PURPLE, describe, listed

AS_IT_IS = "as it is"
COLUMNS = 5  # panels beside each other
# What the levels of a corruption say, and how they are written.
AXES = {
    "words dropped": ("share of the words", "{:.0%}"),
    "words shuffled": ("share of the words", "{:.0%}"),
    "synonyms swapped": ("share of what has any", "{:.0%}"),
    "other wording": ("wording of domain", "{}"),
    "resolution": ("of height and width", "1/{:g}"),
    "blur": ("sigma, of the height", "{:.0%}"),
    "noise": ("sigma, of the range", "{:.0%}"),
    "darkness": ("light taken away", "{:.0%}"),
    "JPEG": ("quality", "{:g}"),
    "upper part hidden": ("of the height", "{:.0%}"),
    "lower part hidden": ("of the height", "{:.0%}"),
}


def read_robustness(folder: str | Path) -> pd.DataFrame:
    """The runs in ``folder`` (see :func:`cskt.report.run_files.run_table`), with their
    ``conditions``, as a list, in a column."""
    paths = sorted(Path(folder).glob("*.json"))
    runs = run_table(paths)
    conditions = []
    for path in paths:
        record = read_run_file(path)
        if not record.get("conditions"):
            raise RunError(f"run file {path} lacks conditions; delete it and measure again.")
        conditions.append(record["conditions"])
    return runs.assign(conditions=conditions)


def robustness_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: ``R@1``, the ends ``low`` and ``high`` of its 95 % interval over people,
    and ``mAP`` by ``corruption``, ``level`` (as it is printed) and ``method`` (its printed name);
    first, under :data:`AS_IT_IS`, without any.

    Args:
        runs: of one setting, from :func:`read_robustness`.
    """
    require_one_setting(runs)
    rows = []
    for run in runs.to_dict("records"):
        as_it_is = {"corruption": AS_IT_IS, "level": "", **run}
        for condition in (as_it_is, *run["conditions"]):
            low, high = condition["interval"]
            _, form = AXES.get(condition["corruption"], ("", "{}"))
            rows.append(
                {
                    "corruption": condition["corruption"],
                    "level": form.format(condition["level"]),
                    "method": METHOD_NAMES.get(run["method"], run["method"]),
                    "R@1": condition["R@1"],
                    "low": low,
                    "high": high,
                    "mAP": condition["mAP"],
                }
            )
    table = pd.DataFrame(rows)
    return table.groupby(["corruption", "level", "method"], sort=False).mean().reset_index()


def robustness_curves(rows: pd.DataFrame) -> Figure:
    """A panel per corruption, R@1 over its levels, a line per method with 95 % intervals over
    people; rows of :func:`robustness_rows`."""
    corruptions = [name for name in rows["corruption"].unique() if name != AS_IT_IS]
    lines = -(-len(corruptions) // COLUMNS)
    figure, grid = plt.subplots(
        lines, COLUMNS, figsize=(10, 2.5 * lines), sharey=True, squeeze=False
    )
    for axes, corruption in zip(grid.flat, corruptions, strict=False):
        _draw_corruption(axes, rows, corruption)
    for axes in grid.flat[len(corruptions) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("R@1, percent")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    bare = rows[rows["corruption"] == AS_IT_IS].set_index("method")["R@1"]
    return describe(
        figure,
        "robustness",
        "R@1 on test as captions or pictures get worse, a panel for each corruption; bars are 95 % "
        "intervals over people.",
        f"{len(corruptions)} panels, a line for each method: {', '.join(corruptions)}. R@1 as it "
        f"is, in percent: {listed(bare)}.",
    )


def _draw_corruption(axes: Axes, rows: pd.DataFrame, corruption: str) -> None:
    shown = rows[rows["corruption"].isin([AS_IT_IS, corruption])]
    in_steps = corruption != "other wording"  # whose levels have no order
    for method, line in shown.groupby("method", sort=False):
        places = np.arange(len(line))
        below = line["R@1"] - line["low"]
        above = line["high"] - line["R@1"]
        axes.errorbar(
            places,
            line["R@1"],
            yerr=[below, above],
            marker="o",
            linestyle="-" if in_steps else "",
            markersize=3.5,
            capsize=2,
            color=METHOD_COLOURS.get(str(method), PURPLE),
            label=method,
        )
        axes.set_xticks(places, ["as it is", *line["level"].iloc[1:]], fontsize=7.5)
    title, _ = AXES.get(corruption, ("", ""))
    axes.set_title(corruption)
    axes.set_xlabel(title, fontsize=8.5)


def robustness_table(rows: pd.DataFrame) -> pd.DataFrame:
    """R@1 of each method with its 95 % interval over people, a row per corruption and level; rows
    of :func:`robustness_rows`."""
    text = []
    for row in rows.to_dict("records"):
        text.append(f"{row['R@1']:.1f} ({row['low']:.1f} to {row['high']:.1f})")
    places = ["corruption", "level"]
    in_order = pd.MultiIndex.from_frame(rows[places].drop_duplicates())
    shown = rows.assign(text=text)
    table = shown.pivot(index=places, columns="method", values="text").reindex(in_order)
    return table.reset_index().rename_axis(columns=None)
