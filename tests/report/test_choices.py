"""How epochs and learning rates were chosen: what each choice gives, and which rates the search
chose."""

from __future__ import annotations

from pathlib import Path

import pytest

from cskt import TrainConfig
from cskt.config import MINI_LEARNING_RATES
from cskt.errors import RunError
from cskt.report import choices, run_files
from cskt.report.grid_tables import by_data
from cskt.report.run_files import read_grid, read_run_file, run_table
from tests.run_records import choice, run_file, search_file

COMMITTED = Path(__file__).parents[2] / "book" / "results" / "runs"


def two_seeds_of_full_fine_tuning(folder):
    first = {"val": choice(1, 55.0), "test": choice(6, 63.0), "last": choice(6, 63.0)}
    second = {"val": choice(6, 61.0), "test": choice(5, 62.0), "last": choice(6, 61.0)}
    return [
        run_file(folder, "full-0", method="full", seed=0, selected=first),
        run_file(folder, "full-1", method="full", seed=1, selected=second),
    ]


def test_what_each_choice_of_the_epoch_gives(tmp_path):
    table = choices.selection_table(run_table(two_seeds_of_full_fine_tuning(tmp_path)))
    (row,) = table.to_dict("records")
    assert row["method"] == "full fine-tuning"
    assert row["seeds"] == 2
    assert row["chosen on val"] == "58.00 ± 4.24"
    assert row["chosen on test"] == "62.50 ± 0.71"
    assert row["last epoch"] == "62.00 ± 1.41"
    assert row["epochs that val chose"] == "1, 6"


def test_gaps_between_choices_are_taken_within_a_run(tmp_path):
    table = choices.selection_table(run_table(two_seeds_of_full_fine_tuning(tmp_path)))
    (row,) = table.to_dict("records")
    assert row["test less val"] == "+4.50 ± 4.95"  # 8 and 1
    assert row["last less val"] == "+4.00 ± 5.66"  # 8 and 0


def test_one_run_has_gaps_without_a_spread(tmp_path):
    selected = {"val": choice(5, 56.0), "test": choice(5, 56.0), "last": choice(6, 55.0)}
    (row,) = choices.selection_table(
        run_table([run_file(tmp_path, "cskt", selected=selected)])
    ).to_dict("records")
    assert row["test less val"] == "+0.00"
    assert row["last less val"] == "-1.00"
    assert not {"setting", "inputs"} & set(row)


def test_the_bare_backbone_chooses_nothing(tmp_path):
    file = run_file(tmp_path, "bare", method="zero-shot", selected=None)
    assert choices.selection_table(run_table([file])).empty


def test_a_training_recorded_twice_counts_once(tmp_path):
    """On real data the same seed is run twice, kept by val and kept by test: one training, three
    figures."""
    real = {"dataset": "CUHK-PEDES", "config": {"backbone": "ViT-B-16", "epochs": 60}}
    files = [
        run_file(tmp_path, "val", selection="val", **real),
        run_file(tmp_path, "test", selection="test", **real),
    ]
    table = choices.selection_table(run_table(files))
    assert list(table["seeds"]) == [1]


def test_without_a_val_split_nothing_is_chosen_on_it(tmp_path):
    notes = ["ICFG-PEDES has no val split; test stands in"]
    file = run_file(tmp_path, "icfg", dataset="ICFG-PEDES", notes=notes)
    (row,) = choices.selection_table(run_table([file])).to_dict("records")
    for column in ("chosen on val", "test less val", "last less val", "epochs that val chose"):
        assert row[column] == "—"
    assert row["chosen on test"] == "34.00"


def test_choices_of_two_settings_stand_apart(tmp_path):
    files = [run_file(tmp_path, name, precision=name) for name in ("fp32", "bf16")]
    table = choices.selection_table(run_table(files))
    assert len(table) == 2
    assert table["setting"].nunique() == 2


# The search for learning rates


@pytest.fixture
def search(tmp_path, monkeypatch):
    """The folder of a search of two methods at three rates each, where full fine-tuning's two best
    rates tie."""
    rows = {}
    for label, method in {"CSKT": "cskt", "full fine-tuning": "full"}.items():
        for rate in (0.001, 0.01, 0.03):
            rows[f"{label}, {rate:g}"] = {"method": method, "learning_rate": rate}
    monkeypatch.setattr(run_files, "grid_rows", lambda grid, backbone: rows)
    search_file(tmp_path, "cskt", "CSKT", 0.001, 40.0)
    search_file(tmp_path, "cskt", "CSKT", 0.01, 55.0)
    search_file(tmp_path, "cskt", "CSKT", 0.03, 50.0)
    search_file(tmp_path, "full", "full fine-tuning", 0.001, 60.0, map_on_val=50.0)
    search_file(tmp_path, "full", "full fine-tuning", 0.01, 60.0, map_on_val=51.0)
    return search_file(tmp_path, "full", "full fine-tuning", 0.03, 20.0, map_on_val=90.0)


