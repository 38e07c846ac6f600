"""What goes into a gallery: each content once, what is known of it, and why some is left out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cskt import CSKTError, Gallery
from cskt.data.datasets import Split
from cskt.data.images import MAX_PIXELS, decode_image
from cskt.search.indexing import Added
from cskt.search.pictures import read_metadata
from tests.galleries import (
    cut,
    features,
    folder_of,
    pictures,
    reasons,
)
from tests.tiny_runs import IMAGE_SIZE

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=7), min_size=1, max_size=3))
def test_the_same_content_is_there_once(gallery, calls):
    gallery.delete("id != ''")
    distinct = pictures(6, seed=3)
    asked: set[int] = set()
    for call in calls:
        gallery.add(distinct[call], batch_size=2)
        asked.update(call)
    assert len(gallery) == len(asked)


# Folders


def test_a_folder_and_what_is_below_it_are_added_batch_by_batch(tmp_path, model):
    folder = folder_of(tmp_path / "in", 3)
    (folder / "below").mkdir()
    Image.fromarray(pictures(1, 8)[0]).save(folder / "below" / "more.png")
    shutil.copy(folder / "0001.png", folder / "copy.png")
    (folder / ".hidden.txt").write_text("not even listed")
    done: list[tuple[int, int]] = []
    with Gallery(tmp_path / "g.db", model) as gallery:
        added = gallery.add(folder, batch_size=2, on_batch=lambda *numbers: done.append(numbers))
        assert added == Added(added=4, known=1)
        assert done == [(2, 5), (4, 5), (5, 5)]
        assert len(gallery) == 4


def test_a_folder_s_facts_are_by_the_path_below_it(tmp_path, model):
    folder = folder_of(tmp_path / "in", 2)
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(folder, {"0000.png": {"identity": 7, "camera": "c9"}})
        (known,) = gallery.search("coat", 9, "camera == 'c9'")
        assert known.identity == 7
        assert known.source == str(folder / "0000.png")


def test_what_is_no_whole_image_is_skipped_and_named(tmp_path, model):
    folder = folder_of(tmp_path / "in", 1)
    (folder / "note.txt").write_text("no image")
    (folder / "empty.jpg").touch()
    cut(folder / "0000.png", folder / "cut.png")
    Image.new("1", (MAX_PIXELS // 5000, 5001)).save(folder / "huge.png")
    with Gallery(tmp_path / "g.db", model) as gallery:
        added = gallery.add(folder)
    assert added.added == 1
    why = reasons(added)
    assert why.keys() == {"note.txt", "empty.jpg", "cut.png", "huge.png"}
    assert why["note.txt"] == why["empty.jpg"] == "not an image"
    assert why["huge.png"].startswith("too large")
    assert why["cut.png"].startswith("cannot be read")


def test_a_photograph_s_own_rotation_is_read(tmp_path, model):
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright = pictures(1, 9)[0]
    on_its_side = Image.fromarray(upright.transpose(1, 0, 2)[::-1].copy())
    on_its_side.save(folder / "turned.jpg", exif=exif, quality=95)
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(folder)
        (turned,) = gallery.search(Image.open(folder / "turned.jpg").rotate(270, expand=True), 1)
        assert turned.score > 0.999
        assert turned.image().size == IMAGE_SIZE[::-1]


def test_links_pipes_and_other_galleries_are_no_images_of_a_folder(tmp_path, model):
    folder = folder_of(tmp_path / "in", 2)
    with Gallery(folder / "other.db", model) as other, Gallery(folder / "g.db", model) as gallery:
        other.add(pictures(3, 4))
        (folder / "link").symlink_to(tmp_path)
        os.mkfifo(folder / "pipe")
        added = gallery.add(folder)
        assert (added.added, added.known) == (2, 0)
        why = reasons(added)
        assert why.keys() == {"link", "pipe"}
        assert "not followed" in why["link"]
        assert gallery.add(folder) == Added(0, 2, added.skipped)


def test_copies_of_a_broken_file_are_all_named(tmp_path, model):
    folder = folder_of(tmp_path / "in", 1)
    cut(folder / "0000.png", folder / "cut.png")
    cut(folder / "0000.png", folder / "cut too.png")
    with Gallery(tmp_path / "g.db", model) as gallery:
        why = reasons(gallery.add(folder))
    assert why.keys() == {"cut.png", "cut too.png"}
    assert why["cut.png"] == why["cut too.png"]


# Odd pictures


@pytest.mark.numerics
def test_16_bits_are_neither_clipped_nor_refused(tmp_path, model):
    ramp = np.linspace(0, 65535, 32 * 16).reshape(IMAGE_SIZE)
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(ramp.astype(np.uint16)).save(folder / "deep.png")
    grey = (ramp / 257).round().astype(np.uint8)
    in_8_bits = np.repeat(grey[..., None], 3, axis=2)
    expected = features(model, in_8_bits[None])
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(folder)
        (deep,) = gallery.search(expected[0], 1)
    assert deep.score > 0.999


def test_other_colour_spaces_are_read_and_numbers_and_programs_are_not(tmp_path, model):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.zeros(IMAGE_SIZE, np.float32)).save(folder / "float.tiff")
    Image.fromarray(pictures(1)[0]).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    Image.fromarray(pictures(1, 1)[0]).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(pictures(1, 2)[0]).save(folder / "drawing.eps")
    with Gallery(tmp_path / "g.db", model) as gallery:
        added = gallery.add(folder)
    why = reasons(added)
    assert added.added == 2
    assert why.keys() == {"float.tiff", "drawing.eps"}
    assert why["drawing.eps"] == "not an image"
    assert "pixels are of F" in why["float.tiff"]


def test_pictures_that_differ_only_in_their_palette_are_two(tmp_path, model):
    first = Image.new("P", IMAGE_SIZE[::-1], 1)
    second = first.copy()
    first.putpalette([0, 0, 0, 255, 0, 0])
    second.putpalette([0, 0, 0, 0, 0, 255])
    with Gallery(tmp_path / "g.db", model) as gallery:
        assert gallery.add([first, second]).added == 2


# Splits and vectors


@pytest.mark.numerics
def test_a_split_gives_what_evaluation_gives(tmp_path, model):
    folder = folder_of(tmp_path / "in", 4, (40, 20))
    paths = tuple(sorted(folder.iterdir()))
    split = Split(
        name="test",
        image_paths=paths,
        image_identities=np.array([3, 3, 5, 5]),
        captions=("a", "b"),
        caption_images=np.array([0, 2]),
        cameras=("c1", "c2", "c1", "c2"),
    )
    pixels = np.stack([decode_image(path, IMAGE_SIZE) for path in paths]).transpose(0, 2, 3, 1)
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.add(split)
        hits = gallery.search(features(model, pixels)[2], 4)
    assert hits[0].source == str(paths[2])
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert {(Path(hit.source).name, hit.identity, hit.camera) for hit in hits} == {
        ("0000.png", 3, "c1"),
        ("0001.png", 3, "c2"),
        ("0002.png", 5, "c1"),
        ("0003.png", 5, "c2"),
    }


@pytest.mark.numerics
def test_vectors_computed_elsewhere_are_there_once(tmp_path, model):
    vectors = features(model, pictures(6))
    facts = []
    for i in range(6):
        facts.append({"source": f"{i}.png", "camera": f"c{i % 2}"})
    with Gallery(tmp_path / "g.db", model) as gallery:
        assert gallery.add_vectors(5 * vectors, facts) == 6
        assert len(gallery) == 6
        assert gallery.add_vectors(5 * vectors, facts) == 0
        (hit,) = gallery.search(pictures(6)[3], 1, "camera == 'c1'")
    assert hit.source == "3.png"
    assert hit.thumbnail is None
    assert hit.score == pytest.approx(1, abs=1e-4)


def test_unfit_vectors_get_a_sentence(gallery, model):
    vectors = features(model, pictures(6))
    facts = [{"source": f"{i}.png"} for i in range(6)]
    for unfit, message in [
        (vectors[:2], r"\(6, 16\).*\(2, 16\)"),
        (vectors[:, :3], "16"),
        (vectors * np.nan, "finite"),
        (vectors * 0, "all 0"),
    ]:
        with pytest.raises(CSKTError, match=message):
            gallery.add_vectors(unfit, facts)
    assert len(gallery) == 12


# Metadata


@pytest.mark.parametrize(
    "images, message",
    [
        (pictures(1)[0], r"\(N, H, W, 3\)"),
        ("nowhere", "not a folder"),
        ([], "nothing to add"),
    ],
)
def test_what_is_no_image_at_all_gets_a_sentence(gallery, images, message):
    with pytest.raises(CSKTError, match=message):
        gallery.add(images)
    assert len(gallery) == 12


def test_among_images_anything_else_is_skipped(gallery):
    assert "got int" in gallery.add([3]).skipped["image 0"]


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"identity": "x"}, "identity of image 0"),
        ({"identity": 7.5}, "identity of image 0"),
        ({"identity": 10**30}, "64 bits"),
        ({"identity": float("inf")}, "64 bits"),
        ({"camera": "c" * 300}, "camera of image 0 must have at most 256"),
        ({"time": "t" * 65}, "time of image 0"),
        ({"$meta": 1}, r"\$meta"),
        ({"vector": 1}, "called vector"),
        ({"id": 1}, "called id"),
        ({"thumbnail": "x"}, "called thumbnail"),
        ({"colour": {1, 2}}, "cannot be stored"),
    ],
)
def test_facts_that_cannot_be_stored_get_a_sentence(gallery, facts, message):
    with pytest.raises(CSKTError, match=message):
        gallery.add(pictures(1, 8), [facts])
    assert len(gallery) == 12


def test_metadata_of_another_kind_or_length_get_a_sentence(gallery, tmp_path):
    folder = folder_of(tmp_path / "in", 1)
    for images, metadata, message in [
        (pictures(2), [{}], "got 1 for 2"),
        (pictures(2), {"image 0": {}}, "one mapping per image"),
        (folder, [{}], "mapping from its files"),
        (folder, {"9.png": {}}, "1 files that are not in .* such as 9.png"),
        (folder, {"0000.png": {}, "./0000.png": {}}, "0000.png twice"),
        (folder, {"0000.png": {"source": "x"}}, "say a source"),
        (folder, {"0000.png": {"identity": "y"}}, "identity of .*0000.png .* got 'y'"),
    ]:
        with pytest.raises(CSKTError, match=message):
            gallery.add(images, metadata)
    assert len(gallery) == 12


def test_metadata_from_a_table(tmp_path, gallery):
    table = tmp_path / "facts.csv"
    table.write_text("file,identity,camera,colour\n0000.png,7,c1,red\n0001.png,,c2,\n")
    facts = read_metadata(table)
    assert facts == {
        "0000.png": {"identity": "7", "camera": "c1", "colour": "red"},
        "0001.png": {"camera": "c2"},
    }
    gallery.add(folder_of(tmp_path / "in", 2), facts)
    assert gallery.search("coat", 9, "colour == 'red'")[0].identity == 7


def test_a_table_may_have_a_byte_order_mark_and_blanks(tmp_path):
    table = tmp_path / "facts.csv"
    table.write_bytes("\ufefffile, camera\n0000.png, c1\n".encode())
    assert read_metadata(table) == {"0000.png": {"camera": "c1"}}


@pytest.mark.parametrize(
    "content, message",
    [
        ("a,b\n1,2\n", "column 'file'"),
        ("", "column 'file'"),
        ("file\na\na\n", "names a twice"),
        ("file,camera\na.png,c1,hall\n", "cannot be read as a csv file"),
        ('file\n"a.png', "cannot be read as a csv file"),
    ],
)
def test_a_bad_table_gets_a_sentence(tmp_path, content, message):
    table = tmp_path / "facts.csv"
    table.write_text(content)
    with pytest.raises(CSKTError, match=message):
        read_metadata(table)


def test_a_table_is_not_fetched_from_the_network():
    with pytest.raises(CSKTError, match="http"):
        read_metadata("http://127.0.0.1:9/facts.csv")


def test_a_full_disk_is_named_and_the_call_can_be_repeated(gallery, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CSKTError, match="No space left.*repeat the call"):
        gallery.add(pictures(3, seed=5))
    monkeypatch.undo()
    assert gallery.add(pictures(3, seed=5)).added == 3
