"""The rows of a gallery on a Milvus server or cluster."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from cskt.data.images import reason
from cskt.errors import ConfigurationError, CSKTError, GalleryError
from cskt.extras import extra
from cskt.search.filters import not_understood

MAX_HITS = 16_384  # Milvus returns no more at once
UNAVAILABLE = 2  # pymilvus' code for a server that is gone
MISREAD = (6, 1100, 65535)  # codes for a filter with a fault, of several servers
DIGEST_LENGTH = 32
PREFIX = "cskt."  # of the properties that are ours
FIELDS = ("source", "thumbnail", "identity", "camera", "time")
# Index -> what to build it with. FLAT is exact; the others are for servers.
INDEXES: dict[str, dict[str, int]] = {
    "FLAT": {},
    "IVF_FLAT": {"nlist": 1024},
    "IVF_SQ8": {"nlist": 1024},
    "HNSW": {"M": 16, "efConstruction": 200},
    "DISKANN": {},
}


def search_parameters(index: str, k: int) -> dict[str, int]:
    """How widely an index is searched for ``k`` hits."""
    if index == "HNSW":
        return {"ef": max(128, 2 * k)}
    if index == "DISKANN":
        return {"search_list": max(100, 2 * k)}
    if index in ("IVF_FLAT", "IVF_SQ8"):
        return {"nprobe": 128}
    return {}


def is_folder(uri: str | Path) -> bool:
    """Whether a gallery there is in a folder rather than on a server."""
    return "://" not in str(uri)


def checked_place(uri: str | Path) -> str:
    """The folder or address ``uri``; :class:`CSKTError` for what looks like an address and is
    none."""
    place = str(Path(uri).expanduser()) if is_folder(uri) else str(uri)
    looks_like_address = re.match(r"\w\w+:", place)
    if looks_like_address and not urlsplit(place).hostname:
        raise ConfigurationError(
            f"{uri} is no address of a Milvus server; write it as http://host:19530."
        )
    return place


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pymilvus logs a traceback for what is raised here as a sentence."""
    logger = logging.getLogger("pymilvus")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class ServerRows:
    """The rows of the gallery ``name`` on the server at the address ``uri``.

    A row has ``id``, ``vector``, ``source``, ``thumbnail``, the facts of :data:`FIELDS` that are
    known, and any others. Whatever fails is a :class:`GalleryError` that names the gallery. A
    server that has been started anew since the last call is connected again.
    """

    def __init__(self, uri: str, name: str, token: str = "") -> None:
        with extra("search"):  # takes a second, and folders do without
            from pymilvus import MilvusClient
            from pymilvus.exceptions import MilvusException

        self.uri = uri
        self.name = name
        self._token = token
        self._failures = MilvusException
        self._connect_to = MilvusClient
        self._client: MilvusClient | None = None
        self._shown: list[str] = []

    def connect(self) -> None:
        """To the server; :class:`GalleryError` where none answers."""
        try:
            with _quiet():
                self._client = self._connect_to(self.uri, token=self._token)
                if self._client.has_collection(self.name):
                    self._client.load_collection(self.name)
        except Exception as error:  # of grpc or pymilvus, however far it got
            raise GalleryError(
                f"the gallery {self.uri} cannot be opened ({reason(error)}); "
                "is the Milvus server running there?"
            ) from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _call(self, method: str, **arguments: Any) -> Any:
        """A method of the client, on this collection."""
        if self._client is None:
            self.connect()
        try:
            with _quiet():
                return getattr(self._client, method)(self.name, **arguments)
        except self._failures as error:
            if error.code != UNAVAILABLE:
                raise self._failure(method, arguments, error) from error
        self.connect()
        try:
            with _quiet():
                return getattr(self._client, method)(self.name, **arguments)
        except self._failures as error:
            raise self._failure(method, arguments, error) from error

    def _failure(self, method: str, arguments: Mapping[str, Any], error: Any) -> CSKTError:
        where = arguments.get("filter")
        if where and error.code in MISREAD:
            return not_understood(where, reason(error))
        return GalleryError(f"the gallery {self.uri} failed at {method}: {reason(error)}")

    def exists(self) -> bool:
        """Whether the gallery has been made."""
        return self._call("has_collection")

    def create(
        self, dimension: int, index: str, shards: int, properties: Mapping[str, str]
    ) -> None:
        """Make the collection, for vectors (dimension,) compared by cosine; ``properties`` are kept
        with it."""
        if self._client is None:
            self.connect()
        assert self._client is not None
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type=index, metric_type="COSINE", params=INDEXES[index])
        self._call(
            "create_collection",
            schema=self._schema(dimension),
            index_params=indexes,
            num_shards=shards,
            consistency_level="Session",  # what was just added here is found, and not added again
            properties={PREFIX + name: value for name, value in properties.items()},
        )

    def _schema(self, dimension: int) -> Any:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=DIGEST_LENGTH)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        schema.add_field("source", DataType.VARCHAR, max_length=4096)
        schema.add_field("thumbnail", DataType.VARCHAR, max_length=64)
        if self._allows_empty_columns():  # elsewhere these are facts like any other
            schema.add_field("identity", DataType.INT64, nullable=True)
            schema.add_field("camera", DataType.VARCHAR, max_length=256, nullable=True)
            schema.add_field("time", DataType.VARCHAR, max_length=64, nullable=True)
        return schema

    def _allows_empty_columns(self) -> bool:
        """Whether it is Milvus 2.5 or later, or an edition that names no such version."""
        assert self._client is not None
        release = re.match(r"v?(\d+)\.(\d+)", self._client.get_server_version())
        if release is None:
            return True
        major = int(release[1])
        minor = int(release[2])
        return (major, minor) >= (2, 5)

    def properties(self) -> dict[str, str]:
        """What :meth:`create` was given to keep."""
        kept = self._call("describe_collection").get("properties", {})
        ours = {}
        for name, value in kept.items():
            if name.startswith(PREFIX):
                ours[name.removeprefix(PREFIX)] = value
        return ours

    def insert(self, rows: list[dict[str, Any]]) -> int:
        """Add rows, which replace those of the same id; returns how many were given."""
        self._call("upsert", data=rows)
        return len(rows)

    def delete(self, ids: Sequence[str]) -> None:
        self._call("delete", ids=list(ids))

    def known(self, ids: Collection[str]) -> set[str]:
        """Those ids that are there."""
        return {row["id"] for row in self._call("get", ids=list(ids), output_fields=["id"])}

    def vector(self, digest: str) -> np.ndarray | None:
        """The vector (D,) of an id, or None."""
        rows = self._call("get", ids=[digest], output_fields=["vector"])
        return np.array(rows[0]["vector"], np.float32) if rows else None

    def matching(self, where: str, most: int) -> list[str]:
        """Ids of rows that fit a filter, at most so many."""
        rows = self._call("query", filter=where, output_fields=["id"], limit=most)
        return [row["id"] for row in rows]

    def values(self, name: str) -> list[Any]:
        """The distinct values of a field among the first :data:`MAX_HITS` rows."""
        rows = self._call("query", filter="", output_fields=[name], limit=MAX_HITS)
        return list({row[name] for row in rows if row.get(name) is not None})

    def count(self) -> int:
        """Number of rows."""
        return self._call("query", filter="", output_fields=["count(*)"])[0]["count(*)"]

    def search(self, vector: np.ndarray, k: int, where: str, index: str) -> list[dict[str, Any]]:
        """The ``k`` rows nearest to a vector that fit a filter: ``id``, ``distance`` (the cosine)
        and ``entity``, all that is known of the image."""
        if not self._shown:  # $meta holds the facts without a column
            columns = {field["name"] for field in self._call("describe_collection")["fields"]}
            self._shown = ["$meta", *(field for field in FIELDS if field in columns)]
        answers = self._call(
            "search",
            data=[vector],
            limit=k,
            filter=where,
            output_fields=self._shown,
            search_params={"metric_type": "COSINE", "params": search_parameters(index, k)},
        )
        return answers[0]

    def wait_for_index(self) -> None:
        """Until a server has written out and indexed what it was given; it goes on to merge what it
        wrote."""
        self._call("flush")
        while True:
            state = self._call("describe_index", index_name="vector")
            if state["indexed_rows"] >= state["total_rows"]:
                break
            time.sleep(0.5)
        # Until it reads the index, a server searches what is new in another way.
        self._call("release_collection")
        self._call("load_collection")

    def drop(self) -> None:
        """Remove the collection with all its rows."""
        self._call("drop_collection")
