"""The gallery benchmark at a tiny size, its drawn vectors, and the tables made of its record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gallery
from cskt.report import efficiency, tables

ROOT = Path(__file__).resolve().parents[2]


def test_vectors_are_the_same_in_parts():
    whole = gallery.drawn(2500, 16, 700)
    parts = [
        gallery.drawn(count, 16, first) for first, count in ((700, 300), (1000, 1), (1001, 2199))
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    same = (whole[100:104] @ whole[100:104].T)[np.triu_indices(4, 1)].mean()  # one person's images
    assert same > (whole[100:104] @ whole[200:].T).max(1).mean() - 0.3 and same > 0.4


def test_the_exact_neighbours_are_those_of_one_large_product(monkeypatch):
    monkeypatch.setattr(gallery, "CHUNK", 1000)
    queries, vectors = gallery.drawn(5, 16, 3000), gallery.drawn(2300, 16, 0)
    rows, seconds = gallery.exact(queries, 2300)
    np.testing.assert_array_equal(rows, np.argsort(-(queries @ vectors.T), axis=1)[:, : gallery.K])
    assert len(seconds) == 5 and gallery.exact(queries, 4)[0].shape == (5, 4)


@pytest.mark.slow
def test_record_and_table_of_a_tiny_run(tmp_path):
    command = [
        sys.executable,
        ROOT / "benchmarks" / "gallery.py",
        "--sizes",
        "300",
        "--indexes",
        "FLAT",
        "--backbone",
        "cskt-mini",
        "--output",
        tmp_path / "new" / "gallery-embedded.json",
    ]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    records = efficiency.read_measurements(tmp_path / "new")
    record = records["gallery-embedded"]
    assert {"started", "duration_s", "settings", "commit", "versions", "hardware"} <= set(record)
    (row,) = record["rows"]
    assert (row["index"], row["where"], row["vectors"], row["dimension"]) == (
        "FLAT",
        "embedded",
        300,
        128,
    )
    assert (
        row["recall_at_10"] == 100
        and row["inserted_per_s"] > 0
        and row["disk_mb"] > 300 * 128 * 4 / 1e6
    )
    evidence = efficiency.measurement_evidence(records).set_index("run file")
    assert "SQLite" in evidence.loc["gallery-embedded", "measured"]
    (shown,) = efficiency.gallery_table(records).to_dict("records")
    assert shown["vectors"] == "300"
    assert shown["recall at 10, percent"] == "100"
    assert json.dumps(row)
    both = {
        "gallery-embedded": record,
        "gallery-server": {"rows": [{**row, "where": "server", "disk_mb": None}]},
    }
    assert tables.show_table(efficiency.gallery_table(both)).to_html().count("<tr>") == 3
    assert efficiency.gallery_table({}).to_dict("records") == [{"gallery": "not run here"}]
