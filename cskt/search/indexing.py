"""From images as they are given to what a gallery stores of each: once a content, decoded, with a
thumbnail."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cskt.data.images import resize
from cskt.errors import ResourceError
from cskt.files import write_atomically
from cskt.search.hits import THUMBNAIL
from cskt.search.pictures import Item, Refusal, attempt


@dataclass
class Added:
    """What :meth:`cskt.search.gallery.Gallery.add` did: images ``added``, ``known`` already (by
    content), and ``skipped``: file -> why."""

    added: int = 0
    known: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """An image to store: ``pixels`` (3, H, W) uint8 as the model sees them, and a small JPEG."""

    digest: str
    item: Item
    pixels: np.ndarray
    thumbnail: bytes


def prepare(digest: str, item: Item, image_size: tuple[int, int]) -> Prepared:
    """Decode an image for a model's ``image_size``; :class:`CSKTError` where that fails."""
    picture = item.picture()
    small = picture.convert("RGB")
    small.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    pixels = resize(picture, image_size)
    return Prepared(digest, item, pixels, buffer.getvalue())


class Intake:
    """Decodes the images of a call that a gallery does not hold, batch by batch, each content once.

    ``known`` says of digests which the gallery holds. What is known or cannot be used is counted in
    ``added``.
    """

    def __init__(
        self,
        known: Callable[[Collection[str]], set[str]],
        image_size: tuple[int, int],
        pool: ThreadPoolExecutor,
        added: Added,
    ) -> None:
        self._known = known
        self._image_size = image_size
        self._pool = pool
        self._added = added
        self._taken: set[str] = set()  # which the gallery may not hold yet

    def __call__(self, batch: Sequence[Item]) -> list[Prepared]:
        copies = self._by_content(batch)
        stored = self._taken | self._known(list(copies))
        fresh = [digest for digest in copies if digest not in stored]

        def decode(digest: str) -> Prepared:
            return prepare(digest, copies[digest][0], self._image_size)

        ready = []
        for digest, outcome in zip(fresh, self._pool.map(attempt(decode), fresh), strict=True):
            if isinstance(outcome, Refusal):
                for item in copies.pop(digest):
                    self._added.skipped[item.source] = outcome.reason
            else:
                ready.append(outcome)
                self._taken.add(digest)
        usable = sum(len(items) for items in copies.values())
        self._added.known += usable - len(ready)
        return ready

    def _by_content(self, batch: Sequence[Item]) -> dict[str, list[Item]]:
        copies: dict[str, list[Item]] = {}
        digests = self._pool.map(attempt(Item.digest), batch)
        for item, digest in zip(batch, digests, strict=True):
            if isinstance(digest, Refusal):
                self._added.skipped[item.source] = digest.reason
            else:
                copies.setdefault(digest, []).append(item)
        return copies


def in_advance(
    work: Callable[[Sequence[Item]], list[Prepared]], batches: Sequence[Sequence[Item]]
) -> Generator[list[Prepared], None, None]:
    """``work`` of every batch, in order: of the next one in a thread, while the caller is busy with
    one."""
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for batch in batches:
            following = thread.submit(work, batch)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()


def progress_of(what: str, total: int, hidden: bool) -> tqdm:
    """A bar of so many images, in a terminal only."""
    return tqdm(total=total, desc=what, unit="image", leave=False, disable=hidden or None)


def row_of(
    digest: str, source: str, facts: Mapping[str, Any], vector: np.ndarray
) -> dict[str, Any]:
    """An image as a gallery stores it: its vector, where it came from, and the facts that are
    known."""
    row = {name: value for name, value in facts.items() if value is not None}
    row["id"] = digest
    row["vector"] = vector
    row["source"] = source
    row["thumbnail"] = Thumbnails.name(digest)
    return row


@dataclass(frozen=True)
class Thumbnails:
    """Small JPEG files in a folder, by the digest of their image."""

    folder: Path

    @staticmethod
    def name(digest: str) -> str:
        """A thumbnail's path below the folder."""
        return f"{digest[:2]}/{digest}.jpg"

    def path(self, digest: str) -> Path:
        return self.folder / self.name(Path(digest).name)

    def found(self, digest: str) -> Path | None:
        """A thumbnail that is there, and a file of this folder's own: a link, whether the file or
        its folder, could lead to any file of the reader's."""
        path = self.path(digest)
        if path.is_symlink() or path.parent.is_symlink() or self.folder.is_symlink():
            return None
        return path if path.is_file() else None

    def keep(self, digest: str, content: bytes) -> None:
        """Write a thumbnail; :class:`CSKTError` where there is no room for it."""
        path = self.path(digest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise ResourceError(
                f"the thumbnail {path} cannot be written ({error}); make room or choose another "
                "place, and repeat the call: it goes on where it stopped."
            ) from error
