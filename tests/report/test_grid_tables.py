"""Tables of grids tell differences from noise, and keep data sets, choices and settings apart."""

from __future__ import annotations

import pytest

from cskt.errors import RunError
from cskt.report import grid_tables
from cskt.report.differences import RANKS_MISSING
from cskt.report.run_files import read_grid
from tests.report.test_settings import other_settings
from tests.run_records import INPUTS, MACHINE, REAL_SETTING, SETTING, grid_file, write_ranks

WHOLE = "CSKT (BPT + DAT)"


@pytest.fixture
def components(tmp_path):
    """Two seeds of three rows, of which BPT alone is apart from the whole; one of a fourth, without
    ranks."""
    found = {"DAT": (61, 59), WHOLE: (60, 60), "BPT": (20, 20)}
    for row, counts in found.items():
        for seed, count in enumerate(counts):
            folder = grid_file(tmp_path, "components", row, seed, float(count))
            ranks = [1] * count + [9] * (100 - count)
            write_ranks(folder / "components" / f"{row}-{seed}.json", ranks)
    folder = grid_file(tmp_path, "components", "none (zero-shot)", 0, 20.0)
    return read_grid(folder, "components")


def test_a_grid_table_tells_differences_from_noise(components):
    table = grid_tables.grid_table(components, WHOLE).set_index("variant")
    assert list(table.index) == ["none (zero-shot)", "BPT", "DAT", WHOLE]
    answers = [answer.partition(" ")[0] for answer in table["reliable"]]
    assert answers == ["", "yes", "no", ""]
    differences = table[f"R@1 against {WHOLE}"]
    assert differences["BPT"].startswith("-40.0 (-")
    assert differences["DAT"].startswith("+0.0 (-")
    assert differences["none (zero-shot)"] == RANKS_MISSING
    assert differences[WHOLE] == ""
    assert table.loc["BPT", "R@1"] == "20.00 ± 0.00"
    assert table.loc["BPT", "95 % over people"] == "18.0 to 23.0"


def test_without_a_reference_nothing_is_compared(components):
    assert "reliable" not in grid_tables.grid_table(components)


def test_data_sets_and_backbones_have_tables_of_their_own(tmp_path):
    vit = {"backbone": "ViT-B-16-quickgelu", "epochs": 60}
    kinds = {
        0: {"r1": 30.0, "dataset": "SynthPEDES-A"},
        1: {"r1": 70.0, "dataset": "CUHK-PEDES", "config": vit},
        2: {"r1": 50.0, "dataset": "SynthPEDES-A", "config": vit},
    }
    for seed, kind in kinds.items():
        for depth in ("all", "1"):
            folder = grid_file(tmp_path, "prompt depth", depth, seed, **kind)
    tables = {}
    for heading, runs in grid_tables.by_data(read_grid(folder, "prompt depth")):
        data, _, setting = heading.partition("; ")
        tables[data] = runs
        if data.startswith("CUHK"):
            assert setting == f"epoch chosen on val; {REAL_SETTING}; {INPUTS}"
        assert list(runs["row"]) == ["1", "all"]
    assert {data: set(runs["R@1"]) for data, runs in tables.items()} == {
        "SynthPEDES-A (synthetic), cskt-mini": {30.0},
        "CUHK-PEDES, ViT-B-16-quickgelu": {70.0},
        "SynthPEDES-A (synthetic), ViT-B-16-quickgelu": {50.0},
    }


def test_grids_chosen_on_val_and_on_test_stand_apart(tmp_path):
    for seed in (0, 1):
        grid_file(tmp_path, "reduction", "4", seed, 30.0, selection="val")
        grid_file(tmp_path, "reduction", "4", seed + 2, 40.0, selection="test")
        folder = grid_file(tmp_path, "reduction", "4", seed + 4, 35.0, selection="last")
    r1 = {}
    for heading, runs in grid_tables.by_data(read_grid(folder, "reduction")):
        r1[heading.split("; ")[1]] = set(runs["R@1"])
    assert r1 == {
        "epoch chosen on val": {30.0},
        "epoch chosen on test": {40.0},
        "last epoch": {35.0},
    }


