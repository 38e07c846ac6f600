"""Run files are read whole or refused, and make frames with a row a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cskt.errors import RunError
from cskt.report.run_files import CHOSEN, NO_VAL_SPLIT, read_grid, read_run_file, run_table
from tests.run_records import INPUTS, SETTING, choice, grid_file, run_file


@pytest.mark.parametrize(
    "content", ["not json", "[]", "[" * 100_000, '{"dataset": "SynthPEDES-A"}']
)
def test_a_damaged_run_file_is_named(content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(RunError, match="bad.json"):
        run_table([tmp_path / "bad.json"])


@pytest.mark.parametrize(
    "changes", [{"config": []}, {"hardware": None}, {"notes": 3}, {"history": 7}, {"selected": [1]}]
)
def test_a_field_of_another_kind_is_a_sentence(changes, tmp_path):
    path = run_file(tmp_path, "edited", **changes)
    with pytest.raises(RunError, match="edited.json holds fields of another kind"):
        run_table([path])


@pytest.mark.parametrize("name", ["selection", "selected", "data_version", "precision"])
def test_a_record_of_an_older_format_is_refused(name, tmp_path):
    path = run_file(tmp_path, "old")
    record = json.loads(path.read_text())
    record.pop(name)
    path.write_text(json.dumps({**record, "selection_split": "val"}))
    with pytest.raises(RunError, match=rf"old.json lacks {name}; delete it and run again"):
        read_run_file(path)


def test_a_run_is_a_row_with_its_setting_and_the_figures_of_every_choice(tmp_path):
    selected = {"val": choice(1, 30.0), "test": choice(2, 34.0), "last": choice(3, 31.0)}
    (row,) = run_table([run_file(tmp_path, "a", selected=selected)]).to_dict("records")
    assert (row["setting"], row["inputs"]) == (SETTING, INPUTS)
    assert [row[column] for column in CHOSEN.values()] == [30.0, 34.0, 31.0]
    assert row["val epoch"] == 1
    assert row["R@5"] == 50.0


def test_the_bare_backbone_chooses_no_epoch(tmp_path):
    runs = run_table([run_file(tmp_path, "bare", method="zero-shot", selected=None)])
    assert runs[[*CHOSEN.values(), "val epoch"]].isna().all(axis=None)


def test_a_val_split_that_is_test_is_called_so(tmp_path):
    notes = ["ICFG-PEDES has no val split; test stands in"]
    runs = run_table([run_file(tmp_path, "icfg", dataset="ICFG-PEDES", notes=notes)])
    assert runs.loc[0, "selection"] == NO_VAL_SPLIT
    assert runs["chosen on val"].isna().all()


def test_rows_stand_in_the_order_of_their_backbone_s_grid(tmp_path):
    vit = {"backbone": "ViT-B-16-quickgelu", "epochs": 60}
    for depth in ("all", "6", "1"):
        folder = grid_file(tmp_path, "prompt depth", depth, 0, 40.0, config=vit)
    assert list(read_grid(folder, "prompt depth")["row"]) == ["1", "6", "all"]


def test_a_grid_without_run_files_is_empty(tmp_path):
    runs = read_grid(Path(tmp_path), "components")
    assert runs.empty
    assert "data" in runs
