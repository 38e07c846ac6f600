"""What can go wrong with a description or a picture, one level at a time.

A corruption takes a caption, or an image (3, H, W) uint8, a level and a seed (integers), and gives
a new one. At its level in :data:`NULL` it gives back what it was given. One seed draws the same for
every level: the words that are dropped of a tenth are among those dropped of a half.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

Seed = Sequence[int]
Synonyms = Mapping[str, Sequence[str]]  # a word or phrase in lower case -> others for it
GREY = 127  # of what covers a picture


def drop_words(caption: str, share: float, seed: Seed) -> str:
    """Without so large a share of its words, drawn; one word always stays."""
    words = caption.split()
    dropped = round(share * len(words))
    dropped = min(dropped, len(words) - 1)
    if dropped <= 0:
        return caption
    order = np.random.default_rng(seed).permutation(len(words))
    kept = sorted(order[dropped:])
    return " ".join(words[place] for place in kept)


def shuffle_words(caption: str, share: float, seed: Seed) -> str:
    """So large a share of its words, drawn, in another order among themselves."""
    words = caption.split()
    moved = round(share * len(words))
    if moved < 2:
        return caption
    random = np.random.default_rng(seed)
    places = random.permutation(len(words))[:moved]
    shuffled = list(words)
    for place, source in zip(places, random.permutation(places), strict=True):
        shuffled[place] = words[source]
    return " ".join(shuffled)


def swap_synonyms(caption: str, share: float, seed: Seed, synonyms: Synonyms) -> str:
    """With a synonym, drawn, in place of so large a share, drawn, of the words that have any."""
    if share == 0 or not synonyms:
        return caption
    random = np.random.default_rng(seed)
    longest_first = sorted(synonyms, key=len, reverse=True)
    words = "|".join(map(re.escape, longest_first))

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        others = synonyms[word.lower()]
        is_swapped = random.random() < share
        drawn = int(random.integers(len(others)))
        if not is_swapped:
            return word
        other = others[drawn]
        if word[0].isupper():
            other = other[0].upper() + other[1:]
        return other

    return re.sub(rf"(?<!\w)(?:{words})(?!\w)", swap, caption, flags=re.IGNORECASE)


def lower_resolution(image: Tensor, divisor: float, seed: Seed) -> Tensor:
    """Shrunk to a part of its height and width, and enlarged again (bilinear)."""
    if divisor == 1:
        return image
    _, height, width = image.shape
    small_height = max(1, round(height / divisor))
    small_width = max(1, round(width / divisor))
    small = F.resize(image, [small_height, small_width])
    return F.resize(small, [height, width])


def blur(image: Tensor, sigma: float, seed: Seed) -> Tensor:
    """Blurred by a Gaussian whose ``sigma`` is given as a share of the height."""
    if sigma == 0:
        return image
    _, height, width = image.shape
    pixels = sigma * height
    reach = round(3 * pixels)
    reach = min(reach, height - 1, width - 1)  # padding allows no more
    size = 2 * reach + 1
    # One direction after the other takes a fraction of the time.
    along_rows = F.gaussian_blur(image.float(), [size, 1], [pixels, pixels])
    along_both = F.gaussian_blur(along_rows, [1, size], [pixels, pixels])
    return along_both.round().to(torch.uint8)


def add_noise(image: Tensor, sigma: float, seed: Seed) -> Tensor:
    """With Gaussian noise on every value, whose ``sigma`` is a share of the range."""
    if sigma == 0:
        return image
    random = np.random.default_rng(seed)
    draws = random.standard_normal(image.shape, np.float32)
    noise = 255 * sigma * torch.from_numpy(draws)
    noisy = (image + noise).round()
    return noisy.clamp(0, 255).to(torch.uint8)


def darken(image: Tensor, share: float, seed: Seed) -> Tensor:
    """With so large a share of the light taken away."""
    return F.adjust_brightness(image, 1 - share) if share else image


def compress(image: Tensor, quality: float, seed: Seed) -> Tensor:
    """As a JPEG file of a quality from 1 to 99 gives it back; at 100 it becomes no file."""
    if quality == 100:
        return image
    file = io.BytesIO()
    picture = F.to_pil_image(image)
    picture.save(file, "JPEG", quality=int(quality))
    return F.pil_to_tensor(Image.open(file))


def hide_upper(image: Tensor, share: float, seed: Seed) -> Tensor:
    """With so large a share of the height covered in grey from above."""
    rows = round(share * image.shape[1])
    covered = image.clone()
    covered[:, :rows] = GREY
    return covered


def hide_lower(image: Tensor, share: float, seed: Seed) -> Tensor:
    """The same from below."""
    height = image.shape[1]
    first = height - round(share * height)
    covered = image.clone()
    covered[:, first:] = GREY
    return covered


OF_CAPTIONS: dict[str, Callable[[str, float, Seed], str]] = {
    "words dropped": drop_words,
    "words shuffled": shuffle_words,
}
OF_IMAGES: dict[str, Callable[[Tensor, float, Seed], Tensor]] = {
    "resolution": lower_resolution,
    "blur": blur,
    "noise": add_noise,
    "darkness": darken,
    "JPEG": compress,
    "upper part hidden": hide_upper,
    "lower part hidden": hide_lower,
}
SYNONYMS = "synonyms swapped"  # needs a table
WORDING = "other wording"  # needs a data set that knows one; its levels are names of wordings
LEVELS: dict[str, tuple[float, ...]] = {
    "words dropped": (0.1, 0.3, 0.5),
    "words shuffled": (0.5, 1.0),
    SYNONYMS: (0.5, 1.0),
    "resolution": (2, 4, 8),
    "blur": (0.02, 0.04),
    "noise": (0.1, 0.2),
    "darkness": (0.2, 0.4),
    "JPEG": (30, 10),
    "upper part hidden": (0.25, 0.5),
    "lower part hidden": (0.25, 0.5),
}
NULL: dict[str, float] = {**dict.fromkeys(LEVELS, 0.0), "resolution": 1, "JPEG": 100}
