"""The order of training's batches, and the cache of decoded images: never stale, never in parts."""

import dataclasses
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cskt.data import loading
from cskt.data.datasets import Split
from cskt.data.images import decode_image
from cskt.data.loading import batches, load_images, stale_caches
from cskt.errors import ConfigurationError, DataError, ResourceError

SIZE = (16, 8)


@given(st.integers(0, 60), st.integers(2, 20), st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_batches_hold_every_caption_once_but_a_last_one_alone(count, size, seed, epoch):
    drawn = [batch.tolist() for batch in batches(count, size, seed, epoch)]
    assert all(len(batch) == size for batch in drawn[:-1])
    captions = sum(drawn, [])
    assert len(set(captions)) == len(captions) == count - (count % size == 1)
    assert set(captions) <= set(range(count))


def epoch_order(seed, epoch):
    return torch.cat(list(batches(50, 8, seed, epoch))).tolist()


def test_batches_are_shuffled_by_seed_and_epoch():
    assert epoch_order(1, 2) == epoch_order(1, 2)
    orders = set()
    for seed in range(3):
        for epoch in range(3):
            orders.add(tuple(epoch_order(seed, epoch)))
    assert len(orders) == 9


def test_a_batch_holds_at_least_two_pairs():
    with pytest.raises(ConfigurationError, match="batch_size must be at least 2"):
        list(batches(5, 1, 0, 0))


# The cache of decoded images


def split_of(paths, name="train"):
    return Split(name, tuple(paths), np.arange(len(paths)), (), np.arange(0))


def make_split(folder, count=5):
    paths = []
    for index in range(count):
        path = folder / f"cam{index % 2}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (20 + index, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return split_of(paths)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def files_in(cache):
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_images_are_decoded_once(tmp_path, cache, monkeypatch):
    split = make_split(tmp_path)
    images = load_images(split, SIZE)
    assert images.shape == (5, 3, *SIZE)
    assert images.dtype == torch.uint8
    assert torch.equal(images, decoded(split))
    monkeypatch.setattr(loading, "decode_image", None)  # a second call must not decode
    assert torch.equal(load_images(split, SIZE), images)
    assert len(files_in(cache)) == 1


def test_writing_to_the_images_leaves_the_cache_alone(tmp_path, cache):
    split = make_split(tmp_path)
    images = load_images(split, SIZE)
    images[0] = 0
    assert load_images(split, SIZE)[0].any()


def test_cache_is_keyed_on_data_split_images_and_size(tmp_path, cache):
    split = make_split(tmp_path)
    load_images(split, SIZE)
    load_images(split, (8, 8))
    load_images(dataclasses.replace(split, fingerprint="g"), SIZE)
    load_images(dataclasses.replace(split, name="val"), SIZE)
    load_images(split_of(split.image_paths[1:3]), SIZE)
    some = load_images(split_of(split.image_paths[2:4]), SIZE)
    assert len(files_in(cache)) == 6
    assert torch.equal(some, load_images(split, SIZE)[2:4])


def write_bitmaps(folder, seed, count=60, time=1_000_000_000):
    """A split of bitmaps, all of one size in bytes and of one modification time."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for index in range(count):
        pixels = rng.integers(0, 256, (20, 10, 3), dtype=np.uint8)
        path = folder / f"{index}.bmp"
        Image.fromarray(pixels).save(path)
        os.utime(path, ns=(time, time))
        paths.append(path)
    return split_of(paths, "test")


def decoded(split):
    images = [decode_image(path, SIZE) for path in split.image_paths]
    return torch.tensor(np.stack(images))


def test_two_data_sets_that_agree_in_names_sizes_and_times_share_nothing(tmp_path, cache):
    one = write_bitmaps(tmp_path / "one", 1)
    two = write_bitmaps(tmp_path / "two", 2)
    assert not torch.equal(load_images(one, SIZE), load_images(two, SIZE))
    assert torch.equal(load_images(one, SIZE), decoded(one))
    assert torch.equal(load_images(two, SIZE), decoded(two))


def test_replaced_images_of_equal_size_are_decoded_anew(tmp_path, cache):
    split = write_bitmaps(tmp_path / "data", 1)
    before = load_images(split, SIZE).clone()
    write_bitmaps(tmp_path / "data", 2, time=1_000_000_001)  # a nanosecond later
    after = load_images(split, SIZE)
    assert not torch.equal(after, before)
    assert torch.equal(after, decoded(split))


def test_an_image_older_than_what_it_replaces_is_decoded_anew(tmp_path, cache):
    split = write_bitmaps(tmp_path / "data", 1)
    load_images(split, SIZE)
    write_bitmaps(tmp_path / "data", 3, count=1, time=5)
    assert torch.equal(load_images(split, SIZE), decoded(split))


def test_a_data_set_is_one_by_whichever_way_it_is_reached(tmp_path, cache, monkeypatch):
    split = write_bitmaps(tmp_path / "data", 1, count=3)
    load_images(split, SIZE)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "link", Path("data")):
        paths = [folder / path.name for path in split.image_paths]
        load_images(split_of(paths, split.name), SIZE)
    assert len(files_in(cache)) == 1


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
        assert path.parent == cache
        assert different == list(split.image_paths[:2])
        path.unlink()
    assert torch.equal(load_images(split, SIZE), decoded(split))


def damage_cut(content):
    return content[:-1]


def damage_lengthened(content):
    return content + b"0"


def damage_emptied(content):
    return b""


def damage_header_alone(content):
    return content[:40]


def damage_not_npy(content):
    return b"junk" + content[4:]


def damage_other_shape(content):
    return content.replace(b"(5, 3, 16, 8)", b"(5, 3, 8, 16)")


def damage_other_type(content):
    return content.replace(b"|u1", b"|i1")


@pytest.mark.parametrize(
    "damage",
    [
        damage_cut,
        damage_lengthened,
        damage_emptied,
        damage_header_alone,
        damage_not_npy,
        damage_other_shape,
        damage_other_type,
    ],
)
def test_a_damaged_cache_is_rebuilt(tmp_path, cache, damage):
    split = make_split(tmp_path)
    expected = load_images(split, SIZE).clone()
    (file,) = files_in(cache)
    damaged = damage(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    assert torch.equal(load_images(split, SIZE), expected)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_corrupt_image_is_named_and_leaves_no_cache(tmp_path, cache, content):
    split = make_split(tmp_path)
    image = split.image_paths[2]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match="image .*cam0/2.jpg: .*; restore it"):
        load_images(split, SIZE)
    assert files_in(cache) == []
    image.write_bytes(whole)
    assert load_images(split, SIZE).shape[0] == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_build_leaves_nothing(tmp_path, cache, monkeypatch, error):
    split = make_split(tmp_path)

    def interrupted(path, image_size):
        if path == split.image_paths[3]:
            raise error
        return decode_image(path, image_size)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(loading, "decode_image", interrupted)
        load_images(split, SIZE)
    assert files_in(cache) == []
    assert load_images(split, SIZE).shape[0] == 5


def test_the_cache_appears_only_when_it_is_whole(tmp_path, cache, monkeypatch):
    def refused(source, target):
        assert Path(source).stat().st_size > 5 * 3 * 16 * 8
        assert not Path(target).exists()
        raise OSError("disk gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        with pytest.raises(ResourceError, match="cannot be written .disk gone"):
            load_images(make_split(tmp_path), SIZE)
    assert files_in(cache) == []


def test_what_a_killed_build_left_is_never_used_and_removed(tmp_path, cache, monkeypatch):
    split = make_split(tmp_path)
    expected = load_images(split, SIZE).clone()
    (file,) = files_in(cache)
    content = file.read_bytes()[:200]
    file.unlink()
    temporary = []

    def killed(source, target):
        temporary.append(Path(source))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        load_images(split, SIZE)
    temporary[0].write_bytes(content)  # as if nothing had cleaned up
    assert torch.equal(load_images(split, SIZE), expected)
    assert files_in(cache) == [file]


def test_a_cache_that_cannot_be_written_names_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="set CSKT_CACHE to another folder"):
        load_images(make_split(tmp_path), SIZE)


def test_a_split_without_images_is_refused(cache):
    with pytest.raises(DataError, match="split 'train' has no images"):
        load_images(split_of([]), SIZE)


def test_a_full_disk_says_how_much_is_missing(tmp_path, cache, monkeypatch):
    """Before anything is decoded: 5 images of 3 x 512 x 512 take 3.9 MB."""
    nearly_full = SimpleNamespace(free=932_160)
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda folder: nearly_full)
    missing = "it takes 4 MB and 3 MB of that are missing.; free space there"
    with pytest.raises(ResourceError, match=missing):
        load_images(make_split(tmp_path), (512, 512))
    assert files_in(cache) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_build_the_same_cache(tmp_path, cache, monkeypatch):
    """Forked, so that neither imports torch again; they start together, and only one decodes."""
    split = make_split(tmp_path)
    context = multiprocessing.get_context("fork")
    meeting = context.Barrier(2)
    results = context.SimpleQueue()
    built = context.Value("i", 0)
    replace = os.replace

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
    images = load_images(split, SIZE).numpy().tobytes()
    assert results.get() == images
    assert results.get() == images
    assert len(files_in(cache)) == 1
    assert built.value == 1
