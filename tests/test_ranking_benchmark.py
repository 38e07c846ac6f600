"""The ranking benchmark at a tiny size: it runs, its methods agree, and its record has what results
read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_record_of_a_tiny_run(tmp_path):
    command = [
        sys.executable,
        ROOT / "benchmarks" / "ranking.py",
        "--output",
        tmp_path / "new" / "ranking.json",
        "--queries",
        "40",
        "--gallery",
        "20",
        "--repeats",
        "2",
    ]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "new" / "ranking.json").read_text())
    assert (record["kind"], record["name"]) == ("benchmark", "ranking")
    assert {"started", "duration_s", "settings", "commit", "versions", "hardware"} <= set(record)
    assert (
        record["settings"]["queries"],
        record["settings"]["gallery"],
        record["settings"]["repeats"],
    ) == (40, 20, 2)
    for row in record["rows"]:
        assert row["what"] in done.stdout and len(row["repeats"]) == 2
        assert (
            row["seconds"] == pytest.approx(sum(row["repeats"]) / 2) and row["extra_memory_mb"] >= 0
        )
    assert [row["what"] for row in record["rows"]][1:3] == ["retrieval_metrics", "rank_features"]
