"""From image files to uint8 arrays: the one reader of data sets and galleries."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cskt.errors import CSKTError, DataError

READ = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # none that starts a program
MAX_PIXELS = 64_000_000  # an image of 8K video has 33 million

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def opened(file: Path | IO[bytes]) -> Iterator[Image.Image]:
    """An image file, not yet decoded.

    Raises :class:`cskt.errors.DataError` with the reason, here and inside the block, for what is
    not one of the formats :data:`READ`, has more than :data:`MAX_PIXELS` pixels or is damaged.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=READ) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"too large ({image.width} x {image.height} pixels, "
                    f"at most {MAX_PIXELS // 10**6} million)"
                )
            yield image
    except Exception as error:
        raise DataError(damage(error)) from error


def read_image(file: Path | IO[bytes]) -> Image.Image:
    """An image file, upright and decoded, 8 bits a channel.

    Of an animation or a file of several pages it is the first one. Raises
    :class:`cskt.errors.DataError` with the reason where :func:`opened` or :func:`eight_bits` does.
    """
    with opened(file) as image:
        image.load()
        return eight_bits(ImageOps.exif_transpose(image))


def eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8 bits (Pillow's own conversion makes white of all above 255 of 65,535).

    Raises :class:`cskt.errors.DataError` on pixels that have no such range or no conversion to RGB.
    """
    if image.mode in ("I", "F", "LAB"):
        raise DataError(
            f"cannot be read (its pixels are of {image.mode}, not of colours or grey values)"
        )
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def resize(image: Image.Image, image_size: tuple[int, int]) -> np.ndarray:
    """A picture as uint8 (3, H, W), RGB, bilinear.

    The filter is Pillow's, which smooths when it shrinks, as in the authors' release.
    """
    height, width = image_size
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def decode_image(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """One image file as :func:`read_image` and :func:`resize` make it, uint8 (3, H, W).

    Raises :class:`cskt.errors.DataError`, which names the file and the reason.
    """
    try:
        return resize(read_image(path), image_size)
    except Exception as error:  # the reader's, or Pillow's on converting
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> DataError:
    """The error about an image file of a data set, with what to do."""
    return DataError(f"image {path}: {damage(error)}; restore it from the original archive.")


def damage(error: Exception) -> str:
    """Why an image cannot be used, from whatever opening, decoding or converting it raised.

    Pillow raises many unrelated types on damaged files: this is the only place that tells them
    apart.
    """
    if isinstance(error, CSKTError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large ({reason(error)})"
    if isinstance(error, UnicodeError):
        return "its name is not text"
    return f"cannot be read ({reason(error)})"


def reason(error: Exception) -> str:
    """What an exception says, on one line, at most 300 characters."""
    message = getattr(error, "message", None) or error
    text = " ".join(str(message).split())
    return text[:300] or type(error).__name__


@contextlib.contextmanager
def on_all_cores(
    work: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[Iterator[Result]]:
    """``work`` of every item, in order, in threads.

    An error or Ctrl-C cancels what is still queued. Warnings (Pillow's, of oddities that it reads
    all the same) are not shown; their filters, which :func:`opened` changes in several threads at
    once, are as before afterwards.
    """
    pool = ThreadPoolExecutor(os.cpu_count())
    with warnings.catch_warnings(action="ignore"):
        try:
            yield pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)
