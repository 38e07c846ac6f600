"""How a notebook begins: unknown parameters are refused, known ones describe a run."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from cskt.errors import ConfigurationError
from cskt.report import notebook

OWN = "dataset = 'SynthPEDES-A'\nepochs: int | None = None\nhits = 10"


def test_a_parameter_that_the_notebook_does_not_have_is_refused():
    message = "unknown parameter epoch, hit; this notebook takes dataset, epochs, hits"
    with pytest.raises(ConfigurationError, match=message):
        notebook.check_parameters(["", OWN, "# Parameters\nhit = 3\nepoch = 3"])


@pytest.mark.parametrize(
    "cells",
    [
        [],
        ["", OWN],
        ["", OWN, "# Parameters\nepochs = 3\nhits = 5"],
        ["", "%time\n", OWN, "more = 3", "hits = 5"],
    ],
    ids=["outside a notebook", "by hand", "papermill", "by hand, with other cells"],
)
def test_known_parameters_and_cells_of_a_reader_are_accepted(cells):
    notebook.check_parameters(cells)


def test_assigned_names_are_the_plain_ones_at_the_top():
    source = "a = 1\nb: int = 2\nc, d = 3, 4\ne.f = 5\ndef g():\n    h = 6"
    assert notebook.assigned_names(source) == {"a", "b"}
    assert notebook.assigned_names("%magic") == set()


def test_settings_are_the_parameters_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"In": ["", OWN], "dataset": "SynthPEDES-B", "epochs": None, "seed": 3, "hits": 10}
    setup = notebook.start({**names, "cskt": math})  # an imported module of a field's name
    assert setup.settings == {"dataset": "SynthPEDES-B", "epochs": None, "seed": 3}
    config = setup.config(method="full")
    assert (config.dataset, config.seed, config.method) == ("SynthPEDES-B", 3, "full")
    assert config.epochs == notebook.TrainConfig.mini().epochs, "None is the default"


def test_a_notebook_works_in_the_folder_of_its_project(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    below = tmp_path / "book" / "results"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert notebook.start({}).root == tmp_path
    assert Path.cwd() == tmp_path


def test_outside_a_project_the_folder_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook.enter_project()
    assert Path.cwd() == tmp_path


def test_figures_of_a_table_are_kept_for_the_prose(monkeypatch):
    kept = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: kept.update({name: value}))
    table = pd.DataFrame({"method": ["CSKT", "LoRA"], "R@1": ["39.57 ± 0.62", "41.16"]})
    notebook.glue_rows(table, {"cskt": "CSKT", "full": "full fine-tuning"}, "parts", "R@1")
    assert kept == {"parts_cskt": "39.57 ± 0.62", "parts_full": "—"}
    notebook.glue_rows(pd.DataFrame(), {"cskt": "CSKT"}, "none", "R@1")
    assert kept["none_cskt"] == "—"
