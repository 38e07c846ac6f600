"""What another machine does to a result, beside the committed seeds."""

from __future__ import annotations

import json
import math

import matplotlib
import pandas as pd
import pytest

from cskt import CSKTError, figures, results, speed, variation
from tests.test_choices import chosen
from tests.test_results import MACHINE, PACKAGES, run_file

matplotlib.use("Agg")


def row(numerics, r1, method="cskt", precision="fp32"):
    return {
        "method": method,
        "numerics": numerics,
        "environment": {},
        "precision": precision,
        "threads": 1,
        "last": {"R@1": r1, "mAP": r1 - 5},
        "val": {"R@1": r1},
        "history": [{"epoch": 1, "test R@1": r1}],
        "duration_s": 90.0,
    }


def record(*rows, **changes):
    return {
        "kind": "variation",
        "dataset": "SynthPEDES-A",
        "data_version": 2,
        "seed": 0,
        "commit": "c" * 40,
        "hardware": {**MACHINE, "cpu_count": 2, "threads": 1},
        "versions": PACKAGES,
        "started": "",
        "duration_s": 900.0,
        "rows": list(rows),
        **changes,
    }


ROWS = (
    row("as it is", 55.0),
    row("threads 2", 55.4),
    row("avx2", 59.0),
    row("bf16", 56.5, precision="bf16"),
    row("as it is", 63.0, method="full"),
    row("avx2", 64.0, method="full"),
)


@pytest.fixture
def runs(tmp_path):
    """Three seeds of CSKT whose last epochs give 54, 55 and 56 (sd 1), one of full fine-tuning."""
    files = []
    for seed, r1 in enumerate((54.0, 55.0, 56.0)):
        choice = chosen((1, 40.0), (2, 70.0), (6, r1))
        files.append(run_file(tmp_path, f"cskt-{seed}", seed=seed, selected=choice))
    files.append(
        run_file(tmp_path, "full-0", method="full", selected=chosen((1, 1.0), (2, 2.0), (6, 63.0)))
    )
    files.append(run_file(tmp_path, "bare", method="zero-shot", selected=None))
    return results.run_table(files)


def test_rows_are_compared_with_the_first_and_with_the_committed_seeds(runs):
    rows = variation.variation_rows(record(*ROWS), runs).set_index(["method", "numerics"])
    assert list(rows["difference"]) == pytest.approx([0, 0.4, 4, 1.5, 0, 1])
    assert list(rows["inside"]) == [True, True, False, True, None, None]
    assert tuple(rows.loc[("CSKT", "avx2"), ["low", "high"]]) == (53.0, 57.0)
    assert math.isnan(rows.loc[("full fine-tuning", "avx2"), "low"]), "one seed has no interval"
    table = variation.variation_table(record(*ROWS), runs)
    assert list(table["inside"]) == ["yes", "yes", "no", "yes", results.NOT_RUN, results.NOT_RUN]
    assert list(table["R@1, last epoch"])[:2] == ["55.00", "55.40"]
    assert list(table["against the first row"])[:2] == ["+0.00", "+0.40"]
    assert table.loc[0, "committed mean ± 2 sd"] == "53.00 to 57.00"


@pytest.mark.parametrize(
    "changes",
    [
        {"data_version": 1},
        {"versions": PACKAGES | {"torch": "3.0.0"}},
        {"dataset": "SynthPEDES-B"},
        {"hardware": {"device": "NVIDIA H100", "platform": "Linux-x86_64", "cpu_count": 2}},
    ],
)
def test_seeds_of_another_setting_are_no_measure(changes, runs):
    rows = variation.variation_rows(record(*ROWS, **changes), runs)
    assert set(rows["inside"]) == {None} and rows["low"].isna().all()


def test_committed_seeds_on_two_kinds_of_data_are_refused(runs, tmp_path):
    other = results.run_table([run_file(tmp_path, "other", seed=7, data_fingerprint="a" * 64)])
    with pytest.raises(CSKTError, match="runs of 2 settings"):
        variation.variation_rows(record(*ROWS), pd.concat([runs, other], ignore_index=True))


def test_spread_over_numerics_beside_spread_over_seeds(runs, tmp_path):
    other = [
        run_file(tmp_path, f"b-{seed}", dataset="SynthPEDES-B", seed=seed, r1=30.0 + seed)
        for seed in (0, 1)
    ]
    runs = pd.concat([runs, results.run_table(other)], ignore_index=True)
    table = variation.spread_table(record(*ROWS), runs).set_index(["dataset", "method"])
    seeds, numerics = "sd over seeds (aim 1)", "sd over fp32 numerics (aim 0.5)"
    assert list(table) == [seeds, numerics]
    assert table.loc[("SynthPEDES-A", "CSKT"), seeds] == "1.00 (3)"
    assert table.loc[("SynthPEDES-A", "CSKT"), numerics] == "2.20 (3)", (
        "55, 55.4 and 59, without bf16"
    )
    assert table.loc[("SynthPEDES-A", "full fine-tuning")].tolist() == [results.NOT_RUN, "0.71 (2)"]
    assert table.loc[("SynthPEDES-B", "CSKT")].tolist() == ["0.71 (2)", results.NOT_RUN]
    assert set(variation.spread_table(None, runs)[numerics]) == {results.NOT_RUN}
    assert variation.spread_table(None, results.run_table([])).empty


def test_spread_is_apart_by_setting(runs, tmp_path):
    other = [run_file(tmp_path, f"v1-{seed}", seed=seed, data_version=1) for seed in (0, 1)]
    runs = pd.concat([runs, results.run_table(other)], ignore_index=True)
    table = variation.spread_table(record(*ROWS), runs)
    ours = table[(table["method"] == "CSKT")]
    assert list(ours.iloc[:, -2]) == ["1.00 (3)", "0.00 (2)"] and ours["setting"].nunique() == 2
    assert list(ours.iloc[:, -1]) == ["2.20 (3)", results.NOT_RUN]


def test_reading_a_variation(tmp_path):
    path = tmp_path / "variation-cpu.json"
    assert variation.read_variation(path) is None
    path.write_text(json.dumps(record(*ROWS)))
    held = variation.read_variation(path)
    line = variation.describe_variation(held)
    assert (
        line.startswith("SynthPEDES-A (synthetic), data version 2, seed 0, x86_64 with 2")
        and "torch 2.15.0" in line
    )


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "3",
        "{}",
        json.dumps(record({"method": "cskt"})),
        json.dumps(record({"last": {"R@1": 5.0}})),
    ],
)
def test_a_damaged_variation_is_named(content, tmp_path):
    path = tmp_path / "variation-cpu.json"
    path.write_text(content)
    with pytest.raises(CSKTError, match="variation-cpu.json .*delete it and measure again"):
        variation.read_variation(path)


def test_the_benchmarks_of_speed_leave_a_variation_alone(tmp_path):
    (tmp_path / "variation-cpu.json").write_text(json.dumps(record(*ROWS)))
    assert speed.read_benchmarks(tmp_path) == {}


def test_the_figure_shows_every_row_and_the_committed_band(runs):
    figures.set_style()
    left, right = figures.numerics_dots(variation.variation_rows(record(*ROWS), runs)).axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["CSKT", "full fine-tuning"]
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "as it is",
        "threads 2",
        "avx2",
        "bf16",
    ]
    dots = {line.get_label(): list(line.get_xdata()) for line in left.get_lines()}
    assert dots == {"bf16": [56.5], "fp32": [55.0, 55.4, 59.0]}
    (band,) = left.patches
    assert (band.get_x(), band.get_width()) == (53.0, 4.0)
    assert not right.patches, "one seed has no band"
