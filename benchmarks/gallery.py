"""Speed, size and recall of a gallery: ``python benchmarks/gallery.py --output gallery.json``.

Vectors are drawn: people as directions, images scattered around them, so that a query has true
neighbours. Each case runs in a process and a folder of its own; recall is against exact cosines,
computed with numpy, whose time for a query over an array in memory is the plain baseline. Linux
only.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from pymilvus import MilvusClient
from typer import Option

from cskt.config import MINI, CSKTConfig
from cskt.environment import environment
from cskt.errors import CSKTError
from cskt.files import make_folder, write_json
from cskt.model import CSKT, load_model
from cskt.search.gallery import Gallery
from cskt.search.milvus import INDEXES, search_parameters

SEED, PER_PERSON, BLOCK, CHUNK, QUERIES, K = 0, 4, 1000, 50_000, 50, 10
# directions that vectors spread over; of cskt-mini's own features 13 hold 90% of the variance
LATENT = 64
SCATTER = 0.8  # of an image around its person
FILTER = "camera == 'c1'"  # a fifth of the images


def drawn(count: int, dimension: int, first: int) -> np.ndarray:
    """Vectors (count, dimension) from number ``first`` on of unit length, the same in whatever
    parts they come."""
    spread, blocks = (
        np.random.default_rng(SEED).standard_normal((LATENT, dimension), np.float32),
        [],
    )
    for block in range(first // BLOCK, -(-(first + count) // BLOCK)):
        random = np.random.default_rng([SEED, block])
        people = random.standard_normal((BLOCK // PER_PERSON, LATENT), np.float32).repeat(
            PER_PERSON, axis=0
        )
        blocks.append(
            (people + SCATTER * random.standard_normal((BLOCK, LATENT), np.float32)) @ spread
        )
    vectors = np.concatenate(blocks)[first % BLOCK :][:count]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def exact(queries: np.ndarray, count: int) -> tuple[np.ndarray, list[float]]:
    """Rows (Q, K) of the nearest of all vectors, best first, and the seconds that each query takes
    numpy: one product with all vectors in memory, then a partial sort."""
    vectors = np.concatenate(
        [
            drawn(min(CHUNK, count - first), queries.shape[1], first)
            for first in range(0, count, CHUNK)
        ]
    )
    rows, seconds = [], []
    for query in queries:
        start = time.perf_counter()
        cosines = vectors @ query
        best = np.argpartition(-cosines, min(K, count - 1))[:K]
        rows.append(best[np.argsort(-cosines[best])])
        seconds.append(time.perf_counter() - start)
    return np.stack(rows), seconds


def random_model(backbone: str) -> CSKT:
    """Whose vectors these could be: it says how long they are."""
    torch.manual_seed(SEED)
    return load_model(backbone, "random", config=CSKTConfig().for_method("zero-shot"))


def memory_mb() -> float:
    """Megabytes of memory that this process has in use, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def folder_mb(folder: Path) -> float:
    """Megabytes on disk."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def measure(index: str, count: int, backbone: str, uri: str) -> dict[str, Any]:
    """Fill, search and open again one gallery at ``uri``."""
    model, name = random_model(backbone), f"{index}_{count}"
    dimension, inserting = model.dimension, 0.0
    queries = drawn(QUERIES, dimension, 0) + 0.5 * drawn(
        QUERIES, dimension, count
    )  # near somebody, like nobody
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    gallery = Gallery(uri, model, name=name, index=index)
    for first in range(0, count, CHUNK):
        vectors = drawn(min(CHUNK, count - first), dimension, first)
        facts = [
            {
                "source": str(first + i),
                "identity": (first + i) // PER_PERSON,
                "camera": f"c{(first + i) % 5}",
            }
            for i in range(len(vectors))
        ]
        start = time.perf_counter()
        gallery.add_vectors(vectors, facts)
        inserting += time.perf_counter() - start
    start = time.perf_counter()
    gallery.wait_for_index()
    building = time.perf_counter() - start
    found, seconds = [], {"": [], FILTER: []}
    for where, times in seconds.items():
        gallery.search(queries[0], K, where)
        for query in queries:
            start = time.perf_counter()
            hits = gallery.search(query, K, where)
            times.append(time.perf_counter() - start)
            if not where:
                found.append({int(hit.source) for hit in hits})
            elif any(hit.camera != "c1" for hit in hits):
                raise CSKTError(f"{index} does not keep to the filter.")
    memory = memory_mb()
    gallery.close()
    start = time.perf_counter()
    gallery = Gallery(uri, model, name=name)
    gallery.search(queries[0], K)
    opening = time.perf_counter() - start
    disk = (
        folder_mb(Path(uri)) if gallery.embedded else None
    )  # a server's also holds logs and what it drops later
    if not gallery.embedded:
        gallery.drop()
    gallery.close()
    truth, plain_seconds = exact(queries, count)
    recall = np.mean(
        [len(hits & set(rows.tolist())) / K for hits, rows in zip(found, truth, strict=True)]
    )
    plain, filtered = (1000 * np.array(times) for times in seconds.values())
    return {
        "index": index,
        "where": "embedded" if gallery.embedded else "server",
        "vectors": count,
        "dimension": dimension,
        "inserted_per_s": round(count / inserting),
        "building_s": round(building, 2),
        "query_ms": round(float(np.median(plain)), 2),
        "query_ms_95": round(float(np.percentile(plain, 95)), 2),
        "numpy_ms": round(1000 * float(np.median(plain_seconds)), 2),
        "filtered_query_ms": round(float(np.median(filtered)), 2),
        "opening_s": round(opening, 2),
        "recall_at_10": round(100 * float(recall), 2),
        "memory_mb": memory,
        "disk_mb": disk,
    }


def main(
    output: Annotated[Path | None, Option(help="File for the figures as json.")] = None,
    sizes: Annotated[
        str, Option(help="Numbers of vectors, commas between; after a colon another backbone.")
    ] = "100000,1000000,200000:ViT-B-16",
    indexes: Annotated[
        str, Option(help=f"Of {', '.join(INDEXES)}, commas between; a folder has FLAT only.")
    ] = "FLAT",
    backbone: Annotated[str, Option(help="Whose vectors' length.")] = MINI,
    server: Annotated[
        str | None, Option(help="Address of a Milvus server on this machine, in place of a folder.")
    ] = None,
) -> None:
    """Measure every index at every size, each case in a process and a folder, or collection, of its
    own."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if output:
        make_folder(output.parent)
    started, start, rows = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic(), []
    for size in sizes.split(","):
        count, _, named = size.partition(":")
        for index in indexes.split(","):
            folder = tempfile.mkdtemp(prefix="cskt-gallery-")
            try:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    uri = server or f"{folder}/g.db"
                    rows.append(
                        process.submit(measure, index, int(count), named or backbone, uri).result()
                    )
            finally:
                shutil.rmtree(folder)
            typer.echo("  ".join(f"{name} {value}" for name, value in rows[-1].items()))
    if output:
        engine = f"SQLite {sqlite3.sqlite_version} and numpy"
        if server:
            engine = "Milvus " + MilvusClient(server).get_server_version()
        settings = {
            "engine": engine,
            "latent": LATENT,
            "seed": SEED,
            "per_person": PER_PERSON,
            "scatter": SCATTER,
            "queries": QUERIES,
            "k": K,
            "filter": FILTER,
            "backbone": backbone,
            "threads": torch.get_num_threads(),
            "parameters": {
                index: {"build": INDEXES[index], "search": search_parameters(index, K)}
                for index in indexes.split(",")
            },
        }
        write_json(
            output,
            {
                "kind": "benchmark",
                "name": "gallery",
                "started": started,
                "duration_s": round(time.monotonic() - start, 3),
                "settings": settings,
                "rows": rows,
                **environment("cpu"),
            },
        )


if __name__ == "__main__":
    typer.run(main)
