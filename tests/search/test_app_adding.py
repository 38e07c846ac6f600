"""The search demo and folders: what is added to every gallery, and what is said of it."""

from __future__ import annotations

import pytest
from PIL import Image

from cskt.search import app
from cskt.search.gallery import Gallery
from tests.demos import IMAGES, QUERY, cards, close, ids, panel, png, said, small_models

pytestmark = pytest.mark.slow


@pytest.fixture
def growing(tmp_path):
    """A demo of two galleries with three images each, which has searched, and a folder to add."""
    folder = tmp_path / "more"
    folder.mkdir()
    good = png(Image.fromarray(IMAGES[0]))
    (folder / "good.png").write_bytes(good)
    (folder / "cut.png").write_bytes(good[:600])
    (folder / "<i>notes.txt").write_text("text")
    galleries = {}
    for name, model in small_models(patch_size=16).items():
        galleries[name] = Gallery(tmp_path / f"{name}.db", model)
        galleries[name].add(IMAGES[1:4], [{"camera": "c1"}] * 3)
    shown = app.RetrievalDemo(galleries)
    shown.ask(QUERY)
    yield shown, folder
    close(galleries)


def test_a_folder_is_added_to_every_gallery(growing):
    shown, folder = growing
    progress = []
    shown.message.observe(lambda change: progress.append(said(shown)), names="value")
    shown.folder.value = f" {folder} "
    shown.adder.click()
    assert "CSKT: 3 of 3 files read …" in progress
    assert "zero-shot: 3 of 3 files read …" in progress
    assert [len(gallery) for gallery in shown.galleries.values()] == [4, 4]
    assert len(ids(shown)) == 4
    assert not shown.adder.disabled


def test_what_was_skipped_of_a_folder_is_named_as_text(growing):
    shown, folder = growing
    shown.add(str(folder))
    lines = said(shown).split("\n")
    assert len(lines) == 3
    assert lines[0] == "1 images added, 0 known already, 2 files skipped."
    assert "cut.png: cannot be read" in said(shown)
    assert "notes.txt: not an image." in said(shown)
    assert "<i>" not in shown.message.value
    shown.add(str(folder))
    assert said(shown).startswith("0 images added, 1 known already, 2 files skipped.")


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("", "name a folder"),
        ("  ", "name a folder"),
        ("gone", "is not a folder"),
        ("more/good.png", "is not a folder"),
    ],
)
def test_what_is_no_folder_gets_a_sentence(growing, tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    shown, _ = growing
    shown.folder.value = name
    shown.adder.click()
    assert said(shown).startswith("Not done: ")
    assert sentence in said(shown)
    assert len(ids(shown)) == 3
    assert not shown.adder.disabled


def test_a_hit_that_one_gallery_has_lost_is_explained_by_the_other(growing):
    shown, _ = growing
    gone = cards(shown)[0].hit
    shown.galleries["zero-shot"].delete(f"id == '{gone.id}'")
    shown.explain(gone)
    assert "no longer in the gallery" in panel(shown, "zero-shot")
    assert "similarity" in panel(shown, "CSKT")
    before = ids(shown)
    shown.ask(gone)
    assert "no longer in the gallery" in said(shown)
    assert ids(shown) == before
