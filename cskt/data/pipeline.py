"""From image files to training batches: a decode-once cache, batched augmentation, shuffled batches."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from kornia.augmentation import RandomCrop, RandomHorizontalFlip
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from cskt.config import CSKTError, cache_dir
from cskt.data.benchmarks import Split

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_CACHE_VERSION = 1  # raise when decoding or resizing changes
_ABANDONED_AFTER = 24 * 3600  # seconds after which another process's temporary file is taken for dead


def load_images(split: Split, image_size: tuple[int, int], fingerprint: str) -> Tensor:
    """All images of a split, uint8 (N, 3, H, W), RGB, resized bilinearly to ``image_size`` = (height, width).

    Decoded once on all cores into a ``.npy`` file under ``cache_dir()/images``, which later calls map into memory
    (writing to the tensor leaves the file alone). The file is keyed on the data's fingerprint, the split (its name
    and its images) and the size; it appears complete or not at all, and one of the wrong shape or length is rebuilt.

    Raises:
        CSKTError: an image that cannot be decoded (named), or a cache folder that cannot be written.
    """
    if not split.image_paths:
        raise CSKTError(f"split {split.name!r} has no images to load.")
    height, width = image_size
    shape = (len(split.image_paths), 3, height, width)
    path = cache_dir() / "images" / f"{_cache_key(split, image_size, fingerprint)}-{split.name}-{height}x{width}.npy"
    if not _is_complete(path, shape):
        _build_cache(path, split, image_size)
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _cache_key(split: Split, image_size: tuple[int, int], fingerprint: str) -> str:
    # Paths relative to their common folder: a moved data set keeps its cache, a subset of a split has its own.
    common = os.path.commonpath([path.parent for path in split.image_paths])
    names = [os.path.relpath(path, common) for path in split.image_paths]
    key = repr((_CACHE_VERSION, fingerprint, split.name, tuple(image_size), names))
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _is_complete(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        array = np.load(path, mmap_mode="r")  # raises where the file is shorter than its header says
        return array.shape == shape and array.dtype == np.uint8 and path.stat().st_size == array.offset + array.nbytes
    except (OSError, ValueError, EOFError, AttributeError):
        return False


def _build_cache(path: Path, split: Split, image_size: tuple[int, int]) -> None:
    shape = (len(split.image_paths), 3, *image_size)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        # Every builder writes its own file; whichever finishes last replaces an equal one.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            decode = functools.partial(decode_image, image_size=image_size)
            # closing: an error or Ctrl-C cancels what is still queued instead of waiting for it
            with ThreadPoolExecutor(os.cpu_count()) as pool, closing(pool.map(decode, split.image_paths)) as decoded:
                # disable=None: a bar on a terminal only, nothing in log files and executed notebooks
                for image in tqdm(decoded, f"decoding {split.name}", shape[0], leave=False, disable=None):
                    file.write(image.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CSKTError(f"the image cache {path} cannot be written ({error}); free space there or set CSKT_CACHE to "
                        f"another folder.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what a killed builder of the same file left behind, long after."""
    for leftover in path.parent.glob(f"{path.name}*.tmp"):
        try:
            if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER:
                leftover.unlink()
        except FileNotFoundError:  # its own builder was faster
            continue


def decode_image(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """One image file as uint8 (3, H, W), RGB, bilinear (Pillow's, which filters when it shrinks, as the release's)."""
    try:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((image_size[1], image_size[0]), Image.Resampling.BILINEAR)
    except Exception as error:  # Pillow raises many unrelated types on damaged files
        raise CSKTError(f"image {path} cannot be decoded ({error}); restore it from the original archive.") from error
    return np.asarray(resized).transpose(2, 0, 1)


@functools.cache
def _clip_constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """CLIP's mean and standard deviation, each (1, 3, 1, 1) float32 for images in 0..1, kept on the device."""
    return tuple(torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))


def normalize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) on any device -> float32, CLIP-normalised, no augmentation."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise CSKTError(f"images must be uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}.")
    return _standardize(images.float().div_(255))


