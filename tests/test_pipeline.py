"""The augmentation's distribution, and the batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomErasing

from cskt.data.pipeline import (
    CLIP_MEAN,
    CLIP_STD,
    Augment,
    batches,
    erasing_boxes,
    normalize,
    prefetch,
)
from cskt.errors import CSKTError

SIZE = (16, 8)
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))


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
    assert torch.equal(
        Augment(SIZE, flip=1.0, pad=0, erasing=0.0)(images), normalize(images.flip(-1))
    )
    torch.manual_seed(0)
    flipped = Augment(SIZE, flip=0.5, pad=0, erasing=0.0)(images[:1].expand(400, -1, -1, -1))
    kept = (flipped == normalize(images[:1])).flatten(1).all(1).float().mean()
    assert 0.4 < kept < 0.6


def test_augment_crops_out_of_a_black_border_with_every_offset():
    """Whole pixels, black (not mean) outside, and each of the (2 pad + 1)^2 offsets about equally
    often."""
    images = random_images(1).expand(1800, -1, -1, -1)
    torch.manual_seed(0)
    cropped = Augment(SIZE, flip=0.0, pad=1, erasing=0.0)(images)
    padded = torch.nn.functional.pad(images[:1], (1, 1, 1, 1))
    counts = [
        int((cropped == normalize(padded[..., y : y + 16, x : x + 8])).flatten(1).all(1).sum())
        for y in range(3)
        for x in range(3)
    ]
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
        assert (
            mask.sum()
            == len(rows) * len(columns)
            == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        )
        assert len(rows) < 32 and len(columns) < 16
    untouched = ~inside[:, None].expand_as(erased)
    assert torch.equal(erased[untouched], normalize(images)[untouched])


@pytest.mark.parametrize("size", [(384, 128), (64, 32)])
def test_erasing_boxes_are_distributed_as_torchvisions(size):
    torch.manual_seed(0)
    reference = RandomErasing(scale=(0.02, 0.4))
    image = torch.zeros(3, *size)
    draws = (
        reference.get_params(image, reference.scale, reference.ratio, [0.0]) for _ in range(3000)
    )
    theirs = torch.tensor([draw[:4] for draw in draws])
    ours = erasing_boxes(3000, size)
    for quantile in (0.1, 0.5, 0.9):
        difference = ours.double().quantile(quantile, 0) - theirs.double().quantile(quantile, 0)
        assert (difference.abs() < 0.05 * torch.tensor([*size, *size])).all()
    assert (ours[:, 0] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= torch.tensor(size)).all()


def test_augment_follows_torchs_seed_and_draws_per_image():
    images, augment = (
        random_images(1).expand(8, -1, -1, -1),
        Augment(SIZE, flip=0.5, pad=3, erasing=0.5),
    )
    first, second = (augment(images) for _ in range(2) if torch.manual_seed(5))
    assert torch.equal(first, second)
    assert len({image.numpy().tobytes() for image in first}) > 4
    assert not torch.equal(first, augment(images))
    with pytest.raises(CSKTError, match=r"uint8 \(B, 3, 16, 8\)"):
        augment(random_images(size=(8, 8)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_augment_draws_the_same_on_the_gpu():
    images, augment = random_images(64), Augment(SIZE, flip=0.5, pad=3, erasing=0.5)
    here, there = (
        augment(images.to(device)).cpu() for device in ("cpu", "cuda") if torch.manual_seed(5)
    )
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
