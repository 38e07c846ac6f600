"""The benchmark of whole test sets with a tiny backbone: it runs, and its record has what the book
reads."""

import json
from pathlib import Path

import pytest

from benchmarks import test_set_time
from cskt.data.findings import Counts
from cskt.report import cost, efficiency

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "one": {"test": Counts(images=6, identities=3, captions=12)},
    "CUHK-PEDES": {"test": Counts(images=40, identities=10, captions=80)},
}


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setattr(test_set_time, "PUBLISHED", TINY)
    output = tmp_path / "new" / "test-set-time-cpu.json"
    test_set_time.main(
        backbone="cskt-mini",
        height=128,
        width=64,
        images=4,
        captions=8,
        device="cpu",
        output=output,
    )
    return json.loads(output.read_text())


def test_times_of_the_sample_are_multiplied_and_ranking_is_measured(record):
    assert [row["what"] for row in record["rows"]] == list(TINY)
    for row in record["rows"]:
        assert row["how"] == "extrapolated from 4 images and 8 captions"
        encoding = row["images"] * record["per_image"]["seconds"]
        assert row["encode gallery"] == pytest.approx(encoding, abs=1e-4)
        encoding = row["queries"] * record["per_query"]["seconds"]
        assert row["encode queries"] == pytest.approx(encoding, abs=1e-4)
        assert row["rank"] > 0
        steps = row["encode queries"] + row["encode gallery"] + row["rank"]
        assert row["seconds"] == pytest.approx(steps, abs=1e-3)
    assert record["per_image"]["flops"] > record["per_query"]["flops"] > 0


def test_the_record_says_what_was_random_and_where_it_was_made(record):
    assert record["kind"] == "benchmark"
    assert record["name"] == "test set time"
    assert record["settings"]["weights"] == "random"
    assert {"started", "duration_s", "commit", "versions", "hardware"} <= set(record)


def test_the_book_reads_it(record, tmp_path):
    measurements = efficiency.read_measurements(tmp_path / "new")
    evidence = efficiency.measurement_evidence(measurements).set_index("run file")
    assert "cskt-mini" in evidence.loc["test-set-time-cpu", "measured"]
    table = cost.times_of_test_sets(ROOT / "book" / "data" / "test-set-times.csv", measurements)
    assert table.iloc[-1]["method"] == "CSKT, this code (cskt-mini)"
