"""The images of a split as one array, decoded once and kept in a cache, and the order in which
training goes through its captions."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from cskt.config import cache_dir
from cskt.data.datasets import Split
from cskt.data.images import decode_image, on_all_cores, unusable
from cskt.errors import ConfigurationError, DataError, ResourceError
from cskt.files import write_atomically

_CACHE_VERSION = 2  # raise when decoding, resizing or the key changes


def batches(num_captions: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """One epoch's caption indices, shuffled by (seed, epoch): int64 tensors of ``batch_size``, the
    last one shorter.

    A last batch of one is dropped: a single pair has nothing to be told apart from. Raises
    :class:`cskt.errors.ConfigurationError` on a ``batch_size`` under 2.
    """
    if batch_size < 2:
        raise ConfigurationError(f"batch_size must be at least 2, got {batch_size}.")
    rng = np.random.default_rng([seed, epoch])
    order = torch.from_numpy(rng.permutation(num_captions))
    for batch in order.split(batch_size):
        if len(batch) > 1:
            yield batch


def load_images(split: Split, image_size: tuple[int, int]) -> Tensor:
    """All images of a split, uint8 (N, 3, H, W), RGB, at ``image_size`` = (height, width).

    Decoded once on all cores into a ``.npy`` file under ``cache_dir()/images``, which later calls
    map into memory (writing to the tensor leaves the file alone). The file is keyed on where the
    images lie, on the size and modification time of each, on the split and on ``image_size``:
    images that were changed, replaced or moved are decoded anew. It appears complete or not at all,
    one of the wrong shape or length is rebuilt, and of two processes that want it one builds while
    the other waits.

    Raises :class:`cskt.errors.DataError` on an image that cannot be decoded (named), and
    :class:`cskt.errors.ResourceError` on a full disk (with the space that is missing) and a folder
    that cannot be written.
    """
    if not split.image_paths:
        raise DataError(f"split {split.name!r} has no images to load.")
    path = cache_path(split, image_size)
    if not is_complete(path, split, image_size):
        try:
            _build_cache(path, split, image_size)
        except OSError as error:
            raise ResourceError(
                f"the image cache {path} cannot be written ({error}); free space there "
                "or set CSKT_CACHE to another folder."
            ) from error
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def stale_caches(split: Split) -> Iterator[tuple[Path, list[Path]]]:
    """Each cache file in use for ``split``, of any image size, and the images that it holds
    otherwise than their files: those that were replaced by files of the same size and time."""
    pattern = re.compile(rf"\w+-{re.escape(split.name)}-(\d+)x(\d+)")
    for path in sorted((cache_dir() / "images").glob("*.npy")):
        name = pattern.fullmatch(path.stem)
        if name is None:
            continue
        image_size = (int(name[1]), int(name[2]))
        if path != cache_path(split, image_size):
            continue  # another data set's, or an older state's, which nothing reads
        if is_complete(path, split, image_size):
            yield path, _different(path, split, image_size)


def _different(path: Path, split: Split, image_size: tuple[int, int]) -> list[Path]:
    """The images whose files hold other pixels than the cache file ``path``."""
    different = []
    cached = np.load(path, mmap_mode="r")
    decode = functools.partial(decode_image, image_size=image_size)
    with on_all_cores(decode, split.image_paths) as decoded:
        for file, kept, now in zip(split.image_paths, cached, decoded, strict=True):
            if not np.array_equal(kept, now):
                different.append(file)
    return different


def cache_path(split: Split, image_size: tuple[int, int]) -> Path:
    """Where the decoded images of a split are kept."""
    # Data sets may agree in names, sizes and, unpacked from archives, times: the folder parts them.
    common = os.path.commonpath([path.parent for path in split.image_paths])
    folder = os.path.realpath(common)
    facts = (_CACHE_VERSION, split.fingerprint, split.name, tuple(image_size), folder)
    digest = hashlib.sha256()
    digest.update(repr(facts).encode("utf-8", "surrogateescape"))
    for path in split.image_paths:
        try:
            state = path.stat()
        except OSError as error:
            raise unusable(path, error) from error
        file = (os.path.relpath(path, common), state.st_size, state.st_mtime_ns)
        digest.update(repr(file).encode("utf-8", "surrogateescape"))
    key = digest.hexdigest()[:24]
    height, width = image_size
    return cache_dir() / "images" / f"{key}-{split.name}-{height}x{width}.npy"


def _shape(split: Split, image_size: tuple[int, int]) -> tuple[int, ...]:
    return (len(split.image_paths), 3, *image_size)


def is_complete(path: Path, split: Split, image_size: tuple[int, int]) -> bool:
    """Whether ``path`` holds all images of ``split``."""
    try:
        array = np.load(path, mmap_mode="r")  # raises on a file shorter than its header says
        whole = path.stat().st_size == array.offset + array.nbytes
        return whole and array.shape == _shape(split, image_size) and array.dtype == np.uint8
    except (OSError, ValueError, EOFError, AttributeError):
        return False


def _build_cache(path: Path, split: Split, image_size: tuple[int, int]) -> None:
    """Decode a split into the cache file ``path``, unless another process does so first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if is_complete(path, split, image_size):
            return
        for left in path.parent.glob(f".{path.name}.*tmp"):  # by a build that was killed
            left.unlink()
        size = math.prod(_shape(split, image_size))
        missing = size - shutil.disk_usage(path.parent).free
        if missing > 0:
            raise OSError(
                f"it takes {size / 1e6:,.0f} MB and {missing / 1e6:,.0f} MB of that are missing"
            )
        write = functools.partial(_decode_into, split=split, image_size=image_size)
        write_atomically(path, write)


def _decode_into(path: Path, split: Split, image_size: tuple[int, int]) -> None:
    """Write all images of a split into a ``.npy`` file."""
    shape = _shape(split, image_size)
    cache = np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a quota is an error here, and would be a crash below
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    decode = functools.partial(decode_image, image_size=image_size)
    with on_all_cores(decode, split.image_paths) as decoded:
        # disable=None: a bar on a terminal only, nothing in log files and executed notebooks
        description = f"decoding {split.name}"
        bar = tqdm(decoded, description, len(split.image_paths), leave=False, disable=None)
        for index, image in enumerate(bar):
            cache[index] = image
    cache.flush()
