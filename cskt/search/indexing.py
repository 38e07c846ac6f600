"""From images as they are given to what a gallery stores of each: once a content, decoded, with a
thumbnail."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cskt.data.images import resize
from cskt.errors import ResourceError
from cskt.files import write_atomically
from cskt.search.hits import THUMBNAIL
from cskt.search.pictures import Item, Refusal, attempt, taken_at


@dataclass
class Added:
    """What :meth:`cskt.search.gallery.Gallery.add` did: images ``added``, ``known`` already (by
    content), and ``skipped``: file -> why."""

    added: int = 0
    known: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """An image to store: ``pixels`` (3, H, W) uint8 as the model sees them, when it was ``taken``
    (None: not known), and a small JPEG."""

    digest: str
    item: Item
    pixels: np.ndarray
    taken: str | None
    thumbnail: bytes


def prepare(digest: str, item: Item, image_size: tuple[int, int]) -> Prepared:
    """Decode an image for a model's ``image_size``; :class:`CSKTError` where that fails."""
    picture = item.picture()
    small = picture.convert("RGB")
    small.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    pixels = resize(picture, image_size)
    return Prepared(digest, item, pixels, taken_at(picture), buffer.getvalue())


class Intake:
    """Sorts the images of one call of :meth:`cskt.search.gallery.Gallery.add`, batch by batch, and
    counts in ``added`` those that are known or cannot be used."""

    def __init__(self, image_size: tuple[int, int], pool: ThreadPoolExecutor, added: Added) -> None:
        self.image_size = image_size
        self.added = added
        self._pool = pool
        self._seen: set[str] = set()  # contents of this call that are in the gallery by now
        self._copies: list[tuple[str, Item]] = []  # of this batch

    def distinct(self, batch: Sequence[Item]) -> dict[str, Item]:
        """One image of each content that this call has not seen: digest -> image."""
        first: dict[str, Item] = {}
        self._copies = []
        digests = self._pool.map(attempt(Item.digest), batch)
        for item, digest in zip(batch, digests, strict=True):
            if isinstance(digest, Refusal):
                self.added.skipped[item.source] = digest.reason
            elif digest in self._seen or digest in first:
                self._copies.append((digest, item))
            else:
                first[digest] = item
        return first

    def prepared(self, distinct: Mapping[str, Item], known: Collection[str]) -> list[Prepared]:
        """Those of :meth:`distinct` that the gallery does not know, decoded."""

        def decode(digest: str) -> Prepared:
            return prepare(digest, distinct[digest], self.image_size)

        fresh = [digest for digest in distinct if digest not in known]
        ready: list[Prepared] = []
        refusals: dict[str, str] = {}
        for digest, outcome in zip(fresh, self._pool.map(attempt(decode), fresh), strict=True):
            if isinstance(outcome, Refusal):
                refusals[digest] = outcome.reason
                self.added.skipped[distinct[digest].source] = outcome.reason
            else:
                ready.append(outcome)
        self._seen.update(set(distinct) - set(refusals))
        self.added.known += len(known)
        for digest, item in self._copies:
            if digest in refusals:
                self.added.skipped[item.source] = refusals[digest]
            else:
                self.added.known += 1
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