def chosen_rates(grid):
    """The learning rate that was chosen for each method."""
    means = choices.search_means(grid)
    chosen = means[means["chosen"]]
    return dict(zip(chosen["method"], chosen["learning rate"], strict=True))


def test_the_best_on_val_is_chosen_and_ties_are_broken_by_map(search):
    grid = read_grid(search, choices.RATES)
    assert chosen_rates(grid) == {"cskt": 0.01, "full": 0.01}


def test_a_table_shows_what_was_tried_and_chosen(search):
    table = choices.search_table(read_grid(search, choices.RATES))
    assert len(table) == 6
    ours = table[table["tried"].str.startswith("CSKT")]
    assert ours.to_dict("list") == {
        "tried": ["CSKT, 0.001", "CSKT, 0.01", "CSKT, 0.03"],
        "seeds": [1, 1, 1],
        "val R@1": [40, 55, 50],
        "val mAP": [50, 50, 50],
        "val R@1, last epoch": [35, 50, 45],
        "chosen": ["", "chosen", ""],
    }


def test_another_warm_up_is_a_row_of_its_own(search, tmp_path):
    search_file(tmp_path, "full", "full fine-tuning", 0.001, 70.0, warm_up=2)
    grid = read_grid(search, choices.RATES)
    table = choices.search_table(grid)
    assert list(table["tried"])[-1] == "full fine-tuning, 0.001, warm-up 2"
    assert list(table["chosen"])[-1] == "chosen"
    means = choices.search_means(grid)
    assert list(means.loc[means["chosen"], "warm-up"]) == [1, 2]
    assert chosen_rates(grid)["full"] == 0.001
    histories = choices.chosen_histories(grid)
    full = histories[histories["method"] == "full fine-tuning"]
    assert list(full["val R@1"]) == [70.0, 65.0]


def test_seeds_of_the_search_are_averaged(search, tmp_path):
    search_file(tmp_path, "cskt", "CSKT", 0.01, 40.0, seed=1)  # mean 47.5
    search_file(tmp_path, "cskt", "CSKT", 0.03, 48.0, seed=1)  # mean 49
    grid = read_grid(search, choices.RATES)
    assert chosen_rates(grid)["cskt"] == 0.03
    table = choices.search_table(grid)
    assert table.loc[1, "val R@1"] == 47.5
    assert list(table["seeds"])[:3] == [1, 2, 2]


def test_a_search_of_two_settings_is_refused(search, tmp_path):
    search_file(tmp_path, "cskt", "CSKT", 0.001, 99.0, seed=3, precision="bf16")
    grid = read_grid(search, choices.RATES)
    with pytest.raises(RunError, match="runs of 2 settings"):
        choices.search_means(grid)


def test_histories_are_those_of_the_chosen_runs(search, tmp_path):
    search_file(tmp_path, "cskt", "CSKT", 0.01, 57.0, seed=1)
    histories = choices.chosen_histories(read_grid(search, choices.RATES))
    ours = histories[histories["method"] == "CSKT"]
    assert list(ours["val R@1"]) == [55.0, 50.0, 57.0, 52.0]
    assert list(ours["seed"]) == [0, 0, 1, 1]


def test_records_without_a_history_have_no_curves(search, tmp_path):
    search_file(tmp_path, "cskt", "CSKT", 0.01, 55.0, history=None)
    grid = read_grid(search, choices.RATES)
    assert set(choices.chosen_histories(grid)["method"]) == {"full fine-tuning"}
    assert choices.search_table(grid)["val R@1, last epoch"].isna()[1]


def committed_search():
    tables = by_data(read_grid(COMMITTED, choices.RATES))
    assert len(tables) == 1, "one search, under one setting"
    return tables[0][1]


def test_the_embedded_default_s_rates_are_those_of_the_committed_search():
    search = committed_search()
    chosen = chosen_rates(search)
    assert chosen == {method: MINI_LEARNING_RATES[method] for method in chosen}
    means = choices.search_means(search)
    for row in means[means["chosen"]].itertuples():
        default = TrainConfig.mini(method=row.method).warmup_epochs
        assert means.loc[row.Index, "warm-up"] == default, f"warm-up of {row.method}"


def test_no_method_stands_in_a_table_without_a_search():
    """No baseline is tuned less than CSKT: each was searched at three rates or more."""
    rates = committed_search().groupby("method")["learning rate"].nunique()
    compared = set()
    for path in COMMITTED.rglob("*.json"):
        compared.add(read_run_file(path)["method"])
    assert compared - {"zero-shot"} <= set(rates[rates >= 3].index)
