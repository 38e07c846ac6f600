"""From images as they are given to what a gallery stores of each: once a content, decoded, with a
thumbnail."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cskt.data.images import resize
from cskt.errors import ResourceError
from cskt.files import write_atomically
from cskt.search.hits import THUMBNAIL
from cskt.search.pictures import Item, Refusal, attempt

UNFINISHED = 60  # seconds after which no process can still be writing a thumbnail


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


def take_in(
    batch: Sequence[Item],
    known: Callable[[Collection[str]], set[str]],
    image_size: tuple[int, int],
    pool: ThreadPoolExecutor,
    added: Added,
) -> list[Prepared]:
    """Decode those of a batch that a gallery does not hold, each content once; ``known`` says of
    digests which it holds. What is known or cannot be used is counted in ``added``."""
    copies: dict[str, list[Item]] = {}
    for item, digest in zip(batch, pool.map(attempt(Item.digest), batch), strict=True):
        if isinstance(digest, Refusal):
            added.skipped[item.source] = digest.reason
        else:
            copies.setdefault(digest, []).append(item)
    stored = known(copies)
    fresh = [digest for digest in copies if digest not in stored]

    def decode(digest: str) -> Prepared:
        return prepare(digest, copies[digest][0], image_size)

    ready = []
    for digest, outcome in zip(fresh, pool.map(attempt(decode), fresh), strict=True):
        if isinstance(outcome, Refusal):
            for item in copies.pop(digest):
                added.skipped[item.source] = outcome.reason
        else:
            ready.append(outcome)
    usable = sum(len(items) for items in copies.values())
    added.known += usable - len(ready)
    return ready


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

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Within the block, thumbnails are kept; what a call before that was killed left
        half-written goes first. :class:`CSKTError` where nothing can be written."""
        note = self.folder / "ADDING"
        with self._room_named(self.folder):
            if note.exists():
                self._remove_unfinished()
            self.folder.mkdir(parents=True, exist_ok=True)
            note.touch()
        try:
            yield
        finally:
            note.unlink(missing_ok=True)

    def _remove_unfinished(self) -> None:
        """Remove half-written thumbnails, but those that another process may be writing now."""
        for left in self.folder.glob("*/.*.tmp"):
            if time.time() - left.stat().st_mtime > UNFINISHED:
                left.unlink(missing_ok=True)

    def keep(self, digest: str, content: bytes) -> None:
        """Write a thumbnail; :class:`CSKTError` where there is no room for it."""
        path = self.path(digest)
        with self._room_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    @staticmethod
    @contextlib.contextmanager
    def _room_named(path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"the thumbnail {path} cannot be written ({error}); make room or choose another "
                "place, and repeat the call: it goes on where it stopped."
            ) from error
