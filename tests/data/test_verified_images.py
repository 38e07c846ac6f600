"""Checking the images of small hand-made copies: missing, damaged, listed or stored twice."""

import os
import shutil

import pytest
from PIL import EpsImagePlugin, Image

from cskt.data.datasets import load_dataset
from cskt.data.findings import Finding
from cskt.data.loading import load_images
from cskt.errors import DataError
from tests.annotations import FILE, image_name, records, write
from tests.copies import COUNTS, NAME, copy, places, published, verify

__all__ = ["copy", "published"]  # fixtures


@pytest.mark.parametrize("name", list(FILE))
def test_missing_images_are_grouped_by_folder(tmp_path, published, name):
    folder = write(tmp_path, records(name), FILE[name])
    shutil.rmtree(folder / "imgs" / "cam1")
    report = verify(name, folder)
    message = (
        "missing images: 3 (1.png, 3.png, 5.png), looked for without imgs/ too; "
        "unpack the folder again"
    )
    assert report.faults == (Finding("missing", "imgs/cam1", message),)
    assert report.counts == COUNTS  # the records are there


def test_of_many_missing_images_ten_are_named(tmp_path):
    entries = []
    for index in range(12):
        entries.append({**records()[0], "file_path": f"Market/{index:02}.png"})
    report = verify("SynthPEDES-A", write(tmp_path, entries))
    (missing,) = [finding for finding in report.faults if finding.kind == "missing"]
    assert missing.where == "imgs/Market"
    assert "missing images: 12 (00.png, 01.png, " in missing.message
    assert "09.png, ...)" in missing.message
    assert "10.png" not in missing.message


@pytest.mark.parametrize("deep", [False, True])
def test_an_image_of_zero_bytes_is_found_without_opening_the_others(copy, deep):
    folder = copy()
    (folder / "imgs/cam0/2.png").write_bytes(b"")
    report = verify(NAME, folder, deep=deep)
    message = "has 0 bytes; restore it from the original archive"
    assert report.faults == (Finding("image", "imgs/cam0/2.png", message),)


def halved(content):
    return content[: len(content) // 2]


def replaced(content):
    return b"<html>404</html>"


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        ("jpg", halved, "cannot be read (image file is truncated"),
        ("png", halved, "cannot be read ("),
        ("png", replaced, "not an image"),
    ],
)
def test_damaged_images_are_found_by_deep_alone(copy, suffix, damage, message):
    folder = copy(4, file_path=f"large.{suffix}")
    image = folder / "imgs" / f"large.{suffix}"
    Image.effect_noise((96, 192), 80).convert("RGB").save(image)
    assert verify(NAME, folder, deep=True).faults == ()
    image.write_bytes(damage(image.read_bytes()))
    assert verify(NAME, folder).faults == ()
    (fault,) = verify(NAME, folder, deep=True).faults
    assert (fault.kind, fault.where) == ("image", f"imgs/large.{suffix}")
    assert fault.message.startswith(message)
    assert fault.message.endswith("; restore it from the original archive")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 16\nshowpage\n"


