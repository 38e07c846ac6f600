"""From decoded images to what the image tower sees: normalisation, and the release's augmentation.

Random numbers are drawn on the CPU whatever device the images are on, so that one seed means one
augmentation on every device, and for a whole batch, so that processes that share it agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cskt.errors import DataError
from cskt.numerics import upload

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of red, green and blue in 0..1
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
ERASED_AREA = (0.02, 0.4)  # share of the image that random erasing takes
ERASED_RATIO = (0.3, 3.3)  # height / width of what it takes


def normalize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) on any device -> float32, CLIP-normalised, no augmentation.

    Raises :class:`cskt.errors.DataError` on another type or shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise _unfit(images, "(B, 3, H, W)")
    mean = _of_channels(CLIP_MEAN, images.device)
    std = _of_channels(CLIP_STD, images.device)
    return images.float().div_(255).sub_(mean).div_(std)


def _of_channels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """(3, 1, 1): one value for each of red, green and blue."""
    return upload(torch.tensor(values), device).view(3, 1, 1)


def _unfit(images: Tensor, expected: str) -> DataError:
    shape = tuple(images.shape)
    return DataError(f"images must be uint8 {expected}, got {images.dtype} {shape}.")


@dataclass(frozen=True)
class Draws:
    """What was drawn for each of B images, on the CPU: ``flipped`` (B,) bool, the crop's corner
    ``top`` and ``left`` (B,) int64, and ``boxes`` (B, 4) int64 to erase (:func:`erase`)."""

    flipped: Tensor
    top: Tensor
    left: Tensor
    boxes: Tensor

    def rows(self, rows: slice) -> Draws:
        """Those of some of the images."""
        return Draws(self.flipped[rows], self.top[rows], self.left[rows], self.boxes[rows])


class Augment(nn.Module):
    """The release's training augmentation on a batch: uint8 (B, 3, H, W), any device -> float32,
    CLIP-normalised.

    Horizontal flip with probability ``flip``; a black border of ``pad`` pixels and a random crop
    back to ``image_size`` = (height, width); CLIP normalisation; with probability ``erasing`` a
    rectangle (:func:`erasing_boxes`) set to the CLIP mean *as given*, that is those numbers in the
    already normalised image. Every image draws its own.
    """

    def __init__(
        self, image_size: tuple[int, int], flip: float = 0.5, pad: int = 10, erasing: float = 0.5
    ) -> None:
        super().__init__()
        height, width = image_size
        self.image_size = (height, width)
        self.flip = flip
        self.pad = pad
        self.erasing = erasing

    def draw(self, count: int, generator: torch.Generator | None = None) -> Draws:
        """What happens to each of ``count`` images; ``generator`` on the CPU, torch's global one by
        default."""
        flipped = torch.rand(count, generator=generator) < self.flip
        left = _draw_offsets(count, 2 * self.pad, generator)
        top = _draw_offsets(count, 2 * self.pad, generator)
        boxes = erasing_boxes(count, self.image_size, generator=generator)
        erased = torch.rand(count, 1, generator=generator) < self.erasing
        return Draws(flipped, top, left, boxes * erased)

    @torch.no_grad()
    def forward(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Augment one batch, as ``draws`` say (by default new ones);
        :class:`cskt.errors.DataError` on other types or sizes."""
        height, width = self.image_size
        if images.dtype != torch.uint8 or images.shape[1:] != (3, height, width):
            raise _unfit(images, f"(B, 3, {height}, {width})")
        if draws is None:
            draws = self.draw(len(images))
        images = flip(images, draws.flipped)
        images = pad_and_crop(images, self.pad, draws.top, draws.left)
        return erase(normalize(images), draws.boxes)


def _draw_offsets(count: int, largest: int, generator: torch.Generator | None) -> Tensor:
    """(count,) int64, uniform over 0..``largest``."""
    return (torch.rand(count, generator=generator) * (largest + 1)).long()


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Images (B, 3, H, W), those where ``flipped`` (B,) is true mirrored left to right."""
    chosen = upload(flipped, images.device).view(-1, 1, 1, 1)
    return torch.where(chosen, images.flip(-1), images)


def pad_and_crop(images: Tensor, pad: int, top: Tensor, left: Tensor) -> Tensor:
    """Images (B, 3, H, W) with a black border of ``pad`` pixels, cut back to H x W.

    ``top`` and ``left`` (B,) int64 on the CPU: each image's corner in the padded one, 0..2 pad.
    """
    if len(images) == 0:  # a process without a row of the batch
        return images
    height, width = images.shape[-2:]
    padded = F.pad(images, (pad, pad, pad, pad))
    corners = zip(top.tolist(), left.tolist(), strict=True)
    crops = []
    for image, (y, x) in zip(padded, corners, strict=True):
        crop = image[:, y : y + height, x : x + width]
        crops.append(crop)
    return torch.stack(crops)


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Normalised images (B, 3, H, W) with the CLIP mean inside ``boxes`` (B, 4): top, left, height,
    width."""
    device = images.device
    boxes = upload(boxes, device)
    top, left, height, width = boxes.view(-1, 4, 1, 1, 1).unbind(1)
    rows = torch.arange(images.shape[2], device=device).view(-1, 1)
    columns = torch.arange(images.shape[3], device=device)
    inside = _within(rows, top, height) & _within(columns, left, width)
    mean = _of_channels(CLIP_MEAN, device)
    return torch.where(inside, mean, images)


def _within(places: Tensor, start: Tensor, length: Tensor) -> Tensor:
    return (places >= start) & (places < start + length)


def erasing_boxes(
    count: int,
    image_size: tuple[int, int],
    attempts: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rectangles of random erasing (Zhong et al., AAAI 2020), (count, 4) int64: top, left, height,
    width.

    The distribution of torchvision's ``RandomErasing``, which the release uses: 2-40 % of the
    image's area, uniform; height/width log-uniform in 0.3-3.3; a rectangle not strictly smaller
    than the image is drawn again, up to ``attempts`` times, after which nothing is erased (0 x 0).
    """
    height, width = image_size
    share = torch.empty(count, attempts).uniform_(*ERASED_AREA, generator=generator)
    area = height * width * share
    lowest, highest = ERASED_RATIO
    log_ratio = torch.empty(count, attempts)
    log_ratio.uniform_(math.log(lowest), math.log(highest), generator=generator)
    ratio = log_ratio.exp()
    heights = (area * ratio).sqrt().round()
    widths = (area / ratio).sqrt().round()

    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits; index 0 where none does
    heights = heights.where(fits, 0).gather(1, first)
    widths = widths.where(fits, 0).gather(1, first)

    sizes = torch.cat((heights, widths), 1)
    largest = torch.tensor(image_size) - sizes  # of the corner's coordinates
    corners = (torch.rand(count, 2, generator=generator) * (largest + 1)).floor()
    corners = corners.minimum(largest)  # rounding may reach largest + 1
    return torch.cat((corners, sizes), 1).long()
