"""From decoded images to training batches: batched augmentation, shuffled batches, loaded ahead."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from kornia.augmentation import RandomCrop, RandomHorizontalFlip
from torch import Tensor, nn

from cskt.errors import CSKTError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def normalize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) on any device -> float32, CLIP-normalised, no augmentation."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise CSKTError(
            f"images must be uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}."
        )
    mean, std = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD)
    )
    return images.float().div_(255).sub_(mean).div_(std)


class Augment(nn.Module):
    """The release's training augmentation on a batch: uint8 (B, 3, H, W), any device -> float32,
    CLIP-normalised.

    Horizontal flip with probability ``flip``; a black border of ``pad`` pixels and a random crop
    back to ``image_size`` = (height, width); CLIP normalisation; with probability ``erasing`` a
    rectangle (:func:`erasing_boxes`) set to the CLIP mean *as given*, that is those numbers in the
    already normalised image. Every image draws its own, from torch's global CPU generator:
    ``torch.manual_seed`` decides on every device.
    """

    def __init__(
        self, image_size: tuple[int, int], flip: float = 0.5, pad: int = 10, erasing: float = 0.5
    ) -> None:
        super().__init__()
        self.image_size = tuple(image_size)
        self.erasing = erasing
        self.flip = RandomHorizontalFlip(p=flip)
        self.crop = RandomCrop(self.image_size, padding=pad, cropping_mode="slice")

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Augment one batch; raises :class:`CSKTError` on other types or sizes."""
        height, width = self.image_size
        if (
            images.dtype != torch.uint8
            or images.ndim != 4
            or images.shape[1:] != (3, height, width)
        ):
            raise CSKTError(
                f"images must be uint8 (B, 3, {height}, {width}), got {images.dtype} "
                f"{tuple(images.shape)}."
            )
        images = normalize(
            self.crop(self.flip(images.float())).byte()
        )  # flips and crops move whole pixels
        boxes = erasing_boxes(len(images), self.image_size) * (
            torch.rand(len(images), 1) < self.erasing
        )
        top, left, tall, wide = boxes.to(images.device).view(-1, 4, 1, 1, 1).unbind(1)
        rows, columns = (torch.arange(size, device=images.device) for size in self.image_size)
        rows = rows[:, None]
        inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
        return torch.where(
            inside, torch.tensor(CLIP_MEAN, device=images.device).view(3, 1, 1), images
        )


def erasing_boxes(count: int, image_size: tuple[int, int], attempts: int = 10) -> Tensor:
    """Rectangles of random erasing (Zhong et al., AAAI 2020), (count, 4) int64: top, left, height,
    width.

    The distribution of torchvision's ``RandomErasing``, which the release uses: 2-40 % of the
    image's area, uniform; height/width log-uniform in 0.3-3.3; a rectangle not strictly smaller
    than the image is drawn again, up to ``attempts`` times, after which nothing is erased (0 x 0).
    Kornia's own generator clamps it to the image instead.
    """
    height, width = image_size
    area = height * width * torch.empty(count, attempts).uniform_(0.02, 0.4)
    ratio = torch.empty(count, attempts).uniform_(math.log(0.3), math.log(3.3)).exp()
    heights, widths = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits; index 0 where none does
    heights, widths = (torch.where(fits, size, 0).gather(1, first) for size in (heights, widths))
    room = torch.cat((height - heights, width - widths), 1) + 1
    corners = (
        (torch.rand(count, 2) * room).floor().minimum(room - 1)
    )  # minimum: rounding may reach room
    return torch.cat((corners, heights, widths), 1).long()


def prefetch(
    load: Callable[[Tensor], Tensor], items: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """``(item, load(item))`` in order; a thread loads the next one while the last one is worked
    on."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[Tensor, Future[Tensor]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) == 2:
                done = waiting.popleft()
                yield done[0], done[1].result()
        for item, loaded in waiting:
            yield item, loaded.result()


def batches(num_captions: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """One epoch's caption indices, shuffled by (seed, epoch): int64 tensors of ``batch_size``, the
    last one shorter.

    A last batch of one is dropped: a single pair has nothing to be told apart from.
    """
    if batch_size < 2:
        raise CSKTError(f"batch_size must be at least 2, got {batch_size}.")
    order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(num_captions))
    yield from (batch for batch in order.split(batch_size) if len(batch) > 1)
