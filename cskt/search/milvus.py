"""The rows of a gallery, in Milvus: in a folder (milvus-lite), or on a server or cluster.

Without a server, one process at a time can have such a folder open: it serves the others, on the
loopback interface only, and when it ends another one takes over.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock

from cskt.data.images import reason
from cskt.errors import ConfigurationError, CSKTError, GalleryError, ResourceError
from cskt.extras import extra
from cskt.files import write_atomically

with extra("search"):
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException

# They log a traceback for what is raised here as a sentence.
for _name in ("pymilvus", "grpc", "milvus_lite", "faiss"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

MAX_HITS = 16_384  # Milvus returns no more at once
UNAVAILABLE = 2  # pymilvus' code for a server that is gone
MISREAD = (6, 1100, 65535)  # codes for a filter with a fault: milvus-lite's, and servers'
PATIENCE = 30.0  # seconds that a new server may take
DIGEST_LENGTH = 32
PREFIX = "cskt."  # of the properties that are ours
FIELDS = ("source", "thumbnail", "identity", "camera", "time")
# Index -> what to build it with. FLAT is exact; DISKANN is for servers only.
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


def check_folder(path: Path, create: bool) -> None:
    """:class:`CSKTError` unless the folder holds galleries or, with ``create``, may hold some."""
    is_other_folder = path.is_dir() and any(path.iterdir()) and not (path / "collections").is_dir()
    if path.is_file() or is_other_folder:
        raise GalleryError(
            f"{path} is there but no gallery, which is a folder; name another place for it."
        )
    if not create and not path.is_dir():
        raise GalleryError(
            f"there is no gallery at {path}; make one: python -m cskt index FOLDER --gallery {path}"
        )


class Collection:
    """The rows of the gallery ``name`` at ``uri``, a folder or the address of a server.

    A row has ``id``, ``vector``, ``source``, ``thumbnail``, the facts of :data:`FIELDS` that are
    known, and any others. Whatever fails is a :class:`GalleryError` that names the gallery. A
    server that has ended since the last call is looked for again.
    """

    def __init__(self, uri: str, name: str, token: str = "") -> None:
        self.uri = uri
        self.name = name
        self.embedded = is_folder(uri)
        self._token = token
        self._client: MilvusClient | None = None
        self._stop_serving: weakref.finalize | None = None

    def connect(self) -> None:
        """To the server, or to the process that has the folder open, which may be this one from now
        on."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._connect_once()
                return
            except ResourceError:
                raise
            except Exception as error:  # of grpc, pymilvus or milvus-lite, however far it got
                if not self._is_gone(error) or time.monotonic() > deadline:
                    raise self._not_opened(error) from error
            time.sleep(0.1)

    def _connect_once(self) -> None:
        address = self._serve() if self.embedded else self.uri
        self._client = MilvusClient(address, token=self._token)
        if self._client.has_collection(self.name):
            self._client.load_collection(self.name)

    def _is_gone(self, error: Exception) -> bool:
        """Whether the process that served the folder has ended, so that another may take over."""
        unavailable = getattr(error, "code", 0) == UNAVAILABLE
        return self.embedded and (isinstance(error, _BusyError) or unavailable)

    def _not_opened(self, error: Exception) -> GalleryError:
        question = "is the Milvus server running there?"
        if self.embedded:
            question = "is it damaged, of another version, or on a disk that cannot be written?"
        return GalleryError(
            f"the gallery {self.uri} cannot be opened ({reason(error)}); {question}"
        )

    def _serve(self) -> str:
        """The address of the folder's server, started here unless another process has the folder
        open."""
        with extra("search"):  # takes seconds, and is not needed with a server
            from milvus_lite.adapter.grpc.server import start_server_in_thread
            from milvus_lite.exceptions import DataDirLockedError

        note = Path(self.uri) / "SERVER"
        if self._stop_serving is None:
            with contextlib.suppress(DataDirLockedError):
                server, database, port = start_server_in_thread(os.path.abspath(self.uri))
                self._stop_serving = weakref.finalize(self, _stop, server, database)
                write_atomically(note, json.dumps({"uri": f"http://127.0.0.1:{port}"}))
        try:
            return json.loads(note.read_text())["uri"]
        except (OSError, ValueError, KeyError) as error:  # the other process has only just started
            raise _BusyError("another process has it open and does not answer") from error

    def close(self) -> None:
        """Write everything out and let go; another process may serve the folder from then on."""
        if self._client is not None:
            self._client.close()
        if self._stop_serving is not None:
            self._stop_serving()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """milvus-lite takes one writer at a time; a server takes many."""
        if self.embedded:
            with FileLock(Path(self.uri) / "WRITE.lock"):
                yield
        else:
            yield

    def _call(self, method: str, **arguments: Any) -> Any:
        """A method of the client, on this collection."""
        try:
            return getattr(self._client, method)(self.name, **arguments)
        except MilvusException as error:
            if error.code != UNAVAILABLE:
                raise self._failure(method, arguments, error) from error
        self.connect()
        try:
            return getattr(self._client, method)(self.name, **arguments)
        except MilvusException as error:
            raise self._failure(method, arguments, error) from error

    def _failure(
        self, method: str, arguments: Mapping[str, Any], error: MilvusException
    ) -> CSKTError:
        where = arguments.get("filter")
        if where and error.code in MISREAD:
            return ConfigurationError(
                f"the filter {where!r:.200} is not understood ({reason(error)}); "
                "write it like: camera == 'c3' and identity in [1, 2]"
            )
        return GalleryError(f"the gallery {self.uri} failed at {method}: {reason(error)}")

    def exists(self) -> bool:
        return self._call("has_collection")

    def create(
        self, dimension: int, index: str, shards: int, properties: Mapping[str, str]
    ) -> None:
        """Make the collection, for vectors (dimension,) compared by cosine; ``properties`` are kept
        with it."""
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
        """Whether it is Milvus 2.5 or later, or milvus-lite, which names no such version."""
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

    def columns(self) -> set[str]:
        """The fields that every row has, be it as an empty one."""
        return {field["name"] for field in self._call("describe_collection")["fields"]}

    def insert(self, rows: list[dict[str, Any]]) -> None:
        """Add rows; on a server they replace those of the same id."""
        with self.writing():
            self._call("insert" if self.embedded else "upsert", data=rows)

    def delete(self, ids: Sequence[str]) -> None:
        with self.writing():
            self._call("delete", ids=list(ids))

    def get(self, ids: Sequence[str], fields: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of these ids that are there, each with these fields."""
        return self._call("get", ids=list(ids), output_fields=list(fields))

    def query(self, where: str, fields: Sequence[str]) -> list[dict[str, Any]]:
        """The first :data:`MAX_HITS` rows that fit a filter ("": all), each with these fields."""
        return self._call("query", filter=where, output_fields=list(fields), limit=MAX_HITS)

    def count(self) -> int:
        """Number of rows."""
        return self._call("query", filter="", output_fields=["count(*)"])[0]["count(*)"]

    def search(
        self,
        vector: np.ndarray,
        k: int,
        where: str,
        fields: Sequence[str],
        parameters: Mapping[str, int],
    ) -> list[dict[str, Any]]:
        """The ``k`` rows nearest to a vector that fit a filter: ``id``, ``distance`` (the cosine)
        and ``entity``, the fields."""
        answers = self._call(
            "search",
            data=[vector],
            limit=k,
            filter=where,
            output_fields=list(fields),
            search_params={"metric_type": "COSINE", "params": dict(parameters)},
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


class _BusyError(Exception):
    """The folder is open in a process that cannot be reached yet."""


def _stop(server: Any, database: Any) -> None:
    server.stop(grace=2).wait()
    database.close()
