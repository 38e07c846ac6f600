"""A persistent gallery that is searched by description, image or vector: Milvus holds vectors and
metadata.

Without a server the gallery is a folder such as ``g.db`` (milvus-lite); with the address of a
Milvus server or cluster in its place the same code runs there. One process at a time can have such
a folder open: it serves the others, on the loopback interface only, and when it ends another one
takes over.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from torch import Tensor
from tqdm import tqdm

from cskt.errors import CSKTError

from .config import MINI, TrainConfig, cache_dir
from .data.augment import normalize
from .data.datasets import Split
from .data.images import read_image, reason, resize
from .data.pipeline import normalize
from .model.cskt import CSKT
from .numerics import PRECISIONS, resolve_precision
from .pictures import (
    Item,
    attempt,
    checked,
    digest_of,
    files_below,
    from_file,
    from_memory,
    picture_of,
    taken_at,
)
from .runs import METRICS, open_model, run_name

for _name in (
    "pymilvus",
    "grpc",
    "milvus_lite",
    "faiss",
):  # they log a traceback for what is raised here as a sentence
    logging.getLogger(_name).setLevel(logging.CRITICAL)

FORMAT = "1"  # of the collection; raise when its fields change
MAX_HITS = 16_384  # Milvus returns no more at once
MAX_QUERY = 500  # characters
WORKERS = min(8, os.cpu_count() or 1)  # each holds a decoded image
THUMBNAIL = (256, 256)
ENCODED = 256  # images encoded at a time
FIELDS = ("source", "thumbnail", "identity", "camera", "time")
# What to build and what to give a search for k hits. FLAT is exact; DISKANN is for servers only.
INDEXES: dict[str, tuple[dict[str, int], Callable[[int], dict[str, int]]]] = {
    "FLAT": ({}, lambda k: {}),
    "IVF_FLAT": ({"nlist": 1024}, lambda k: {"nprobe": 128}),
    "IVF_SQ8": ({"nlist": 1024}, lambda k: {"nprobe": 128}),
    "HNSW": ({"M": 16, "efConstruction": 200}, lambda k: {"ef": max(128, 2 * k)}),
    "DISKANN": ({}, lambda k: {"search_list": max(100, 2 * k)}),
}
UNAVAILABLE, PATIENCE = (
    2,
    30.0,
)  # pymilvus' code for a server that is gone; seconds that a new one may take
MISREAD = (6, 1100, 65535)  # codes for a filter with a fault: milvus-lite's, and servers'
Query = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class Hit:
    """An image found: cosine similarity ``score``, where it came from, and what is known of it
    (None: unknown)."""

    id: str
    score: float
    source: str
    thumbnail: Path | None = None
    identity: int | None = None
    camera: str | None = None
    time: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def label(self) -> str:
        """What is known of the image, in a line."""
        known = {"identity": self.identity, "camera": self.camera, "time": self.time, **self.extra}
        return ", ".join(
            [
                Path(self.source).name,
                *(f"{name} {value}" for name, value in known.items() if value is not None),
            ]
        )

    def image(self) -> Image.Image:
        """The picture itself, or its thumbnail where that is gone or another by now;
        :class:`CSKTError` if both are."""
        for path in filter(None, (Path(self.source), self.thumbnail)):
            with contextlib.suppress(CSKTError, OSError):
                if path == self.thumbnail or digest_of(path) == self.id:
                    return read_image(path)
        raise CSKTError(
            f"the image {self.source} and its thumbnail are gone; restore the file or index it again."
        )


@dataclass
class Added:
    """What :meth:`Gallery.add` did: images ``added``, ``known`` already (by content), and
    ``skipped``: file -> why."""

    added: int = 0
    known: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


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
        self.embedded, self.name, self._token = "://" not in str(uri), name, token
        self.uri = str(Path(uri).expanduser()) if self.embedded else str(uri)
        if re.match(r"\w\w+:", self.uri) and not urlsplit(self.uri).hostname:
            raise CSKTError(
                f"{uri} is no address of a Milvus server; write it as http://host:19530."
            )
        if index not in INDEXES:
            raise CSKTError(f"index must be one of {', '.join(INDEXES)}, got {index!r}.")
        self._client: MilvusClient | None = None
        self._server: tuple[Any, Any] | None = None
        self._closer = weakref.finalize(self, lambda: None)
        self._model = model if isinstance(model, CSKT) else None
        self._given = None if model is None or isinstance(model, CSKT) else str(model)
        if self._given and os.path.isdir(self._given):
            self._given = os.path.abspath(self._given)
        self._source, self.record = self._given or "", {}
        if self.embedded:
            self._check_folder(create)
        if self._given:
            _ = self.model  # if there is none, nothing is left behind
        place = (
            cache_dir()
            / "thumbnails"
            / hashlib.sha256(f"{self.uri} {name}".encode()).hexdigest()[:16]
        )
        self.thumbnails = Path(
            thumbnails or (Path(self.uri, "thumbnails", name) if self.embedded else place)
        )
        try:
            self._connect()
            with (
                self._writing()
            ):  # of two processes that make a gallery at once, the second finds it made
                self._open(create, index, shards, precision)
        except BaseException:
            self.close()
            raise

    def _open(self, create: bool, index: str, shards: int, precision: str) -> None:
        """Read the gallery's record and compare it with the model that was given, if one was, or
        make the gallery."""
        if self._call("has_collection"):
            self.record = self._read_record()
            if (self._model or self._given) and (found := self.model.fingerprint()) != self.record[
                "model"
            ]:
                raise CSKTError(
                    f"the gallery {self.uri} was written by another model ({self.record['model']}, "
                    f"{self.record['source'] or 'source unknown'}; this one is {found}): its vectors "
                    "cannot be compared. Open it with that model, or index into a new gallery."
                )
            self._source = self._given or self.record["source"]
        elif not create:
            raise CSKTError(
                f"{self.uri} holds no gallery {self.name!r}; make one: python -m cskt index FOLDER "
                f"--gallery {self.uri}"
            )
        else:
            if self._model is None:
                self._source = self._given = self._given or default_model()
            resolved = resolve_precision(precision, self.model.device.type)
            self.record = {
                "format": FORMAT,
                "model": self.model.fingerprint(),
                "source": self._source,
                "index": index,
                "dimension": str(self.model.dimension),
                "precision": resolved,
            }
            self._create(shards)
        columns = {each["name"] for each in self._call("describe_collection")["fields"]}
        self._shown = ["$meta", *(name for name in FIELDS if name in columns)]  # all but the vector

    @property
    def model(self) -> CSKT:
        """The gallery's model; :class:`CSKTError` if the one noted is gone or has changed."""
        if self._model is None:
            if not self._source:
                raise CSKTError(
                    f"the gallery {self.uri} does not know where its model is; give the model."
                )
            with torch.inference_mode(
                False
            ):  # within which a search may be: such weights would allow no gradients
                model = open_model(self._source)
            if self.record and self._given is None and model.fingerprint() != self.record["model"]:
                raise CSKTError(
                    f"the model {self._source} is no longer the one that wrote the gallery {self.uri} "
                    f"({self.record['model']}); give that model, or index into a new gallery."
                )
            self._model = model
        return self._model

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
            raise CSKTError(f"batch_size must be at least 1, got {batch_size}.")
        done, seen = Added(), set()
        items = self._items(images, metadata, done.skipped)
        if not items and not done.skipped:
            raise CSKTError(
                f"there is nothing to add: {images if isinstance(images, str | Path) else 'no image'} "
                "holds no file; give a folder with images."
            )
        with (
            ThreadPoolExecutor(WORKERS) as pool,
            self._encoding(),
            tqdm(total=len(items), desc="indexing", unit="image", leave=False, disable=None) as bar,
        ):
            for first in range(0, len(items), batch_size):
                part = items[first : first + batch_size]
                new: dict[str, tuple[Item, Callable[[], Image.Image]]] = {}
                copies: list[tuple[str, Item]] = []
                for item, found in zip(
                    part, pool.map(attempt(lambda item: item.make()), part), strict=True
                ):
                    if isinstance(found, str):
                        done.skipped[item.source] = found
                    elif found[0] in seen or found[0] in new:
                        copies.append((found[0], item))
                    else:
                        new[found[0]] = item, found[1]
                held = (
                    {row["id"] for row in self._call("get", ids=list(new), output_fields=["id"])}
                    if new
                    else set()
                )
                done.known += len(held)
                fresh = [(digest, *new[digest]) for digest in new if digest not in held]
                decoded = list(pool.map(attempt(lambda each: self._decode(each[2]())), fresh))
                unfit = {
                    digest: why
                    for (digest, *_), why in zip(fresh, decoded, strict=True)
                    if isinstance(why, str)
                }
                seen |= set(new) - set(unfit)
                for digest, item in [*((digest, new[digest][0]) for digest in unfit), *copies]:
                    if digest in seen:
                        done.known += 1
                    else:
                        done.skipped[item.source] = unfit[digest]
                kept = [
                    (digest, item, *got)
                    for (digest, item, _), got in zip(fresh, decoded, strict=True)
                    if not isinstance(got, str)
                ]
                if kept:
                    for digest, _, _, _, small in kept:
                        self._keep_thumbnail(digest, small)
                    features = self._encode_pixels(np.stack([each[2] for each in kept]))
                    self._write(
                        [
                            self._row(digest, item, vector, taken)
                            for (digest, item, _, taken, _), vector in zip(
                                kept, features, strict=True
                            )
                        ]
                    )
                    done.added += len(kept)
                bar.update(len(part))
                if on_batch:
                    on_batch(min(first + batch_size, len(items)), len(items))
        return done

    def add_vectors(
        self, vectors: np.ndarray | Tensor, metadata: Sequence[Mapping[str, Any]]
    ) -> int:
        """Add features (N, D) that the gallery's model computed elsewhere, one mapping of facts
        each (see :meth:`add`); returns how many are new. There is no thumbnail: ``source`` should
        name the file."""
        vectors, size = np.asarray(vectors, np.float32), int(self.record["dimension"])
        if (
            vectors.ndim != 2
            or vectors.shape != (len(metadata), size)
            or not np.isfinite(vectors).all()
        ):
            raise CSKTError(
                f"vectors must be finite ({len(metadata)}, {size}), one for each of the metadata, got "
                f"{vectors.shape}."
            )
        lengths, before = np.linalg.norm(vectors, axis=1, keepdims=True), len(self)
        if not lengths.all():
            raise CSKTError("vectors must not be all 0.")
        written = []
        for i, (vector, facts) in enumerate(zip(vectors / lengths, metadata, strict=True)):
            source = str(facts.get("source", f"vector {i}"))
            digest = hashlib.sha256(source.encode() + vector.tobytes()).hexdigest()[:32]
            written.append(
                self._row(digest, Item(source, checked(facts, source), None), vector, None)
            )
        for first in range(0, len(written), 1000):
            self._write(written[first : first + 1000])
        return len(self) - before

    def search(self, query: Query | Hit, k: int = 10, where: str = "") -> list[Hit]:
        """The ``k`` images most similar to a description (str), a picture (Path, PIL image or (H,
        W, 3) uint8 array), a vector (D,) or another hit; best first, fewer where fewer fit, and
        never more than 16,384.

        ``where`` filters by facts: ``"camera == 'c3' and identity in [1, 2]"``. :class:`CSKTError`
        for an empty or over-long description, an unreadable picture, a vector of another size or a
        filter that is not understood.
        """
        if k < 1:
            raise CSKTError(f"k must be at least 1, got {k}.")
        vector, k = self.encode(query), min(k, MAX_HITS)
        parameters = INDEXES[self.record.get("index", "FLAT")][1](k)
        found = self._call(
            "search",
            data=[vector],
            limit=k,
            filter=where,
            output_fields=self._shown,
            search_params={"metric_type": "COSINE", "params": parameters},
        )[0]
        return [self._hit(each["id"], each["distance"], dict(each["entity"])) for each in found]

    @torch.inference_mode()
    def encode(self, query: Query | Hit) -> np.ndarray:
        """The L2-normalised vector (D,) float32 of a query, as :meth:`search` takes it."""
        if isinstance(query, str):
            text = check_description(query)
            with self._encoding(once=True) as model:
                return (
                    model.encode_text(model.tokenize([text]), normalize=True)[0]
                    .float()
                    .cpu()
                    .numpy()
                )
        if isinstance(query, Hit):
            rows = self._call("get", ids=[query.id], output_fields=["vector"])
            if not rows:
                raise CSKTError(f"{query.source} is no longer in the gallery {self.uri}.")
            query = np.array(rows[0]["vector"], np.float32)
        vector = query.float().cpu().numpy() if isinstance(query, Tensor) else query
        if isinstance(vector, np.ndarray) and vector.ndim == 1:
            length, size = np.linalg.norm(vector), int(self.record["dimension"])
            if len(vector) != size or not np.isfinite(length) or not length:
                raise CSKTError(
                    f"the vector must hold {size} finite numbers, not all 0; got {vector.shape}."
                )
            return (vector / length).astype(np.float32)
        pixels = np.array(
            resize(picture_of(vector), self.model.image_size)
        )  # a copy, which torch may own
        return self._encode_pixels(pixels[None], once=True)[0]

    @contextlib.contextmanager
    def _encoding(self, once: bool = False) -> Iterator[CSKT]:
        """Within the block, the model encodes in the gallery's precision, native here or not.

        It is fused for inference, unless that takes longer than it saves: for one query (``once``)
        in fp32. A model that its owner has fused in another precision is unfused."""
        model = self.model
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[self.record["precision"]]
        was_training = model.training
        if model.fused_dtype not in (None, dtype):
            model.unfuse()
        model.eval()
        unfused = once and dtype == torch.float32
        try:
            with contextlib.nullcontext() if unfused else model.fused(dtype):
                yield model
        finally:
            model.train(was_training)

    @torch.inference_mode()
    def _encode_pixels(self, pixels: np.ndarray, once: bool = False) -> np.ndarray:
        """(N, 3, H, W) uint8 at the model's size -> L2-normalised features (N, D) float32."""
        features = []
        with self._encoding(once) as model:
            for batch in torch.from_numpy(pixels).split(ENCODED):
                encoded = model.encode_image(normalize(batch.to(model.device)), normalize=True)
                features.append(encoded.float().cpu().numpy())
        return np.concatenate(features)

    def remarks(self, text: str) -> list[str]:
        """What to know of a description: words that the backbone has never seen, or that are too
        many for it."""
        said, model = [], self.model
        if unknown := model.unknown_words(text):
            said.append(f"This backbone has never seen: {', '.join(unknown)}.")
        if not model.reads_all(text):
            said.append(
                f"Only the first {model.max_tokens} tokens of a description are read; the rest has no effect."
            )
        return said

    def delete(self, where: str) -> int:
        """Remove the images that a filter names, with their thumbnails; returns how many there
        were.

        They are found no more, but Milvus marks rows before it drops them: in a folder their bytes
        may stay until it is deleted. To erase, index what may stay into a new gallery and delete
        the old one."""
        if not where.strip():
            raise CSKTError(
                "delete needs a filter, such as camera == 'c3'; to remove all, delete the gallery."
            )
        removed = 0
        while rows := self._call(
            "query", filter=where, output_fields=["thumbnail"], limit=MAX_HITS
        ):
            with self._writing():
                self._call("delete", ids=[row["id"] for row in rows])
            for row in rows:
                with contextlib.suppress(OSError):
                    self._thumbnail(row["id"]).unlink()
            removed += len(rows)
        return removed

    def values(self, name: str) -> list[Any]:
        """The distinct values of a field, such as ``"camera"``, among the first 16,384 images."""
        rows = self._call("query", filter="", output_fields=[name], limit=MAX_HITS)
        return sorted({row[name] for row in rows if row.get(name) is not None})

    def __len__(self) -> int:
        """Number of images."""
        return self._call("query", filter="", output_fields=["count(*)"])[0]["count(*)"]

    def close(self) -> None:
        """Write everything out and let go; another process may serve the gallery from then on."""
        if self._client is not None:
            self._client.close()
        self._closer()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    # ---- where the images come from

    def _items(self, images: Any, metadata: Any, skipped: dict[str, str]) -> list[Item]:
        if isinstance(images, str | Path):
            folder = Path(images).expanduser()
            if not folder.is_dir():
                raise CSKTError(f"{folder} is not a folder; give one with images.")
            paths = files_below(folder, skipped)
            facts = {os.path.normpath(name): row for name, row in (metadata or {}).items()}
            names = [str(path.relative_to(folder)) for path in paths]
            if unknown := sorted(set(facts) - set(names)):
                raise CSKTError(
                    f"metadata name {len(unknown)} files that are not in {folder}, such as {unknown[0]}; "
                    "name files by their path below the folder."
                )
            return [
                from_file(path, facts.get(name, {}))
                for path, name in zip(paths, names, strict=True)
            ]
        if isinstance(images, Split) and metadata is not None:
            raise CSKTError("a split has facts of its own; add it without metadata.")
        if isinstance(images, Split):
            cameras = images.cameras or itertools.repeat(None)
            return [
                from_file(path, {"identity": int(identity), "camera": camera})
                for path, identity, camera in zip(
                    images.image_paths, images.image_identities, cameras, strict=False
                )
            ]
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise CSKTError(
                f"images must be a uint8 array (N, H, W, 3), got {images.dtype} {images.shape}."
            )
        rows = [row or {} for row in metadata] if metadata is not None else [{}] * len(images)
        if len(rows) != len(images):
            raise CSKTError(
                f"metadata must hold one mapping per image, got {len(rows)} for {len(images)} images."
            )
        return [
            from_file(Path(image), row)
            if isinstance(image, str | Path)
            else Item(
                str(row.get("source", f"image {i}")),
                checked(row, f"image {i}"),
                lambda image=image: from_memory(image),
            )
            for i, (image, row) in enumerate(zip(images, rows, strict=True))
        ]

    def _decode(self, image: Image.Image) -> tuple[np.ndarray, str | None, bytes]:
        """Pixels (3, H, W) for the model, when the picture was taken, and a small JPEG."""
        small, buffer = image.convert("RGB"), io.BytesIO()
        small.thumbnail(THUMBNAIL)
        small.save(buffer, "JPEG", quality=88)
        return resize(image, self.model.image_size), taken_at(image), buffer.getvalue()

    def _keep_thumbnail(self, digest: str, content: bytes) -> None:
        """Before its row: a row's thumbnail is there, whenever this is interrupted."""
        path = self._thumbnail(digest)
        temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except OSError as error:
            raise CSKTError(
                f"the thumbnail {path} cannot be written ({error}); make room or choose another place, and "
                "repeat the call: it goes on where it stopped."
            ) from error

    def _thumbnail(self, digest: str) -> Path:
        return self.thumbnails / _thumbnail(Path(digest).name)

    @staticmethod
    def _row(digest: str, item: Item, vector: np.ndarray, taken: str | None) -> dict[str, Any]:
        known = {
            "time": taken,
            **item.facts,
            "id": digest,
            "vector": vector,
            "source": item.source,
            "thumbnail": _thumbnail(digest),
        }
        return {name: value for name, value in known.items() if value is not None}

    def _hit(self, digest: str, score: float, entity: dict[str, Any]) -> Hit:
        fields = {name: entity.pop(name, None) for name in FIELDS}
        del fields[
            "thumbnail"
        ]  # for other clients: a row that somebody else wrote could name any file
        thumbnail = self._thumbnail(digest)
        return Hit(
            digest,
            float(score),
            thumbnail=thumbnail if thumbnail.is_file() else None,
            extra=entity,
            **fields,
        )

    # ---- Milvus

    def _check_folder(self, create: bool) -> None:
        path = Path(self.uri)
        if path.is_file():
            raise CSKTError(
                f"{path} is a file; a gallery of this version is a folder (earlier versions of milvus-lite "
                "wrote files, which cannot be read any more): index the images into a new gallery."
            )
        if path.is_dir() and any(path.iterdir()) and not (path / "collections").is_dir():
            raise CSKTError(f"{path} is a folder but no gallery; name another place for it.")
        if not create and not path.is_dir():
            raise CSKTError(
                f"there is no gallery at {path}; make one: python -m cskt index FOLDER --gallery {path}"
            )

    def _connect(self) -> None:
        """To the server, or to the process that has the folder open, which may be this one from now
        on."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                uri = self._serve() if self.embedded else self.uri
                self._client = MilvusClient(uri, token=self._token)
                if self._client.has_collection(self.name):
                    self._client.load_collection(self.name)
                return
            except (
                Exception
            ) as error:  # whose type depends on how far it got: grpc, pymilvus, a damaged file
                gone = self.embedded and (
                    isinstance(error, _BusyError) or getattr(error, "code", 0) == UNAVAILABLE
                )
                if not gone or time.monotonic() > deadline:
                    raise CSKTError(
                        f"the gallery {self.uri} cannot be opened ({reason(error)}); "
                        + (
                            "is it damaged, of another version, or on a disk that cannot be written?"
                            if self.embedded
                            else "is the Milvus server running there?"
                        )
                    ) from error
            time.sleep(0.1)

    def _serve(self) -> str:
        """The address of the folder's server, started here unless another process has the folder
        open."""
        from milvus_lite.adapter.grpc.server import (
            start_server_in_thread,
        )  # seconds, and not needed with a server
        from milvus_lite.exceptions import DataDirLockedError

        note = Path(self.uri) / "SERVER"
        if self._server is None:
            with contextlib.suppress(DataDirLockedError):
                server, database, port = start_server_in_thread(os.path.abspath(self.uri))
                self._server = server, database
                self._closer = weakref.finalize(self, _stop, server, database)
                temporary = note.with_suffix(f".{os.getpid()}.tmp")
                temporary.write_text(json.dumps({"uri": f"http://127.0.0.1:{port}"}))
                os.replace(temporary, note)
        try:
            return json.loads(note.read_text())["uri"]
        except (OSError, ValueError, KeyError) as error:  # the other process has only just started
            raise _BusyError("another process has it open and does not answer") from error

    def _call(self, method: str, **arguments: Any) -> Any:
        """A method of the client; the second attempt is for a server that ended since the last
        call."""
        for again in range(2):
            try:
                return getattr(self._client, method)(self.name, **arguments)
            except MilvusException as error:
                if error.code == UNAVAILABLE and not again:
                    self._connect()
                elif arguments.get("filter") and error.code in MISREAD:
                    raise CSKTError(
                        f"the filter {arguments['filter']!r:.200} is not understood ({reason(error)}); "
                        "write it like: camera == 'c3' and identity in [1, 2]"
                    ) from error
                else:
                    raise CSKTError(
                        f"the gallery {self.uri} failed at {method}: {reason(error)}"
                    ) from error

    def _read_record(self) -> dict[str, str]:
        held = self._call("describe_collection").get("properties", {})
        record = {
            name.removeprefix("cskt."): value
            for name, value in held.items()
            if name.startswith("cskt.")
        }
        if record.get("format") != FORMAT:
            raise CSKTError(
                f"the gallery {self.uri} has format {record.get('format', 'unknown')}, this version of "
                f"cskt reads {FORMAT}; index the images into a new gallery."
            )
        if (
            record.get("precision") not in PRECISIONS
        ):  # earlier ones held images in bf16 on one chip, fp32 on another
            raise CSKTError(
                f"the gallery {self.uri} does not say in which precision its images were encoded, so no "
                "query can be compared with them; index the images into a new gallery."
            )
        return record

    def _create(self, shards: int) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=32)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=int(self.record["dimension"]))
        schema.add_field("source", DataType.VARCHAR, max_length=4096)
        schema.add_field("thumbnail", DataType.VARCHAR, max_length=64)
        release = re.match(r"v?(\d+)\.(\d+)", self._client.get_server_version())
        if not release or tuple(map(int, release.groups())) >= (
            2,
            5,
        ):  # before, a column could not be empty:
            schema.add_field(
                "identity", DataType.INT64, nullable=True
            )  # there, they are facts like any other
            schema.add_field("camera", DataType.VARCHAR, max_length=256, nullable=True)
            schema.add_field("time", DataType.VARCHAR, max_length=64, nullable=True)
        indexes = self._client.prepare_index_params()
        kind = self.record["index"]
        indexes.add_index("vector", index_type=kind, metric_type="COSINE", params=INDEXES[kind][0])
        self._call(
            "create_collection",
            schema=schema,
            index_params=indexes,
            num_shards=shards,
            consistency_level="Session",  # what was just added here is found, and not added again
            properties={f"cskt.{name}": value for name, value in self.record.items()},
        )

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with self._writing():
            self._call("insert" if self.embedded else "upsert", data=rows)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """milvus-lite takes one writer at a time; a server takes many."""
        with FileLock(Path(self.uri) / "WRITE.lock") if self.embedded else contextlib.nullcontext():
            yield


class _BusyError(Exception):
    """The folder is open in a process that cannot be reached yet."""


def default_model() -> str:
    """The folder of the default run where it has been trained, else ``"cskt-mini"``, the backbone
    as it comes."""
    trained = Path("runs", run_name(TrainConfig.mini()))
    return os.path.abspath(trained) if (trained / METRICS).is_file() else MINI


def check_description(text: str) -> str:
    """A description with single blanks; :class:`CSKTError` for an empty or over-long one."""
    text = " ".join(text.split())
    if not text:
        raise CSKTError(
            "type a description first, for example: a man in a grey hoodie with a red backpack."
        )
    if len(text) > MAX_QUERY:
        raise CSKTError(f"the description has {len(text)} characters; shorten it to {MAX_QUERY}.")
    return text


def _thumbnail(digest: str) -> str:
    return f"{digest[:2]}/{digest}.jpg"


def _stop(server: Any, database: Any) -> None:
    server.stop(grace=2).wait()
    database.close()
