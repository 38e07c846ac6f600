"""python -m cskt robustness: rows for people, a json file a run, one sentence for what is wrong."""

from __future__ import annotations

import json
import shutil

import pytest

from cskt.analysis import robustness
from cskt.analysis.corruptions import LEVELS
from cskt.report.run_files import read_run_file

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "synonyms.csv"
    path.write_text("word,synonym\nclothes,garments\nperson,pedestrian\n")
    return path


@pytest.fixture
def few(monkeypatch):
    """One level of each corruption."""
    few = {corruption: levels[-1:] for corruption, levels in LEVELS.items()}
    monkeypatch.setattr(robustness, "LEVELS", few)
    return few


def test_a_run_is_measured_under_every_corruption(cskt, finished, table, few, tmp_path):
    folder = tmp_path / "new" / "robustness"
    code, out, err = cskt("robustness", finished.folder, "--json", folder, "--synonyms", table)
    assert code == 0, err
    for corruption in few:
        assert corruption in out
    record = read_run_file(folder / f"{finished.folder.name}.json")
    assert record["kind"] == "robustness"
    of_run = finished.record["metrics"]["text_to_image"]
    assert record["metrics"]["text_to_image"] == of_run, "nothing but the conditions differs"
    assert [row["corruption"] for row in record["conditions"]] == list(few)
    assert record["config"]["data_root"] is None
    assert record["run"] == finished.folder.name
    assert {"seed", "commit", "hardware", "duration_s", "data_fingerprint"} <= set(record)


def test_two_measurements_give_the_same_figures(cskt, finished, few, tmp_path):
    conditions = []
    for name in ("first", "second"):
        cskt("robustness", finished.folder, "--json", tmp_path / name)
        path = tmp_path / name / f"{finished.folder.name}.json"
        conditions.append(json.loads(path.read_text())["conditions"])
    assert conditions[0] == conditions[1]
    assert "synonyms swapped" not in {row["corruption"] for row in conditions[0]}


def said(cskt, *arguments) -> str:
    """The one line that a failing command writes."""
    code, output, errors = cskt("robustness", *arguments)
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1
    return errors


def test_an_unknown_run_is_named(cskt, tmp_path):
    assert "none holds no run" in said(cskt, tmp_path / "none")


def test_a_run_without_its_model_is_named_before_anything_is_measured(cskt, finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy)
    (copy / "adapter.safetensors").unlink()
    assert "adapter.safetensors is missing" in said(cskt, finished.folder, copy)


def test_a_table_without_its_columns_is_named(cskt, finished, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("from,to\na,b\n")
    assert "columns word and synonym" in said(cskt, finished.folder, "--synonyms", path)
