"""What another machine does to a result: trainings under several numerics beside the committed
seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cskt.errors import RunError
from cskt.report.run_files import CHOSEN, METHOD_NAMES, of_embedded_default
from cskt.report.settings import SETTING, device_name, hide_shared, require_one_setting, setting_of
from cskt.report.tables import NOT_RUN

LAST = CHOSEN["last"]
WIDTH = 2  # standard deviations to either side of the committed mean
# R@1: what the standard deviations of CSKT and full fine-tuning shall not exceed.
AIMS = {"numerics": 0.5, "seeds": 1.0}
_FIELDS = ("dataset", "data_version", "seed", "hardware", "versions", "rows")
_ROW_FIELDS = ("method", "numerics", "precision")
_ANSWERS = {True: "yes", False: "no", None: NOT_RUN}


class Interval(NamedTuple):
    """Both ends, in percent of R@1."""

    low: float
    high: float


def read_variation(path: str | Path) -> dict[str, Any] | None:
    """The run file of ``benchmarks/variation.py``; None where it was not run here,
    :class:`RunError` if damaged."""
    path = Path(path)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        missing = _missing_fields(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"run file {path} cannot be read ({error!r}); delete it and measure again."
        raise RunError(message) from error
    if missing:
        raise RunError(f"run file {path} lacks {', '.join(missing)}; delete it and measure again.")
    return record


def _missing_fields(record: dict[str, Any]) -> list[str]:
    """What the record or a row of it lacks; KeyError, TypeError or ValueError where a row has no
    R@1."""
    missing = [name for name in _FIELDS if name not in record]
    if missing:
        return missing
    for row in record["rows"]:
        float(row["last"]["R@1"])
        missing += [name for name in _ROW_FIELDS if name not in row]
    return missing


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


def interval(seeds: pd.Series) -> Interval | None:
    """Mean -+ :data:`WIDTH` standard deviations of the committed seeds; None for fewer than two."""
    if len(seeds) < 2:
        return None
    reach = WIDTH * seeds.std()
    return Interval(seeds.mean() - reach, seeds.mean() + reach)


def variation_rows(record: dict[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """One row per training: numerics, method, precision, R@1 of the last epoch, how it compares.

    ``difference`` is to the method's reference, which is its first row in the file; ``low`` and
    ``high`` are the ends of the committed :func:`interval` (NaN: none), ``inside`` says whether it
    holds the row (None: unknown)."""
    rows = []
    references: dict[str, float] = {}
    for row in record["rows"]:
        method = row["method"]
        value = row["last"]["R@1"]
        references.setdefault(method, value)
        committed = interval(committed_seeds(record, runs, method))
        inside = None
        if committed is not None:
            inside = committed.low <= value <= committed.high
        rows.append(
            {
                "method": METHOD_NAMES.get(method, method),
                "numerics": row["numerics"],
                "precision": row["precision"],
                "R@1": value,
                "difference": value - references[method],
                "low": float("nan") if committed is None else committed.low,
                "high": float("nan") if committed is None else committed.high,
                "inside": inside,
            }
        )
    names = ["method", "numerics", "precision", "R@1", "difference", "low", "high", "inside"]
    return pd.DataFrame(rows, columns=names)


def variation_table(record: dict[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """:func:`variation_rows` for people: R@1 of the last epoch under each numerics, in percent."""
    lines = []
    for row in variation_rows(record, runs).to_dict("records"):
        committed = f"{row['low']:.2f} to {row['high']:.2f}"
        lines.append(
            {
                "method": row["method"],
                "numerics": row["numerics"],
                "precision": row["precision"],
                "R@1, last epoch": f"{row['R@1']:.2f}",
                "against the first row": f"{row['difference']:+.2f}",
                "committed mean ± 2 sd": NOT_RUN if row["inside"] is None else committed,
                "inside": _ANSWERS[row["inside"]],
            }
        )
    return pd.DataFrame(lines)


def spread_table(record: dict[str, Any] | None, runs: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of R@1, last epoch, over the committed seeds and over fp32 numerics, with
    the number of runs of each: a row per data set and method of the synthetic data, and per setting
    where the runs are of several."""
    over_seeds = f"sd over seeds (aim {AIMS['seeds']:g})"
    over_numerics = f"sd over fp32 numerics (aim {AIMS['numerics']:g})"
    runs = of_embedded_default(runs)
    runs = runs[runs[LAST].notna() & runs["method"].isin(METHOD_NAMES)]
    if runs.empty:
        return pd.DataFrame()
    lines = []
    for _, group in runs.groupby(["dataset", "method", *SETTING], sort=False):
        run = group.iloc[0]
        seeds = group.drop_duplicates("seed")[LAST]
        lines.append(
            {
                "dataset": run["dataset"],
                "method": METHOD_NAMES[run["method"]],
                "setting": run["setting"],
                "inputs": run["inputs"],
                over_seeds: _deviation(seeds),
                over_numerics: _deviation(_fp32_figures(record, run)),
            }
        )
    return hide_shared(pd.DataFrame(lines), runs)


def _fp32_figures(record: dict[str, Any] | None, run: pd.Series) -> pd.Series:
    """R@1 of those fp32 rows of a variation that are of the data set, method and setting of
    ``run``."""
    figures: list[float] = []
    if record is None or record["dataset"] != run["dataset"]:
        return pd.Series(figures)
    if _fp32_setting(record) != run["setting"]:
        return pd.Series(figures)
    for row in record["rows"]:
        if row["precision"] == "fp32" and row["method"] == run["method"]:
            figures.append(row["last"]["R@1"])
    return pd.Series(figures)


def _fp32_setting(record: dict[str, Any]) -> str:
    """The setting of those committed runs that a variation is compared with."""
    return setting_of({**record, "precision": "fp32"}).setting


def _deviation(values: pd.Series) -> str:
    return f"{values.std():.2f} ({len(values)})" if len(values) > 1 else NOT_RUN


def describe_variation(record: dict[str, Any]) -> str:
    """One line: data, seed, hardware, packages, commit."""
    processors = record["hardware"]["cpu_count"]
    facts = [
        f"{record['dataset']} (synthetic)",
        f"data version {record['data_version']}",
        f"seed {record['seed']}",
        f"{device_name(record)} with {processors} processors",
        f"torch {record['versions']['torch']}",
        f"commit {str(record.get('commit'))[:10]}",
    ]
    return ", ".join(facts)
