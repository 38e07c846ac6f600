"""``index`` by the processes of torchrun makes the gallery of one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from cskt import Gallery
from tests.galleries import folder_of

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


def test_two_processes_make_the_gallery_of_one(tmp_path):
    folder = folder_of(tmp_path / "in", 9)
    shutil.copy(folder / "0001.png", folder / "copy.png")  # in the other process's share
    (folder / "note.txt").write_text("no image")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    index = ["-m", "cskt", "index", str(folder), "--gallery", str(tmp_path / "g.db")]
    done = subprocess.run(
        [sys.executable, *launch, *index],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "9 images added, 1 already there, 1 skipped; 9 in all" in done.stdout
    assert done.stdout.count("images added") == 1
    with Gallery(tmp_path / "g.db") as shared, Gallery(tmp_path / "one.db", "cskt-mini") as one:
        one.add(folder)
        hits = {(hit.id, hit.source): hit.score for hit in one.search("a red coat", 20)}
        found = {(hit.id, hit.source): hit.score for hit in shared.search("a red coat", 20)}
        assert found == pytest.approx(hits, abs=1e-5)
