"""What another machine does to a result: trainings under several numerics beside the committed
seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cskt.errors import RunError
from cskt.report.run_files import CHOSEN, METHOD_NAMES, of_embedded_default
from cskt.report.settings import SETTING, device_name, hide_shared, require_one_setting, setting_of
from cskt.report.tables import NOT_RUN

LAST = CHOSEN["last"]
WIDTH = 2  # standard deviations to either side of the committed mean
_ROW = {
    "method": "method",
    "numerics": "numerics",
    "precision": "precision",
    "last.R@1": "R@1, last epoch",
}


def read_variation(path: str | Path) -> dict[str, Any] | None:
    """The run file of ``benchmarks/variation.py``; None where it was not run here,
    :class:`RunError` if damaged."""
    path = Path(path)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        describe_variation(record)
        _rows(record)
    except (OSError, ValueError, LookupError, TypeError) as error:
        message = f"run file {path} cannot be read ({error!r}); delete it and measure again."
        raise RunError(message) from error
    return record


def describe_variation(record: dict[str, Any]) -> str:
    """One line: data, seed, hardware, setting, commit."""
    processors = record["hardware"]["cpu_count"]
    facts = [
        f"{record['dataset']} (synthetic)",
        f"seed {record['seed']}",
        f"{device_name(record)} with {processors} processors",
        _fp32_setting(record),
        f"commit {record['commit'][:10]}",
    ]
    return ", ".join(facts)


def _rows(record: dict[str, Any]) -> pd.DataFrame:
    """A row per training: method (its key), numerics, precision, R@1 of the last epoch."""
    return pd.json_normalize(record["rows"])[list(_ROW)].rename(columns=_ROW)


def committed_seeds(record: dict[str, Any], runs: pd.DataFrame, method: str) -> pd.Series:
    """R@1 of the last epoch over the committed seeds that a variation can be compared with.

    Those with cskt-mini on its data set, of the method and of its setting in fp32; a bf16 row is
    compared with them too, which is its point.

    Args:
        record: from :func:`read_variation`.
        runs: from :func:`cskt.report.run_files.run_table`.
        method: key of :data:`cskt.config.METHODS`.
    """
    runs = of_embedded_default(runs)
    of_method = (runs["dataset"] == record["dataset"]) & (runs["method"] == method)
    of_setting = runs["setting"] == _fp32_setting(record)
    seeds = runs[of_method & of_setting & runs[LAST].notna()]
    require_one_setting(seeds)
    return seeds.drop_duplicates("seed")[LAST]


def variation_table(record: dict[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """One row per training: numerics, method, precision, R@1 of the last epoch in percent, how it
    compares with the method's first row in the file, and whether it lies within the mean -+
    :data:`WIDTH` standard deviations of the :func:`committed_seeds`, where these are several."""
    trainings = _rows(record)
    tables = []
    for method in trainings["method"].unique():
        table = trainings[trainings["method"] == method]
        values = table["R@1, last epoch"]
        differences = values - values.iloc[0]
        table = table.assign(
            **{
                "method": METHOD_NAMES.get(method, method),
                "R@1, last epoch": values.map("{:.2f}".format),
                "against the first row": differences.map("{:+.2f}".format),
                "committed mean ± 2 sd": NOT_RUN,
                "inside": NOT_RUN,
            }
        )
        seeds = committed_seeds(record, runs, method)
        if len(seeds) > 1:
            reach = WIDTH * seeds.std()
            low = seeds.mean() - reach
            high = seeds.mean() + reach
            table["committed mean ± 2 sd"] = f"{low:.2f} to {high:.2f}"
            table["inside"] = values.between(low, high).map({True: "yes", False: "no"})
        tables.append(table)
    return pd.concat(tables)


def spread_table(record: dict[str, Any] | None, runs: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of R@1, last epoch, over the committed seeds and over fp32 numerics, with
    the number of runs of each: a row per data set and method of the synthetic data, and per setting
    where the runs are of several."""
    runs = of_embedded_default(runs)
    runs = runs[runs[LAST].notna() & runs["method"].isin(METHOD_NAMES)]
    kind = ["dataset", "method", *SETTING]
    lines = []
    for _, group in runs.groupby(kind, sort=False):
        run = group.iloc[0]
        seeds = group.drop_duplicates("seed")
        line = run[kind].to_dict()
        line["method"] = METHOD_NAMES[run["method"]]
        line["sd over seeds"] = _deviation(seeds[LAST])
        line["sd over fp32 numerics"] = _deviation(_fp32_figures(record, run))
        lines.append(line)
    if not lines:
        return pd.DataFrame()
    return hide_shared(pd.DataFrame(lines), runs)


def _fp32_figures(record: dict[str, Any] | None, run: pd.Series) -> pd.Series:
    """R@1 of those fp32 rows of a variation that are of the data set, method and setting of
    ``run``."""
    if record is None or record["dataset"] != run["dataset"]:
        return pd.Series(dtype=float)
    if _fp32_setting(record) != run["setting"]:
        return pd.Series(dtype=float)
    rows = _rows(record)
    alike = (rows["precision"] == "fp32") & (rows["method"] == run["method"])
    return rows[alike]["R@1, last epoch"]


def _fp32_setting(record: dict[str, Any]) -> str:
    """The setting of those committed runs that a variation is compared with."""
    return setting_of({**record, "precision": "fp32"}).setting


def _deviation(values: pd.Series) -> str:
    return f"{values.std():.2f} ({len(values)})" if len(values) > 1 else NOT_RUN
