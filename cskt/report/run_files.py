"""Run files, one json record a run, read and checked, and made into frames with a row a run.

A *record* is the content of one file; *runs* is a frame of them, whose columns
:data:`cskt.report.settings.SETTING` no mean may cross.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from cskt.config import MINI
from cskt.errors import RunError
from cskt.report.grids import grid_rows
from cskt.report.settings import device_name, setting_of

MEASURES = ("R@1", "R@5", "R@10", "mAP")
METHOD_NAMES = {"zero-shot": "zero-shot", "full": "full fine-tuning", "cskt": "CSKT"}
# Whose R@1 on test a column holds: that of the epoch which ... would keep.
CHOSEN = {"val": "chosen on val", "test": "chosen on test", "last": "last epoch"}
NO_VAL_SPLIT = "test (no val split)"

REQUIRED = (
    "dataset",
    "synthetic",
    "method",
    "seed",
    "config",
    "selection",
    "selected",
    "data_version",
    "data_fingerprint",
    "precision",
    "commit",
    "hardware",
    "duration_s",
    "trainable_parameters",
    "total_parameters",
    "metrics",
    "zero_shot",
)
# Where a record holds what a column of a frame of runs shows; what it does not hold is NaN.
COLUMNS = {
    "dataset": "dataset",
    "synthetic": "synthetic",
    "method": "method",
    "seed": "seed",
    "config.backbone": "backbone",
    "backbone_origin": "origin",
    "config.epochs": "epochs",
    "config.learning_rate": "learning rate",
    "config.warmup_epochs": "warm-up",
    "selection": "selection",
    "setting": "setting",
    "inputs": "inputs",
    "metrics.text_to_image.R@1": "R@1",
    "metrics.text_to_image.R@5": "R@5",
    "metrics.text_to_image.R@10": "R@10",
    "metrics.text_to_image.mAP": "mAP",
    "metrics.text_to_image.mINP": "mINP",
    "metrics.text_to_image.intervals.R@1": "interval",
    "zero_shot.text_to_image.R@1": "zero-shot R@1",
    "val_metrics.text_to_image.R@1": "val R@1",
    "val_metrics.text_to_image.mAP": "val mAP",
    "last_epoch.val R@1": "val R@1, last epoch",
    "selected.val.metrics.text_to_image.R@1": CHOSEN["val"],
    "selected.test.metrics.text_to_image.R@1": CHOSEN["test"],
    "selected.last.metrics.text_to_image.R@1": CHOSEN["last"],
    "selected.val.epoch": "val epoch",
    "trainable_parameters": "trained",
    "duration_s": "seconds",
    "machine": "machine",
    "data": "data",
    "row": "row",
    "source": "source",
    "source_fingerprint": "source data",
    "history": "history",
    "commit": "commit",
    "file": "file",
    "path": "path",
}


def read_run_file(path: str | Path) -> dict[str, Any]:
    """One run's ``metrics.json``; a :class:`RunError` names the file and what it lacks."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"run file {path} cannot be read ({error}); delete it and run again."
        ) from error
    fields = record if isinstance(record, dict) else {}
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise RunError(f"run file {path} lacks {', '.join(missing)}; delete it and run again.")
    return record


def run_table(files: Iterable[str | Path]) -> pd.DataFrame:
    """One row per run file, in the order of their names, with the values of :data:`COLUMNS`:
    measures in percent, under :data:`CHOSEN` R@1 on test of the epoch that val would choose, that
    test would choose, and of the last one."""
    records = []
    for path in sorted(Path(file) for file in files):
        records.append(_with_facts(read_run_file(path), path))
    runs = pd.json_normalize(records).reindex(columns=list(COLUMNS))
    return runs.rename(columns=COLUMNS)


def read_grid(folder: str | Path, grid: str) -> pd.DataFrame:
    """The runs of a grid in ``folder`` (see :func:`run_table`), rows in the order of the grid.
    ``data`` says which data set and backbone: rows of two kinds belong into two tables (see
    :func:`cskt.report.grid_tables.by_data`)."""
    runs = run_table((Path(folder) / grid.replace(" ", "-")).glob("*.json"))
    runs["place"] = _places_in_grid(runs, grid)
    runs = runs.sort_values(["place", "seed"], kind="stable")
    return runs.drop(columns="place").reset_index(drop=True)


def trained_share(folder: str | Path) -> float:
    """Which part of the whole, in percent, a CSKT run of the embedded default trains, from the run
    files in ``folder``; NaN without one."""
    for path in sorted(Path(folder).glob("SynthPEDES-*-cskt-*.json")):
        record = read_run_file(path)
        return 100 * record["trainable_parameters"] / record["total_parameters"]
    return float("nan")


def of_embedded_default(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on synthetic data with cskt-mini."""
    return runs[runs["synthetic"].astype(bool) & (runs["backbone"] == MINI)]


def _with_facts(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """A record, and what tables need besides: the setting, the last epoch, the choices there
    were."""
    history = record.get("history") or []
    setting = setting_of(record)
    threads = record["hardware"]["threads"]
    kind = " (synthetic)" if record["synthetic"] else ""
    return {
        "source": record["dataset"],
        **record,
        "source_fingerprint": record.get("source_fingerprint", "")[:8],
        "setting": setting.setting,
        "inputs": setting.inputs,
        "selection": _selection(record),
        "selected": _choices(record),
        "history": history,
        "last_epoch": history[-1] if history else {},
        "machine": f"{device_name(record)}, {threads} threads",
        "data": f"{record['dataset']}{kind}, {record['config']['backbone']}",
        "file": path.name,
        "path": str(path),
    }


def _places_in_grid(runs: pd.DataFrame, grid: str) -> list[int]:
    """Where each run's row stands in its backbone's grid; rows that the grid does not know come
    last."""
    places = []
    for row, backbone in zip(runs["row"], runs["backbone"], strict=True):
        order = list(grid_rows(grid, backbone))
        places.append(order.index(row) if row in order else len(order))
    return places


def _has_val_split(record: dict[str, Any]) -> bool:
    """Whether the data set has a val split, rather than one called so that is test."""
    return not any("no val split" in note for note in record.get("notes", ()))


def _selection(record: dict[str, Any]) -> str:
    """Where the epoch was chosen; a val split that is only called so is named as what it is."""
    if record["selection"] == "val" and not _has_val_split(record):
        return NO_VAL_SPLIT
    return record["selection"]


def _choices(record: dict[str, Any]) -> dict[str, Any]:
    """The epochs that could have been kept: none without training, none on val without a val
    split."""
    if record["method"] == "zero-shot" or not record["selected"]:
        return {}
    choices = dict(record["selected"])
    if not _has_val_split(record):
        del choices["val"]
    return choices
