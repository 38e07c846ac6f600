"""From image files to uint8 arrays: the reader of data sets and galleries, and its cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from cskt.config import cache_dir
from cskt.data.benchmarks import Split
from cskt.errors import CSKTError

READ = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # none that starts a program
MAX_PIXELS = 64_000_000  # an image of 8K video has 33 million
_CACHE_VERSION = 2  # raise when decoding, resizing or the key changes


@contextlib.contextmanager
def opened(file: Path | IO[bytes]) -> Iterator[Image.Image]:
    """An image file, not yet decoded.

    Raises :class:`CSKTError` with the reason, here and inside the block, for what is not one of the
    formats :data:`READ`, has more than :data:`MAX_PIXELS` pixels or is damaged.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=READ) as image:
            if image.width * image.height > MAX_PIXELS:
                raise CSKTError(
                    f"too large ({image.width} x {image.height} pixels, "
                    f"at most {MAX_PIXELS // 10**6} million)"
                )
            yield image
    except CSKTError:
        raise
    except Image.UnidentifiedImageError:
        raise CSKTError("not an image") from None
    except Image.DecompressionBombError as error:
        raise CSKTError(f"too large ({reason(error)})") from None
    except Exception as error:  # Pillow raises many unrelated types on damaged files
        raise CSKTError(f"cannot be read ({reason(error)})") from error


def read_image(file: Path | IO[bytes]) -> Image.Image:
    """An image file, upright and decoded, 8 bits a channel.

    Of an animation or a file of several pages it is the first one. Raises :class:`CSKTError` with
    the reason where :func:`opened` or :func:`eight_bits` does.
    """
    with opened(file) as image:
        image.load()
        return eight_bits(ImageOps.exif_transpose(image))


def eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8 bits (Pillow's own conversion makes white of all above 255 of 65,535).

    Raises :class:`CSKTError` on pixels that have no such range or no conversion to RGB.
    """
    if image.mode in ("I", "F", "LAB"):
        raise CSKTError(
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

    Raises :class:`CSKTError`, which names the file and the reason.
    """
    try:
        return resize(read_image(path), image_size)
    except Exception as error:  # the reader's, or Pillow's on converting
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> CSKTError:
    return CSKTError(f"image {path}: {reason(error)}; restore it from the original archive.")


def reason(error: Exception) -> str:
    """What an exception says, on one line, at most 300 characters."""
    text = " ".join(str(getattr(error, "message", None) or error).split())
    return text[:300] or type(error).__name__


@contextlib.contextmanager
def on_all_cores(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Iterator[Any]]:
    """``work`` of every item, in order, in threads.

    An error or Ctrl-C cancels what is still queued. Warnings (Pillow's, of oddities that it reads
    all the same) are not shown; their filters, which :func:`opened` changes in several threads at
    once, are as before afterwards.
    """
    with (
        warnings.catch_warnings(action="ignore"),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        contextlib.closing(pool.map(work, items)) as results,
    ):
        yield results


def load_images(split: Split, image_size: tuple[int, int]) -> Tensor:
    """All images of a split, uint8 (N, 3, H, W), RGB, at ``image_size`` = (height, width).

    Decoded once on all cores into a ``.npy`` file under ``cache_dir()/images``, which later calls
    map into memory (writing to the tensor leaves the file alone). The file is keyed on where the
    images lie, on the size and modification time of each, on the split and on ``image_size``:
    images that were changed, replaced or moved are decoded anew. It appears complete or not at all,
    one of the wrong shape or length is rebuilt, and of two processes that want it one builds while
    the other waits. Raises :class:`CSKTError` on an image that cannot be decoded (named), a full
    disk (with the space that is missing) and a folder that cannot be written.
    """
    if not split.image_paths:
        raise CSKTError(f"split {split.name!r} has no images to load.")
    path = _cache_path(split, image_size)
    shape = (len(split.image_paths), 3, *image_size)
    if not _is_complete(path, shape):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not _is_complete(path, shape):  # another process may have built it meanwhile
                    _build_cache(path, split, image_size)
        except OSError as error:
            raise CSKTError(
                f"the image cache {path} cannot be written ({error}); free space there "
                "or set CSKT_CACHE to another folder."
            ) from error
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def stale_caches(split: Split) -> Iterator[tuple[Path, list[Path]]]:
    """Each cache file in use for ``split``, of any image size, and the images that it holds
    otherwise than their files: those that were replaced by files of the same size and time."""
    for path in sorted((cache_dir() / "images").glob("*.npy")):
        named = re.fullmatch(rf"\w+-{re.escape(split.name)}-(\d+)x(\d+)", path.stem)
        if named is None:
            continue
        image_size = int(named[1]), int(named[2])
        shape = (len(split.image_paths), 3, *image_size)
        if path != _cache_path(split, image_size) or not _is_complete(path, shape):
            continue  # another data set's, or an older state's, which nothing reads
        different = []
        decode = functools.partial(decode_image, image_size=image_size)
        held = np.load(path, mmap_mode="r")
        with on_all_cores(decode, split.image_paths) as decoded:
            for file, kept, now in zip(split.image_paths, held, decoded, strict=True):
                if not np.array_equal(kept, now):
                    different.append(file)
        yield path, different


def _cache_path(split: Split, image_size: tuple[int, int]) -> Path:
    """Where the decoded images of a split are kept."""
    # Data sets may agree in names, sizes and, unpacked from archives, times: the folder parts them.
    common = os.path.commonpath([path.parent for path in split.image_paths])
    digest = hashlib.sha256()
    facts = (
        _CACHE_VERSION,
        split.fingerprint,
        split.name,
        tuple(image_size),
        os.path.realpath(common),
    )
    digest.update(repr(facts).encode("utf-8", "surrogateescape"))
    for path in split.image_paths:
        try:
            state = path.stat()
        except OSError as error:
            raise _unusable(path, error) from error
        entry = (os.path.relpath(path, common), state.st_size, state.st_mtime_ns)
        digest.update(repr(entry).encode("utf-8", "surrogateescape"))
    name = f"{digest.hexdigest()[:24]}-{split.name}-{image_size[0]}x{image_size[1]}.npy"
    return cache_dir() / "images" / name


def _is_complete(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        array = np.load(path, mmap_mode="r")  # raises on a file shorter than its header says
        whole = path.stat().st_size == array.offset + array.nbytes
        return whole and array.shape == shape and array.dtype == np.uint8
    except (OSError, ValueError, EOFError, AttributeError):
        return False


def _build_cache(path: Path, split: Split, image_size: tuple[int, int]) -> None:
    shape = (len(split.image_paths), 3, *image_size)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    decode = functools.partial(decode_image, image_size=image_size)
    temporary = path.with_name(f"{path.name}.tmp")
    size = math.prod(shape)
    free = shutil.disk_usage(path.parent).free
    try:
        if free < size:
            raise OSError(
                f"it takes {size / 1e6:,.0f} MB and {(size - free) / 1e6:,.0f} MB of "
                "that are missing"
            )
        with temporary.open("wb") as file, on_all_cores(decode, split.image_paths) as decoded:
            np.lib.format.write_array_header_1_0(file, header)
            # disable=None: a bar on a terminal only, nothing in log files and executed notebooks
            for image in tqdm(
                decoded, f"decoding {split.name}", len(split.image_paths), leave=False, disable=None
            ):
                file.write(image.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
