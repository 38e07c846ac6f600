"""The image cache (complete or absent, whatever happens), the augmentation's distribution, and the batches."""

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
from torchvision.transforms import RandomErasing

from cskt.config import CSKTError
from cskt.data import pipeline
from cskt.data.benchmarks import Split
from cskt.data.pipeline import (
    CLIP_MEAN,
    CLIP_STD,
    Augment,
    batches,
    erasing_boxes,
    load_images,
    normalize,
    prefetch,
)

SIZE = (16, 8)
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))


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
    images = load_images(split, SIZE, "f")
    assert images.shape == (5, 3, *SIZE) and images.dtype == torch.uint8
    expected = Image.open(split.image_paths[3]).resize((8, 16), Image.Resampling.BILINEAR)
    assert torch.equal(images[3], torch.from_numpy(np.array(expected)).permute(2, 0, 1))
    monkeypatch.setattr(pipeline, "decode_image", None)  # a second call must not decode
    images[0] = 0  # private to this tensor
    assert load_images(split, SIZE, "f")[0].any()
    assert len(held(cache)) == 1


def test_gray_and_transparent_images_become_rgb(tmp_path, cache):
    for mode, colour in (("L", 77), ("RGBA", (77, 77, 77, 10)), ("1", 1)):
        Image.new(mode, (3, 3), colour).save(tmp_path / f"{mode}.png")
    split = Split("val", tuple(tmp_path / f"{mode}.png" for mode in ("L", "RGBA", "1")), np.arange(3), (), np.arange(0))
    assert load_images(split, SIZE, "f")[:, :, 0, 0].tolist() == [[77] * 3, [77] * 3, [255] * 3]


def test_cache_is_keyed_on_data_split_images_and_size(tmp_path, cache):
    split = make_split(tmp_path)
    part = Split("train", split.image_paths[2:4], np.arange(2), (), np.arange(0))
    other = Split("train", split.image_paths[1:3], np.arange(2), (), np.arange(0))
    for which, size, fingerprint in ((split, SIZE, "f"), (split, SIZE, "g"), (split, (8, 8), "f"), (part, SIZE, "f"),
                                     (other, SIZE, "f")):
        load_images(which, size, fingerprint)
    assert len(held(cache)) == 5
    assert torch.equal(load_images(part, SIZE, "f"), load_images(split, SIZE, "f")[2:4])


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1], lambda content: content + b"0", lambda content: b"", lambda content: content[:40],
    lambda content: b"junk" + content[4:], lambda content: content.replace(b"(5, 3, 16, 8)", b"(5, 3, 8, 16)"),
    lambda content: content.replace(b"|u1", b"|i1"),
])
def test_a_damaged_cache_is_rebuilt(tmp_path, cache, damage):
    split = make_split(tmp_path)
    expected = load_images(split, SIZE, "f").clone()
    (file,) = held(cache)
    file.write_bytes(damage(file.read_bytes()))
    assert torch.equal(load_images(split, SIZE, "f"), expected)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_corrupt_image_is_named_and_leaves_no_cache(tmp_path, cache, content):
    split = make_split(tmp_path)
    whole = split.image_paths[2].read_bytes()
    split.image_paths[2].write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CSKTError, match="image .*cam0/2.jpg cannot be decoded"):
        load_images(split, SIZE, "f")
    assert held(cache) == []
    split.image_paths[2].write_bytes(whole)
    assert load_images(split, SIZE, "f").shape[0] == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_build_leaves_nothing(tmp_path, cache, monkeypatch, error):
    split, decode = make_split(tmp_path), pipeline.decode_image

    def interrupted(path, image_size):
        if path == split.image_paths[3]:
            raise error
        return decode(path, image_size)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(pipeline, "decode_image", interrupted)
        load_images(split, SIZE, "f")
    assert held(cache) == []
    assert load_images(split, SIZE, "f").shape[0] == 5


def test_the_cache_appears_only_when_it_is_whole(tmp_path, cache, monkeypatch):
    def refused(source, target):
        assert Path(source).stat().st_size > 5 * 3 * 16 * 8 and not Path(target).exists()
        raise OSError("disk gone")

    with monkeypatch.context() as patch, pytest.raises(CSKTError, match="cannot be written .disk gone"):
        patch.setattr(os, "replace", refused)
        load_images(make_split(tmp_path), SIZE, "f")
    assert held(cache) == []


