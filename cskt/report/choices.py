"""How epochs and learning rates were chosen: what each choice gives, and the search on val."""

from __future__ import annotations

import pandas as pd

from cskt.report.run_files import CHOSEN
from cskt.report.settings import SETTING, hide_shared, require_one_setting
from cskt.report.tables import NOTHING, over_seeds, spread

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

    Args:
        runs: from :func:`cskt.report.run_files.run_table`; runs without training, which choose
            nothing, are left out.
    """
    kind = ["dataset", "backbone", "method", "epochs", *SETTING]
    # One training may be recorded twice, kept by val and by test.
    runs = runs[runs[LAST].notna()].drop_duplicates([*kind, "seed"])
    if runs.empty:
        return pd.DataFrame()
    table = over_seeds(runs, kind, [VAL, TEST, LAST])
    runs["test less val"] = runs[TEST] - runs[VAL]
    runs["last less val"] = runs[LAST] - runs[VAL]
    groups = runs.groupby(kind, sort=False)
    for gap in ("test less val", "last less val"):
        table[gap] = groups[gap].agg(spread, "+").to_numpy()
    table["epochs that val chose"] = groups["val epoch"].agg(_listed).to_numpy()
    return hide_shared(table, runs)


def _listed(epochs: pd.Series) -> str:
    known = epochs.dropna().astype(int).astype(str)
    return ", ".join(known) or NOTHING


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


def search_table(grid: pd.DataFrame) -> pd.DataFrame:
    """:func:`search_means` for people: what was tried, R@1 on val of the epoch kept and of the last
    one, and what was chosen."""
    means = search_means(grid)
    table = means[["row", "seeds", *_ON_VAL]].rename(columns={"row": "tried"})
    return table.assign(chosen=means["chosen"].map({True: "chosen", False: ""}))


def chosen_histories(grid: pd.DataFrame) -> pd.DataFrame:
    """R@1 on val and on test after every epoch of the runs at the chosen rates.

    Columns ``method`` (its label), ``seed``, ``epoch``, ``val R@1``, ``test R@1``, in percent;
    empty where the run files hold no history."""
    means = search_means(grid)
    chosen = means[means["chosen"]]
    runs = grid[grid["row"].isin(chosen["row"])]
    runs = runs.explode("history").dropna(subset="history")
    runs = runs.reset_index(drop=True)
    labels = runs["row"].str.partition(", ")
    epochs = pd.json_normalize(list(runs["history"]))
    table = epochs.reindex(columns=["epoch", "val R@1", "test R@1"])
    return table.assign(method=labels[0], seed=runs["seed"])
