"""What must be equal for two runs to be averaged, and how a table names the difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from cskt.errors import RunError
from cskt.report import settings
from cskt.report.run_files import run_table
from tests.run_records import INPUTS, MACHINE, PACKAGES, SETTING, run_file


@dataclass(frozen=True)
class OtherSetting:
    """``changes`` of a record's fields, and the ``name`` that tables give to the setting or the
    inputs then."""

    changes: dict[str, Any]
    name: str
    column: str = "setting"

    @property
    def usual(self) -> str:
        """The name without the changes."""
        return SETTING if self.column == "setting" else INPUTS


OTHER_SETTINGS = {
    "precision": OtherSetting({"precision": "bf16"}, SETTING.replace("fp32", "bf16")),
    "device": OtherSetting(
        {"hardware": {**MACHINE, "device": "NVIDIA H100"}}, SETTING.replace("cpu", "cuda")
    ),
    "data version": OtherSetting({"data_version": 1}, SETTING.replace("version 2", "version 1")),
    "torch": OtherSetting(
        {"versions": {**PACKAGES, "torch": "3.0.1"}}, SETTING.replace("torch 2,", "torch 3,")
    ),
    "cskt": OtherSetting(
        {"versions": {**PACKAGES, "cskt": "0.2.0"}}, SETTING.replace("cskt 0.1", "cskt 0.2")
    ),
    "data": OtherSetting(
        {"data_fingerprint": "a" * 64}, INPUTS.replace("ffffffff", "aaaaaaaa"), "inputs"
    ),
    "weights": OtherSetting(
        {"weights_fingerprint": "b" * 16}, INPUTS.replace("eeeeeeee", "bbbbbbbb"), "inputs"
    ),
}
other_settings = pytest.mark.parametrize("other", OTHER_SETTINGS.values(), ids=OTHER_SETTINGS)


@other_settings
def test_runs_of_two_settings_are_refused_and_named(other, tmp_path):
    runs = run_table([run_file(tmp_path, "a"), run_file(tmp_path, "b", **other.changes)])
    with pytest.raises(RunError, match="runs of 2 settings cannot be averaged") as refused:
        settings.require_one_setting(runs)
    assert other.name in str(refused.value)
    assert other.usual in str(refused.value)


def test_a_line_names_the_settings_that_a_table_keeps_apart(tmp_path):
    runs = run_table([run_file(tmp_path, "a"), run_file(tmp_path, "b", precision="bf16")])
    line = settings.setting_line(runs)
    assert line.startswith("Runs of 2 settings, never averaged together: fp32, cpu,")
    assert "; bf16, cpu," in line


def test_without_runs_the_line_says_so():
    assert settings.setting_line(run_table([])) == "No runs."


def device_kind(device: str, platform: str, asked: str | None = None) -> str:
    config = {} if asked is None else {"device": asked}
    hardware = {"device": device, "platform": platform}
    return settings.device_kind({"hardware": hardware, "config": config})


def test_a_processor_is_named_as_its_platform_is():
    assert device_kind("x86_64", "Linux-6.1-x86_64-with-glibc2.36") == "cpu"
    assert device_kind("arm", "macOS-14.5-arm64-arm-64bit", "auto") == "cpu"


def test_a_processor_is_named_by_its_family_on_windows():
    name = "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel"
    assert device_kind(name, "Windows-10") == "cpu"


def test_a_gpu_has_a_name_of_its_own():
    assert device_kind("NVIDIA H100 80GB HBM3", "Linux-6.1-x86_64-with-glibc2.36") == "cuda"


def test_a_device_that_was_asked_for_is_that_one():
    assert device_kind("anything", "Linux", "cpu") == "cpu"
