"""The ranking benchmark at a tiny size: it runs, its methods agree, and its record has what results
read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_record_of_a_tiny_run(tmp_path):
    output = tmp_path / "new" / "ranking.json"
    sizes = ["--queries", "40", "--gallery", "20", "--repeats", "2"]
    command = [sys.executable, ROOT / "benchmarks" / "ranking.py", "--output", output, *sizes]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    assert record["kind"] == "benchmark"
    assert record["name"] == "ranking"
    assert {"started", "duration_s", "settings", "commit", "versions", "hardware"} <= set(record)
    assert record["settings"]["queries"] == 40
    assert record["settings"]["gallery"] == 20
    assert record["settings"]["repeats"] == 2
    for row in record["rows"]:
        assert row["what"] in done.stdout
        assert len(row["repeats"]) == 2
        assert row["seconds"] == pytest.approx(sum(row["repeats"]) / 2)
        assert row["extra_memory_mb"] >= 0
    names = [row["what"] for row in record["rows"]]
    assert names[1:3] == ["retrieval_metrics", "rank_features"]