def _standardize(images: Tensor) -> Tensor:
    mean, std = _clip_constants(images.device)
    return (images - mean).div_(std)


class Augment(nn.Module):
    """The release's training augmentation on a batch: uint8 (B, 3, H, W), any device -> float32, CLIP-normalised.

    Horizontal flip with probability ``flip``; a black border of ``pad`` pixels and a random crop back to
    ``image_size`` = (height, width); CLIP normalisation; with probability ``erasing`` a rectangle
    (:func:`erasing_boxes`) set to the CLIP mean *as given*, that is those numbers in the already normalised image.
    Every image draws its own; all draws come from torch's global CPU generator, so that ``torch.manual_seed`` gives
    the same crops on every device.
    """

    def __init__(self, image_size: tuple[int, int], flip: float = 0.5, pad: int = 10, erasing: float = 0.5) -> None:
        super().__init__()
        self.image_size = tuple(image_size)
        self.erasing = erasing
        self.flip = RandomHorizontalFlip(p=flip)
        self.crop = RandomCrop(self.image_size, padding=pad, cropping_mode="slice")

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Augment one batch; raises :class:`CSKTError` on other types or sizes."""
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != (3, *self.image_size):
            raise CSKTError(f"images must be uint8 (B, 3, {self.image_size[0]}, {self.image_size[1]}), got "
                            f"{images.dtype} {tuple(images.shape)}.")
        images = _standardize(self.crop(self.flip(images.float().div_(255))))
        boxes = erasing_boxes(len(images), self.image_size) * (torch.rand(len(images), 1) < self.erasing)
        mean, _ = _clip_constants(images.device)
        return torch.where(_inside(boxes.to(images.device), self.image_size), mean, images)


def erasing_boxes(
    count: int,
    image_size: tuple[int, int],
    area: tuple[float, float] = (0.02, 0.4),
    ratio: tuple[float, float] = (0.3, 3.3),
    attempts: int = 10,
) -> Tensor:
    """Rectangles of random erasing (Zhong et al., AAAI 2020), (count, 4) int64: top, left, height, width.

    The distribution of torchvision's ``RandomErasing``, which the release uses: the share of the image's area is
    uniform, height/width log-uniform in ``ratio``, and a rectangle that is not strictly smaller than the image is
    drawn again, up to ``attempts`` times, after which nothing is erased (0 x 0). Kornia's own generator instead
    clamps it to the image, so that at 384 x 128 a quarter of its rectangles reach right across.
    """
    height, width = image_size
    pixels = height * width * torch.empty(count, attempts).uniform_(*area)
    aspect = torch.empty(count, attempts).uniform_(math.log(ratio[0]), math.log(ratio[1])).exp()
    heights, widths = (pixels * aspect).sqrt().round(), (pixels / aspect).sqrt().round()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits; index 0 where none does
    heights, widths = (torch.where(fits, size, 0).gather(1, first) for size in (heights, widths))
    room = torch.cat((height - heights, width - widths), 1) + 1
    corners = (torch.rand(count, 2) * room).floor().minimum(room - 1)  # minimum: rounding may reach room
    return torch.cat((corners, heights, widths), 1).long()


def _inside(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(B, 4) top, left, height, width -> (B, 1, H, W) bool: which pixels lie inside."""
    top, left, height, width = boxes.view(-1, 4, 1, 1, 1).unbind(1)
    rows = torch.arange(image_size[0], device=boxes.device).view(-1, 1)
    columns = torch.arange(image_size[1], device=boxes.device)
    return (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)


def batches(num_captions: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """One epoch's caption indices, shuffled by (seed, epoch): int64 tensors of ``batch_size``, the last one shorter.

    A last batch of one is dropped: a single pair has nothing to be told apart from.
    """
    if batch_size < 2:
        raise CSKTError(f"batch_size must be at least 2, got {batch_size}.")
    order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(num_captions))
    yield from (batch for batch in order.split(batch_size) if len(batch) > 1)
