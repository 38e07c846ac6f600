"""The benchmark of processes and pieces at a tiny size: it runs, and its record has what the report
reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cskt.report.devices import device_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_record_of_a_tiny_run(tmp_path):
    output = tmp_path / "new" / "devices.json"
    sizes = ["--backbone", "cskt-mini", "--height", "128", "--width", "64", "--shared-batch", "4"]
    cases = ["--batches", "4", "--batches-in-pieces", "4", "--pieces", "2", "--processes", "1,2"]
    command = [sys.executable, ROOT / "benchmarks" / "devices.py", "--output", output]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *sizes, *cases], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    assert {"started", "duration_s", "settings", "commit", "versions", "hardware"} <= set(record)
    table = device_table(record)
    assert list(table["processes"]) == [1, 1, 2]
    assert list(table["batch"]) == [4, 4, 4]
    assert list(table["encoded"])[1] == "2 pairs at a time"
    assert (table["seconds"] > 0).all()
