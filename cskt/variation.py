"""What another machine does to a result: trainings under several numerics beside the committed
seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cskt.errors import CSKTError

from .config import MINI
from .results import CHOSEN, METHOD_NAMES, NOT_RUN
from .settings import SETTING, device_name, hide_shared, require_one_setting, setting_of

LAST = CHOSEN["last"]
WIDTH = 2  # standard deviations to either side of the committed mean
# R@1: what the standard deviations of CSKT and full fine-tuning shall not exceed.
AIMS = {"numerics": 0.5, "seeds": 1.0}
_NEEDED = ("dataset", "data_version", "seed", "hardware", "versions", "rows")


def read_variation(path: str | Path) -> dict[str, Any] | None:
    """The run file of ``benchmarks/variation.py``; None where it was not run here,
    :class:`CSKTError` if damaged."""
    path = Path(path)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        missing = [name for name in _NEEDED if name not in record]
        for row in [] if missing else record["rows"]:
            float(row["last"]["R@1"])
            missing += [name for name in ("method", "numerics", "precision") if name not in row]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"run file {path} cannot be read ({error!r}); delete it and measure again."
        raise CSKTError(message) from error
    if missing:
        raise CSKTError(f"run file {path} lacks {', '.join(missing)}; delete it and measure again.")
    return record


def committed_seeds(record: dict[str, Any], runs: pd.DataFrame, method: str) -> pd.Series:
    """R@1 of the last epoch over the committed seeds that a variation can be compared with.

    Those with cskt-mini on its data set, of the method and of its setting in fp32; a bf16 row is
    compared with them too, which is its point.

    Args:
        record: from :func:`read_variation`.
        runs: from :func:`cskt.results.run_table`.
        method: key of :data:`cskt.config.METHODS`.
    """
    runs = _mini(runs)
    alike = (runs["dataset"] == record["dataset"]) & (runs["method"] == method)
    found = runs[alike & (runs["setting"] == _fp32_setting(record)) & runs[LAST].notna()]
    require_one_setting(found)
    return found.drop_duplicates("seed")[LAST]


def interval(seeds: pd.Series) -> tuple[float, float] | None:
    """Mean -+ :data:`WIDTH` standard deviations of the committed seeds; None for fewer than two."""
    if len(seeds) < 2:
        return None
    reach = WIDTH * seeds.std()
    return seeds.mean() - reach, seeds.mean() + reach


def variation_rows(record: dict[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """One row per training: numerics, method, precision, R@1 of the last epoch, how it compares.

    ``difference`` is to the method's reference, which is its first row in the file; ``low`` and
    ``high`` are the ends of the committed :func:`interval` (NaN: none), ``inside`` says whether it
    holds the row (None: unknown)."""
    rows, first = [], {}
    for row in record["rows"]:
        method, value = row["method"], row["last"]["R@1"]
        ends = interval(committed_seeds(record, runs, method))
        low, high = ends or (float("nan"), float("nan"))
        rows.append(
            {
                "method": METHOD_NAMES.get(method, method),
                "numerics": row["numerics"],
                "precision": row["precision"],
                "R@1": value,
                "difference": value - first.setdefault(method, value),
                "low": low,
                "high": high,
                "inside": low <= value <= high if ends else None,
            }
        )
    names = ["method", "numerics", "precision", "R@1", "difference", "low", "high", "inside"]
    return pd.DataFrame(rows, columns=names)


def variation_table(record: dict[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """:func:`variation_rows` for people: R@1 of the last epoch under each numerics, in percent."""
    answers = {True: "yes", False: "no", None: NOT_RUN}
    table = []
    for row in variation_rows(record, runs).to_dict("records"):
        ends = f"{row['low']:.2f} to {row['high']:.2f}"
        table.append(
            {
                "method": row["method"],
                "numerics": row["numerics"],
                "precision": row["precision"],
                "R@1, last epoch": f"{row['R@1']:.2f}",
                "against the first row": f"{row['difference']:+.2f}",
                "committed mean ± 2 sd": NOT_RUN if row["inside"] is None else ends,
                "inside": answers[row["inside"]],
            }
        )
    return pd.DataFrame(table)


def spread_table(record: dict[str, Any] | None, runs: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of R@1, last epoch, over the committed seeds and over fp32 numerics, with
    the number of runs of each: a row per data set and method of the synthetic benchmark, and per
    setting where the runs are of several."""
    seeds = f"sd over seeds (aim {AIMS['seeds']:g})"
    numerics = f"sd over fp32 numerics (aim {AIMS['numerics']:g})"
    measured = {} if record is None else _fp32_figures(record)
    runs = _mini(runs)
    runs = runs[runs[LAST].notna() & runs["method"].isin(METHOD_NAMES)]
    rows = []
    for key, group in runs.groupby(["dataset", "method", *SETTING], sort=False):
        dataset, method, setting, inputs = key
        figures = measured.get((dataset, method, setting), pd.Series(dtype=float))
        rows.append(
            {
                "dataset": dataset,
                "method": METHOD_NAMES[method],
                "setting": setting,
                "inputs": inputs,
                seeds: _deviation(group.drop_duplicates("seed")[LAST]),
                numerics: _deviation(figures),
            }
        )
    return hide_shared(pd.DataFrame(rows), runs) if rows else pd.DataFrame()


def _fp32_figures(record: dict[str, Any]) -> dict[tuple[str, str, str], pd.Series]:
    """R@1 of the fp32 rows by data set, method and setting."""
    figures: dict[tuple[str, str, str], list[float]] = {}
    for row in record["rows"]:
        if row["precision"] == "fp32":
            place = record["dataset"], row["method"], _fp32_setting(record)
            figures.setdefault(place, []).append(row["last"]["R@1"])
    return {place: pd.Series(values) for place, values in figures.items()}


def _fp32_setting(record: dict[str, Any]) -> str:
    """The setting of those committed runs that a variation is compared with."""
    return setting_of({**record, "precision": "fp32"}).setting


def _mini(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["synthetic"].astype(bool) & (runs["backbone"] == MINI)]


def _deviation(values: pd.Series) -> str:
    return f"{values.std():.2f} ({len(values)})" if len(values) > 1 else NOT_RUN


def describe_variation(record: dict[str, Any]) -> str:
    """One line: data, seed, hardware, packages, commit."""
    machine = record["hardware"]
    facts = [
        f"{record['dataset']} (synthetic)",
        f"data version {record['data_version']}",
        f"seed {record['seed']}",
        f"{device_name(record)} with {machine['cpu_count']} processors",
        f"torch {record['versions']['torch']}",
        f"commit {str(record.get('commit'))[:10]}",
    ]
    return ", ".join(facts)
