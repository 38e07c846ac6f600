"""The test images of a run in galleries: its model and the one before training, side by side."""

from __future__ import annotations

import dataclasses

import numpy as np

from cskt.data.datasets import PersonRetrievalDataset, Split
from cskt.model.cskt import CSKT
from cskt.numerics import resolve_device, resolve_precision
from cskt.runs import Run, build_model
from cskt.search.gallery import Gallery
from cskt.search.query import MAX_QUERY

NAME = "grown"  # of the galleries, to which a reader may add


def run_galleries(run: Run, data: PersonRetrievalDataset) -> dict[str, Gallery]:
    """The galleries of a run's model and of the zero-shot one, by the name of their method.

    They are kept in the run's folder, so that the images of ``data.test`` are encoded only once.
    """
    device = resolve_device(run.config.device)
    precision = resolve_precision(run.config.precision, device)
    galleries = {}
    for name, model in _models(run).items():
        model.to(device).eval()
        of_model = model.fingerprint()[:8]
        of_data = data.fingerprint[:8]
        place = run.folder / f"gallery-{name}-{of_model}-{of_data}-{precision}.gallery"
        gallery = Gallery(place, model, name=NAME, precision=precision)
        # Their number says little: of images with equal bytes a gallery holds one.
        complete = place / "complete"
        if not complete.exists():
            gallery.add(data.test)
            complete.touch()
        galleries[name] = gallery
    return galleries


def _models(run: Run) -> dict[str, CSKT]:
    method = run.config.method
    models = {"CSKT" if method == "cskt" else method: run.load_model()}
    if method != "zero-shot":
        before = dataclasses.replace(run.config, method="zero-shot")
        models["zero-shot"] = build_model(before)
    return models


def right_identities(split: Split) -> dict[str, set[int]]:
    """Caption -> the identities that it was written for."""
    truth: dict[str, set[int]] = {}
    identities = split.caption_identities.tolist()
    for caption, identity in zip(split.captions, identities, strict=True):
        if caption not in truth:
            truth[caption] = set()
        truth[caption].add(identity)
    return truth


def example_captions(split: Split, count: int, seed: int) -> list[str]:
    """So many different captions, drawn, that are short enough to be asked."""
    different = dict.fromkeys(split.captions)
    short = [caption for caption in different if len(caption) <= MAX_QUERY]
    order = np.random.default_rng(seed).permutation(len(short))
    return [short[index] for index in order[:count]]