@pytest.mark.parametrize("name", [NAME, "my people"])
def test_no_format_that_starts_a_program_is_opened(copy, name, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", None)  # would be called
    folder = copy()
    (folder / "imgs/cam0/4.png").write_bytes(EPS)
    (fault,) = verify(name, folder, deep=True).faults
    assert fault.message == "not an image; restore it from the original archive"
    with pytest.raises(DataError, match="4.png: not an image"):
        load_images(load_dataset(name, folder).test, (8, 4))


def test_images_of_too_many_pixels_are_not_decoded(copy):
    folder = copy()
    Image.new("1", (13_000, 13_000)).save(folder / "imgs/cam0/4.png")  # 169 million
    (fault,) = verify(NAME, folder, deep=True).faults
    assert fault.message.startswith("too large (13000 x 13000 pixels, at most 64 million)")
    with pytest.raises(DataError, match="4.png: too large"):
        load_images(load_dataset(NAME, folder).test, (8, 4))


def copy_with_duplicate(folder, one, other):
    """The copy with image ``one`` in place of image ``other`` too; how that is told."""
    names = [f"imgs/{image_name(index)}" for index in (one, other)]
    shutil.copy(folder / names[0], folder / names[1])
    return f"the same file: {', '.join(names)}"


@pytest.mark.parametrize("deep", [False, True])
def test_duplicate_files_of_one_person_are_a_note(copy, deep):
    folder = copy()
    told = copy_with_duplicate(folder, 0, 2)
    report = verify(NAME, folder, deep=deep)
    message = f"{told} (identity 40); keep one of them"
    assert report.faults == ()
    assert report.notes == (Finding("duplicate", "train", message),)


@pytest.mark.parametrize(
    ("one", "other", "splits", "people"),
    [
        (0, 1, "train", "7, 40"),
        (4, 5, "test", "12500, 12501"),
        (0, 4, "train, test", "40, 12500"),
        (1, 3, "train, val", "7, 11500"),
        (3, 5, "val, test", "11500, 12501"),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_duplicate_files_of_two_people_or_splits_are_a_fault(
    copy, one, other, splits, people, deep
):
    folder = copy()
    told = copy_with_duplicate(folder, one, other)
    report = verify(NAME, folder, deep=deep)
    message = f"{told} (identity {people}); keep one of them"
    assert report.faults == (Finding("duplicate", splits, message),)
    assert report.notes == ()


def test_files_of_equal_size_and_different_content_are_no_duplicates(copy):
    folder = copy()
    content = (folder / "imgs/cam0/0.png").read_bytes()
    other = content[:-1] + bytes([content[-1] ^ 1])
    (folder / "imgs/cam0/4.png").write_bytes(other)
    assert verify(NAME, folder).faults == ()


LISTED_TWICE = Finding("path", "imgs/cam0/0.png", "listed by records 0, 2; merge them into one")


def test_an_image_listed_twice_of_one_person_is_a_note(copy):
    """An official annotation is said to do so."""
    report = verify(NAME, copy(2, file_path="cam0/0.png"))
    assert LISTED_TWICE in report.notes
    assert report.faults == ()


def test_an_image_listed_twice_of_two_people_is_a_fault(copy):
    report = verify(NAME, copy(2, file_path="cam0/0.png", id=77))
    assert LISTED_TWICE in report.faults


def overwrite_unnoticed(image, content):
    """Replace an image by as many bytes and keep its modification time."""
    state = image.stat()
    assert len(content) <= state.st_size
    image.write_bytes(content.ljust(state.st_size, b"\0"))  # after the end, which nobody reads
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))


def black_of_the_size_of(image, folder):
    """The content of a black image file."""
    black = folder / "black.png"
    Image.new("RGB", Image.open(image).size, "black").save(black)
    return black.read_bytes()


def test_deep_compares_the_image_cache_with_the_files(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    folder = copy()
    test = load_dataset(NAME, folder).test
    load_images(test, (8, 4))
    assert verify(NAME, folder, deep=True).faults == ()
    image = test.image_paths[1]
    overwrite_unnoticed(image, black_of_the_size_of(image, tmp_path))
    assert verify(NAME, folder).faults == ()
    (fault,) = verify(NAME, folder, deep=True).faults
    assert (fault.kind, fault.where) == ("cache", "test")
    told = "holds other pixels than the files: 1 (imgs/cam1/5.png); remove it"
    assert told in fault.message


def test_an_image_that_no_longer_decodes_is_told_once(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    folder = copy()
    test = load_dataset(NAME, folder).test
    load_images(test, (8, 4))
    overwrite_unnoticed(test.image_paths[1], b"0")
    assert places(verify(NAME, folder, deep=True).faults) == [("image", "imgs/cam1/5.png")]


def test_progress_wraps_the_long_loops(copy):
    loops = []

    def progress(items, description, total):
        loops.append((description, total))
        return items

    verify(NAME, copy(), deep=True, progress=progress)
    assert loops == [("captions", 6), ("images", 6)]
