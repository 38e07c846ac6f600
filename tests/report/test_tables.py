"""Tables are built from run files and published figures, and never mix synthetic results with real
ones, nor runs of two settings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cskt import TrainConfig
from cskt.report import tables
from cskt.report.run_files import MEASURES, run_table
from cskt.report.settings import setting_line
from tests.report.test_settings import other_settings
from tests.run_records import INPUTS, REAL_SETTING, SETTING, run_file

BOOK_DATA = Path(__file__).parents[2] / "book" / "data"
LITERATURE = BOOK_DATA / "literature.csv"
VIT = {"backbone": "ViT-B-16", "epochs": 60}


def three_methods(folder):
    """One run of each method: R@1 20 as it came, 30 with CSKT, 40 with full fine-tuning."""
    files = [
        run_file(folder, "bare", method="zero-shot", r1=20.0),
        run_file(folder, "cskt", method="cskt", r1=30.0),
        run_file(folder, "full", method="full", r1=40.0),
    ]
    return run_table(files)


def ours(table):
    """The rows of a benchmark's table that are not published ones."""
    return table[table["group"] == "runs of this code"]


def test_mean_and_spread_over_seeds(tmp_path):
    files = [run_file(tmp_path, f"r{seed}", seed=seed, r1=30.0 + seed) for seed in range(3)]
    table = tables.summarise(run_table(files))
    assert table.loc[0, "R@1"] == "31.00 ± 1.00"
    assert table.loc[0, "seeds"] == 3


def test_selection_on_val_and_on_test_are_never_averaged(tmp_path):
    files = [run_file(tmp_path, "bare", method="zero-shot", r1=20.0)]
    for seed in range(2):
        files.append(run_file(tmp_path, f"val{seed}", seed=seed, r1=30.0 + seed, selection="val"))
        files.append(run_file(tmp_path, f"test{seed}", seed=seed, r1=40.0 + seed, selection="test"))
    table = tables.summarise(run_table(files)).set_index("selected on")
    assert dict(table["R@1"]) == {"—": "20.00", "val": "30.50 ± 0.71", "test": "40.50 ± 0.71"}


@pytest.mark.parametrize("dataset", list(tables.LAYOUT_OF))
def test_without_a_real_run_the_benchmark_says_so(dataset, tmp_path):
    """A synthetic run, even one whose file claims a real name's domain, never reaches the published
    table."""
    synthetic = run_file(tmp_path, "s", dataset=tables.LAYOUT_OF[dataset], r1=99.99)
    table = tables.benchmark_table(dataset, LITERATURE, run_table([synthetic]))
    assert len(ours(table)) == 1
    assert (ours(table)[list(MEASURES)] == tables.NOT_RUN).all(axis=None)
    assert "99.99" not in table.to_string()
    published = table[table["method"] == "CSKT (ICASSP 2024)"]
    assert len(published) == 1
    assert published["source"].iloc[0]


def test_published_figures_are_those_of_the_file():
    table = tables.benchmark_table("CUHK-PEDES", LITERATURE, run_table([]))
    raw = pd.read_csv(LITERATURE).query("dataset == 'CUHK-PEDES'")
    assert len(table) == len(raw) + 1
    assert set(table["R@1"][:-1]) == {f"{value:.2f}" for value in raw["r1"]}


@pytest.mark.parametrize("dataset", list(tables.LAYOUT_OF))
def test_published_figures_rise_within_a_group(dataset):
    table = tables.benchmark_table(dataset, LITERATURE, run_table([]))
    for group, rows in table[:-1].groupby("group"):
        assert rows["R@1"].astype(float).is_monotonic_increasing, group
    assert {"FMFA", "CECA", "HAM + IRRA"} <= set(table["method"].str.partition(" (")[0])


def test_where_sources_differ_both_figures_stand_with_their_source():
    literature = tables.published(LITERATURE)
    twice = literature[literature.duplicated(["method", "dataset"], keep=False)]
    assert set(twice["method"] + " on " + twice["dataset"]) == {"RaSa on RSTPReid"}
    sources = twice.set_index("R@1")["source"]
    assert sources["65.20"] == "ITSELF (WACV 2026), Table 1"
    assert "RaSa" in sources["66.90"]