def test_what_a_killed_build_left_is_never_used(tmp_path, cache, monkeypatch):
    split, expected = make_split(tmp_path), load_images(make_split(tmp_path), SIZE, "f").clone()
    (file,) = held(cache)
    content, left = file.read_bytes()[:200], []

    def killed(source, target):
        left.append(Path(source).rename(f"{source}.left"))  # what clean-up after the error cannot reach
        left[0].write_bytes(content)
        raise KeyboardInterrupt

    file.unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        load_images(split, SIZE, "f")
    left[0].rename(str(left[0]).removesuffix(".left"))  # under the very name its builder gave it
    assert torch.equal(load_images(split, SIZE, "f"), expected) and file.is_file()


def test_a_cache_that_cannot_be_written_names_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "file"))
    with pytest.raises(CSKTError, match="set CSKT_CACHE to another folder"):
        load_images(make_split(tmp_path), SIZE, "f")
    with pytest.raises(CSKTError, match="split 'train' has no images"):
        load_images(Split("train", (), np.arange(0), (), np.arange(0)), SIZE, "f")


def test_a_full_disk_says_how_much_is_missing(tmp_path, cache, monkeypatch):
    """Before anything is decoded: 5 images of 3 x 512 x 512 take 3.9 MB."""
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda folder: SimpleNamespace(free=932_160))
    with pytest.raises(CSKTError, match="it takes 4 MB and 3 MB of that are missing.; free space there"):
        load_images(make_split(tmp_path), (512, 512), "f")
    assert held(cache) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_build_the_same_cache(tmp_path, cache, monkeypatch):
    """Forked, so that neither imports torch again; they start together, and only one decodes."""
    split, context = make_split(tmp_path), multiprocessing.get_context("fork")
    meeting, replace, results, built = context.Barrier(2), os.replace, context.SimpleQueue(), context.Value("i", 0)

    def replace_slowly(source, target):
        built.value += 1
        time.sleep(0.5)
        replace(source, target)

    def build():
        meeting.wait(60)
        results.put(load_images(split, SIZE, "f").numpy().tobytes())

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_slowly)
        builders = [context.Process(target=build) for _ in range(2)]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join(120)
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert {results.get(), results.get()} == {load_images(split, SIZE, "f").numpy().tobytes()}
    assert len(held(cache)) == built.value == 1


def test_prefetch_loads_one_ahead_in_order():
    seen, loading = [], []

    def load(item):
        loading.append(int(item))
        return item * 10

    for item, loaded in prefetch(load, torch.arange(5).split(1)):
        seen.append((int(item), int(loaded)))
        assert len(loading) <= len(seen) + 1
    assert seen == [(i, 10 * i) for i in range(5)] and loading == list(range(5))
    assert list(prefetch(load, [])) == []


def test_prefetch_passes_errors_on_and_can_be_left_early():
    def broken(item):
        raise OSError(f"item {int(item)}")

    with pytest.raises(OSError, match="item 0"):
        list(prefetch(broken, torch.arange(3).split(1)))
    stream = prefetch(lambda item: item, torch.arange(9).split(1))
    next(stream)
    stream.close()


def random_images(count=6, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)


def test_normalize_is_clips():
    images = random_images()
    assert torch.allclose(normalize(images), (images / 255 - MEAN) / STD, atol=1e-6)
    with pytest.raises(CSKTError, match="uint8"):
        normalize(images.float())


def test_augment_with_everything_off_is_normalize():
    images = random_images()
    original = images.clone()
    assert torch.equal(Augment(SIZE, flip=0.0, pad=0, erasing=0.0)(images), normalize(images))
    assert torch.equal(images, original)


def test_augment_flips():
    images = random_images()
    assert torch.equal(Augment(SIZE, flip=1.0, pad=0, erasing=0.0)(images), normalize(images.flip(-1)))
    torch.manual_seed(0)
    flipped = Augment(SIZE, flip=0.5, pad=0, erasing=0.0)(images[:1].expand(400, -1, -1, -1))
    kept = (flipped == normalize(images[:1])).flatten(1).all(1).float().mean()
    assert 0.4 < kept < 0.6


