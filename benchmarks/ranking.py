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
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from typer import Option

from cskt.errors import CSKTError
from cskt.files import make_folder, write_json
from cskt.metrics import rank_features, retrieval_metrics
from cskt.runs import environment

SEED, IDENTITIES, WIDTH, ICFG = 0, 1000, 512, 19_848


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
    last = [row.nonzero()[-1] for row in matches]
    penalty = torch.cat([found[i][place] / (place + 1.0) for i, place in enumerate(last)])
    precision = torch.stack([found[:, i] / (i + 1.0) for i in range(found.shape[1])], 1) * matches
    mean_precision = (precision.sum(1) / matches.sum(1)).double().mean()
    result = {f"R@{k}": hits[k - 1] for k in (1, 5, 10)} | {
        "mAP": mean_precision,
        "mINP": penalty.double().mean(),
    }
    return {name: 100 * float(value) for name, value in result.items()}


def data(queries: int, gallery: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """L2-normalised features (Q, WIDTH) and (G, WIDTH) with the identities (Q,) and (G,); every
    query has a match."""
    random = torch.Generator().manual_seed(SEED)
    identities = min(IDENTITIES, gallery)
    centres = torch.randn(identities, WIDTH, generator=random)
    ids = [torch.randperm(n, generator=random) % identities for n in (queries, gallery)]
    features = [
        torch.nn.functional.normalize(
            centres[i] + 3 * torch.randn(len(i), WIDTH, generator=random), dim=1
        )
        for i in ids
    ]
    return features[0], features[1], ids[0], ids[1]


# What is measured, and whether it starts from the similarity matrix or, with the matrix product,
# from the features.
METHODS: dict[str, tuple[Callable[..., Any], bool]] = {
    "full argsort, Python loops": (full_argsort, True),
    "retrieval_metrics": (retrieval_metrics, True),
    "rank_features": (rank_features, False),
    "matrix product alone": (lambda queries, gallery, *_: queries @ gallery.T, False),
}


def arguments(from_matrix: bool, queries: int, gallery: int) -> tuple[Tensor, ...]:
    query_features, gallery_features, *ids = data(queries, gallery)
    return (
        (query_features @ gallery_features.T, *ids)
        if from_matrix
        else (query_features, gallery_features, *ids)
    )


def resident(field: str) -> int:
    """``VmRSS`` (memory held now) or ``VmHWM`` (at most, since the last reset) of this process, in
    KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def measure(
    what: str, queries: int, gallery: int, repeats: int
) -> tuple[list[float], float, dict[str, float] | None]:
    """Seconds of each repetition, MiB needed at most over the arguments, and the metrics; in a
    process of its own."""
    method, from_matrix = METHODS[what]
    method(
        *arguments(from_matrix, 64, 64)
    )  # what is loaded or started at the first call is not of the method
    given = arguments(from_matrix, queries, gallery)
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that is still held would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = resident("VmRSS")
    result = method(*given)
    extra = (resident("VmHWM") - before) / 1024
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        method(*given)
        seconds.append(time.perf_counter() - start)
    return seconds, extra, result if isinstance(result, dict) else None


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
    cases = [(what, what, queries, gallery, repeats) for what in METHODS]
    if icfg:
        cases.append(
            ("rank_features, ICFG-PEDES size", "rank_features", ICFG, ICFG, min(repeats, 3))
        )
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(
        ["cskt.evaluation", "cskt.metrics"]
    )  # imported once, before anything is computed
    rows: list[dict[str, Any]] = []
    expected: dict[str, float] = {}
    typer.echo(f"{queries} queries, {gallery} gallery items, {torch.get_num_threads()} threads")
    for name, *case in cases:
        with ProcessPoolExecutor(1, processes) as process:
            seconds, extra, metrics = process.submit(measure, *case).result()
        expected = expected or metrics or {}
        for metric, value in expected.items() if metrics and name in METHODS else ():
            if not math.isclose(metrics[metric], value, rel_tol=1e-6):
                raise CSKTError(f"{name} gives {metric} {metrics[metric]}, not {value}.")
        rows.append(
            {
                "what": name,
                "seconds": median(seconds),
                "repeats": seconds,
                "extra_memory_mb": round(extra, 1),
            }
        )
        typer.echo(f"{name:32}{median(seconds):9.3f} s{extra:9.1f} MiB")
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
        write_json(
            output,
            {
                "kind": "benchmark",
                "name": "ranking",
                "started": started,
                "duration_s": round(time.monotonic() - start, 3),
                "settings": settings,
                "rows": rows,
                **environment("cpu"),
            },
        )


if __name__ == "__main__":
    typer.run(main)
