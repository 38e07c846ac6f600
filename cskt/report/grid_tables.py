"""The tables of a grid of runs: what varies from row to row, everything else being equal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cskt.report.differences import paired_differences
from cskt.report.run_files import run_table
from cskt.report.settings import SETTING, hide_shared, require_one_setting
from cskt.report.tables import formatted, over_seeds

ZERO_SHOT = "zero-shot"
_TRANSFER_NAMES = {
    "source": "trained on",
    "source data": "training data",
    "dataset": "tested on",
    "row": "model",
}


def by_data(grid: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A grid's runs apart by data set, backbone, way to choose the epoch and setting, which no
    table may mix, each with a heading that says so.

    Args:
        grid: from :func:`cskt.report.run_files.read_grid`.
    """
    tables = []
    for _, runs in grid.groupby(["data", "selection", *SETTING], sort=False):
        run = runs.iloc[0]
        chosen = f"epoch chosen on {run['selection']}"
        if run["selection"] == "last":
            chosen = "last epoch"
        heading = f"{run['data']}; {chosen}; {run['setting']}; {run['inputs']}"
        tables.append((heading, runs.reset_index(drop=True)))
    return tables


def mean_interval(runs: pd.DataFrame) -> pd.Series:
    """The ends ``low`` and ``high`` of the 95 % interval of R@1 over people, each averaged over the
    runs (seeds)."""
    ends = pd.DataFrame(runs["interval"].tolist(), columns=["low", "high"])
    return ends.mean()


def grid_table(runs: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """A grid's runs, of one setting, as a table for people; with ``reference``, a row, how every
    other one differs from it in R@1."""
    require_one_setting(runs)
    table = over_seeds(runs, ["row"], ["R@1", "mAP"])
    lines = []
    for _, group in runs.groupby("row", sort=False):
        interval = mean_interval(group)
        line = {
            "95 % over people": f"{interval['low']:.1f} to {interval['high']:.1f}",
            "trained parameters": f"{group['trained'].iloc[0]:,}",
            "seconds a run": f"{group['seconds'].mean():.0f}",
        }
        lines.append(line)
    table = table.join(pd.DataFrame(lines))
    if reference is not None:
        table = table.join(_against(runs, reference), on="row").fillna("")
    return table.rename(columns={"row": "variant"})


def _against(runs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Per row, ``reference`` aside, the columns that compare it with that row."""
    others = [row for row in runs["row"].unique() if row != reference]
    pairs = []
    for row in others:
        pairs.append((runs[runs["row"] == row], runs[runs["row"] == reference]))
    table = paired_differences(pairs).set_axis(others)
    return table.rename(columns={"R@1, points": f"R@1 against {reference}"})


def transfer_table(runs: pd.DataFrame) -> pd.DataFrame:
    """From each source to each target, R@1 and mAP on the target's test split, without any training
    on it, and by how many points R@1 lies above the bare backbone on the same target under the same
    setting."""
    if runs.empty:
        return pd.DataFrame()
    origin = runs["synthetic"].map({True: " (synthetic)", False: ""})
    runs = runs.assign(source=runs["source"] + origin)
    kind = ["source", "source data", "dataset", "backbone", "row", *SETTING]
    target = ["dataset", "backbone", *SETTING]
    table = over_seeds(runs, kind, ["R@1", "mAP"])
    mean = runs.groupby(kind, sort=False)["R@1"].mean().to_numpy()
    untrained = runs[runs["row"] == ZERO_SHOT].groupby(target)["R@1"].mean()
    bare = table[target].join(untrained, on=target)["R@1"]
    gains = formatted(mean - bare, "{:+.1f}")
    table["R@1 less zero-shot"] = gains.mask(table["row"] == ZERO_SHOT, "")
    table = hide_shared(table, runs)
    if (runs.groupby("source")["source data"].nunique() == 1).all():
        table = table.drop(columns="source data")
    return table.rename(columns=_TRANSFER_NAMES)


def grid_evidence(folder: str | Path) -> pd.DataFrame:
    """What stands behind each grid in ``folder``: run files, data, setting, machine, commit, hours
    of training (of transfer: of testing). A run that is a row of two grids counts in both."""
    lines = []
    for path in sorted(Path(folder).glob("*/")):
        runs = run_table(path.glob("*.json"))
        runs["commit"] = runs["commit"].str[:10]
        line = {"grid": path.name.replace("-", " "), "run files": str(len(runs))}
        for name in ("dataset", "setting", "machine", "commit"):
            values = sorted(runs[name].unique())
            line[name] = "; ".join(values)
        hours = runs["seconds"].sum() / 3600
        line["hours"] = f"{hours:.1f}"
        lines.append(line)
    return pd.DataFrame(lines)