def test_published_figures_stay_as_they_were_printed():
    transfer = tables.published(BOOK_DATA / "generalisation.csv")
    assert len(transfer) == 24
    assert not transfer["trained on"].str.contains("Synth").any()
    efficiency = tables.published(BOOK_DATA / "efficiency.csv")
    assert len(efficiency) == 5
    for table in (transfer, efficiency):
        assert table["source"].str.len().min() > 10


def test_a_real_run_appears_beside_the_literature(tmp_path):
    file = run_file(tmp_path, "real", dataset="CUHK-PEDES", r1=69.0, config=VIT)
    row = tables.benchmark_table("CUHK-PEDES", LITERATURE, run_table([file])).iloc[-1]
    assert row["R@1"] == "69.00"
    assert "selected on val" in row["source"]


def test_a_backbone_trained_on_people_is_a_group_of_its_own(tmp_path):
    origin = "checkpoint best0.pth, sha256 aaaaaaaaaaaaaaaa, IRRA family"
    fields = {"dataset": "CUHK-PEDES", "r1": 75.0, "config": VIT}
    file = run_file(tmp_path, "domain", backbone_origin=origin, **fields)
    table = tables.benchmark_table("CUHK-PEDES", LITERATURE, run_table([file]))
    assert list(ours(table)["R@1"]) == [tables.NOT_RUN]
    own = table[table["group"] == "runs of this code, ReID-domain pre-training"]
    assert list(own["R@1"]) == ["75.00"]


def test_a_val_split_that_is_test_is_called_so_in_the_source(tmp_path):
    notes = ["ICFG-PEDES has no val split; test stands in"]
    file = run_file(tmp_path, "icfg", dataset="ICFG-PEDES", notes=notes, config=VIT)
    table = tables.benchmark_table("ICFG-PEDES", LITERATURE, run_table([file]))
    row = ours(table).iloc[0]
    expected = f"60 epochs, selected on test (no val split); {REAL_SETTING}, {INPUTS}"
    assert row["source"].endswith(expected)
    assert row["towers"] == "ViT-B-16"


def test_every_synthetic_row_is_labelled_and_says_what_it_gains(tmp_path):
    runs = three_methods(tmp_path)
    table = tables.synthetic_table("CUHK-PEDES", runs)
    assert list(table["method"]) == ["zero-shot", "full fine-tuning", "CSKT"]
    assert set(table["data"]) == {"SynthPEDES-A (synthetic)"}
    assert list(table["R@1 / zero-shot"]) == ["1.00", "2.00", "1.50"]
    assert list(table["share of full fine-tuning's gain"]) == ["", "100%", "50%"]
    elsewhere = tables.synthetic_table("RSTPReid", runs)
    assert (elsewhere["R@1"] == tables.NOT_RUN).all()


def test_no_share_of_a_gain_that_full_fine_tuning_has_not(tmp_path):
    files = [
        run_file(tmp_path, "bare", method="zero-shot", r1=20.0),
        run_file(tmp_path, "cskt", method="cskt", r1=30.0),
        run_file(tmp_path, "full", method="full", r1=15.0),
    ]
    table = tables.synthetic_table("CUHK-PEDES", run_table(files))
    assert set(table["share of full fine-tuning's gain"]) == {""}


def test_setting_table_marks_what_differs_from_the_paper():
    table = tables.setting_table(TrainConfig.mini())
    assert table.loc["epochs", "paper"] == "60"
    assert table.loc["epochs", ""] == "differs"
    assert table.loc["temperature", ""] == ""


def test_a_group_is_named_once():
    table = pd.DataFrame({"group": ["a", "a", "b"], "method": ["x", "y", "z"]})
    shown = tables.show_table(table).data
    assert list(shown["group"]) == ["a", "", "b"]


# Settings that no mean may cross


def two_settings(folder, changes):
    """Two seeds of every method at R@1 30 in one setting, and two at 40 in another."""
    files = []
    for method in ("zero-shot", "cskt"):
        for seed in (0, 1):
            common = {"method": method, "seed": seed}
            name = f"{method}-{seed}"
            files.append(run_file(folder, name, r1=30.0, **common))
            files.append(run_file(folder, f"{name}-other", r1=40.0, **common, **changes))
    return run_table(files)


