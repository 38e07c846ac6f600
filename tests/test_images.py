"""From files to arrays: one reader for data sets and galleries, and a cache never stale or in
parts."""

import dataclasses
import io
import multiprocessing
import os
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cskt.data import images as reader
from cskt.data.benchmarks import Split
from cskt.data.images import MAX_PIXELS, decode_image, load_images, read_image, stale_caches
from cskt.errors import CSKTError
from cskt.indexing import prepare
from cskt.pictures import Item, Refusal, attempt

SIZE = (16, 8)
COLOURS = np.random.default_rng(0).integers(0, 256, (24, 12, 3), dtype=np.uint8)


def make_split(folder, count=5):
    paths = []
    for i in range(count):
        paths.append(folder / f"cam{i % 2}" / f"{i}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    return Split("train", tuple(paths), np.arange(count), ("a",) * count, np.arange(count))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def held(cache):
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_images_are_decoded_resized_and_cached_once(tmp_path, cache, monkeypatch):
    split = make_split(tmp_path)
    images = load_images(split, SIZE)
    assert images.shape == (5, 3, *SIZE) and images.dtype == torch.uint8
    expected = Image.open(split.image_paths[3]).resize((8, 16), Image.Resampling.BILINEAR)
    assert torch.equal(images[3], torch.from_numpy(np.array(expected)).permute(2, 0, 1))
    monkeypatch.setattr(reader, "decode_image", None)  # a second call must not decode
    images[0] = 0  # private to this tensor
    assert load_images(split, SIZE)[0].any()
    assert len(held(cache)) == 1


def test_gray_and_transparent_images_become_rgb(tmp_path, cache):
    for mode, colour in (("L", 77), ("RGBA", (77, 77, 77, 10)), ("1", 1)):
        Image.new(mode, (3, 3), colour).save(tmp_path / f"{mode}.png")
    split = Split(
        "val",
        tuple(tmp_path / f"{mode}.png" for mode in ("L", "RGBA", "1")),
        np.arange(3),
        (),
        np.arange(0),
    )
    assert load_images(split, SIZE)[:, :, 0, 0].tolist() == [[77] * 3, [77] * 3, [255] * 3]


def test_cache_is_keyed_on_data_split_images_and_size(tmp_path, cache):
    split = make_split(tmp_path)
    part = Split("train", split.image_paths[2:4], np.arange(2), (), np.arange(0))
    other = Split("train", split.image_paths[1:3], np.arange(2), (), np.arange(0))
    for which, size in (
        (split, SIZE),
        (dataclasses.replace(split, fingerprint="g"), SIZE),
        (dataclasses.replace(split, name="val"), SIZE),
        (split, (8, 8)),
        (part, SIZE),
        (other, SIZE),
    ):
        load_images(which, size)
    assert len(held(cache)) == 6
    assert torch.equal(load_images(part, SIZE), load_images(split, SIZE)[2:4])


def write_bitmaps(folder, seed, count=60, time=1_000_000_000):
    """A split of bitmaps, all of one size in bytes and of one modification time."""
    folder.mkdir(exist_ok=True)
    generator, paths = np.random.default_rng(seed), []
    for i in range(count):
        pixels = generator.integers(0, 256, (20, 10, 3), dtype=np.uint8)
        paths.append(folder / f"{i}.bmp")
        Image.fromarray(pixels).save(paths[-1])
        os.utime(paths[-1], ns=(time, time))
    return Split("test", tuple(paths), np.arange(count), (), np.arange(0))


def decoded(split):
    return torch.tensor(np.stack([decode_image(path, SIZE) for path in split.image_paths]))


def test_two_data_sets_that_agree_in_names_sizes_and_times_share_nothing(tmp_path, cache):
    one, two = write_bitmaps(tmp_path / "one", 1), write_bitmaps(tmp_path / "two", 2)
    assert not torch.equal(load_images(one, SIZE), load_images(two, SIZE))
    assert torch.equal(load_images(one, SIZE), decoded(one))
    assert torch.equal(load_images(two, SIZE), decoded(two))


def test_replaced_images_of_equal_size_are_decoded_anew(tmp_path, cache):
    split = write_bitmaps(tmp_path / "data", 1)
    before = load_images(split, SIZE).clone()
    write_bitmaps(tmp_path / "data", 2, time=1_000_000_001)  # a nanosecond later
    after = load_images(split, SIZE)
    assert not torch.equal(after, before) and torch.equal(after, decoded(split))
    write_bitmaps(tmp_path / "data", 3, count=1, time=5)  # older than what it replaces
    assert torch.equal(load_images(split, SIZE), decoded(split))


def test_a_data_set_is_one_by_whichever_way_it_is_reached(tmp_path, cache, monkeypatch):
    split = write_bitmaps(tmp_path / "data", 1, count=3)
    load_images(split, SIZE)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "link", Path("data")):
        paths = tuple(folder / path.name for path in split.image_paths)
        load_images(dataclasses.replace(split, image_paths=paths), SIZE)
    assert len(held(cache)) == 1


