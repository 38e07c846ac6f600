"""Which runs may stand in one mean or comparison, and how tables name the difference."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from cskt.errors import RunError

SETTING = ["setting", "inputs"]  # the columns of every frame of runs that no mean may cross
# An upgrade within a major version is taken to leave the numbers alone; below 1.0 the minor
# version counts as one.
PACKAGES = ("torch", "open_clip_torch", "cskt")
_DIGITS = 8  # of a fingerprint in a table; the run file has all


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
    facts = [record["precision"], device_kind(record)]
    data_version = record["data_version"]
    if data_version is not None:  # real data have none
        facts.append(f"data version {data_version}")
    versions = record.get("versions") or {}
    for package in PACKAGES:
        facts.append(f"{package} {_major(versions.get(package))}")
    data = str(record.get("data_fingerprint"))
    weights = str(record.get("weights_fingerprint"))
    inputs = f"data {data[:_DIGITS]}, weights {weights[:_DIGITS]}"
    return Setting(", ".join(facts), inputs)


def device_kind(record: dict[str, Any]) -> str:
    """``"cpu"`` or ``"cuda"``: the kind of device of a run, not the name of its chip."""
    asked = record.get("config", {}).get("device", "auto")
    if asked != "auto":
        return asked
    hardware = record["hardware"]
    name = hardware.get("device") or ""
    platform = hardware.get("platform") or ""
    # A processor is named as in the platform's name (x86_64, arm64), on Windows by its family
    # ("Intel64 Family 6 ..."); a GPU has a name of its own.
    if name in platform or " Family " in name:
        return "cpu"
    return "cuda"


def device_name(record: dict[str, Any]) -> str:
    """The GPU's name, or the processor's where the record knows it, else its family ("x86_64")."""
    hardware = record["hardware"]
    if device_kind(record) == "cuda":
        return hardware["device"]
    return hardware.get("processor") or hardware.get("device") or "unknown processor"


def _major(version: str | None) -> str:
    """``"2"`` for ``"2.15.0"``, ``"0.1"`` for ``"0.1.3"``."""
    if not version:
        return "unknown"
    numbers = version.split(".")
    if numbers[0] == "0" and len(numbers) > 1:
        return f"0.{numbers[1]}"
    return numbers[0]


def distinguishing(runs: pd.DataFrame) -> list[str]:
    """Which of the columns :data:`SETTING` a table of ``runs`` must show, because the runs differ
    in it."""
    shown = []
    if runs["setting"].nunique() > 1:
        shown.append("setting")
    inputs = runs.groupby(["dataset", "backbone"])["inputs"].nunique()
    if (inputs > 1).any():
        shown.append("inputs")
    return shown


def hide_shared(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """``table`` without those columns of :data:`SETTING` in which its ``runs`` are alike."""
    shown = distinguishing(runs)
    hidden = [name for name in SETTING if name not in shown]
    return table.drop(columns=hidden)


def setting_line(runs: pd.DataFrame) -> str:
    """The caption of a table of ``runs``: the setting that they share, or those that it keeps
    apart."""
    if runs.empty:
        return "No runs."
    settings = list(runs["setting"].unique())
    inputs = list(runs["inputs"].unique())
    line = f"All runs: {settings[0]}"
    if len(settings) > 1:
        line = f"Runs of {len(settings)} settings, never averaged together: {'; '.join(settings)}"
    if len(inputs) == 1:
        line += f"; {inputs[0]}"
    return f"{line}."


def require_one_setting(runs: pd.DataFrame) -> None:
    """Refuse runs that may not be averaged or compared with each other: a :class:`RunError` names
    the settings."""
    settings = runs[SETTING].drop_duplicates()
    if len(settings) > 1:
        names = "; ".join(settings["setting"] + ", " + settings["inputs"])
        raise RunError(
            f"runs of {len(settings)} settings cannot be averaged or compared ({names}); "
            "take those of one setting at a time."
        )
