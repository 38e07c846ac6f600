"""The tables of a grid of runs: what varies from row to row, everything else being equal."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy.stats import ttest_ind

from cskt.report.run_files import MEASURES, read_run_file
from cskt.report.settings import SETTING, device_kind, device_name, hide_shared, require_one_setting
from cskt.report.tables import published_figure, spread

ZERO_SHOT = "zero-shot"
_EVIDENCE = ("data", "data version", "machine", "precision", "commit")


class Difference(NamedTuple):
    """A difference of means in points of R@1, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low * self.high > 0


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


def difference(runs: pd.DataFrame, reference: pd.DataFrame) -> Difference | None:
    """Mean R@1 of ``runs`` less that of ``reference``, with its 95 % interval over seeds (Welch's
    t); None where either has one seed only. :class:`RunError` where they differ in setting."""
    require_one_setting(pd.concat([runs[SETTING], reference[SETTING]]))
    ours = runs["R@1"]
    theirs = reference["R@1"]
    variance = ours.var() + theirs.var()
    if pd.isna(variance) or variance == 0:  # NaN: of one seed
        return None
    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return Difference(ours.mean() - theirs.mean(), interval.low, interval.high)


def mean_interval(runs: pd.DataFrame) -> pd.Series:
    """The ends ``low`` and ``high`` of the 95 % interval of R@1 over people, each averaged over the
    runs (seeds)."""
    ends = pd.DataFrame(runs["interval"].tolist(), columns=["low", "high"])
    return ends.mean()


def grid_table(runs: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """A grid's runs, of one setting, as a table for people; with ``reference``, a row, how every
    other one differs from it in R@1."""
    require_one_setting(runs)
    lines = []
    for row, group in runs.groupby("row", sort=False):
        interval = mean_interval(group)
        line = {
            "variant": row,
            "seeds": len(group),
            "R@1": spread(group["R@1"]),
            "95 % over people": f"{interval['low']:.1f} to {interval['high']:.1f}",
            "mAP": spread(group["mAP"]),
            "trained parameters": f"{group['trained'].iloc[0]:,}",
            "seconds a run": f"{group['seconds'].mean():.0f}",
        }
        if reference is not None:
            gap = None
            if row != reference:
                gap = difference(group, runs[runs["row"] == reference])
            line |= _comparison(gap, reference)
        lines.append(line)
    return pd.DataFrame(lines)


def _comparison(gap: Difference | None, reference: str) -> dict[str, str]:
    """The columns that compare a row with ``reference``, empty where ``gap`` is not known."""
    shown = ""
    answer = ""
    if gap is not None:
        shown = f"{gap.mean:+.1f} ({gap.low:+.1f} to {gap.high:+.1f})"
        answer = "yes" if gap.told_apart else "no"
    return {f"R@1 against {reference}": shown, "told apart": answer}


def transfer_table(runs: pd.DataFrame) -> pd.DataFrame:
    """From each source to each target, R@1 and mAP on the target's test split, without any training
    on it, and by how many points R@1 lies above the bare backbone on the same target under the same
    setting."""
    if runs.empty:
        return pd.DataFrame()
    zero_shot = _zero_shot_on_target(runs)
    kind = ["source", "source data", "dataset", "backbone", "row", *SETTING]
    lines = []
    for _, group in runs.groupby(kind, sort=False):
        lines.append(_transfer_line(group, zero_shot))
    table = hide_shared(pd.DataFrame(lines), runs)
    if _source_data_differ(runs):
        return table
    return table.drop(columns="training data")


def _transfer_line(group: pd.DataFrame, zero_shot: dict[Hashable, float]) -> dict[str, Any]:
    """The line of runs that differ in their seed only; ``zero_shot`` of
    :func:`_zero_shot_on_target`."""
    run = group.iloc[0]
    target = (run["dataset"], run["backbone"], run["setting"], run["inputs"])
    gain = ""
    if run["row"] != ZERO_SHOT and target in zero_shot:
        gain = f"{group['R@1'].mean() - zero_shot[target]:+.1f}"
    return {
        "trained on": run["source"] + (" (synthetic)" if run["synthetic"] else ""),
        "training data": run["source data"],
        "tested on": run["dataset"],
        "backbone": run["backbone"],
        "model": run["row"],
        "setting": run["setting"],
        "inputs": run["inputs"],
        "seeds": len(group),
        "R@1": spread(group["R@1"]),
        "R@1 less zero-shot": gain,
        "mAP": spread(group["mAP"]),
    }


def _zero_shot_on_target(runs: pd.DataFrame) -> dict[Hashable, float]:
    """R@1 of the bare backbone by target, backbone and setting."""
    bare = runs[runs["row"] == ZERO_SHOT]
    return bare.groupby(["dataset", "backbone", *SETTING])["R@1"].mean().to_dict()


def _source_data_differ(runs: pd.DataFrame) -> bool:
    """Whether a source of a transfer grid stands for data of several fingerprints."""
    fingerprints = runs.groupby("source")["source data"].nunique()
    return bool((fingerprints > 1).any())


def grid_evidence(folder: str | Path) -> pd.DataFrame:
    """What stands behind each grid in ``folder``: run files, data and their version, machine,
    precision, commit, hours of training (of transfer: of testing). A run that is a row of two grids
    counts in both."""
    lines = []
    for path in sorted(Path(folder).glob("*")):
        if path.is_dir():
            records = [read_run_file(file) for file in sorted(path.glob("*.json"))]
            lines.append(_evidence_line(path.name.replace("-", " "), records))
    return pd.DataFrame(lines, columns=["grid", "run files", *_EVIDENCE, "hours"])


def _evidence_line(grid: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    facts = pd.DataFrame([_facts(record) for record in records], columns=list(_EVIDENCE))
    seconds = sum(record["duration_s"] for record in records)
    line: dict[str, Any] = {"grid": grid, "run files": len(records)}
    for name in _EVIDENCE:
        line[name] = "; ".join(sorted(facts[name].unique()))
    line["hours"] = f"{seconds / 3600:.1f}"
    return line


def _facts(record: dict[str, Any]) -> dict[str, str]:
    """Of one run, what :func:`grid_evidence` names."""
    version = record["data_version"]
    threads = record["hardware"]["threads"]
    return {
        "data": record["dataset"],
        "data version": "—" if version is None else str(version),
        "machine": f"{device_name(record)} ({device_kind(record)}), {threads} threads",
        "precision": record["precision"],
        "commit": str(record["commit"])[:10],
    }


def published_transfer(path: str | Path) -> pd.DataFrame:
    """Published figures of domain transfer between the real benchmarks, with their sources; nothing
    here is ours."""
    names = {
        "source_dataset": "trained on",
        "target_dataset": "tested on",
        "r1": "R@1",
        "r5": "R@5",
        "r10": "R@10",
        "map": "mAP",
    }
    table = pd.read_csv(path).rename(columns=names)
    for measure in MEASURES:
        table[measure] = table[measure].map(published_figure)
    return table