@other_settings
def test_a_grid_of_two_settings_is_shown_apart_and_not_compared(other, tmp_path):
    for row in ("CSKT, 5%", "full fine-tuning, 5%"):
        for seed in (0, 1):
            grid_file(tmp_path, "identities", row, seed, 30.0)
            folder = grid_file(tmp_path, "identities", row, seed + 2, 40.0 + seed, **other.changes)
    grid = read_grid(folder, "identities")
    first, second = grid_tables.by_data(grid)
    assert SETTING in first[0]
    assert INPUTS in first[0]
    assert set(first[1]["R@1"]) == {30.0}
    assert other.name in second[0]
    table = grid_tables.grid_table(second[1], "CSKT, 5%")
    assert list(table["R@1"]) == ["40.50 ± 0.71"] * 2
    message = "runs of 2 settings cannot be averaged or compared .*take those of one setting"
    with pytest.raises(RunError, match=message):
        grid_tables.grid_table(grid)
    with pytest.raises(RunError, match=message):
        grid_tables.grid_table(grid, "CSKT, 5%")


# Transfer


def transfer_file(folder, row, seed, r1, target="SynthPEDES-B", **changes):
    fields = {"source": "SynthPEDES-A", "source_fingerprint": "8" * 64, **changes}
    return grid_file(folder, "transfer", row, seed, r1, dataset=target, **fields)


def test_transfer_is_measured_against_the_bare_backbone_on_the_target(tmp_path):
    transfer_file(tmp_path, "zero-shot", 1, 20.0)
    transfer_file(tmp_path, "CSKT", 2, 33.0)
    transfer_file(tmp_path, "zero-shot", 3, 20.0, target="SynthPEDES-C")
    folder = transfer_file(tmp_path, "CSKT", 4, 18.0, target="SynthPEDES-C")
    table = grid_tables.transfer_table(read_grid(folder, "transfer"))
    gains = table[table["model"] == "CSKT"].set_index("tested on")["R@1 less zero-shot"]
    assert dict(gains) == {"SynthPEDES-B": "+13.0", "SynthPEDES-C": "-2.0"}
    assert set(table[table["model"] == "zero-shot"]["R@1 less zero-shot"]) == {""}
    assert set(table["trained on"]) == {"SynthPEDES-A (synthetic)"}


def test_transfer_is_apart_by_setting(tmp_path):
    transfer_file(tmp_path, "zero-shot", 0, 20.0)
    transfer_file(tmp_path, "CSKT", 1, 30.0)
    transfer_file(tmp_path, "zero-shot", 2, 25.0, precision="bf16")
    folder = transfer_file(tmp_path, "CSKT", 3, 26.0, precision="bf16")
    table = grid_tables.transfer_table(read_grid(folder, "transfer"))
    assert sorted(table["R@1"]) == ["20.00", "25.00", "26.00", "30.00"]
    assert table["setting"].nunique() == 2
    gains = table[table["model"] == "CSKT"].set_index("R@1")["R@1 less zero-shot"]
    assert dict(gains) == {"30.00": "+10.0", "26.00": "+1.0"}
    assert "training data" not in table


def test_transfer_is_apart_by_the_data_trained_on(tmp_path):
    transfer_file(tmp_path, "CSKT", 0, 30.0)
    folder = transfer_file(tmp_path, "CSKT", 1, 50.0, source_fingerprint="9" * 64)
    table = grid_tables.transfer_table(read_grid(folder, "transfer"))
    assert dict(zip(table["training data"], table["R@1"], strict=True)) == {
        "88888888": "30.00",
        "99999999": "50.00",
    }


def test_without_runs_there_is_no_transfer_table(tmp_path):
    assert grid_tables.transfer_table(read_grid(tmp_path, "transfer")).empty


# Evidence


def test_evidence_names_what_stands_behind_a_grid(tmp_path):
    machine = {**MACHINE, "threads": 2}
    for seed in (0, 1):
        folder = grid_file(
            tmp_path, "prompt depth", "1", seed, 40.0, hardware=machine, duration_s=1800
        )
    (row,) = grid_tables.grid_evidence(folder).to_dict("records")
    assert row == {
        "grid": "prompt depth",
        "run files": "2",
        "dataset": "SynthPEDES-A",
        "setting": SETTING,
        "machine": "x86_64, 2 threads",
        "commit": "c" * 10,
        "hours": "1.0",
    }


def test_without_grids_there_is_no_evidence(tmp_path):
    assert grid_tables.grid_evidence(tmp_path / "none").empty
