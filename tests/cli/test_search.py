"""``python -m cskt index`` and ``search``: what they print, and what a killed index leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from cskt import Gallery
from tests.galleries import folder_of, pictures

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


@pytest.fixture
def command_line(cskt, tmp_path, monkeypatch):
    """``command_line("index", ...)`` in ``tmp_path`` -> returncode, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code, out, err = cskt(*arguments)
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return call


@pytest.fixture
def indexed(tmp_path, command_line):
    """A gallery of five images, and what ``index`` said."""
    folder = folder_of(tmp_path / "in", 5)
    place = tmp_path / "g.db"
    table = folder / "facts.csv"
    table.write_text("file,identity,camera\n0003.png,12,c4\n")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = command_line("index", folder, "--gallery", place, "--metadata", table)
    return SimpleNamespace(folder=folder, place=place, done=done)


def test_index_is_killed_and_goes_on(tmp_path, command_line):
    folder = folder_of(tmp_path / "in", 1500, (24, 12))
    place = tmp_path / "g.db"
    (folder / "note.txt").write_text("no image")
    command = [sys.executable, "-m", "cskt", "index", str(folder), "--gallery", str(place)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    while process.poll() is None and len(list(place.rglob("*.jpg"))) < 200:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was still at work"
    done = command_line("index", folder, "--gallery", place)
    numbers = re.search(
        r"(\d+) images added, (\d+) already there, 1 skipped; (\d+) in all", done.stdout
    )
    added = int(numbers[1])
    known = int(numbers[2])
    total = int(numbers[3])
    assert total == added + known == 1500
    assert known >= 128 and added > 0, done
    with Gallery(place) as gallery:
        hits = gallery.search("coat", 2000)
        assert len({hit.source for hit in hits}) == 1500
        assert all(hit.thumbnail.is_file() for hit in hits)


def test_index_says_what_it_added_and_skipped_and_with_which_model(indexed):
    said = indexed.done.stdout
    assert "5 images added, 0 already there, 2 skipped; 5 in all" in said
    assert "broken.jpg" in said
    assert "model: cskt-mini" in indexed.done.stderr


def test_search_prints_a_table_best_first(indexed, command_line):
    done = command_line("search", "a man in a zebra", "--gallery", indexed.place, "-k", "9")
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].split() == ["rank", "score", "identity", "camera", "time", "file"]
    scores = [float(line.split()[1]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True)
    assert str(indexed.folder / "0003.png") in done.stdout
    assert "zebra" in done.stderr
    assert "holds only 5 images" in done.stderr


def test_search_writes_a_contact_sheet(indexed, command_line, tmp_path):
    page = tmp_path / "out.html"
    query = "a <b>man</b> in a grey hoodie"
    command_line("search", query, "--gallery", indexed.place, "-k", "9", "--html", page)
    assert page.read_text().count("<figure>") == 5
    assert "<b>" not in page.read_text()


def test_search_filters_by_metadata(indexed, command_line):
    done = command_line("search", "a man", "--gallery", indexed.place, "--where", "camera == 'c4'")
    assert re.search(r"1 +\d\.\d+ +12 +c4 +- ", done.stdout)
    assert "Only 1 of the 5 images" in done.stderr


def test_search_by_a_picture(indexed, command_line):
    picture = indexed.folder / "0002.png"
    done = command_line("search", "--image", picture, "--gallery", indexed.place, "-k", "1")
    assert "1.000" in done.stdout
    assert "0002.png" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["search", "a man", "--gallery", "none.db"], "there is no gallery at none.db"),
        (["search", "--gallery", "none.db"], "give a description or --image"),
        (["index", "nowhere", "--gallery", "new.db"], "nowhere is not a folder"),
        (["index", ".", "--gallery", "new.db", "--model", "nowhere"], "nowhere holds no run"),
        (["index", ".", "--gallery", "new.db", "--index", "TREE"], "index must be one of"),
        (
            ["search", "a man", "--gallery", "none.db", "--html", "gone/out.html"],
            "name a file in a folder that exists",
        ),
        (
            ["search", "a man", "--gallery", "none.db", "--html", "."],
            "name a file in a folder that exists",
        ),
    ],
)
def test_bad_command_lines_get_one_line(tmp_path, command_line, arguments, message):
    done = command_line(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_names_that_are_no_text_do_not_reach_the_terminal(tmp_path, command_line):
    folder = folder_of(tmp_path / "in", 1)
    shutil.copy(folder / "0000.png", os.fsencode(folder) + b"/bad\xff.png")
    Image.fromarray(pictures(1, 3)[0]).save(folder / "red\x1b[31m\n.png")
    done = command_line("index", folder, "--gallery", "g.db")
    assert r"bad\udcff.png: its name is not text" in done.stdout
    assert "2 images added" in done.stdout
    done = command_line("search", "a man", "--gallery", "g.db")
    assert r"red\x1b[31m\n.png" in done.stdout
    assert "\x1b" not in done.stdout
