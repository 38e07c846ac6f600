"""Time and memory of ranking random features: the usual full argsort with Python loops beside
``cskt.metrics``.

``python benchmarks/ranking.py --output ranking.json`` measures at the size of CUHK-PEDES. Memory is
read from /proc: Linux only.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor
from typer import Option

from cskt.environment import environment
from cskt.errors import RunError
from cskt.files import make_folder, write_json
from cskt.metrics import rank_features, retrieval_metrics

SEED = 0
IDENTITIES = 1000
WIDTH = 512
ICFG = 19_848  # images, and captions, of ICFG-PEDES' test split


def full_argsort(similarity: Tensor, query_ids: Tensor, gallery_ids: Tensor) -> dict[str, float]:
    """R@k, mAP and mINP as released evaluators compute them: whole matrices, Python lists; every
    query has a match.

    Two things differ, so that figures can be compared to 1e-6: the sort is stable, and means are
    taken in float64.
    """
    order = torch.argsort(similarity, dim=1, descending=True, stable=True)
    matches = gallery_ids[order].eq(query_ids.view(-1, 1))
    found = matches.cumsum(1)
    hits = matches[:, :10].cumsum(1).clamp(max=1).double().mean(0)
    last_places = [row.nonzero()[-1] for row in matches]
    penalties = [found[i][place] / (place + 1.0) for i, place in enumerate(last_places)]
    precisions = [found[:, i] / (i + 1.0) for i in range(found.shape[1])]
    precision = torch.stack(precisions, 1) * matches
    average_precision = precision.sum(1) / matches.sum(1)
    result = {f"R@{k}": 100 * float(hits[k - 1]) for k in (1, 5, 10)}
    result["mAP"] = 100 * float(average_precision.double().mean())
    result["mINP"] = 100 * float(torch.cat(penalties).double().mean())
    return result


@dataclass(frozen=True)
class Data:
    """L2-normalised features (Q, WIDTH) and (G, WIDTH) with the identities (Q,) and (G,); every
    query has a match."""

    query_features: Tensor
    gallery_features: Tensor
    query_ids: Tensor
    gallery_ids: Tensor


def data(queries: int, gallery: int) -> Data:
    """The same at every call with the same sizes."""
    random = torch.Generator().manual_seed(SEED)
    identities = min(IDENTITIES, gallery)
    centres = torch.randn(identities, WIDTH, generator=random)
    query_ids = torch.randperm(queries, generator=random) % identities
    gallery_ids = torch.randperm(gallery, generator=random) % identities
    query_noise = torch.randn(queries, WIDTH, generator=random)
    gallery_noise = torch.randn(gallery, WIDTH, generator=random)
    return Data(
        F.normalize(centres[query_ids] + 3 * query_noise, dim=1),
        F.normalize(centres[gallery_ids] + 3 * gallery_noise, dim=1),
        query_ids,
        gallery_ids,
    )


def product(queries: Tensor, gallery: Tensor, *identities: Tensor) -> Tensor:
    """The matrix product alone."""
    return queries @ gallery.T


@dataclass(frozen=True)
class Method:
    """What is measured, and whether it starts from the similarity matrix or, with the matrix
    product, from the features."""

    run: Callable[..., Any]
    from_matrix: bool

    def arguments(self, queries: int, gallery: int) -> tuple[Tensor, ...]:
        """What it is called with."""
        given = data(queries, gallery)
        if self.from_matrix:
            similarity = given.query_features @ given.gallery_features.T
            return similarity, given.query_ids, given.gallery_ids
        return given.query_features, given.gallery_features, given.query_ids, given.gallery_ids


METHODS = {
    "full argsort, Python loops": Method(full_argsort, from_matrix=True),
    "retrieval_metrics": Method(retrieval_metrics, from_matrix=True),
    "rank_features": Method(rank_features, from_matrix=False),
    "matrix product alone": Method(product, from_matrix=False),
}


@dataclass(frozen=True)
class Case:
    """A method at a size; ``name`` is the row's in the record."""

    name: str
    method: str
    queries: int
    gallery: int
    repeats: int


