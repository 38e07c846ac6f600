"""A persistent gallery that is searched by description, image or vector: Milvus holds vectors and
metadata.

Without a server the gallery is a folder such as ``g.db`` (milvus-lite); with the address of a
Milvus server or cluster in its place the same code runs there. See :mod:`cskt.search.milvus`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cskt.config import MINI, TrainConfig, cache_dir
from cskt.data.datasets import Split
from cskt.data.images import resize
from cskt.errors import ConfigurationError, DataError, GalleryError, ModelError
from cskt.model.cskt import CSKT
from cskt.numerics import PRECISIONS, resolve_precision
from cskt.runs import METRICS, open_model, run_name
from cskt.search.feedback import query_vector, search_without
from cskt.search.hits import Hit, hit_of
from cskt.search.indexing import Added, Prepared, Thumbnails, row_of, take_in
from cskt.search.milvus import (
    FIELDS,
    INDEXES,
    MAX_HITS,
    check_folder,
    checked_place,
    search_parameters,
)
from cskt.search.milvus import Collection as Rows
from cskt.search.pictures import checked, items_of, picture_of
from cskt.search.query import encode_description, encode_pixels, encoding, remarks, unit_vector

FORMAT = "1"  # of the collection; raise when its fields change
WORKERS = min(8, os.cpu_count() or 1)  # each holds a decoded image
WRITTEN = 1000  # vectors at a time
Query = str | Path | Image.Image | np.ndarray | Tensor | Hit


class Gallery:
    """Images that can be searched, kept at ``uri``: a folder (made if missing), or
    ``http://host:19530`` of a server.

    ``model`` encodes: a :class:`CSKT`, the folder of a run or of a saved model, or ``"cskt-mini"``.
    A gallery knows its model and refuses another; without ``model`` the one noted in it is loaded
    when needed, and a new one takes :func:`default_model`. ``create=False`` makes none. ``index``
    is one of :data:`INDEXES` and, like ``shards`` and ``precision``, counts when the gallery is
    made. One place holds several galleries by ``name``. ``token`` is a server's. ``thumbnails``:
    their folder, by default in the gallery's own, for a server in the cache.

    ``precision`` (:func:`cskt.numerics.resolve_precision`) is resolved once, for the device on
    which the gallery is made, and noted. Images and queries are encoded in it from then on, also
    where it is emulated, since a cosine of two precisions is neither's.

    ``record`` is what the gallery notes: ``format``, ``model`` (its fingerprint), ``source`` (where
    the model was), ``index``, ``dimension`` and ``precision``.

    :class:`CSKTError` for a place that holds no gallery, or one of another format or model, or that
    does not answer.
    """

    def __init__(
        self,
        uri: str | Path,
        model: CSKT | str | Path | None = None,
        *,
        name: str = "gallery",
        create: bool = True,
        index: str = "FLAT",
        shards: int = 1,
        precision: str = "auto",
        token: str = "",
        thumbnails: str | Path | None = None,
    ) -> None:
        self.uri = checked_place(uri)
        self.name = name
        self.record: dict[str, str] = {}
        self._rows = Rows(self.uri, name, token)
        self.embedded = self._rows.embedded
        if index not in INDEXES:
            raise ConfigurationError(f"index must be one of {', '.join(INDEXES)}, got {index!r}.")
        if self.embedded:
            check_folder(Path(self.uri), create)
        self._model: CSKT | None = None
        self._source = ""  # where the model is loaded from
        if isinstance(model, CSKT):
            self._model = model
        elif model is not None:
            self._source = os.path.abspath(model) if os.path.isdir(model) else str(model)
            self._model = self._load_model()  # if there is none, nothing is left behind
        self._thumbnails = Thumbnails(Path(thumbnails or self._default_thumbnails()))
        try:
            self._rows.connect()
            # Of two processes that make a gallery at once, the second finds it made.
            with self._rows.writing():
                if self._rows.exists():
                    self._open()
                elif create:
                    self._create(index, shards, precision)
                else:
                    raise GalleryError(
                        f"{self.uri} holds no gallery {self.name!r}; make one: "
                        f"python -m cskt index FOLDER --gallery {self.uri}"
                    )
            columns = self._rows.columns()
        except BaseException:
            self.close()
            raise
        # All that is known of a row but its vector; $meta holds the facts without a column.
        self._shown = ["$meta", *(field for field in FIELDS if field in columns)]

    def _default_thumbnails(self) -> Path:
        if self.embedded:
            return Path(self.uri, "thumbnails", self.name)
        place = hashlib.sha256(f"{self.uri} {self.name}".encode()).hexdigest()[:16]
        return cache_dir() / "thumbnails" / place

    def _open(self) -> None:
        """Read the record, and compare it with the model that was given, if one was."""
        record = self._rows.properties()
        self._check_record(record)
        self._source = self._source or record["source"]
        if self._model is not None and self._model.fingerprint() != record["model"]:
            raise GalleryError(
                f"the gallery {self.uri} was written by another model ({record['model']}, "
                f"{record['source'] or 'source unknown'}; this one is "
                f"{self._model.fingerprint()}): its vectors cannot be compared. "
                "Open it with that model, or index into a new gallery."
            )
        self.record = record

    def _check_record(self, record: Mapping[str, str]) -> None:
        # Those that do not say their precision held images in bf16 on one chip, fp32 on another.
        if record.get("format") != FORMAT or record.get("precision") not in PRECISIONS:
            raise GalleryError(
                f"the gallery {self.uri} has format {record.get('format', 'unknown')} and "
                f"precision {record.get('precision', 'unknown')}, which this version of cskt does "
                "not read; index the images into a new gallery."
            )

    def _create(self, index: str, shards: int, precision: str) -> None:
        if self._model is None:
            self._source = default_model()
        model = self.model
        self.record = {
            "format": FORMAT,
            "model": model.fingerprint(),
            "source": self._source,
            "index": index,
            "dimension": str(model.dimension),
            "precision": resolve_precision(precision, model.device.type),
        }
        self._rows.create(model.dimension, index, shards, self.record)

    @property
    def model(self) -> CSKT:
        """The gallery's model; :class:`CSKTError` if the one noted is gone or has changed."""
        if self._model is None:
            self._model = self._load_model()
        return self._model

    def _load_model(self) -> CSKT:
        if not self._source:
            raise GalleryError(
                f"the gallery {self.uri} does not know where its model is; give the model."
            )
        # A search may be within inference mode, and such weights would allow no gradients.
        with torch.inference_mode(False):
            model = open_model(self._source)
        if self.record and model.fingerprint() != self.record["model"]:
            raise ModelError(
                f"the model {self._source} is no longer the one that wrote the gallery {self.uri} "
                f"({self.record['model']}); give that model, or index into a new gallery."
            )
        return model

    def add(
        self,
        images: str | Path | Split | np.ndarray | Sequence[Any],
        metadata: Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]] | None = None,
        batch_size: int = 64,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Added:
        """Add a folder (with all below it), a split, files, PIL images or an (N, H, W, 3) uint8
        array.

        ``metadata``: for a folder a mapping from the path below it to facts, else one mapping per
        image. ``identity``, ``camera``, ``time`` and ``source`` have fields of their own; other
        facts can be filtered by as well. What the gallery holds already, by content, is left alone,
        its facts too: an interrupted call is continued by the same call. Files that are no images,
        are damaged or have too many pixels are skipped and listed. ``on_batch(done, of)`` is called
        after each batch. :class:`CSKTError` where there is nothing to add, or the disk or server
        fails.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}.")
        added = Added()
        items = items_of(images, metadata, added.skipped)
        if not items and not added.skipped:
            given = images if isinstance(images, str | Path) else "no image"
            raise DataError(
                f"there is nothing to add: {given} holds no file; give a folder with images."
            )
        with (
            ThreadPoolExecutor(WORKERS) as pool,
            encoding(self.model, self.record["precision"]),
            tqdm(total=len(items), desc="indexing", unit="image", leave=False, disable=None) as bar,
        ):
            for first in range(0, len(items), batch_size):
                batch = items[first : first + batch_size]
                fresh = take_in(batch, self._known, self.model.image_size, pool, added)
                if fresh:
                    self._store(fresh)
                    added.added += len(fresh)
                bar.update(len(batch))
                if on_batch:
                    on_batch(first + len(batch), len(items))
        return added

    def _known(self, digests: Collection[str]) -> set[str]:
        """Those that the gallery holds."""
        if not digests:
            return set()
        return {row["id"] for row in self._rows.get(list(digests), ["id"])}

    def _store(self, images: Sequence[Prepared]) -> None:
        # First, so that a row's thumbnail is there, whenever this is interrupted.
        for image in images:
            self._thumbnails.keep(image.digest, image.thumbnail)
        pixels = np.stack([image.pixels for image in images])
        vectors = encode_pixels(self.model, self.record["precision"], pixels)
        rows = []
        for image, vector in zip(images, vectors, strict=True):
            rows.append(row_of(image.digest, image.item.source, image.item.facts, vector))
        self._rows.insert(rows)

    def add_vectors(
        self, vectors: np.ndarray | Tensor, metadata: Sequence[Mapping[str, Any]]
    ) -> int:
        """Add features (N, D) that the gallery's model computed elsewhere, one mapping of facts
        each (see :meth:`add`); returns how many are new. There is no thumbnail: ``source`` should
        name the file."""
        features = np.asarray(vectors, np.float32)
        expected = (len(metadata), int(self.record["dimension"]))
        if features.shape != expected or not np.isfinite(features).all():
            raise DataError(
                f"vectors must be finite ({expected[0]}, {expected[1]}), one for each of the "
                f"metadata, got {features.shape}."
            )
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        if not lengths.all():
            raise DataError("vectors must not be all 0.")
        rows = []
        for index, vector in enumerate(features / lengths):
            source = str(metadata[index].get("source", f"vector {index}"))
            facts = checked(metadata[index], source)
            digest = hashlib.sha256(source.encode() + vector.tobytes()).hexdigest()[:32]
            rows.append(row_of(digest, source, facts, vector))
        before = len(self)
        for first in range(0, len(rows), WRITTEN):
            self._rows.insert(rows[first : first + WRITTEN])
        return len(self) - before

    def search(
        self,
        query: Query,
        k: int = 10,
        where: str = "",
        *,
        image: Query | None = None,
        right: Collection[Query] = (),
        wrong: Collection[Query] = (),
        exclude: Collection[Hit | str | int] = (),
    ) -> list[Hit]:
        """The ``k`` images most similar to a description (str), a picture (Path, PIL image or (H,
        W, 3) uint8 array), a vector (D,) or another hit; best first, fewer where fewer fit, and
        never more than 16,384.

        ``image``: a picture or hit that the description is combined with ("like this one, but with
        a red bag"). ``right`` and ``wrong``: hits or pictures that the answer should be more or
        less like (:func:`cskt.analysis.feedback.refined_query`). ``exclude``: hits and ids of
        images that are left out, and identities (numbers) all of whose images are.

        ``where`` filters by facts: ``"camera == 'c3' and identity in [1, 2]"``. :class:`CSKTError`
        for an empty or over-long description, an unreadable picture, a vector of another size or a
        filter that is not understood.
        """
        if k < 1:
            raise ConfigurationError(f"k must be at least 1, got {k}.")
        vector = query_vector(self.encode, query, image, right, wrong)
        nearest = functools.partial(self._nearest, vector, where)
        return search_without(nearest, min(k, MAX_HITS), exclude, MAX_HITS)

    def _nearest(self, vector: np.ndarray, where: str, k: int) -> list[Hit]:
        """The ``k`` images nearest to a vector that fit a filter."""
        parameters = search_parameters(self.record.get("index", "FLAT"), k)
        rows = self._rows.search(vector, k, where, self._shown, parameters)
        return [self._hit(row["id"], row["distance"], dict(row["entity"])) for row in rows]

    def _hit(self, digest: str, score: float, facts: dict[str, Any]) -> Hit:
        thumbnail = self._thumbnails.path(digest)
        return hit_of(digest, score, facts, thumbnail if thumbnail.is_file() else None)

    def encode(self, query: Query) -> np.ndarray:
        """The L2-normalised vector (D,) float32 of a query, as :meth:`search` takes it."""
        if isinstance(query, str):
            return encode_description(self.model, self.record["precision"], query)
        if isinstance(query, Hit):
            return self._stored_vector(query)
        vector = query.float().cpu().numpy() if isinstance(query, Tensor) else query
        if isinstance(vector, np.ndarray) and vector.ndim == 1:
            return unit_vector(vector, int(self.record["dimension"]))
        pixels = resize(picture_of(vector), self.model.image_size)
        batch = np.array(pixels)[None]  # a copy, which torch may own
        return encode_pixels(self.model, self.record["precision"], batch, once=True)[0]

    def _stored_vector(self, hit: Hit) -> np.ndarray:
        rows = self._rows.get([hit.id], ["vector"])
        if not rows:
            raise GalleryError(f"{hit.source} is no longer in the gallery {self.uri}.")
        vector = np.array(rows[0]["vector"], np.float32)
        return unit_vector(vector, int(self.record["dimension"]))

    def remarks(self, text: str) -> list[str]:
        """What to know of a description: words that the backbone has never seen, or that are too
        many for it."""
        return remarks(self.model, text)

    def delete(self, where: str) -> int:
        """Remove the images that a filter names, with their thumbnails; returns how many there
        were.

        They are found no more, but Milvus marks rows before it drops them: in a folder their bytes
        may stay until it is deleted. To erase, index what may stay into a new gallery and delete
        the old one."""
        if not where.strip():
            raise ConfigurationError(
                "delete needs a filter, such as camera == 'c3'; to remove all, delete the gallery."
            )
        removed = 0
        while True:
            rows = self._rows.query(where, ["id"])
            if not rows:
                return removed
            digests = [row["id"] for row in rows]
            self._rows.delete(digests)
            for digest in digests:
                with contextlib.suppress(OSError):
                    self._thumbnails.path(digest).unlink()
            removed += len(rows)

    def values(self, name: str) -> list[Any]:
        """The distinct values of a field, such as ``"camera"``, among the first 16,384 images."""
        rows = self._rows.query("", [name])
        return sorted({row[name] for row in rows if row.get(name) is not None})

    def __len__(self) -> int:
        """Number of images."""
        return self._rows.count()

    def wait_for_index(self) -> None:
        """Until a server has indexed what it was given. A gallery in a folder is indexed when it is
        opened."""
        self._rows.wait_for_index()

    def drop(self) -> None:
        """Remove the gallery, with all its rows, from its place; its thumbnails stay."""
        self._rows.drop()

    def close(self) -> None:
        """Write everything out and let go; another process may serve the gallery from then on."""
        self._rows.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def default_model() -> str:
    """The folder of the default run where it has been trained, else ``"cskt-mini"``, the backbone
    as it comes."""
    trained = Path("runs", run_name(TrainConfig.mini()))
    return os.path.abspath(trained) if (trained / METRICS).is_file() else MINI
