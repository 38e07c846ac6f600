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
from cskt.report.settings import SETTING, setting_of

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
RUN_COLUMNS = [
    "dataset",
    "synthetic",
    "method",
    "seed",
    "backbone",
    "origin",
    "epochs",
    "selection",
    *SETTING,
    *MEASURES,
    "mINP",
    "zero-shot R@1",
    *CHOSEN.values(),
    "val epoch",
    "trained",
    "total",
    "seconds",
    "commit",
    "file",
]
GRID_COLUMNS = [
    "row",
    "seed",
    "method",
    "learning rate",
    "warm-up",
    *MEASURES,
    "interval",
    "zero-shot R@1",
    "val R@1",
    "val mAP",
    "val R@1, last epoch",
    "history",
    "trained",
    "seconds",
    "dataset",
    "source",
    "source data",
    "synthetic",
    "backbone",
    "selection",
    *SETTING,
    "commit",
    "file",
]


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
    """One row per run file: what was run, its text-to-image measures in percent and, in the columns
    of :data:`CHOSEN`, R@1 on test of the epoch that val would choose, that test would choose, and
    of the last one (NaN: none)."""
    rows = []
    for path in sorted(Path(file) for file in files):
        record = read_run_file(path)
        row = _common_columns(record, path.name)
        row["epochs"] = record["config"]["epochs"]
        row["origin"] = record.get("backbone_origin", "")  # older records do not say
        row["mINP"] = record["metrics"]["text_to_image"]["mINP"]
        row["zero-shot R@1"] = record["zero_shot"]["text_to_image"]["R@1"]
        row["total"] = record["total_parameters"]
        row |= _figures_of_choices(record)
        rows.append(row)
    return pd.DataFrame(rows, columns=RUN_COLUMNS)


def read_grid(folder: str | Path, grid: str) -> pd.DataFrame:
    """One row per run file of a grid in ``folder``: its ``row`` (in the order of the grid), seed,
    measures and cost; what a record does not hold is NaN, a history that is not there empty.
    ``data`` says which data set and backbone: rows of two kinds belong into two tables (see
    :func:`cskt.report.grid_tables.by_data`)."""
    paths = sorted((Path(folder) / grid.replace(" ", "-")).glob("*.json"))
    rows = []
    for path in paths:
        record = read_run_file(path)
        rows.append(_grid_columns(record, path.name))
    runs = pd.DataFrame(rows, columns=GRID_COLUMNS)
    runs["data"] = _data_and_backbone(runs)
    runs["place"] = _places_in_grid(runs, grid)
    runs = runs.sort_values(["place", "seed"], kind="stable")
    return runs.drop(columns="place").reset_index(drop=True)


def of_embedded_default(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on synthetic data with cskt-mini."""
    return runs[runs["synthetic"].astype(bool) & (runs["backbone"] == MINI)]


def _common_columns(record: dict[str, Any], file: str) -> dict[str, Any]:
    """The columns that every frame of runs has."""
    setting = setting_of(record)
    ranked = record["metrics"]["text_to_image"]
    columns = {
        "dataset": record["dataset"],
        "synthetic": record["synthetic"],
        "method": record["method"],
        "seed": record["seed"],
        "backbone": record["config"]["backbone"],
        "selection": _selection(record),
        "setting": setting.setting,
        "inputs": setting.inputs,
        "trained": record["trainable_parameters"],
        "seconds": record["duration_s"],
        "commit": record["commit"],
        "file": file,
    }
    for measure in MEASURES:
        columns[measure] = ranked[measure]
    return columns


def _grid_columns(record: dict[str, Any], file: str) -> dict[str, Any]:
    config = record["config"]
    on_val = (record.get("val_metrics") or {}).get("text_to_image", {})
    bare = (record["zero_shot"] or {}).get("text_to_image", {})  # None: of a transfer
    history = record.get("history") or []
    last_epoch = history[-1] if history else {}
    return {
        **_common_columns(record, file),
        "row": record.get("row"),
        "learning rate": config.get("learning_rate"),
        "warm-up": config.get("warmup_epochs"),
        "interval": record["metrics"]["text_to_image"]["intervals"]["R@1"],
        "zero-shot R@1": bare.get("R@1", float("nan")),
        "val R@1": on_val.get("R@1", float("nan")),
        "val mAP": on_val.get("mAP", float("nan")),
        "val R@1, last epoch": last_epoch.get("val R@1", float("nan")),
        "history": history,
        "source": record.get("source", record["dataset"]),
        "source data": record.get("source_fingerprint", "")[:8],
    }


def _data_and_backbone(runs: pd.DataFrame) -> pd.Series:
    """Such as ``"SynthPEDES-A (synthetic), cskt-mini"``."""
    kind = runs["synthetic"].map({True: " (synthetic)", False: ""})
    return runs["dataset"] + kind + ", " + runs["backbone"]


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


def _figures_of_choices(record: dict[str, Any]) -> dict[str, float]:
    """R@1 on test under each way to choose the epoch, and the epoch that val chose; without an
    entry where there is nothing to choose, or no val split to choose it on."""
    figures: dict[str, float] = {}
    if record["method"] == "zero-shot" or not record["selected"]:
        return figures
    for name, column in CHOSEN.items():
        if name == "val" and not _has_val_split(record):
            continue
        choice = record["selected"][name]
        figures[column] = choice["metrics"]["text_to_image"]["R@1"]
        if name == "val":
            figures["val epoch"] = choice["epoch"]
    return figures
