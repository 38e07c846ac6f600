"""A persistent gallery that is searched by description, image or vector.

It is a folder such as ``g.db`` (:mod:`cskt.search.folder`); with the address of a Milvus server or
cluster in its place the same code runs there (:mod:`cskt.search.milvus`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cskt.config import MINI, TrainConfig, cache_dir
from cskt.data.datasets import Split
from cskt.data.images import resize
from cskt.errors import ConfigurationError, DataError, GalleryError, ModelError
from cskt.model.cskt import CSKT
from cskt.numerics import PRECISIONS, resolve_precision
from cskt.ranks import Ranks
from cskt.runs import METRICS, open_model, run_name
from cskt.search.folder import FolderRows, check_folder
from cskt.search.hits import Hit
from cskt.search.indexing import (
    Added,
    Intake,
    Prepared,
    Thumbnails,
    in_advance,
    progress_of,
    row_of,
)
from cskt.search.milvus import INDEXES, MAX_HITS, ServerRows, checked_place, is_folder
from cskt.search.pictures import checked, items_of, picture_of
from cskt.search.query import encode_description, encode_pixels, encoding, remarks, unit_vector
from cskt.search.sharing import share_of, total_of

FORMAT = "2"  # of the rows; raise when their fields change
WORKERS = min(8, os.cpu_count() or 1)  # each holds a decoded image
WRITTEN = 1000  # vectors at a time, to a server
WRITTEN_TO_FOLDER = 20_000
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
        self.embedded = is_folder(self.uri)
        self._check_index(index)
        self._rows: FolderRows | ServerRows
        if self.embedded:
            check_folder(Path(self.uri), create)
            self._rows = FolderRows(self.uri, name)
        else:
            self._rows = ServerRows(self.uri, name, token)
        self._model: CSKT | None = None
        self._source = ""  # where the model is loaded from
        if isinstance(model, CSKT):
            self._model = model
        elif model is not None:
            self._source = os.path.abspath(model) if os.path.isdir(model) else str(model)
            self._model = self._load_model()  # if there is none, nothing is left behind
        self._thumbnails = Thumbnails(Path(thumbnails or self._default_thumbnails()))
        try:
            if not self._rows.exists():
                if not create:
                    raise GalleryError(
                        f"{self.uri} holds no gallery {self.name!r}; make one: "
                        f"python -m cskt index FOLDER --gallery {self.uri}"
                    )
                self._create(index, shards, precision)
            self._open()  # of two processes that make it at once, the second finds it made
        except BaseException:
            self.close()
            raise

    def _check_index(self, index: str) -> None:
        if index not in INDEXES:
            raise ConfigurationError(f"index must be one of {', '.join(INDEXES)}, got {index!r}.")
        if self.embedded and index != "FLAT":
            raise ConfigurationError(
                f"a gallery in a folder is searched exactly (FLAT); {index} is for a Milvus "
                "server, whose address takes the place of the folder."
            )

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
        record = {
            "format": FORMAT,
            "model": model.fingerprint(),
            "source": self._source,
            "index": index,
            "dimension": str(model.dimension),
            "precision": resolve_precision(precision, model.device.type),
        }
        if isinstance(self._rows, FolderRows):
            self._rows.create(model.dimension, record)
        else:
            self._rows.create(model.dimension, index, shards, record)

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
        ranks: Ranks | None = None,
    ) -> Added:
        """Add a folder (with all below it), a split, files, PIL images or an (N, H, W, 3) uint8
        array.

        ``metadata``: for a folder a mapping from the path below it to facts, else one mapping per
        image. ``identity``, ``camera``, ``time`` and ``source`` have fields of their own; other
        facts can be filtered by as well. What the gallery holds already, by content, is left alone,
        its facts too: an interrupted call is continued by the same call. Files that are no images,
        are damaged or have too many pixels are skipped and listed. ``on_batch(done, of)`` is called
        after each batch. The next batch is decoded while one is encoded. With several ``ranks``,
        each of which calls this, every one takes a share of the images and returns what all did.
        :class:`CSKTError` where there is nothing to add, or the disk or server fails.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}.")
        ranks = ranks or Ranks()
        added = Added()
        items = items_of(images, metadata, added.skipped)
        if not items and not added.skipped:
            given = images if isinstance(images, str | Path) else "no image"
            raise DataError(
                f"there is nothing to add: {given} holds no file; give a folder with images."
            )
        with ThreadPoolExecutor(WORKERS) as pool:
            items = share_of(ranks, items, pool, added)
            batches = [items[at : at + batch_size] for at in range(0, len(items), batch_size)]
            intake = Intake(self._rows.known, self.model.image_size, pool, added)
            done = 0
            with (
                encoding(self.model, self.record["precision"]),
                progress_of("indexing", len(items), hidden=not ranks.first) as bar,
                contextlib.closing(in_advance(intake, batches)) as prepared,
            ):
                for batch, fresh in zip(batches, prepared, strict=True):
                    self._store(fresh, added)
                    done += len(batch)
                    bar.update(len(batch))
                    if on_batch:
                        on_batch(done, len(items))
        return total_of(ranks, added)

    def _store(self, images: Sequence[Prepared], added: Added) -> None:
        if not images:
            return
        # First, so that a row's thumbnail is there, whenever this is interrupted.
        for image in images:
            self._thumbnails.keep(image.digest, image.thumbnail)
        pixels = np.stack([image.pixels for image in images])
        vectors = encode_pixels(self.model, self.record["precision"], pixels)
        rows = []
        for image, vector in zip(images, vectors, strict=True):
            rows.append(row_of(image.digest, image.item.source, image.item.facts, vector))
        stored = self._rows.insert(rows)
        added.added += stored
        added.known += len(rows) - stored  # another process was faster

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
        written = WRITTEN_TO_FOLDER if self.embedded else WRITTEN
        for first in range(0, len(rows), written):
            self._rows.insert(rows[first : first + written])
        return len(self) - before

    def search(self, query: Query, k: int = 10, where: str = "") -> list[Hit]:
        """The ``k`` images most similar to a description (str), a picture (Path, PIL image or (H,
        W, 3) uint8 array), a vector (D,) or another hit; best first, fewer where fewer fit, and
        never more than 16,384.

        ``where`` filters by facts: ``"camera == 'c3' and identity in [1, 2]"``. :class:`CSKTError`
        for an empty or over-long description, an unreadable picture, a vector of another size or a
        filter that is not understood.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ConfigurationError(f"k must be at least 1 and an integer, got {k!r:.80}.")
        if not isinstance(where, str):
            raise ConfigurationError(f"where must be a text, got {where!r:.80}.")
        vector = self.encode(query)
        k = min(int(k), MAX_HITS)
        if isinstance(self._rows, FolderRows):
            rows = self._rows.search(vector, k, where)
        else:
            rows = self._rows.search(vector, k, where, self.record["index"])
        return [self._hit(row["id"], row["distance"], dict(row["entity"])) for row in rows]

    def _hit(self, digest: str, score: float, facts: dict[str, Any]) -> Hit:
        # For other clients: a row that somebody else wrote could name any file.
        facts.pop("thumbnail", None)
        return Hit(
            id=digest,
            score=float(score),
            source=facts.pop("source", None),
            thumbnail=self._thumbnails.found(digest),
            identity=facts.pop("identity", None),
            camera=facts.pop("camera", None),
            time=facts.pop("time", None),
            extra=facts,
        )

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
        vector = self._rows.vector(hit.id)
        if vector is None:
            raise GalleryError(f"{hit.source} is no longer in the gallery {self.uri}.")
        return unit_vector(vector, int(self.record["dimension"]))

    def remarks(self, text: str) -> list[str]:
        """What to know of a description, see :func:`cskt.search.query.remarks`."""
        return remarks(self.model, text)

    def delete(self, where: str) -> int:
        """Remove the images that a filter names, with their thumbnails; returns how many there
        were.

        In a folder what was stored of them is overwritten. A server marks rows before it drops
        them: their bytes may stay for a while."""
        if not where.strip():
            raise ConfigurationError(
                "delete needs a filter, such as camera == 'c3'; to remove all, delete the gallery."
            )
        removed = 0
        while True:
            digests = self._rows.matching(where, MAX_HITS)
            if not digests:
                return removed
            self._rows.delete(digests)
            for digest in digests:
                with contextlib.suppress(OSError):
                    self._thumbnails.path(digest).unlink()
            removed += len(digests)

    def values(self, name: str) -> list[Any]:
        """The distinct values of a field, such as ``"camera"``; on a server among the first 16,384
        images."""
        return sorted(self._rows.values(name))

    def __len__(self) -> int:
        """Number of images."""
        return self._rows.count()

    def wait_for_index(self) -> None:
        """Until a server has indexed what it was given; a gallery in a folder has no index."""
        if isinstance(self._rows, ServerRows):
            self._rows.wait_for_index()

    def drop(self) -> None:
        """Remove the gallery, with all its rows, from its place; its thumbnails stay."""
        self._rows.drop()

    def close(self) -> None:
        """Let go of the files, or of the server."""
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