def test_augment_crops_out_of_a_black_border_with_every_offset():
    """Whole pixels, black (not mean) outside, and each of the (2 pad + 1)^2 offsets about equally often."""
    images = random_images(1).expand(1800, -1, -1, -1)
    torch.manual_seed(0)
    cropped = Augment(SIZE, flip=0.0, pad=1, erasing=0.0)(images)
    padded = torch.nn.functional.pad(images[:1], (1, 1, 1, 1))
    counts = [int((cropped == normalize(padded[..., y : y + 16, x : x + 8])).flatten(1).all(1).sum())
              for y in range(3) for x in range(3)]
    assert sum(counts) == 1800
    assert min(counts) > 140 and max(counts) < 260


def test_augment_erases_a_rectangle_with_the_clip_mean_as_given():
    images = random_images(400, (32, 16))
    torch.manual_seed(0)
    erased = Augment((32, 16), flip=0.0, pad=0, erasing=0.5)(images)
    inside = (erased == MEAN).all(1)  # (B, H, W)
    touched = inside.flatten(1).any(1)
    assert 0.4 < touched.float().mean() < 0.6
    assert torch.equal(erased[~touched], normalize(images)[~touched])
    for mask in inside[touched]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask.sum() == len(rows) * len(columns) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert len(rows) < 32 and len(columns) < 16
    untouched = ~inside[:, None].expand_as(erased)
    assert torch.equal(erased[untouched], normalize(images)[untouched])


@pytest.mark.parametrize("size", [(384, 128), (64, 32)])
def test_erasing_boxes_are_distributed_as_torchvisions(size):
    torch.manual_seed(0)
    reference = RandomErasing(scale=(0.02, 0.4))
    image = torch.zeros(3, *size)
    draws = (reference.get_params(image, reference.scale, reference.ratio, [0.0]) for _ in range(3000))
    theirs = torch.tensor([draw[:4] for draw in draws])
    ours = erasing_boxes(3000, size)
    for quantile in (0.1, 0.5, 0.9):
        difference = ours.double().quantile(quantile, 0) - theirs.double().quantile(quantile, 0)
        assert (difference.abs() < 0.05 * torch.tensor([*size, *size])).all()
    assert (ours[:, 0] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= torch.tensor(size)).all()


def test_augment_follows_torchs_seed_and_draws_per_image():
    images, augment = random_images(1).expand(8, -1, -1, -1), Augment(SIZE, flip=0.5, pad=3, erasing=0.5)
    first, second = (augment(images) for _ in range(2) if torch.manual_seed(5))
    assert torch.equal(first, second)
    assert len({image.numpy().tobytes() for image in first}) > 4
    assert not torch.equal(first, augment(images))
    with pytest.raises(CSKTError, match=r"uint8 \(B, 3, 16, 8\)"):
        augment(random_images(size=(8, 8)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_augment_draws_the_same_on_the_gpu():
    images, augment = random_images(64), Augment(SIZE, flip=0.5, pad=3, erasing=0.5)
    here, there = (augment(images.to(device)).cpu() for device in ("cpu", "cuda") if torch.manual_seed(5))
    assert torch.allclose(here, there, atol=1e-6)


@given(st.integers(0, 60), st.integers(2, 20), st.integers(0, 5), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_batches_hold_every_caption_once(count, size, seed, epoch):
    drawn = list(batches(count, size, seed, epoch))
    assert all(len(batch) == size for batch in drawn[:-1])
    flat = torch.cat(drawn).tolist() if drawn else []
    assert len(set(flat)) == len(flat) == count - (count % size == 1)
    assert set(flat) <= set(range(count))


def test_batches_are_shuffled_by_seed_and_epoch():
    def order(seed, epoch):
        return torch.cat(list(batches(50, 8, seed, epoch))).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    with pytest.raises(CSKTError, match="batch_size must be at least 2"):
        list(batches(5, 1, 0, 0))
