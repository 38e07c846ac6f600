"""How epochs and learning rates were chosen: what each choice gives, and the search on val."""

from __future__ import annotations

import pandas as pd

from .results import CHOSEN, METHOD_NAMES, spread
from .settings import SETTING, hide_shared, require_one_setting

VAL, TEST, LAST = CHOSEN["val"], CHOSEN["test"], CHOSEN["last"]
_NONE = "—"
RATES = "learning rate"  # the grid of the search


def selection_table(runs: pd.DataFrame) -> pd.DataFrame:
    """R@1 on test of the epoch that val would choose, that test would choose, and of the last.

    One row per data set, backbone, method, number of epochs and setting; mean and standard
    deviation over seeds. The gaps are differences within a run, so their spread is that of the
    choice and not of the seeds.

    Args:
        runs: from :func:`cskt.results.run_table`; runs without training, which choose nothing, are
            left out.
    """
    runs = runs[runs[LAST].notna()]
    kind = ["dataset", "backbone", "method", "epochs", *SETTING]
    # One training may be recorded twice, kept by val and by test.
    runs = runs.drop_duplicates([*kind, "seed"])
    rows = []
    for key, group in runs.groupby(kind):
        dataset, backbone, method, epochs, setting, inputs = key
        on_test, last = group[TEST] - group[VAL], group[LAST] - group[VAL]
        kept = group["val epoch"].dropna().astype(int).astype(str)
        rows.append(
            {
                "dataset": dataset,
                "backbone": backbone,
                "method": METHOD_NAMES.get(method, method),
                "epochs": epochs,
                "setting": setting,
                "inputs": inputs,
                "seeds": len(group),
                VAL: _or_none(group[VAL]),
                TEST: _or_none(group[TEST]),
                LAST: _or_none(group[LAST]),
                "test less val": _or_none(on_test, "+"),
                "last less val": _or_none(last, "+"),
                "epochs that val chose": ", ".join(kept) or _NONE,
            }
        )
    return hide_shared(pd.DataFrame(rows), runs) if rows else pd.DataFrame()


def _or_none(values: pd.Series, sign: str = "") -> str:
    """Mean and spread of percentages, with a sign for differences; a dash where the choice does not
    exist."""
    if values.isna().any():
        return _NONE
    return spread(values, sign)


def search_means(grid: pd.DataFrame) -> pd.DataFrame:
    """Figures on val of each row of the search, means over seeds, and which row is the best of its
    method: the highest R@1 of the epoch kept, ties broken by mAP.

    Columns ``method``, ``row``, ``learning rate``, ``warm-up`` (epochs), ``val R@1``, ``val mAP``,
    ``val R@1, last epoch`` (percent), ``seeds``, ``chosen``.

    Args:
        grid: the runs of the grid "learning rate", from :func:`cskt.results.read_grid`.

    Raises:
        CSKTError: the runs are of several settings.
    """
    require_one_setting(grid)
    groups = grid.groupby(["method", "row", RATES, "warm-up"], sort=False, dropna=False)
    means = groups[["val R@1", "val mAP", "val R@1, last epoch"]].mean().reset_index()
    means["seeds"] = groups.size().to_numpy()
    best = means.sort_values(["val R@1", "val mAP"], kind="stable").groupby("method").tail(1)
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
                "val R@1, last epoch": _NONE if pd.isna(last) else f"{last:.2f}",
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
    columns = ["method", "seed", "epoch", "val R@1", "test R@1"]
    rows = []
    for run in grid[grid["row"].isin(chosen)].to_dict("records"):
        for epoch in run["history"]:
            figures = {name: epoch.get(name) for name in columns[2:]}
            rows.append({"method": run["row"].partition(", ")[0], "seed": run["seed"], **figures})
    return pd.DataFrame(rows, columns=columns)