def test_stale_caches_are_those_in_use_that_differ_from_the_files(tmp_path, cache):
    split = write_bitmaps(tmp_path / "data", 1, count=5)
    assert list(stale_caches(split)) == []
    load_images(split, SIZE)
    load_images(split, (8, 4))
    load_images(write_bitmaps(tmp_path / "other", 4, count=5), SIZE)
    (cache / "mine.npy").touch()
    assert [different for _, different in stale_caches(split)] == [[], []]
    write_bitmaps(tmp_path / "data", 2, count=2)  # neither the size nor the time tells
    assert torch.equal(load_images(split, SIZE)[2:], decoded(split)[2:])
    for path, different in stale_caches(split):
        assert path.parent == cache and different == list(split.image_paths[:2])
        path.unlink()
    assert torch.equal(load_images(split, SIZE), decoded(split))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"0",
        lambda content: b"",
        lambda content: content[:40],
        lambda content: b"junk" + content[4:],
        lambda content: content.replace(b"(5, 3, 16, 8)", b"(5, 3, 8, 16)"),
        lambda content: content.replace(b"|u1", b"|i1"),
    ],
)
def test_a_damaged_cache_is_rebuilt(tmp_path, cache, damage):
    split = make_split(tmp_path)
    expected = load_images(split, SIZE).clone()
    (file,) = held(cache)
    file.write_bytes(damage(file.read_bytes()))
    assert torch.equal(load_images(split, SIZE), expected)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_corrupt_image_is_named_and_leaves_no_cache(tmp_path, cache, content):
    split = make_split(tmp_path)
    whole = split.image_paths[2].read_bytes()
    split.image_paths[2].write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CSKTError, match="image .*cam0/2.jpg: .*; restore it"):
        load_images(split, SIZE)
    assert held(cache) == []
    split.image_paths[2].write_bytes(whole)
    assert load_images(split, SIZE).shape[0] == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_build_leaves_nothing(tmp_path, cache, monkeypatch, error):
    split, decode = make_split(tmp_path), reader.decode_image

    def interrupted(path, image_size):
        if path == split.image_paths[3]:
            raise error
        return decode(path, image_size)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(reader, "decode_image", interrupted)
        load_images(split, SIZE)
    assert held(cache) == []
    assert load_images(split, SIZE).shape[0] == 5


def test_the_cache_appears_only_when_it_is_whole(tmp_path, cache, monkeypatch):
    def refused(source, target):
        assert Path(source).stat().st_size > 5 * 3 * 16 * 8 and not Path(target).exists()
        raise OSError("disk gone")

    with (
        monkeypatch.context() as patch,
        pytest.raises(CSKTError, match="cannot be written .disk gone"),
    ):
        patch.setattr(os, "replace", refused)
        load_images(make_split(tmp_path), SIZE)
    assert held(cache) == []


def test_what_a_killed_build_left_is_never_used(tmp_path, cache, monkeypatch):
    split, expected = make_split(tmp_path), load_images(make_split(tmp_path), SIZE).clone()
    (file,) = held(cache)
    content, left = file.read_bytes()[:200], []

    def killed(source, target):
        left.append(
            Path(source).rename(f"{source}.left")
        )  # what clean-up after the error cannot reach
        left[0].write_bytes(content)
        raise KeyboardInterrupt

    file.unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        load_images(split, SIZE)
    left[0].rename(str(left[0]).removesuffix(".left"))  # under the very name its builder gave it
    assert torch.equal(load_images(split, SIZE), expected) and file.is_file()


def test_a_cache_that_cannot_be_written_names_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "file"))
    with pytest.raises(CSKTError, match="set CSKT_CACHE to another folder"):
        load_images(make_split(tmp_path), SIZE)
    with pytest.raises(CSKTError, match="split 'train' has no images"):
        load_images(Split("train", (), np.arange(0), (), np.arange(0)), SIZE)


def test_a_full_disk_says_how_much_is_missing(tmp_path, cache, monkeypatch):
    """Before anything is decoded: 5 images of 3 x 512 x 512 take 3.9 MB."""
    monkeypatch.setattr(reader.shutil, "disk_usage", lambda folder: SimpleNamespace(free=932_160))
    with pytest.raises(
        CSKTError, match="it takes 4 MB and 3 MB of that are missing.; free space there"
    ):
        load_images(make_split(tmp_path), (512, 512))
    assert held(cache) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_build_the_same_cache(tmp_path, cache, monkeypatch):
    """Forked, so that neither imports torch again; they start together, and only one decodes."""
    split, context = make_split(tmp_path), multiprocessing.get_context("fork")
    meeting, replace, results, built = (
        context.Barrier(2),
        os.replace,
        context.SimpleQueue(),
        context.Value("i", 0),
    )

    def replace_slowly(source, target):
        built.value += 1
        time.sleep(0.5)
        replace(source, target)

    def build():
        meeting.wait(60)
        results.put(load_images(split, SIZE).numpy().tobytes())

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_slowly)
        builders = [context.Process(target=build) for _ in range(2)]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join(120)
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert {results.get(), results.get()} == {load_images(split, SIZE).numpy().tobytes()}
    assert len(held(cache)) == built.value == 1


