"""How the source is laid out: what a formatter and an import linter do not say."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 400  # lines; a longer file holds more than one purpose
FOLDERS = ("cskt", "tests", "benchmarks", "notebooks")


def python_files() -> list[Path]:
    files = []
    for folder in FOLDERS:
        files.extend(sorted((ROOT / folder).rglob("*.py")))
    return files


def test_python_files_are_found():
    assert len(python_files()) > 50


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_the_limit(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LIMIT, f"{path} has {lines} lines; split it by purpose."


def test_commits_that_only_format_are_left_out_of_blame():
    listed = (ROOT / ".git-blame-ignore-revs").read_text(encoding="utf-8").splitlines()
    revisions = [line for line in listed if line and not line.startswith("#")]
    assert revisions
    assert all(len(revision) == 40 for revision in revisions)
