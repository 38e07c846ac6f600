"""Images of a split that cannot be read: found once, left out, and listed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from cskt.data.datasets import Split, of_images
from cskt.data.images import damage, decode_image, on_all_cores
from cskt.data.loading import cache_path, is_complete
from cskt.errors import DataError, ResourceError
from cskt.files import write_atomically

Unreadable = dict[int, str]  # image of a split -> why it cannot be read


def find_unreadable(split: Split, image_size: tuple[int, int]) -> Unreadable:
    """The images of ``split`` that cannot be decoded at ``image_size`` = (height, width).

    Every image is decoded, on all cores. The answer is kept beside the cache of decoded images and
    holds until a file changes. Raises :class:`cskt.errors.DataError` where none can be read, and
    :class:`cskt.errors.ResourceError` where the cache cannot be written.
    """
    cache = cache_path(split, image_size)
    if is_complete(cache, split, image_size):
        return {}
    path = cache.with_suffix(".unreadable.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            unreadable = _kept(path)
            if unreadable is None:
                unreadable = _decode_all(split, image_size)
                write_atomically(path, json.dumps(unreadable))
    except OSError as error:
        raise ResourceError(
            f"the image cache {path} cannot be written ({error}); free space there "
            "or set CSKT_CACHE to another folder."
        ) from error
    if len(unreadable) == len(split.image_paths):
        first = split.image_paths[0]
        raise DataError(
            f"split {split.name!r} has no image that can be read: {first}: {unreadable[0]}, and "
            "all others; restore them from the original archive."
        )
    return unreadable


def leave_out(split: Split, unreadable: Unreadable) -> Split:
    """``split`` without these images and their captions; identities stay as they are."""
    kept = np.setdiff1d(np.arange(len(split.image_paths)), list(unreadable))
    return of_images(split, kept)


def listed(split: Split, unreadable: Unreadable, root: Path) -> dict[str, Any] | None:
    """What a record says of the images left out of ``split``: how many ``images`` ``of`` all, with
    how many ``captions``, and the ``files``, each by its path below ``root``, with the reason; None
    where there are none."""
    if not unreadable:
        return None
    files = {}
    for image, why in sorted(unreadable.items()):
        path = split.image_paths[image]
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        files[str(name)] = why
    captions = np.isin(split.caption_images, list(unreadable))
    return {
        "images": len(unreadable),
        "of": len(split.image_paths),
        "captions": int(captions.sum()),
        "files": files,
    }


def sentence(split_name: str, skipped: dict[str, Any]) -> str:
    """The note of a record about what :func:`listed` gives."""
    effect = "they were not trained on"
    if split_name != "train":
        effect = "they cannot be found, and figures on all images may differ"
    return (
        f"{skipped['images']} of {skipped['of']} images of {split_name} cannot be read and were "
        f"left out with their {skipped['captions']} captions: {effect}"
    )


def _kept(path: Path) -> Unreadable | None:
    """The answer of before; None where there is none."""
    try:
        answer = json.loads(path.read_text())
        return {int(image): str(why) for image, why in answer.items()}
    except (OSError, ValueError, AttributeError):
        return None


def _decode_all(split: Split, image_size: tuple[int, int]) -> Unreadable:
    unreadable = {}
    attempt = partial(_why_not, image_size=image_size)
    with on_all_cores(attempt, split.image_paths) as reasons:
        for image, why in enumerate(reasons):
            if why:
                unreadable[image] = why
    return unreadable


def _why_not(path: Path, image_size: tuple[int, int]) -> str:
    """Why an image file cannot be read, "" if it can; no folder is named."""
    try:
        decode_image(path, image_size)
    except DataError as error:
        cause = error.__cause__
        if isinstance(cause, DataError) and isinstance(cause.__cause__, OSError):
            cause = cause.__cause__
        if isinstance(cause, OSError) and cause.errno:
            return f"cannot be read ({cause.strerror})"
        return damage(cause) if isinstance(cause, Exception) else str(error)
    return ""