# The odd kinds: a data set and a gallery see the same


def sixteen_bits(path):
    Image.fromarray(np.linspace(0, 65535, 24 * 12).reshape(24, 12).astype(np.uint16)).save(path)


def on_its_side(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(path, exif=exif, quality=95, subsampling=0)


def palette(path):
    picture = Image.fromarray(COLOURS).quantize(16)
    picture.save(path, transparency=bytes(range(0, 160, 10)))


def animation(path):
    frames = [Image.new("RGB", (12, 24), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def truncated(path):
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, "JPEG", quality=95)
    path.write_bytes(buffer.getvalue()[:-200])


def bomb(path):
    Image.new("1", (MAX_PIXELS // 5000, 5001)).save(path)


def as_gallery(path):
    """Pixels (3, H, W) as a gallery gives them to the model, or the reason against."""

    def decode(item):
        return prepare(item.digest(), item, SIZE).pixels

    outcome = attempt(decode)(Item(str(path), {}, path))
    return outcome.reason if isinstance(outcome, Refusal) else outcome


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("grey16.png", sixteen_bits),
        ("turned.jpg", on_its_side),
        ("palette.png", palette),
        ("moving.gif", animation),
        ("cmyk.jpg", lambda path: Image.fromarray(COLOURS).convert("CMYK").save(path)),
        ("one.png", lambda path: Image.new("RGB", (1, 1), (3, 2, 1)).save(path)),
        ("alpha.webp", lambda path: Image.fromarray(COLOURS).convert("RGBA").save(path)),
    ],
)
def test_odd_kinds_are_decoded_alike(tmp_path, cache, name, make):
    make(tmp_path / name)
    (from_data,) = load_images(
        Split("test", (tmp_path / name,), np.arange(1), (), np.arange(0)), SIZE
    )
    assert np.array_equal(from_data.numpy(), as_gallery(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("float.tiff", lambda path: Image.new("F", (4, 4)).save(path), "its pixels are of F"),
        ("integer.tiff", lambda path: Image.new("I", (4, 4)).save(path), "its pixels are of I"),
        ("lab.tiff", lambda path: Image.new("LAB", (4, 4)).save(path), "its pixels are of LAB"),
        ("cut.jpg", truncated, "cannot be read .*truncated"),
        ("drawing.png", lambda path: Image.fromarray(COLOURS).save(path, "EPS"), "not an image"),
        ("huge.png", bomb, "too large .12800 x 5001 pixels, at most 64 million"),
        ("gone.png", lambda path: None, "cannot be read .*No such file"),
    ],
)
def test_refused_alike_by_name_and_reason(tmp_path, cache, name, make, message):
    path = tmp_path / name
    make(path)
    with pytest.raises(CSKTError, match=message) as caught:
        decode_image(path, SIZE)
    assert str(caught.value).startswith(f"image {path}: ")
    with pytest.raises(CSKTError, match=f"image {path}: "):
        load_images(Split("test", (path,), np.arange(1), (), np.arange(0)), SIZE)
    if path.exists():
        assert as_gallery(path) in str(caught.value)


def test_what_the_odd_kinds_show(tmp_path):
    """16 bits are scaled, not clipped; a photograph on its side stands; of an animation it is the
    first."""
    for name, make in (
        ("deep.png", sixteen_bits),
        ("turned.jpg", on_its_side),
        ("moving.gif", animation),
    ):
        make(tmp_path / name)
    deep = np.asarray(read_image(tmp_path / "deep.png"))
    assert deep.dtype == np.uint8 and (deep[0, 0], deep[-1, -1]) == (0, 255)
    assert abs(deep.mean() - 127.5) < 1
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.size == (24, 12)
    assert np.abs(np.asarray(upright).astype(int) - np.rot90(COLOURS, 3)).mean() < 20
    red, green, blue = decode_image(tmp_path / "moving.gif", SIZE)[:, 0, 0]
    assert red > 200 and green < 50 and blue < 50


def test_reading_in_threads_leaves_the_warning_filters_alone(tmp_path, cache):
    before = list(warnings.filters)
    load_images(write_bitmaps(tmp_path / "data", 1), SIZE)
    assert warnings.filters == before