@other_settings
def test_no_table_mixes_settings_and_every_table_names_them(other, tmp_path):
    runs = two_settings(tmp_path, other.changes)
    names = {other.usual, other.name}
    means = ["30.00 ± 0.00", "30.00 ± 0.00", "40.00 ± 0.00", "40.00 ± 0.00"]
    synthetic = tables.synthetic_table("CUHK-PEDES", runs)
    assert sorted(synthetic["R@1"]) == means
    assert set(synthetic[other.column]) == names
    assert set(synthetic["R@1 / zero-shot"]) == {"1.00"}, "the gain is one over the same setting"


@other_settings
def test_the_readme_s_table_and_the_bars_keep_settings_apart(other, tmp_path):
    runs = two_settings(tmp_path, other.changes)
    overview = tables.overview_markdown(runs)
    assert f"| CSKT | {other.usual} | 2 | 30.00" in overview
    assert f"| CSKT | {other.name} | 2 | 40.00" in overview
    named = tables.named_methods(runs)
    figures_of_a_bar = named.groupby(["dataset", "method"])["R@1"].nunique()
    assert (figures_of_a_bar == 1).all()


@other_settings
def test_full_fine_tuning_of_another_setting_is_no_measure(other, tmp_path):
    files = [
        run_file(tmp_path, "bare", method="zero-shot", r1=20.0),
        run_file(tmp_path, "cskt", r1=30.0),
        run_file(tmp_path, "full", method="full", r1=40.0, **other.changes),
    ]
    table = tables.synthetic_table("CUHK-PEDES", run_table(files)).set_index("method")
    assert set(table["share of full fine-tuning's gain"]) == {""}
    assert table.loc["full fine-tuning", "R@1 / zero-shot"] == ""


def test_data_sets_and_backbones_are_never_mixed(tmp_path):
    vit = {"backbone": "ViT-B-16-quickgelu", "epochs": 60}
    files = []
    for seed in (0, 1):
        files.append(run_file(tmp_path, f"mini-{seed}", seed=seed, r1=30.0))
        files.append(run_file(tmp_path, f"vit-{seed}", seed=seed, r1=50.0, config=vit))
        real = {"dataset": "CUHK-PEDES", "config": vit}
        files.append(run_file(tmp_path, f"real-{seed}", seed=seed, r1=70.0, **real))
    table = tables.summarise(run_table(files))
    assert sorted(table["R@1"]) == ["30.00 ± 0.00", "50.00 ± 0.00", "70.00 ± 0.00"]


def test_a_real_benchmark_s_rows_name_their_setting(tmp_path):
    real = {"dataset": "CUHK-PEDES", "config": VIT}
    files = [
        run_file(tmp_path, "fp32", r1=70.0, precision="fp32", **real),
        run_file(tmp_path, "bf16", r1=60.0, precision="bf16", **real),
    ]
    table = tables.benchmark_table("CUHK-PEDES", LITERATURE, run_table(files))
    sources = ours(table).set_index("R@1")["source"]
    assert set(sources.index) == {"70.00", "60.00"}
    assert "; fp32, cpu, torch 2" in sources["70.00"]
    assert "setting" not in table


def test_one_setting_is_said_once(tmp_path):
    runs = run_table([run_file(tmp_path, "a"), run_file(tmp_path, "b", seed=1)])
    assert not {"setting", "inputs"} & set(tables.synthetic_table("CUHK-PEDES", runs))
    line = f"All runs: {SETTING}; {INPUTS}."
    assert setting_line(runs) == line
    assert tables.overview_markdown(runs).endswith(f"|\n\n{line}")


def test_several_domains_have_several_fingerprints(tmp_path):
    """The data of A and B differ, of course: that is no difference in setting."""
    files = [
        run_file(tmp_path, "a"),
        run_file(tmp_path, "b", dataset="SynthPEDES-B", data_fingerprint="b" * 64),
    ]
    runs = run_table(files)
    assert setting_line(runs) == f"All runs: {SETTING}."
    assert set(tables.named_methods(runs)["dataset"]) == {"SynthPEDES-A", "SynthPEDES-B"}
