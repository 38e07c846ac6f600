"""The augmentation: what it does to pixels, and how its random numbers are distributed."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import RandomErasing

from cskt.data.augment import (
    CLIP_MEAN,
    CLIP_STD,
    Augment,
    erase,
    erasing_boxes,
    flip,
    normalize,
    pad_and_crop,
)
from cskt.errors import CSKTError

SIZE = (16, 8)
MEAN = torch.tensor(CLIP_MEAN).view(3, 1, 1)
STD = torch.tensor(CLIP_STD).view(3, 1, 1)


def random_images(count=6, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)


def test_normalize_is_clips():
    images = random_images()
    assert torch.allclose(normalize(images), (images / 255 - MEAN) / STD, atol=1e-6)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, 4, 4)],
)
def test_normalize_refuses_other_types_and_shapes(images):
    with pytest.raises(CSKTError, match=r"uint8 \(B, 3, H, W\)"):
        normalize(images)


def test_augment_refuses_another_size():
    with pytest.raises(CSKTError, match=r"uint8 \(B, 3, 16, 8\)"):
        Augment(SIZE)(random_images(size=(8, 8)))


def test_augment_with_everything_off_is_normalize():
    images = random_images()
    original = images.clone()
    augmented = Augment(SIZE, flip=0.0, pad=0, erasing=0.0)(images)
    assert torch.equal(augmented, normalize(images))
    assert torch.equal(images, original)


def test_augment_flips_all_with_probability_1():
    images = random_images()
    augmented = Augment(SIZE, flip=1.0, pad=0, erasing=0.0)(images)
    assert torch.equal(augmented, normalize(images.flip(-1)))


def test_augment_flips_about_half_with_probability_one_half():
    images = random_images(1)
    torch.manual_seed(0)
    augment = Augment(SIZE, flip=0.5, pad=0, erasing=0.0)
    augmented = augment(images.expand(400, -1, -1, -1))
    kept = (augmented == normalize(images)).flatten(1).all(1)
    assert 0.4 < kept.float().mean() < 0.6


def test_flip_mirrors_only_the_chosen_images():
    images = random_images(2)
    flipped = flip(images, torch.tensor([False, True]))
    assert torch.equal(flipped[0], images[0])
    assert torch.equal(flipped[1], images[1].flip(-1))


def test_pad_and_crop_cuts_each_image_at_its_own_corner():
    images = random_images(2)
    cropped = pad_and_crop(images, 3, top=torch.tensor([0, 3]), left=torch.tensor([6, 3]))
    padded = F.pad(images, (3, 3, 3, 3))
    assert torch.equal(cropped[0], padded[0, :, 0:16, 6:14])
    assert torch.equal(cropped[1], images[1])


def test_augment_crops_out_of_a_black_border_with_every_offset_about_equally_often():
    """Whole pixels, black (not mean) outside."""
    images = random_images(1)
    torch.manual_seed(0)
    augment = Augment(SIZE, flip=0.0, pad=1, erasing=0.0)
    augmented = augment(images.expand(1800, -1, -1, -1))
    padded = F.pad(images, (1, 1, 1, 1))
    counts = []
    for top in range(3):
        for left in range(3):
            crop = normalize(padded[..., top : top + 16, left : left + 8])
            equal = (augmented == crop).flatten(1).all(1)
            counts.append(int(equal.sum()))
    assert sum(counts) == 1800
    assert min(counts) > 140
    assert max(counts) < 260


def test_erase_sets_each_images_rectangle_to_the_clip_mean():
    images = normalize(random_images(2))
    boxes = torch.tensor([[2, 1, 4, 5], [0, 0, 0, 0]])
    erased = erase(images, boxes)
    expected = images.clone()
    expected[0, :, 2:6, 1:6] = MEAN
    assert torch.equal(erased, expected)


def test_augment_erases_a_rectangle_of_about_half_the_images():
    height, width = (32, 16)
    images = random_images(400, (height, width))
    torch.manual_seed(0)
    augmented = Augment((height, width), flip=0.0, pad=0, erasing=0.5)(images)
    erased = (augmented == MEAN).all(1)  # (B, H, W)
    touched = erased.flatten(1).any(1)
    assert 0.4 < touched.float().mean() < 0.6
    assert torch.equal(augmented[~touched], normalize(images)[~touched])
    for mask in erased[touched]:
        rows = mask.any(1).nonzero().flatten()
        columns = mask.any(0).nonzero().flatten()
        assert len(rows) == rows[-1] - rows[0] + 1 < height
        assert len(columns) == columns[-1] - columns[0] + 1 < width
        assert mask.sum() == len(rows) * len(columns)
    untouched = ~erased[:, None].expand_as(augmented)
    assert torch.equal(augmented[untouched], normalize(images)[untouched])


@pytest.mark.parametrize("size", [(384, 128), (64, 32)])
def test_erasing_boxes_are_distributed_as_torchvisions(size):
    torch.manual_seed(0)
    reference = RandomErasing(scale=(0.02, 0.4))
    image = torch.zeros(3, *size)
    theirs = []
    for _ in range(3000):
        box = reference.get_params(image, reference.scale, reference.ratio, [0.0])
        theirs.append(box[:4])
    theirs = torch.tensor(theirs).double()
    ours = erasing_boxes(3000, size).double()
    tolerance = 0.05 * torch.tensor([*size, *size])
    for quantile in (0.1, 0.5, 0.9):
        difference = ours.quantile(quantile, 0) - theirs.quantile(quantile, 0)
        assert (difference.abs() < tolerance).all()


@pytest.mark.parametrize("size", [(384, 128), (64, 32)])
def test_erasing_boxes_lie_inside_the_image(size):
    torch.manual_seed(0)
    boxes = erasing_boxes(3000, size)
    corners = boxes[:, :2]
    assert (corners >= 0).all()
    assert (corners + boxes[:, 2:] <= torch.tensor(size)).all()


def test_augment_follows_torchs_seed_and_draws_per_image():
    images = random_images(1).expand(8, -1, -1, -1)
    augment = Augment(SIZE, flip=0.5, pad=3, erasing=0.5)
    torch.manual_seed(5)
    first = augment(images)
    torch.manual_seed(5)
    second = augment(images)
    third = augment(images)
    assert torch.equal(first, second)
    assert not torch.equal(second, third)
    assert len({image.numpy().tobytes() for image in first}) > 4


def test_the_random_numbers_are_drawn_in_an_order_that_stays():
    """Flips, columns of the crops, rows, boxes, and who is erased: old runs stay reproducible."""
    images = random_images(5)
    torch.manual_seed(7)
    augmented = Augment(SIZE, flip=0.5, pad=3, erasing=0.5)(images)
    torch.manual_seed(7)
    flipped = torch.rand(5) < 0.5
    left = (torch.rand(5) * 7).long()
    top = (torch.rand(5) * 7).long()
    boxes = erasing_boxes(5, SIZE)
    erased = torch.rand(5, 1) < 0.5
    expected = normalize(pad_and_crop(flip(images, flipped), 3, top, left))
    assert torch.equal(augmented, erase(expected, boxes * erased))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_augment_draws_the_same_on_the_gpu():
    images = random_images(64)
    augment = Augment(SIZE, flip=0.5, pad=3, erasing=0.5)
    torch.manual_seed(5)
    on_cpu = augment(images)
    torch.manual_seed(5)
    on_gpu = augment(images.cuda()).cpu()
    assert torch.allclose(on_cpu, on_gpu, atol=1e-6)
