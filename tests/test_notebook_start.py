"""The set-up of a notebook refuses parameters that it does not know and finds the project."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cskt import notebook
from cskt.errors import ConfigurationError


def test_what_is_no_parameter_is_left_alone():
    namespace = {"dataset": "A", "_hidden": 1, "In": [], "pd": pd, "len": len}
    notebook.check_parameters(namespace, ["dataset"])


def test_an_unknown_parameter_is_refused():
    message = "unknown parameter epoch; this notebook takes dataset, epochs"
    with pytest.raises(ConfigurationError, match=message):
        notebook.check_parameters({"epoch": 3, "dataset": "A"}, ["dataset", "epochs"])


def test_a_notebook_works_in_the_project_s_folder(tmp_path, monkeypatch):
    (tmp_path / "notebooks" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deeper")
    notebook.start({"dataset": "A"}, ["dataset"])
    assert Path.cwd() == tmp_path


def test_outside_of_a_project_the_folder_stays(tmp_path):
    assert notebook.project_folder(tmp_path) == tmp_path
