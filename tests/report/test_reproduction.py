"""What making the book took, from the files beside its executed notebooks."""

import json

from cskt.report import reproduction


def write(folder, name, seconds):
    record = {
        "notebook": f"notebooks/{name}.ipynb",
        "duration_s": seconds,
        "started": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "hardware": {"processor": "a chip", "cpu_count": 2},
    }
    (folder / f"{name}.run.json").write_text(json.dumps(record))


def test_times_are_those_of_the_files(tmp_path):
    write(tmp_path, "train", 90.4)
    write(tmp_path, "data", 29.6)
    table = reproduction.page_times(tmp_path)
    assert table["page"].tolist() == ["data", "train"]
    assert table["seconds"].tolist() == ["30", "90"]
    assert reproduction.totals(tmp_path) == {"page_minutes": 2.0}
    assert reproduction.machine(tmp_path) == "Executed on: a chip, 2 processors."


def test_without_executed_notebooks_there_is_nothing(tmp_path):
    assert reproduction.page_times(tmp_path).empty
    assert reproduction.machine(tmp_path) == "No notebook has been executed."
