"""What is killed in the tests of faults: work in a folder ``place``, and whether its result is that
of work which nobody disturbed.

A further kind of work, such as a workflow, is a module-level function ``work(place, ...)`` that
begins where it finds itself, a function that checks ``place`` once it has ended, and an entry in
``CASES`` of ``test_faults.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file

from cskt.data.datasets import load_dataset
from cskt.data.loading import load_images
from cskt.evaluation import evaluate, load_split
from cskt.files import write_json
from cskt.runs import Run
from cskt.training import train
from tests.tiny_runs import (
    BACKBONE,
    assert_same_tensors,
    tiny_config,
    without_seconds,
    write_dataset,
)

CACHED_SIZE = (384, 128)  # of images whose decoding takes a while
INDEXED = 60  # images


def begin(place: Path, cache: Path | None = None) -> None:
    """In a new process: the tiny backbone, whose configuration lies beside the data, one thread,
    and a cache of its own."""
    torch.set_num_threads(1)
    os.environ["CSKT_CACHE"] = str(cache or place / "cache")
    folder = Path(os.environ["TINY_BACKBONE"])
    open_clip.add_model_config(folder / f"{BACKBONE}.json")


def training(place: Path, data: Path) -> None:
    """A tiny run, stored after every step."""
    begin(place, data.parent / "cache")
    train(tiny_config(data, place / "run", checkpoint_every=1), progress=False)


def check_run(place: Path, expected: Run) -> None:
    run = Run.load(place / "run")
    assert without_seconds(run.history) == without_seconds(expected.history)
    for name in ("metrics", "val_metrics", "zero_shot", "selected"):
        assert run.record[name] == expected.record[name]
    queries = (run.folder / "queries.npz").read_bytes()
    assert queries == (expected.folder / "queries.npz").read_bytes()
    weights = load_file(run.folder / "adapter.safetensors")
    assert_same_tensors(weights, load_file(expected.folder / "adapter.safetensors"))
    assert not list(run.folder.glob("state*"))


def cached_data(folder: Path) -> Path:
    """A data set whose images take a second or so to decode."""
    return write_dataset(folder / "CUHK-PEDES", identities=12, images=4, size=(640, 240))


def building_a_cache(place: Path, data: Path) -> None:
    begin(place)
    load_images(load_dataset("CUHK-PEDES", data).train, CACHED_SIZE)


def check_cache(place: Path, expected: np.ndarray) -> None:
    (path,) = (place / "cache" / "images").glob("*.npy")
    assert np.array_equal(np.load(path), expected)
    assert not list(path.parent.glob(".*tmp"))


def evaluating(place: Path, run: Path, data: Path) -> None:
    """Figures on test, with images that are not decoded yet."""
    begin(place)
    finished = Run.load(run)
    model = finished.load_model()
    split = load_split(model, load_dataset("CUHK-PEDES", data).test)
    write_json(place / "figures.json", evaluate(model, split, "fp32"))


def check_figures(place: Path, expected: dict) -> None:
    assert json.loads((place / "figures.json").read_text()) == expected


def indexing(place: Path, folder: Path, model: Path) -> None:
    from cskt.search.gallery import Gallery

    begin(place)
    with Gallery(place / "g.db", model) as gallery:
        gallery.add(folder, batch_size=4)


def check_gallery(place: Path, folder: Path, model: Path) -> None:
    """Every image is there once, with its thumbnail; what was half-written goes at the next
    call."""
    from cskt.search.gallery import Gallery

    thumbnails = place / "g.db" / "thumbnails"
    for left in thumbnails.glob("**/.*.tmp"):
        os.utime(left, (0, 0))
    killed_last = next(thumbnails.glob("*/ADDING"), None)
    assert killed_last is None
    with Gallery(place / "g.db", model) as gallery:
        assert len(gallery) == INDEXED
        hits = gallery.search("a person", 2 * INDEXED)
        found = sorted(hit.source for hit in hits)
        assert found == sorted(str(path) for path in folder.iterdir())
        assert all(hit.thumbnail is not None for hit in hits)
        (thumbnails / "gallery" / "ADDING").touch()
        again = gallery.add(folder)
        assert (again.added, again.known) == (0, INDEXED)
    assert not list(thumbnails.glob("**/.*.tmp"))
