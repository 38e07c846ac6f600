"""One reader for data sets and galleries: what it makes of odd files, and what it refuses."""

import io
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from cskt.data.datasets import Split
from cskt.data.images import MAX_PIXELS, decode_image, on_all_cores, read_image
from cskt.data.loading import load_images
from cskt.errors import CSKTError, DataError
from cskt.search.indexing import prepare
from cskt.search.pictures import Item, Refusal, attempt

SIZE = (16, 8)
COLOURS = np.random.default_rng(0).integers(0, 256, (24, 12, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))


def split_of(path):
    return Split("test", (path,), np.arange(1), (), np.arange(0))


def as_gallery(path):
    """Pixels (3, H, W) as a gallery gives them to the model, or the reason against."""

    def decode(item):
        return prepare(item.digest(), item, SIZE).pixels

    outcome = attempt(decode)(Item(str(path), {}, path))
    return outcome.reason if isinstance(outcome, Refusal) else outcome


def save_grey16(path):
    grey = np.linspace(0, 65535, 24 * 12).reshape(24, 12)
    Image.fromarray(grey.astype(np.uint16)).save(path)


def save_on_its_side(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(path, exif=exif, quality=95, subsampling=0)


def save_palette(path):
    picture = Image.fromarray(COLOURS).quantize(16)
    picture.save(path, transparency=bytes(range(0, 160, 10)))


def save_animation(path):
    red = Image.new("RGB", (12, 24), "red")
    blue = Image.new("RGB", (12, 24), "blue")
    red.save(path, save_all=True, append_images=[blue])


def save_cmyk(path):
    Image.fromarray(COLOURS).convert("CMYK").save(path)


def save_one_pixel(path):
    Image.new("RGB", (1, 1), (3, 2, 1)).save(path)


def save_transparent(path):
    Image.fromarray(COLOURS).convert("RGBA").save(path)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("grey16.png", save_grey16),
        ("turned.jpg", save_on_its_side),
        ("palette.png", save_palette),
        ("moving.gif", save_animation),
        ("cmyk.jpg", save_cmyk),
        ("one.png", save_one_pixel),
        ("alpha.webp", save_transparent),
    ],
)
def test_odd_kinds_are_decoded_alike_for_data_sets_and_galleries(tmp_path, name, save):
    path = tmp_path / name
    save(path)
    images = load_images(split_of(path), SIZE)
    assert np.array_equal(images[0].numpy(), as_gallery(path))


def save_float(path):
    Image.new("F", (4, 4)).save(path)


def save_integer(path):
    Image.new("I", (4, 4)).save(path)


def save_lab(path):
    Image.new("LAB", (4, 4)).save(path)


def save_truncated(path):
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, "JPEG", quality=95)
    path.write_bytes(buffer.getvalue()[:-200])


def save_postscript(path):
    Image.fromarray(COLOURS).save(path, "EPS")


def save_bomb(path):
    Image.new("1", (MAX_PIXELS // 5000, 5001)).save(path)


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("float.tiff", save_float, "its pixels are of F"),
        ("integer.tiff", save_integer, "its pixels are of I"),
        ("lab.tiff", save_lab, "its pixels are of LAB"),
        ("cut.jpg", save_truncated, "cannot be read .*truncated"),
        ("drawing.png", save_postscript, "not an image"),
        ("huge.png", save_bomb, "too large .12800 x 5001 pixels, at most 64 million"),
    ],
)
def test_what_cannot_be_used_is_refused_alike_by_name_and_reason(tmp_path, name, save, message):
    path = tmp_path / name
    save(path)
    with pytest.raises(DataError, match=message) as caught:
        decode_image(path, SIZE)
    assert str(caught.value).startswith(f"image {path}: ")
    with pytest.raises(DataError, match=f"image {path}: "):
        load_images(split_of(path), SIZE)
    assert str(as_gallery(path)) in str(caught.value)


def test_a_missing_file_is_refused_by_name_and_reason(tmp_path):
    path = tmp_path / "gone.png"
    with pytest.raises(CSKTError, match=f"image {path}: cannot be read .*No such file"):
        decode_image(path, SIZE)
    with pytest.raises(CSKTError, match=f"image {path}: cannot be read .*No such file"):
        load_images(split_of(path), SIZE)


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    save_grey16(tmp_path / "deep.png")
    grey = np.asarray(read_image(tmp_path / "deep.png"))
    assert grey.dtype == np.uint8
    assert grey[0, 0] == 0
    assert grey[-1, -1] == 255
    assert abs(grey.mean() - 127.5) < 1


def test_a_photograph_on_its_side_is_turned_upright(tmp_path):
    save_on_its_side(tmp_path / "turned.jpg")
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.size == (24, 12)
    difference = np.asarray(upright).astype(int) - np.rot90(COLOURS, 3)
    assert np.abs(difference).mean() < 20


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    save_animation(tmp_path / "moving.gif")
    red, green, blue = decode_image(tmp_path / "moving.gif", SIZE)[:, 0, 0]
    assert red > 200
    assert green < 50
    assert blue < 50


@pytest.mark.parametrize(
    ("mode", "colour", "grey"), [("L", 77, 77), ("RGBA", (77, 77, 77, 10), 77), ("1", 1, 255)]
)
def test_gray_and_transparent_images_become_rgb(tmp_path, mode, colour, grey):
    Image.new(mode, (3, 3), colour).save(tmp_path / "image.png")
    pixels = decode_image(tmp_path / "image.png", SIZE)
    assert pixels.shape == (3, *SIZE)
    assert (pixels == grey).all()


def test_images_are_resized_bilinearly(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "image.png")
    height, width = SIZE
    expected = Image.fromarray(COLOURS).resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(decode_image(tmp_path / "image.png", SIZE).copy())
    assert torch.equal(pixels, torch.from_numpy(np.array(expected)).permute(2, 0, 1))


def test_reading_in_threads_leaves_the_warning_filters_alone(tmp_path):
    before = list(warnings.filters)
    for index in range(60):
        save_cmyk(tmp_path / f"{index}.jpg")
    with on_all_cores(read_image, sorted(tmp_path.glob("*.jpg"))) as images:
        assert len(list(images)) == 60
    assert warnings.filters == before


def test_work_in_threads_is_given_up_at_the_first_error():
    done = []

    def work(number):
        if number == 0:
            raise KeyError(number)
        time.sleep(0.001)  # else a busy machine may have done all of it before it looks
        done.append(number)

    with pytest.raises(KeyError), on_all_cores(work, range(100_000)) as results:
        next(results)
    assert len(done) < 99_999
