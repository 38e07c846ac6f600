"""Runs on data of one's own stand in a table of their own, and in no other."""

import pytest

from cskt.report import tables
from cskt.report.own_data import own_table
from cskt.report.run_files import run_table
from tests.report.test_tables import LITERATURE
from tests.run_records import run_file

NAME = "my people/人物"


@pytest.fixture
def runs(tmp_path):
    """A drawn run, a real one, and two seeds on data of one's own."""
    files = [run_file(tmp_path, "a"), run_file(tmp_path, "b", dataset="CUHK-PEDES", r1=60.0)]
    for seed in range(2):
        files.append(run_file(tmp_path, f"own{seed}", dataset=NAME, seed=seed, r1=77.0 + seed))
    return run_table(files)


def test_own_runs_have_their_own_table(runs):
    table = own_table(runs)
    assert table["dataset"].tolist() == [NAME]
    assert table["R@1"].tolist() == ["77.50 ± 0.71"]
    assert table["seeds"].tolist() == [2]
    assert "R@1 value" not in table


def test_without_such_runs_the_table_is_empty(runs):
    assert own_table(runs[runs["dataset"] != NAME]).empty
    assert own_table(runs[:0]).empty


@pytest.mark.parametrize("dataset", list(tables.LAYOUT_OF))
def test_no_table_of_a_benchmark_holds_them(runs, dataset):
    others = runs[runs["dataset"] != NAME]
    benchmark = tables.benchmark_table(dataset, LITERATURE, runs)
    assert benchmark.equals(tables.benchmark_table(dataset, LITERATURE, others))
    synthetic = tables.synthetic_table(dataset, runs)
    assert synthetic.equals(tables.synthetic_table(dataset, others))
    assert tables.overview_markdown(runs) == tables.overview_markdown(others)
    assert tables.named_methods(runs).equals(tables.named_methods(others))
