"""What evaluations cost, as tables: of runs, and of whole test sets beside published times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cskt.report import cost
from tests.run_records import run_file

PUBLISHED = Path(__file__).parents[2] / "book" / "data" / "test-set-times.csv"
COST = {
    "queries": 2400,
    "images": 1200,
    "seconds": {"encode queries": 6.0, "encode gallery": 3.0, "rank": 1.0, "whole": 10.0},
    "per_query": {"seconds": 0.0025, "flops": 56_600_000, "tokens": 26},
    "per_image": {"seconds": 0.0025, "flops": 78_500_000},
}


def own(how: str, seconds: tuple[float, float, float]) -> dict[str, Any]:
    names = ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")
    rows = [
        {"what": name, "how": how, "seconds": value}
        for name, value in zip(names, seconds, strict=True)
    ]
    return {
        "started": "2026-01-02T03:04:05+00:00",
        "settings": {"backbone": "ViT-B-16", "weights": "random", "precision": "fp32"},
        "hardware": {"device": "abacus", "threads": 2},
        "rows": rows,
    }


def test_a_run_s_cost_stands_beside_its_data_and_method(tmp_path):
    record = json.loads(run_file(tmp_path, "run", cost=COST).read_text())
    row = cost.run_costs([record]).iloc[0]
    assert (row["data"], row["method"]) == ("SynthPEDES-A", "cskt")
    assert row["ms per query"] == "2.5"
    assert row["MFLOPs per query"] == "56.6"
    assert row["MFLOPs per image"] == "78.5"
    assert row["seconds for the test set"] == "10"
    assert row["of these, ranking"] == "1"
    assert row["machine"] == "x86_64, 1 thread"


def test_a_run_of_before_says_that_nothing_was_recorded(tmp_path):
    records = [
        json.loads(run_file(tmp_path, "old").read_text()),
        json.loads(run_file(tmp_path, "new", cost=COST).read_text()),
    ]
    table = cost.run_costs(records)
    assert list(table["seconds for the test set"]) == ["not recorded", "10"]
    assert table["ms per query"].iloc[0] == ""


def test_published_times_stand_with_their_sources_sorted_by_one_data_set():
    table = cost.times_of_test_sets(PUBLISHED, {})
    assert len(table) == 6
    assert set(table["how"]) == {"published"}
    assert table["source"].str.len().min() > 10
    fastest = table.iloc[0]
    times = (fastest["RSTPReid"], fastest["CUHK-PEDES"], fastest["ICFG-PEDES"])
    assert (fastest["method"], *times) == ("FMFA", "3", "7", "50")
    assert table.iloc[-1]["method"] == "RaSa"
    assert table.set_index("method").loc["SCVD", "RSTPReid"] == "not known"


def test_ours_come_last_and_are_called_random_and_extrapolated():
    measurement = own("extrapolated from 4 images and 8 captions", (120.0, 1500.25, 30.0))
    table = cost.times_of_test_sets(PUBLISHED, {"test-set-time-cpu": measurement})
    assert len(table) == 7
    row = table.iloc[-1]
    assert row["method"] == "CSKT, this code (ViT-B-16)"
    assert row["how"] == "random weights, extrapolated from 4 images and 8 captions"
    assert row["hardware"] == "abacus, 2 threads, fp32"
    assert (row["RSTPReid"], row["CUHK-PEDES"], row["ICFG-PEDES"]) == ("30", "120", "1,500")
