"""How epochs and learning rates were chosen: what each choice gives, and the search on val."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cskt.report.run_files import CHOSEN, METHOD_NAMES
from cskt.report.settings import SETTING, hide_shared, require_one_setting
from cskt.report.tables import NOTHING, spread

VAL = CHOSEN["val"]
TEST = CHOSEN["test"]
LAST = CHOSEN["last"]
RATES = "learning rate"  # the grid of the search
_ON_VAL = ["val R@1", "val mAP", "val R@1, last epoch"]


def selection_table(runs: pd.DataFrame) -> pd.DataFrame:
    """R@1 on test of the epoch that val would choose, that test would choose, and of the last.

    One row per data set, backbone, method, number of epochs and setting; mean and standard
    deviation over seeds. The gaps are differences within a run, so their spread is that of the
    choice and not of the seeds.

    Args: runs: from :func:`cskt.report.run_files.run_table`; runs without training, which choose
        nothing,
            are left out.
    """
    runs = runs[runs[LAST].notna()]
    kind = ["dataset", "backbone", "method", "epochs", *SETTING]
    # One training may be recorded twice, kept by val and by test.
    runs = runs.drop_duplicates([*kind, "seed"])
    if runs.empty:
        return pd.DataFrame()
    rows = [_selection_row(group) for _, group in runs.groupby(kind)]
    return hide_shared(pd.DataFrame(rows), runs)


def _selection_row(group: pd.DataFrame) -> dict[str, Any]:
    """The line of :func:`selection_table` for runs that differ in their seed only."""
    run = group.iloc[0]
    kept = group["val epoch"].dropna().astype(int).astype(str)
    return {
        "dataset": run["dataset"],
        "backbone": run["backbone"],
        "method": METHOD_NAMES.get(run["method"], run["method"]),
        "epochs": run["epochs"],
        "setting": run["setting"],
        "inputs": run["inputs"],
        "seeds": len(group),
        VAL: _spread_if_known(group[VAL]),
        TEST: _spread_if_known(group[TEST]),
        LAST: _spread_if_known(group[LAST]),
        "test less val": _spread_if_known(group[TEST] - group[VAL], "+"),
        "last less val": _spread_if_known(group[LAST] - group[VAL], "+"),
        "epochs that val chose": ", ".join(kept) or NOTHING,
    }


def _spread_if_known(values: pd.Series, sign: str = "") -> str:
    """Mean and spread of percentages, with a sign for differences; a dash where the choice does not
    exist."""
    if values.isna().any():
        return NOTHING
    return spread(values, sign)


def search_means(grid: pd.DataFrame) -> pd.DataFrame:
    """Figures on val of each row of the search, means over seeds, and which row is the best of its
    method: the highest R@1 of the epoch kept, ties broken by mAP.

    Columns ``method``, ``row``, ``learning rate``, ``warm-up`` (epochs), ``val R@1``, ``val mAP``,
    ``val R@1, last epoch`` (percent), ``seeds``, ``chosen``.

    Args:
        grid: the runs of the grid "learning rate", from :func:`cskt.report.run_files.read_grid`.

    Raises:
        RunError: the runs are of several settings.
    """
    require_one_setting(grid)
    groups = grid.groupby(["method", "row", RATES, "warm-up"], sort=False, dropna=False)
    means = groups[_ON_VAL].mean().reset_index()
    means["seeds"] = groups.size().to_numpy()
    ascending = means.sort_values(["val R@1", "val mAP"], kind="stable")
    best = ascending.groupby("method").tail(1)
    means["chosen"] = means.index.isin(best.index)
    return means


def chosen_rates(grid: pd.DataFrame) -> dict[str, float]:
    """The learning rate of every method that the search chose (see :func:`search_means`)."""
    means = search_means(grid)
    chosen = means[means["chosen"]]
    return dict(zip(chosen["method"], chosen[RATES], strict=True))


def search_table(grid: pd.DataFrame) -> pd.DataFrame:
    """What was tried for every method (a learning rate, and where it says so another warm-up), R@1
    on val of the epoch kept and of the last one, and what was chosen; ``grid`` as for
    :func:`search_means`."""
    rows = []
    for row in search_means(grid).to_dict("records"):
        method, _, tried = row["row"].partition(", ")
        last = row["val R@1, last epoch"]
        rows.append(
            {
                "method": method,
                "tried": tried,
                "seeds": row["seeds"],
                "val R@1, epoch kept": f"{row['val R@1']:.2f}",
                "val R@1, last epoch": NOTHING if pd.isna(last) else f"{last:.2f}",
                "chosen": "chosen" if row["chosen"] else "",
            }
        )
    return pd.DataFrame(rows)


def chosen_histories(grid: pd.DataFrame) -> pd.DataFrame:
    """R@1 on val and on test after every epoch of the runs at the chosen rates.

    Columns ``method`` (its label), ``seed``, ``epoch``, ``val R@1``, ``test R@1``, in percent;
    empty where the run files hold no history."""
    means = search_means(grid)
    chosen = set(means.loc[means["chosen"], "row"])
    rows = []
    for run in grid[grid["row"].isin(chosen)].to_dict("records"):
        label = run["row"].partition(", ")[0]
        for epoch in run["history"]:
            rows.append(
                {
                    "method": label,
                    "seed": run["seed"],
                    "epoch": epoch.get("epoch"),
                    "val R@1": epoch.get("val R@1"),
                    "test R@1": epoch.get("test R@1"),
                }
            )
    return pd.DataFrame(rows, columns=["method", "seed", "epoch", "val R@1", "test R@1"])
