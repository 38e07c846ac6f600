"""Tables are built from run files and published figures, and never mix synthetic results with real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cskt import CSKTError, TrainConfig, results

LITERATURE = Path(__file__).parents[1] / "book" / "data" / "literature.csv"


def run_file(folder, name, dataset="SynthPEDES-A", method="cskt", seed=0, r1=30.0, zero_shot=20.0, **changes):
    def measures(value):
        ranked = {"R@1": value, "R@5": value + 20, "R@10": value + 30, "mAP": value - 5, "mINP": value - 10}
        return {"text_to_image": ranked, "image_to_text": ranked}

    record = {"kind": "train", "dataset": dataset, "synthetic": dataset.startswith("Synth"), "method": method,
              "seed": seed, "config": {"backbone": "cskt-mini", "epochs": 3}, "selection_split": "val",
              "data_fingerprint": "f" * 64, "commit": "c" * 40, "hardware": {}, "duration_s": 12.0,
              "trainable_parameters": 1000, "total_parameters": 9000, "metrics": measures(r1),
              "zero_shot": measures(zero_shot), **changes}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record))
    return path


def test_mean_and_spread_over_seeds(tmp_path):
    files = [run_file(tmp_path, f"r{seed}", seed=seed, r1=30.0 + seed) for seed in range(3)]
    table = results.summarise(results.run_table(files))
    assert table.loc[0, "R@1"] == "31.00 ± 1.00" and table.loc[0, "seeds"] == 3


@pytest.mark.parametrize("dataset", list(results.LAYOUT_OF))
def test_without_a_real_run_the_benchmark_says_so(dataset, tmp_path):
    """A synthetic run, even one whose file claims a real name's domain, never reaches the published table."""
    synthetic = run_file(tmp_path, "s", dataset=results.LAYOUT_OF[dataset], r1=99.99)
    table = results.benchmark_table(dataset, LITERATURE, results.run_table([synthetic]))
    ours = table[table["group"] == "runs of this code"]
    assert (ours[list(results.MEASURES)] == results.NOT_RUN).all(axis=None) and len(ours) == 1
    assert "99.99" not in table.to_string()
    published = table[table["method"] == "CSKT (ICASSP 2024)"]
    assert len(published) == 1 and published["source"].iloc[0]


def test_published_figures_are_those_of_the_file():
    table = results.benchmark_table("CUHK-PEDES", LITERATURE, results.run_table([]))
    raw = pd.read_csv(LITERATURE).query("dataset == 'CUHK-PEDES'")
    assert len(table) == len(raw) + 1
    assert set(table["R@1"][:-1]) == {f"{value:.2f}" for value in raw["r1"]}


def test_a_real_run_appears_beside_the_literature(tmp_path):
    file = run_file(tmp_path, "real", dataset="CUHK-PEDES", r1=69.0, config={"backbone": "ViT-B-16", "epochs": 60})
    row = results.benchmark_table("CUHK-PEDES", LITERATURE, results.run_table([file])).iloc[-1]
    assert row["R@1"] == "69.00" and "selected on val" in row["source"]


def test_every_synthetic_row_is_labelled(tmp_path):
    files = [run_file(tmp_path, method, method=method, r1=value)
             for method, value in (("zero-shot", 20.0), ("cskt", 30.0), ("full", 40.0))]
    table = results.synthetic_table("CUHK-PEDES", results.run_table(files))
    assert list(table["method"]) == ["zero-shot", "full fine-tuning", "CSKT"]
    assert all("synthetic" in data for data in table["data"])
    assert list(table["R@1 / zero-shot"]) == ["1.00", "2.00", "1.50"]
    assert (results.synthetic_table("RSTPReid", results.run_table(files))["R@1"] == results.NOT_RUN).all()


def test_findings_quote_the_runs(tmp_path):
    files = [run_file(tmp_path, method, method=method, r1=value)
             for method, value in (("zero-shot", 20.0), ("cskt", 30.0), ("full", 40.0))]
    (line,) = results.findings(results.run_table(files))
    assert "30.0 (mean of 1 seeds), 1.50 times" in line and "20.0; full fine-tuning reaches 40.0 (seeds: 1)" in line
    assert results.findings(results.run_table([])) == ["No synthetic runs were found."]


@pytest.mark.parametrize("content", ["not json", "[]", '{"dataset": "SynthPEDES-A"}'])
def test_a_damaged_run_file_is_named(content, tmp_path):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(CSKTError, match="bad.json"):
        results.run_table([tmp_path / "bad.json"])


def test_setting_table_marks_what_differs_from_the_paper():
    table = results.setting_table(TrainConfig.mini())
    assert table.loc["epochs", "paper"] == "60" and table.loc["epochs", ""] == "differs"
    assert table.loc["temperature", ""] == ""


def test_check_parameters():
    results.check_parameters({"dataset": "A", "_hidden": 1, "In": [], "pd": pd, "len": len}, ["dataset"])
    with pytest.raises(CSKTError, match="unknown parameter epoch; this notebook takes dataset, epochs"):
        results.check_parameters({"epoch": 3, "dataset": "A"}, ["dataset", "epochs"])
