"""The rows of a gallery in a folder: facts in SQLite, vectors in a file that is mapped into memory.

A search is one product of all vectors with the query: exact, and about as fast as the memory can be
read. What is known of the images is read for the best ones only.

Any number of processes may read and write at once. A row is there once SQLite has committed it, and
its vector is on the disk before that: a process that is killed loses nothing that it was told is
stored. Vectors beyond the last committed row are overwritten by the next writer.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cskt.data.images import reason
from cskt.errors import ConfigurationError, CSKTError, DataError, GalleryError, ResourceError
from cskt.search.filters import COLUMNS, condition_of

PATIENCE = 60.0  # seconds that another process may take to write
LEAST_LOOKED_AT = 1000  # of the best vectors: rows are read for, before a filter searches them all
LARGEST_DIMENSION = 32_768
NUMBER = np.dtype("<f4")
SHOWN = "id, source, identity, camera, time, facts"
FORMER = "collections"  # in folders that earlier versions wrote, with milvus-lite
TABLES = """
CREATE TABLE IF NOT EXISTS property (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counter (next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS image (
    position INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, source TEXT NOT NULL,
    identity INTEGER, camera TEXT, time TEXT, facts TEXT NOT NULL
);
"""


def holds_galleries(folders: Collection[str], names: Collection[str]) -> bool:
    """Whether a folder with these folders and files in it is one of galleries."""
    if FORMER in folders and "WRITE.lock" in names:
        return True
    for name in names:
        if name.endswith(".vectors") and name.removesuffix(".vectors") + ".sqlite" in names:
            return True
    return False


def check_folder(path: Path, create: bool) -> None:
    """:class:`CSKTError` unless the folder holds galleries or, with ``create``, may hold some."""
    if (path / FORMER).is_dir():
        raise GalleryError(
            f"{path} is a gallery of an earlier version of cskt, which this one does not read; "
            "index the images into a new gallery: python -m cskt index FOLDER --gallery NEW"
        )
    is_other_folder = False
    if path.is_dir():
        names = os.listdir(path)
        is_other_folder = bool(names) and not any(name.endswith(".sqlite") for name in names)
    if path.is_file() or is_other_folder:
        raise GalleryError(
            f"{path} is there but no gallery, which is a folder; name another place for it."
        )
    if not create and not path.is_dir():
        raise GalleryError(
            f"there is no gallery at {path}; make one: python -m cskt index FOLDER --gallery {path}"
        )


class FolderRows:
    """The rows of the gallery ``name`` in the folder ``uri``.

    A row has ``id``, ``vector``, ``source``, and the facts that are known. Whatever fails is a
    :class:`CSKTError` that names the gallery. Threads may share an object.
    """

    def __init__(self, uri: str, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w{0,99}", name, re.ASCII):
            raise ConfigurationError(
                f"a gallery is named by letters, digits and _, got {name!r:.100}."
            )
        self.uri = uri
        self._rows = Path(uri, f"{name}.sqlite")
        self._vectors = Path(uri, f"{name}.vectors")
        self._mapped = np.empty((0, 0), NUMBER)
        self._database: sqlite3.Connection | None = None
        self._lock = threading.RLock()  # a connection has one transaction at a time

    def exists(self) -> bool:
        """Whether the gallery has been made."""
        if not self._rows.is_file():
            return False
        self._open()
        tables = self._all("SELECT name FROM sqlite_master WHERE name = 'image'", {})
        return bool(tables)

    def create(self, dimension: int, properties: Mapping[str, str]) -> None:
        """Make the gallery, for vectors (dimension,); ``properties`` are kept with it. Of two
        processes that make it at once, the second finds it made."""
        with self._reported():
            self._rows.parent.mkdir(parents=True, exist_ok=True)
            self._vectors.touch()
        self._open()
        with self._writing() as database:
            for statement in TABLES.split(";"):
                database.execute(statement)
            if database.execute("SELECT 1 FROM counter").fetchone():
                return
            database.execute("INSERT INTO counter VALUES (0)")
            kept = {**properties, "dimension": str(dimension)}
            database.executemany("INSERT INTO property VALUES (?, ?)", kept.items())

    def _open(self) -> None:
        if self._database is not None:
            return
        for file in (self._rows, self._vectors):
            if file.is_symlink():
                raise GalleryError(f"{file} is a link, which is not followed; use a gallery's own.")
        with self._reported():
            self._database = sqlite3.connect(
                self._rows, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            # Of a folder from somebody else, nothing is run. What is deleted is overwritten.
            for setting in ("trusted_schema=OFF", "secure_delete=ON", "synchronous=FULL"):
                self._database.execute(f"PRAGMA {setting}")
            self._database.execute("PRAGMA cache_size=-65536")  # KiB
            self._database.execute("PRAGMA cache_spill=OFF")  # else readers wait longer

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """What fails within the block is a :class:`CSKTError`."""
        try:
            yield
        except sqlite3.Error as error:
            if "full" in str(error):
                raise self._no_room(error) from error
            raise GalleryError(
                f"the gallery {self.uri} cannot be read or written ({reason(error)}); is it "
                "damaged, in use by a process that hangs, or on a disk that cannot be written?"
            ) from error
        except OSError as error:
            raise self._no_room(error) from error

    def _no_room(self, error: Exception) -> CSKTError:
        return ResourceError(
            f"the gallery {self.uri} cannot be written ({reason(error)}); make room or choose "
            "another place, and repeat the call: it goes on where it stopped."
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A block in which this process alone writes: all of it counts, or nothing."""
        assert self._database is not None
        with self._lock, self._reported():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _all(self, query: str, values: Mapping[str, Any]) -> list[tuple]:
        assert self._database is not None
        with self._lock, self._reported():
            return self._database.execute(query, values).fetchall()

    def properties(self) -> dict[str, str]:
        """What :meth:`create` was given to keep."""
        return dict(self._all("SELECT name, value FROM property", {}))

    def _dimension(self) -> int:
        noted = self.properties().get("dimension", "")
        if not noted.isdecimal() or not 0 < int(noted) <= LARGEST_DIMENSION:
            raise self._damaged()
        return int(noted)

    def _damaged(self) -> GalleryError:
        return GalleryError(
            f"the gallery {self.uri} is damaged: its vectors and its rows do not fit each other; "
            "restore it, or index the images into a new gallery."
        )

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Add the rows whose ids are not there yet; returns how many that were."""
        entries: dict[str, tuple] = {}
        for row in rows:
            entries.setdefault(row["id"], _entry(row))
        with self._writing() as database:
            present = self.known(entries)
            fresh = [row for row in rows if row["id"] not in present]
            fresh = list({row["id"]: row for row in reversed(fresh)}.values())[::-1]
            if not fresh:
                return 0
            (first,) = database.execute("SELECT next FROM counter").fetchone()
            block = np.stack([row["vector"] for row in fresh]).astype(NUMBER)
            with self._vectors.open("r+b") as file:
                file.seek(first * block.shape[1] * NUMBER.itemsize)
                file.write(block.tobytes())
                file.flush()
                os.fsync(file.fileno())
            numbered = []
            for position, row in enumerate(fresh, start=first):
                numbered.append((position, *entries[row["id"]]))
            database.executemany("INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?)", numbered)
            database.execute("UPDATE counter SET next = ?", [first + len(fresh)])
        return len(fresh)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows, and overwrite what was stored of them."""
        with self._writing() as database:
            chosen = "id IN (SELECT value FROM json_each(:ids))"
            listed = {"ids": json.dumps(list(ids))}
            gone = self._all(f"SELECT position FROM image WHERE {chosen}", listed)
            database.execute(f"DELETE FROM image WHERE {chosen}", listed)
            empty = bytes(self._dimension() * NUMBER.itemsize)
            with self._vectors.open("r+b") as file:
                for (position,) in gone:
                    file.seek(position * len(empty))
                    file.write(empty)
                file.flush()
                os.fsync(file.fileno())

    def known(self, ids: Collection[str]) -> set[str]:
        """Those ids that are there."""
        query = "SELECT id FROM image WHERE id IN (SELECT value FROM json_each(:ids))"
        return {row[0] for row in self._all(query, {"ids": json.dumps(list(ids))})}

    def vector(self, digest: str) -> np.ndarray | None:
        """The vector (D,) of an id, or None."""
        found = self._all("SELECT position FROM image WHERE id = :id", {"id": digest})
        return np.array(self._all_vectors()[found[0][0]]) if found else None

    def matching(self, where: str, most: int) -> list[str]:
        """Ids of rows that fit a filter, at most so many."""
        condition = condition_of(where)
        query = f"SELECT id FROM image WHERE {condition.sql} LIMIT {most}"
        return [row[0] for row in self._all(query, condition.values)]

    def values(self, name: str) -> list[Any]:
        """The distinct values of a field or fact."""
        if name in COLUMNS:
            field, values = name, {}
        else:
            field, values = "json_extract(facts, :path)", {"path": f"$.{json.dumps(name)}"}
        rows = self._all(f"SELECT DISTINCT {field} FROM image", values)
        return [row[0] for row in rows if row[0] is not None]

    def count(self) -> int:
        """Number of rows."""
        return self._all("SELECT count(*) FROM image", {})[0][0]

    def search(self, vector: np.ndarray, k: int, where: str) -> list[dict[str, Any]]:
        """The ``k`` rows nearest to a vector (D,) of length one that fit a filter, best first:
        ``id``, ``distance`` (the cosine) and ``entity``, what is known of the image."""
        condition = condition_of(where)
        scores = self._all_vectors() @ vector.astype(NUMBER)
        looked_at = max(4 * k, LEAST_LOOKED_AT)
        rows = self._rows_at(best(scores, looked_at), condition.sql, condition.values)
        if len(rows) < k and looked_at < len(scores):  # the filter passes few: it comes first
            query = f"SELECT position FROM image WHERE {condition.sql}"
            fitting = np.array(self._all(query, condition.values), int).reshape(-1)
            fitting = fitting[(fitting >= 0) & (fitting < len(scores))]
            chosen = fitting[best(scores[fitting], k)]
            rows = self._rows_at(chosen, "1", {})
        ranked = sorted(rows, key=lambda row: (-scores[row[0]], row[0]))
        hits = []
        for position, digest, source, identity, camera, time, facts in ranked[:k]:
            known = {"source": source, "identity": identity, "camera": camera, "time": time}
            entity = {**json.loads(facts), **known}
            hits.append({"id": digest, "distance": float(scores[position]), "entity": entity})
        return hits

    def _rows_at(
        self, positions: np.ndarray, condition: str, values: Mapping[str, Any]
    ) -> list[tuple]:
        query = (
            f"SELECT position, {SHOWN} FROM image "
            f"WHERE position IN (SELECT value FROM json_each(:positions)) AND {condition}"
        )
        return self._all(query, {**values, "positions": json.dumps(positions.tolist())})

    def _all_vectors(self) -> np.ndarray:
        """All vectors that have been committed (N, D), those of deleted rows as zeros; the system
        reads them as they are needed."""
        with self._lock:
            count = self._all("SELECT next FROM counter", {})[0][0]
            if count > len(self._mapped):
                dimension = self._dimension()
                if self._vectors.stat().st_size < count * dimension * NUMBER.itemsize:
                    raise self._damaged()
                self._mapped = np.memmap(self._vectors, NUMBER, "r", shape=(count, dimension))
            return self._mapped[:count]

    def drop(self) -> None:
        """Remove the gallery's rows and vectors."""
        self.close()
        self._rows.unlink()
        self._vectors.unlink()

    def close(self) -> None:
        """Let go of the files."""
        self._mapped = np.empty((0, 0), NUMBER)
        if self._database is not None:
            self._database.close()
            self._database = None


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the ``count`` highest scores (N,), in no order."""
    if count >= len(scores):
        return np.arange(len(scores))
    return np.argpartition(scores, -count)[-count:]


def _entry(row: Mapping[str, Any]) -> tuple:
    """A row as SQLite keeps it, its vector aside."""
    facts = {}
    for name, value in row.items():
        if name not in COLUMNS and name not in ("vector", "thumbnail"):
            facts[name] = value.tolist() if isinstance(value, np.generic) else value
    try:
        text = json.dumps(facts, ensure_ascii=False, allow_nan=False)
        str([row["source"], row.get("camera"), row.get("time"), text]).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"the facts of {row['source']!r} cannot be stored ({reason(error)}); give texts, "
            "numbers, and lists or mappings of them."
        ) from error
    known = (row["id"], row["source"], row.get("identity"), row.get("camera"), row.get("time"))
    return (*known, text)
