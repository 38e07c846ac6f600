"""What another machine does to a result, beside the committed seeds."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from cskt.errors import RunError
from cskt.report import variation
from cskt.report.run_files import run_table
from cskt.report.tables import NOT_RUN
from tests.run_records import PACKAGES, choice, run_file, variation_record

SEEDS = "sd over seeds"
NUMERICS = "sd over fp32 numerics"


def selected(last):
    """The figures of a run whose last epoch gives R@1 ``last``."""
    return {"val": choice(1, 40.0), "test": choice(2, 70.0), "last": choice(6, last)}


@pytest.fixture
def runs(tmp_path):
    """Three seeds of CSKT whose last epochs give 54, 55 and 56 (sd 1), one of full fine-tuning."""
    files = [
        run_file(tmp_path, "cskt-0", seed=0, selected=selected(54.0)),
        run_file(tmp_path, "cskt-1", seed=1, selected=selected(55.0)),
        run_file(tmp_path, "cskt-2", seed=2, selected=selected(56.0)),
        run_file(tmp_path, "full-0", method="full", selected=selected(63.0)),
        run_file(tmp_path, "bare", method="zero-shot", selected=None),
    ]
    return run_table(files)


def with_more(runs, files):
    return pd.concat([runs, run_table(files)], ignore_index=True)


def test_rows_are_compared_with_the_first_and_with_the_committed_seeds(runs):
    table = variation.variation_table(variation_record(), runs)
    assert list(table["method"]) == 4 * ["CSKT"] + 2 * ["full fine-tuning"]
    assert list(table["R@1, last epoch"])[:2] == ["55.00", "55.40"]
    differences = ["+0.00", "+0.40", "+4.00", "+1.50", "+0.00", "+1.00"]
    assert list(table["against the first row"]) == differences
    assert list(table["inside"]) == ["yes", "yes", "no", "yes", NOT_RUN, NOT_RUN]


def test_the_committed_interval_is_two_standard_deviations_to_either_side(runs):
    table = variation.variation_table(variation_record(), runs).set_index("method")
    assert set(table.loc["CSKT", "committed mean ± 2 sd"]) == {"53.00 to 57.00"}


def test_one_seed_has_no_interval(runs):
    table = variation.variation_table(variation_record(), runs).set_index("method")
    assert set(table.loc["full fine-tuning", "committed mean ± 2 sd"]) == {NOT_RUN}


GPU = {"device": "NVIDIA H100", "platform": "Linux-x86_64", "cpu_count": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"data_version": 1},
        {"versions": {**PACKAGES, "torch": "3.0.0"}},
        {"dataset": "SynthPEDES-B"},
        {"hardware": GPU},
    ],
)
def test_seeds_of_another_setting_are_no_measure(changes, runs):
    table = variation.variation_table(variation_record(**changes), runs)
    assert set(table["inside"]) == {NOT_RUN}


def test_committed_seeds_on_two_kinds_of_data_are_refused(runs, tmp_path):
    runs = with_more(runs, [run_file(tmp_path, "other", seed=7, data_fingerprint="a" * 64)])
    with pytest.raises(RunError, match="runs of 2 settings"):
        variation.variation_table(variation_record(), runs)


def test_spread_over_numerics_beside_spread_over_seeds(runs, tmp_path):
    other = [
        run_file(tmp_path, "b-0", dataset="SynthPEDES-B", seed=0, r1=30.0),
        run_file(tmp_path, "b-1", dataset="SynthPEDES-B", seed=1, r1=31.0),
    ]
    runs = with_more(runs, other)
    table = variation.spread_table(variation_record(), runs).set_index(["dataset", "method"])
    assert list(table) == [SEEDS, NUMERICS]
    ours = table.loc[("SynthPEDES-A", "CSKT")]
    assert ours[SEEDS] == "1.00 (3)"
    assert ours[NUMERICS] == "2.20 (3)", "55, 55.4 and 59, without bf16"
    assert table.loc[("SynthPEDES-A", "full fine-tuning")].tolist() == [NOT_RUN, "0.71 (2)"]
    assert table.loc[("SynthPEDES-B", "CSKT")].tolist() == ["0.71 (2)", NOT_RUN]


def test_without_a_variation_only_seeds_are_measured(runs):
    assert set(variation.spread_table(None, runs)[NUMERICS]) == {NOT_RUN}


def test_without_runs_there_is_no_spread():
    assert variation.spread_table(None, run_table([])).empty


def test_spread_is_apart_by_setting(runs, tmp_path):
    other = [run_file(tmp_path, f"v1-{seed}", seed=seed, data_version=1) for seed in (0, 1)]
    table = variation.spread_table(variation_record(), with_more(runs, other))
    ours = table[table["method"] == "CSKT"]
    assert ours["setting"].nunique() == 2
    assert list(ours[SEEDS]) == ["1.00 (3)", "0.00 (2)"]
    assert list(ours[NUMERICS]) == ["2.20 (3)", NOT_RUN]


def test_a_variation_says_where_it_was_made(tmp_path):
    path = tmp_path / "variation-cpu.json"
    path.write_text(json.dumps(variation_record()))
    record = variation.read_variation(path)
    line = variation.describe_variation(record)
    assert line.startswith("SynthPEDES-A (synthetic), seed 0, x86_64 with 2 processors, fp32, cpu")
    assert "data version 2, torch 2" in line


def test_a_variation_that_was_not_run_is_none(tmp_path):
    assert variation.read_variation(tmp_path / "variation-cpu.json") is None


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "3",
        "{}",
        json.dumps(variation_record([{"method": "cskt"}])),
        json.dumps(variation_record([{"last": {"R@1": 5.0}}])),
    ],
)
def test_a_damaged_variation_is_named(content, tmp_path):
    path = tmp_path / "variation-cpu.json"
    path.write_text(content)
    with pytest.raises(RunError, match="variation-cpu.json .*delete it and measure again"):
        variation.read_variation(path)
