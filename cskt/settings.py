"""Which runs may stand in one mean or comparison, and how tables name the difference."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from cskt.errors import CSKTError

SETTING = ["setting", "inputs"]  # the columns of every frame of runs that no mean may cross
# An upgrade within a major version is taken to leave the numbers alone; below 1.0 the minor
# version counts as one.
PACKAGES = ("torch", "open_clip_torch", "cskt")
_SHORT = 8  # digits of a fingerprint in a table; the run file has all


class Setting(NamedTuple):
    """What must be equal for two runs to be averaged or compared.

    ``setting``: precision, device, data version and packages, such as
    ``"fp32, cpu, data version 2, torch 2, open_clip_torch 3, cskt 0.1"``.
    ``inputs``: the fingerprints of data and backbone weights, which belong to one data set and one
    backbone.
    """

    setting: str
    inputs: str


def setting_of(record: dict[str, Any]) -> Setting:
    """The setting of one run, from its record; every grouping of runs rests on it."""
    version = record["data_version"]
    parts = [record["precision"], device_kind(record)]
    if version is not None:  # real data have none
        parts.append(f"data version {version}")
    versions = record.get("versions") or {}
    for package in PACKAGES:
        parts.append(f"{package} {_major(versions.get(package))}")
    data, weights = record.get("data_fingerprint"), record.get("weights_fingerprint")
    inputs = f"data {str(data)[:_SHORT]}, weights {str(weights)[:_SHORT]}"
    return Setting(", ".join(parts), inputs)


def device_kind(record: dict[str, Any]) -> str:
    """``"cpu"`` or ``"cuda"``: the kind of device of a run, not the name of its chip."""
    asked = record.get("config", {}).get("device", "auto")
    if asked != "auto":
        return asked
    hardware = record["hardware"]
    name, platform = hardware.get("device") or "", hardware.get("platform") or ""
    # A processor is named as in the platform's name (x86_64, arm64), on Windows by its family
    # ("Intel64 Family 6 ..."); a GPU has a name of its own.
    return "cpu" if name in platform or " Family " in name else "cuda"


def device_name(record: dict[str, Any]) -> str:
    """The GPU's name, or the processor's where the record knows it, else its family ("x86_64")."""
    hardware = record["hardware"]
    if device_kind(record) == "cuda":
        return hardware["device"]
    return hardware.get("processor") or hardware.get("device") or "unknown processor"


def _major(version: str | None) -> str:
    if not version:
        return "unknown"
    major, *rest = version.split(".")
    return f"0.{rest[0]}" if major == "0" and rest else major


def distinguishing(runs: pd.DataFrame) -> list[str]:
    """Which of the columns :data:`SETTING` a table of ``runs`` must show, because the runs differ
    in it."""
    shown = ["setting"] if runs["setting"].nunique() > 1 else []
    inputs = runs.groupby(["dataset", "backbone"])["inputs"].nunique()
    return shown + ["inputs"] if (inputs > 1).any() else shown


def hide_shared(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """``table`` without those columns of :data:`SETTING` in which its ``runs`` are alike."""
    shown = distinguishing(runs)
    return table.drop(columns=[name for name in SETTING if name not in shown])


def setting_suffix(runs: pd.DataFrame) -> pd.Series:
    """What a label of each run must add so that no two settings share one: empty where all runs are
    alike."""
    suffix = pd.Series("", index=runs.index)
    for name in distinguishing(runs):
        suffix = suffix + ", " + runs[name]
    return suffix


def setting_line(runs: pd.DataFrame) -> str:
    """The caption of a table of ``runs``: the setting that they share, or those that it keeps
    apart."""
    if runs.empty:
        return "No runs."
    settings = list(dict.fromkeys(runs["setting"]))
    line = f"All runs: {settings[0]}"
    if len(settings) > 1:
        line = f"Runs of {len(settings)} settings, never averaged together: {'; '.join(settings)}"
    inputs = set(runs["inputs"])
    return f"{line}; {inputs.pop()}." if len(inputs) == 1 else f"{line}."


def require_one_setting(runs: pd.DataFrame) -> None:
    """Refuse runs that may not be averaged or compared with each other: a :class:`CSKTError` names
    the settings."""
    found = runs[SETTING].drop_duplicates()
    if len(found) > 1:
        each = "; ".join(f"{row.setting}, {row.inputs}" for row in found.itertuples())
        raise CSKTError(
            f"runs of {len(found)} settings cannot be averaged or compared ({each}); "
            "take those of one setting at a time."
        )
