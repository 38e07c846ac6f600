"""How long the whole test sets of the three benchmarks take: encoding all captions, encoding all
images, ranking every image for every caption.

``python benchmarks/test_set_time.py --output book/results/benchmarks/test-set-time-cpu.json``. On a
GPU all of it is measured. On a CPU a sample of images and captions is encoded, and its time per
item times the real counts is the figure; ranking is measured at full size there too. Weights,
pixels and words are random: no figure here depends on their values. Reading and decoding image
files is left out.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import typer

# A script sees its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.throughput_cases import LENGTHS, Setup
from cskt import CSKT
from cskt.cost import ENCODE_GALLERY, ENCODE_QUERIES, RANK, Stopwatch
from cskt.data.datasets import Split
from cskt.data.findings import PUBLISHED, Counts
from cskt.environment import environment
from cskt.evaluation import LoadedSplit, evaluate_queries, ready
from cskt.files import make_folder, write_json
from cskt.metrics import per_query
from cskt.numerics import resolve_device, resolve_precision

WARM_UP = Counts(images=2, identities=1, captions=2)


def random_split(setup: Setup, model: CSKT, counts: Counts) -> LoadedSplit:
    """As many images and captions, with people and pairs by turns."""
    shape = (counts.images, 3, *setup.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    lengths = np.resize(LENGTHS, counts.captions)
    split = Split(
        name="test",
        image_paths=(),
        image_identities=np.arange(counts.images) % counts.identities,
        captions=(),
        caption_images=np.arange(counts.captions) % counts.images,
    )
    return LoadedSplit(split, images, setup.token_ids(model, lengths, "cskt"))


def cost_of(setup: Setup, model: CSKT, counts: Counts, precision: str) -> dict[str, Any]:
    """The ``cost`` that a run's record holds, of the warm model with random images and captions."""
    with ready(model, precision):
        evaluate_queries(model, random_split(setup, model, WARM_UP), precision)
        _, _, cost = evaluate_queries(model, random_split(setup, model, counts), precision)
    return cost


def seconds_of_ranking(counts: Counts, width: int, device: str) -> float:
    """Ranking random features (captions, ``width``) and (images, ``width``) at full size."""
    texts = F.normalize(torch.randn(counts.captions, width), dim=1).to(device)
    images = F.normalize(torch.randn(counts.images, width), dim=1).to(device)
    image_identities = np.arange(counts.images) % counts.identities
    caption_identities = image_identities[np.arange(counts.captions) % counts.images]
    watch = Stopwatch()
    with watch.step(RANK):
        per_query(texts, images, caption_identities, image_identities)
    return watch.seconds[RANK]


def row_of(dataset: str, counts: Counts, seconds: dict[str, float], how: str) -> dict[str, Any]:
    """What the whole test set of a benchmark takes, and ``how`` that is known."""
    steps = {name: round(seconds[name], 4) for name in (ENCODE_QUERIES, ENCODE_GALLERY, RANK)}
    return {
        "what": dataset,
        "queries": counts.captions,
        "images": counts.images,
        "how": how,
        **steps,
        "seconds": round(sum(steps.values()), 4),
    }


def shares_of_ranking(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the seconds of each whole test set."""
    return {f"rank / whole: {row['what']}": row[RANK] / row["seconds"] for row in rows}


def main(
    backbone: str = "ViT-B-16-quickgelu",
    height: int = 384,
    width: int = 128,
    images: int = 24,
    captions: int = 128,
    device: str = "auto",
    precision: str = "fp32",
    seed: int = 0,
    output: Path | None = None,
) -> None:
    """Measure, print, and write the run file ``output``; ``images`` and ``captions`` are the sample
    of a CPU."""
    if output:
        make_folder(output.parent)
    start = time.monotonic()
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None  # not on Windows
    started = datetime.now(UTC).isoformat(timespec="seconds")
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    setup = Setup(backbone, (height, width), images, device, seed)
    model = setup.model("cskt").eval()
    width_of_features = model.backbone.text_projection.shape[1]
    rows = []
    if device == "cpu":
        sample = Counts(images, identities=images, captions=captions)
        cost = cost_of(setup, model, sample, precision)
        how = f"extrapolated from {images} images and {captions} captions"
    for dataset, published in PUBLISHED.items():
        counts = published["test"]
        if device == "cpu":
            seconds = {
                ENCODE_QUERIES: cost["per_query"]["seconds"] * counts.captions,
                ENCODE_GALLERY: cost["per_image"]["seconds"] * counts.images,
                RANK: seconds_of_ranking(counts, width_of_features, device),
            }
        else:
            cost = cost_of(setup, model, counts, precision)
            seconds = cost["seconds"]
            how = "measured whole"
        row = row_of(dataset, counts, seconds, how)
        rows.append(row)
        typer.echo(f"{dataset:12}{row['seconds']:10.1f} s, {how}")
    if output:
        record = {
            "kind": "benchmark",
            "name": "test set time",
            "started": started,
            "duration_s": round(time.monotonic() - start, 3),
            "settings": {
                "backbone": backbone,
                "image_size": [height, width],
                "weights": "random",
                "precision": precision,
                "seed": seed,
                "load_average_at_start": load,
            },
            "rows": rows,
            "per_query": cost["per_query"],
            "per_image": cost["per_image"],
            "ratios": shares_of_ranking(rows),
            **environment(device),
        }
        write_json(output, record)


if __name__ == "__main__":
    typer.run(main)