@dataclass(frozen=True)
class Measured:
    """Seconds of each repetition, MiB needed at most over the arguments, and the metrics."""

    seconds: list[float]
    extra_memory: float
    metrics: dict[str, float] | None


def resident(field: str) -> int:
    """``VmRSS`` (memory held now) or ``VmHWM`` (at most, since the last reset) of this process, in
    KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {field}")


def measure(case: Case) -> Measured:
    """One case, in a process of its own."""
    method = METHODS[case.method]
    # What is loaded or started at the first call is not of the method.
    method.run(*method.arguments(64, 64))
    given = method.arguments(case.queries, case.gallery)
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that is still held would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = resident("VmRSS")
    result = method.run(*given)
    extra = (resident("VmHWM") - before) / 1024
    seconds = []
    for _ in range(case.repeats):
        start = time.perf_counter()
        method.run(*given)
        seconds.append(time.perf_counter() - start)
    return Measured(seconds, extra, result if isinstance(result, dict) else None)


def check_equal(name: str, metrics: dict[str, float], expected: dict[str, float]) -> None:
    """:class:`RunError` unless a method gives the same metrics as the first one."""
    for metric, value in expected.items():
        if not math.isclose(metrics[metric], value, rel_tol=1e-6):
            raise RunError(f"{name} gives {metric} {metrics[metric]}, not {value}.")


def main(
    output: Annotated[Path | None, Option(help="File for the figures as json.")] = None,
    queries: Annotated[int, Option(min=1, help="Captions.")] = 6156,
    gallery: Annotated[int, Option(min=1, help="Images.")] = 3074,
    repeats: Annotated[int, Option(min=1, help="Of which the median counts.")] = 5,
    icfg: Annotated[
        bool, Option("--icfg", help="Also rank_features at the size of ICFG-PEDES.")
    ] = False,
) -> None:
    """Measure ranking on the CPU, each method in a process of its own, and check that all give the
    same metrics."""
    if output:
        make_folder(output.parent)
    started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    cases = [Case(name, name, queries, gallery, repeats) for name in METHODS]
    if icfg:
        name = "rank_features, ICFG-PEDES size"
        cases.append(Case(name, "rank_features", ICFG, ICFG, min(repeats, 3)))
    processes = multiprocessing.get_context("forkserver")
    # Imported once, before anything is computed.
    processes.set_forkserver_preload(["cskt.evaluation", "cskt.metrics"])
    rows: list[dict[str, Any]] = []
    expected: dict[str, float] = {}
    typer.echo(f"{queries} queries, {gallery} gallery items, {torch.get_num_threads()} threads")
    for case in cases:
        with ProcessPoolExecutor(1, processes) as process:
            measured = process.submit(measure, case).result()
        if measured.metrics and case.name in METHODS:
            expected = expected or measured.metrics
            check_equal(case.name, measured.metrics, expected)
        seconds = median(measured.seconds)
        row = {
            "what": case.name,
            "seconds": seconds,
            "repeats": measured.seconds,
            "extra_memory_mb": round(measured.extra_memory, 1),
        }
        rows.append(row)
        typer.echo(f"{case.name:32}{seconds:9.3f} s{measured.extra_memory:9.1f} MiB")
    if output:
        settings = {
            "queries": queries,
            "gallery": gallery,
            "identities": min(IDENTITIES, gallery),
            "width": WIDTH,
            "seed": SEED,
            "repeats": repeats,
            "threads": torch.get_num_threads(),
            "metrics": expected,
        }
        record = {
            "kind": "benchmark",
            "name": "ranking",
            "started": started,
            "duration_s": round(time.monotonic() - start, 3),
            "settings": settings,
            "rows": rows,
            **environment("cpu"),
        }
        write_json(output, record)


if __name__ == "__main__":
    typer.run(main)
