"""Differences between rows: paired on the same queries, corrected for their number, and said to be
unknown where they are."""

from __future__ import annotations

import pytest

from cskt.errors import RunError
from cskt.paired import compare, holm
from cskt.report.differences import (
    OTHER_QUERIES,
    RANKS_MISSING,
    method_differences,
    paired_differences,
)
from cskt.report.run_files import run_table
from tests.run_records import run_file, write_ranks

QUERIES = 40


def runs_of(folder, method, *found, queries=QUERIES, **changes):
    """The runs of a method, a seed for each number of queries that are ``found`` at rank 1."""
    files = []
    for seed, count in enumerate(found):
        name = f"{method}-{seed}"
        file = run_file(folder, name, method=method, seed=seed, **changes)
        write_ranks(file, [1] * count + [4] * (queries - count))
        files.append(file)
    return run_table(files)


def test_p_values_are_corrected_for_the_number_of_pairs(tmp_path):
    whole = runs_of(tmp_path, "cskt", 20, 22)
    others = [runs_of(tmp_path, "full", 24, 25), runs_of(tmp_path, "bpt", 23, 24)]
    table = paired_differences([(whole, other) for other in others])
    ours = list(whole["path"])
    expected = []
    for other in others:
        expected.append(compare(ours, list(other["path"])).table.loc["R@1", "p"])
    for shown, p in zip(table["reliable"], holm(expected), strict=True):
        assert f"(p {p:.2g})" in shown


def test_the_difference_is_that_of_the_first_less_the_second(tmp_path):
    worse = runs_of(tmp_path, "cskt", 4)
    better = runs_of(tmp_path, "full", 36)
    (row,) = paired_differences([(worse, better)]).to_dict("records")
    assert row["R@1, points"].startswith("-80.0 (-")
    assert row["reliable"].startswith("yes (p 0.0")


def test_a_comparison_of_single_runs_speaks_of_these_models(tmp_path):
    one = runs_of(tmp_path, "cskt", 4)
    several = runs_of(tmp_path, "full", 34, 36)
    table = paired_differences([(several, several), (one, several)])
    assert [cell.endswith("of these models") for cell in table["reliable"]] == [False, True]


def test_missing_ranks_are_said_and_change_no_other_row(tmp_path):
    whole = runs_of(tmp_path, "cskt", 20, 22)
    other = runs_of(tmp_path, "full", 30, 31)
    bare = run_table([run_file(tmp_path, "bare", method="zero-shot")])
    alone = paired_differences([(whole, other)])
    table = paired_differences([(bare, other), (whole, other)])
    assert table.loc[0].tolist() == [RANKS_MISSING, ""]
    assert table.loc[1].tolist() == alone.loc[0].tolist()


def test_other_queries_are_said(tmp_path):
    ours = runs_of(tmp_path, "cskt", 20)
    theirs = runs_of(tmp_path, "full", 20, queries=QUERIES + 1)
    (row,) = paired_differences([(ours, theirs)]).to_dict("records")
    assert row == {"R@1, points": OTHER_QUERIES, "reliable": ""}


def test_damaged_ranks_are_refused_by_name(tmp_path):
    ours = runs_of(tmp_path, "cskt", 20)
    theirs = runs_of(tmp_path, "full", 20)
    (tmp_path / "full-0.npz").write_bytes(b"no zip")
    with pytest.raises(RunError, match=r"full-0\.npz is not a readable npz file"):
        paired_differences([(ours, theirs)])


def test_two_settings_are_not_compared(tmp_path):
    ours = runs_of(tmp_path, "cskt", 20)
    theirs = runs_of(tmp_path, "full", 20, precision="bf16")
    with pytest.raises(RunError, match="runs of 2 settings"):
        paired_differences([(ours, theirs)])


def test_nothing_to_compare_is_an_empty_table(tmp_path):
    assert paired_differences([]).empty
    assert method_differences(run_table([])).empty
    assert method_differences(runs_of(tmp_path, "cskt", 20)).empty


def test_methods_are_compared_on_each_data_set_by_itself(tmp_path):
    files = []
    for dataset in ("SynthPEDES-A", "SynthPEDES-B"):
        for method, count in {"cskt": 20, "full": 30, "zero-shot": 5}.items():
            file = run_file(tmp_path, f"{dataset}-{method}", dataset=dataset, method=method)
            write_ranks(file, [1] * count + [4] * (QUERIES - count))
            files.append(file)
    table = method_differences(run_table(files))
    assert list(table["compared"][:3]) == [
        "CSKT less full fine-tuning",
        "CSKT less zero-shot",
        "full fine-tuning less zero-shot",
    ]
    points = [cell.partition(" ")[0] for cell in table["R@1, points"]]
    assert points == 2 * ["-25.0", "+37.5", "+62.5"]
    assert "setting" not in table
