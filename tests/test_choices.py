"""How epochs and learning rates were chosen: what each choice gives, and which rates the search
chose."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from cskt import CSKTError, TrainConfig, choices, figures, results
from cskt.config import MINI_LEARNING_RATES
from tests.test_results import grid_file, run_file

matplotlib.use("Agg")
COMMITTED = Path(__file__).parents[1] / "book" / "results" / "runs"


def ranked(r1):
    figures_of = {"R@1": r1, "R@5": r1, "R@10": r1, "mAP": r1, "mINP": r1}
    return {"text_to_image": figures_of, "image_to_text": figures_of}


def chosen(val, test, last):
    """``selected`` of a record, from (epoch, R@1 on test) of each choice."""
    return {
        name: {"epoch": epoch, "metrics": ranked(r1)}
        for name, (epoch, r1) in (("val", val), ("test", test), ("last", last))
    }


def test_what_each_choice_of_the_epoch_gives(tmp_path):
    files = [
        run_file(
            tmp_path,
            "full-0",
            method="full",
            seed=0,
            selected=chosen((1, 55.0), (6, 63.0), (6, 63.0)),
        ),
        run_file(
            tmp_path,
            "full-1",
            method="full",
            seed=1,
            selected=chosen((6, 61.0), (5, 62.0), (6, 61.0)),
        ),
        run_file(tmp_path, "cskt-0", seed=0, selected=chosen((5, 56.0), (5, 56.0), (6, 55.0))),
        run_file(tmp_path, "bare", method="zero-shot", selected=None),
    ]
    table = choices.selection_table(results.run_table(files)).set_index("method")
    assert set(table.index) == {"full fine-tuning", "CSKT"} and not {"setting", "inputs"} & set(
        table
    )
    full = table.loc["full fine-tuning"]
    assert (full["chosen on val"], full["chosen on test"]) == ("58.00 ± 4.24", "62.50 ± 0.71")
    assert (full["last epoch"], full["seeds"]) == ("62.00 ± 1.41", 2)
    # Differences within each run: 8 and 1, 8 and 0.
    assert (full["test less val"], full["last less val"]) == ("+4.50 ± 4.95", "+4.00 ± 5.66")
    assert full["epochs that val chose"] == "1, 6"
    assert (
        table.loc["CSKT", "test less val"] == "+0.00"
        and table.loc["CSKT", "last less val"] == "-1.00"
    )


def test_a_training_recorded_twice_counts_once(tmp_path):
    """On real data the same seed is run twice, kept by val and kept by test: one training, three
    figures."""
    config = {"backbone": "ViT-B-16", "epochs": 60}
    files = [
        run_file(tmp_path, selection, dataset="CUHK-PEDES", selection=selection, config=config)
        for selection in ("val", "test")
    ]
    table = choices.selection_table(results.run_table(files))
    assert list(table["seeds"]) == [1]


def test_without_a_val_split_nothing_is_chosen_on_it(tmp_path):
    note = "ICFG-PEDES has no val split; test stands in"
    file = run_file(tmp_path, "icfg", dataset="ICFG-PEDES", notes=[note])
    (row,) = choices.selection_table(results.run_table([file])).to_dict("records")
    assert (row["chosen on val"], row["test less val"], row["last less val"]) == ("—", "—", "—")
    assert row["epochs that val chose"] == "—" and row["chosen on test"] == "34.00"


def test_choices_of_two_settings_stand_apart(tmp_path):
    files = [run_file(tmp_path, name, precision=name) for name in ("fp32", "bf16")]
    table = choices.selection_table(results.run_table(files))
    assert len(table) == 2 and table["setting"].nunique() == 2
    assert choices.selection_table(results.run_table([])).empty


# The search for learning rates


def history(*values):
    return [
        {"epoch": epoch, "val R@1": value, "test R@1": value - 10, "lr": 0.1}
        for epoch, value in enumerate(values, start=1)
    ]


def search_run(folder, method, label, rate, val, seed=0, val_map=50.0, warm_up=1, **changes):
    config = {"backbone": "cskt-mini", "epochs": 2, "learning_rate": rate, "warmup_epochs": warm_up}
    on_val = {"text_to_image": {"R@1": val, "mAP": val_map}}
    changes = {"history": history(val, val - 5), "val_metrics": on_val, **changes}
    row = f"{label}, {rate:g}" + (f", warm-up {warm_up}" if warm_up > 1 else "")
    return grid_file(
        folder, choices.RATES, row, seed, 40.0, method=method, config=config, **changes
    )


@pytest.fixture
def search(tmp_path, monkeypatch):
    rows = {
        f"{label}, {rate:g}": {"method": method, "learning_rate": rate}
        for label, method in (("CSKT", "cskt"), ("full fine-tuning", "full"))
        for rate in (0.001, 0.01, 0.03)
    }
    monkeypatch.setattr(results, "grid_rows", lambda grid, backbone: rows)
    for rate, val in ((0.001, 40.0), (0.01, 55.0), (0.03, 50.0)):
        search_run(tmp_path, "cskt", "CSKT", rate, val)
    for rate, val, val_map in ((0.001, 60.0, 50.0), (0.01, 60.0, 51.0), (0.03, 20.0, 90.0)):
        folder = search_run(tmp_path, "full", "full fine-tuning", rate, val, val_map=val_map)
    return folder


def test_the_best_on_val_is_chosen_and_ties_are_broken_by_map(search):
    grid = results.read_grid(search, choices.RATES)
    assert choices.chosen_rates(grid) == {"cskt": 0.01, "full": 0.01}
    table = choices.search_table(grid)
    assert list(table["tried"]) == ["0.001", "0.01", "0.03"] * 2
    assert list(table["method"]) == ["CSKT"] * 3 + ["full fine-tuning"] * 3
    assert list(table["chosen"]) == ["", "chosen", ""] * 2
    assert list(table["val R@1, epoch kept"])[:3] == ["40.00", "55.00", "50.00"]
    assert list(table["val R@1, last epoch"])[:3] == ["35.00", "50.00", "45.00"]


def test_another_warm_up_is_a_row_of_its_own(search, tmp_path):
    search_run(tmp_path, "full", "full fine-tuning", 0.001, 70.0, warm_up=2)
    grid = results.read_grid(search, choices.RATES)
    table = choices.search_table(grid)
    assert list(table["tried"])[3:] == ["0.001", "0.01", "0.03", "0.001, warm-up 2"]
    assert (
        set(table["method"]) == {"CSKT", "full fine-tuning"}
        and list(table["chosen"])[-1] == "chosen"
    )
    means = choices.search_means(grid)
    assert list(means.loc[means["chosen"], "warm-up"]) == [1, 2]
    assert choices.chosen_rates(grid)["full"] == 0.001
    histories = choices.chosen_histories(grid)
    assert list(histories.loc[histories["method"] == "full fine-tuning", "val R@1"]) == [70.0, 65.0]


def test_seeds_of_the_search_are_averaged(search, tmp_path):
    search_run(tmp_path, "cskt", "CSKT", 0.01, 40.0, seed=1)  # mean 47.5
    search_run(tmp_path, "cskt", "CSKT", 0.03, 48.0, seed=1)  # mean 49
    grid = results.read_grid(search, choices.RATES)
    assert choices.chosen_rates(grid)["cskt"] == 0.03
    assert choices.search_table(grid).loc[1, "val R@1, epoch kept"] == "47.50"
    assert list(choices.search_table(grid)["seeds"])[:3] == [1, 2, 2]


def test_a_search_of_two_settings_is_refused(search, tmp_path):
    search_run(tmp_path, "cskt", "CSKT", 0.001, 99.0, seed=3, precision="bf16")
    grid = results.read_grid(search, choices.RATES)
    for refused in (choices.chosen_rates, choices.search_table, choices.chosen_histories):
        with pytest.raises(CSKTError, match="runs of 2 settings"):
            refused(grid)


def test_histories_are_those_of_the_chosen_runs(search, tmp_path):
    search_run(tmp_path, "cskt", "CSKT", 0.01, 57.0, seed=1)
    figures.set_style()
    histories = choices.chosen_histories(results.read_grid(search, choices.RATES))
    ours = histories[histories["method"] == "CSKT"]
    assert list(ours["val R@1"]) == [55.0, 50.0, 57.0, 52.0] and list(ours["seed"]) == [0, 0, 1, 1]
    panels = {axes.get_title(loc="left"): axes for axes in figures.method_histories(histories).axes}
    assert set(panels) == {"CSKT", "full fine-tuning"}
    lines = [(line.get_label(), list(line.get_ydata())) for line in panels["CSKT"].get_lines()[:3]]
    assert lines == [("val", [55.0, 50.0]), ("test", [45.0, 40.0]), ("chosen on val", [55.0])]


def test_records_without_a_history_have_no_curves(search, tmp_path):
    search_run(tmp_path, "cskt", "CSKT", 0.01, 55.0, history=None)
    histories = choices.chosen_histories(results.read_grid(search, choices.RATES))
    assert set(histories["method"]) == {"full fine-tuning"}
    grid = results.read_grid(search, choices.RATES)
    assert choices.search_table(grid).loc[1, "val R@1, last epoch"] == "—"


def committed_search():
    parts = results.by_data(results.read_grid(COMMITTED, choices.RATES))
    assert len(parts) == 1, "one search, under one setting"
    return parts[0][1]


def test_the_embedded_default_s_rates_are_those_of_the_committed_search():
    search = committed_search()
    chosen = choices.chosen_rates(search)
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
        compared.add(results.read_run_file(path)["method"])
    assert compared - {"zero-shot"} <= set(rates[rates >= 3].index)
