"""What a model loses when descriptions or pictures of the test split are worse than its own."""

from __future__ import annotations

import dataclasses
import functools
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cskt.analysis.corruptions import (
    LEVELS,
    OF_CAPTIONS,
    OF_IMAGES,
    SYNONYMS,
    WORDING,
    Synonyms,
    swap_synonyms,
)
from cskt.data.datasets import PersonRetrievalDataset
from cskt.environment import environment
from cskt.errors import DataError
from cskt.evaluation import (
    RESAMPLES,
    LoadedSplit,
    embed_images,
    embed_texts,
    encode_images,
    load_split,
)
from cskt.metrics import Metrics, rank_features
from cskt.model.cskt import CSKT
from cskt.numerics import resolve_device
from cskt.runs import Run
from cskt.synthetic import reworded
from cskt.synthetic.domains import DOMAINS

COLUMNS = ["word", "synonym"]  # of a table of synonyms
Wordings = Mapping[str, Sequence[str]]  # name -> every caption of test in that wording


@dataclass(frozen=True)
class Condition:
    """One corruption at one level. ``captions`` gives every caption anew, or ``images`` every image
    (N, 3, H, W) uint8; the other side stays."""

    corruption: str
    level: float | str
    captions: Callable[[Sequence[str]], Sequence[str]] | None = None
    images: Callable[[Tensor], Tensor] | None = None


def corrupt_captions(
    captions: Sequence[str],
    corruption: str,
    level: float,
    seed: int,
    synonyms: Synonyms | None = None,
) -> list[str]:
    """Each caption corrupted by itself: what is drawn depends on ``seed``, the corruption and the
    caption's place."""
    corrupt = OF_CAPTIONS.get(corruption)
    if corrupt is None:
        corrupt = functools.partial(swap_synonyms, synonyms=synonyms or {})
    stream = zlib.crc32(corruption.encode())
    changed = []
    for index, caption in enumerate(captions):
        changed.append(corrupt(caption, level, (seed, stream, index)))
    return changed


def corrupt_images(images: Tensor, corruption: str, level: float, seed: int) -> Tensor:
    """The same of images (N, 3, H, W) uint8."""
    stream = zlib.crc32(corruption.encode())
    changed = []
    for index, image in enumerate(images):
        changed.append(OF_IMAGES[corruption](image, level, (seed, stream, index)))
    return torch.stack(changed)


def conditions(seed: int, wordings: Wordings, synonyms: Synonyms) -> list[Condition]:
    """Every corruption at each of its :data:`LEVELS`; synonyms where there is a table of them,
    other wordings where there are any."""
    planned = []
    for corruption, levels in LEVELS.items():
        if corruption == SYNONYMS and not synonyms:
            continue
        for level in levels:
            if corruption in OF_IMAGES:
                images = functools.partial(
                    corrupt_images, corruption=corruption, level=level, seed=seed
                )
                planned.append(Condition(corruption, level, images=images))
            else:
                captions = functools.partial(
                    corrupt_captions,
                    corruption=corruption,
                    level=level,
                    seed=seed,
                    synonyms=synonyms,
                )
                planned.append(Condition(corruption, level, captions))
    for name, texts in wordings.items():
        planned.append(Condition(WORDING, name, functools.partial(_in_place, texts=texts)))
    return planned


def _in_place(captions: Sequence[str], texts: Sequence[str]) -> Sequence[str]:
    """``texts``, whatever the captions were."""
    return texts


def wordings_of(data: PersonRetrievalDataset) -> dict[str, Sequence[str]]:
    """The captions of test in the wording of each domain of SynthPEDES: of the data's own, which is
    the same said once more, and of the others; none for other data."""
    if not data.synthetic:
        return {}
    return {domain: reworded(data, domain) for domain in DOMAINS}


def read_synonyms(path: str | Path) -> dict[str, list[str]]:
    """The words and phrases of a csv file with the columns :data:`COLUMNS`, in lower case, each
    with its synonyms; :class:`DataError` for a file that is none."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=COLUMNS)
    except (OSError, ValueError) as error:  # of pandas: not csv, or without these columns
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} is no table of synonyms ({reason}); it needs the columns "
            f"{' and '.join(COLUMNS)}."
        ) from error
    synonyms: dict[str, list[str]] = {}
    for row, (word, synonym) in enumerate(table[COLUMNS].itertuples(index=False), start=2):
        if not word.strip() or not synonym.strip():
            raise DataError(f"{path}, row {row}: word or synonym is empty; fill in or remove it.")
        synonyms.setdefault(word.strip().lower(), []).append(synonym.strip())
    if not synonyms:
        raise DataError(f"{path} holds no synonym; give a row for each.")
    return synonyms


def measure(
    model: CSKT, loaded: LoadedSplit, precision: str, planned: Sequence[Condition]
) -> Iterator[Metrics]:
    """Text-to-image measures of a split as it is, then under each condition, with intervals over
    people (see :func:`cskt.metrics.rank_features`)."""
    split = loaded.split

    def rank(text_features: Tensor, image_features: Tensor) -> Metrics:
        return rank_features(
            text_features,
            image_features,
            split.caption_identities,
            split.image_identities,
            resamples=RESAMPLES,
        )

    text_features = embed_texts(model, loaded, precision)
    image_features = embed_images(model, loaded, precision)
    yield rank(text_features, image_features)
    for condition in planned:
        if condition.captions is not None:
            tokens = model.tokenize(list(condition.captions(split.captions)))
            changed = embed_texts(model, dataclasses.replace(loaded, tokens=tokens), precision)
            yield rank(changed, image_features)
        if condition.images is not None:
            changed = encode_images(model, condition.images(loaded.images), precision)
            yield rank(text_features, changed)


def robustness_record(
    run: Run,
    data: PersonRetrievalDataset,
    wordings: Wordings,
    synonyms: Synonyms,
    on_row: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """The record of a run's model under every condition, drawn by the run's seed: the run's own
    with ``metrics`` of test as it is and, in ``conditions``, ``corruption``, ``level``, ``R@1``,
    its ``interval`` and ``mAP`` of each. ``on_row`` is given each as it comes."""
    start = time.monotonic()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    device = resolve_device(run.config.device)
    model = run.load_model().to(device)
    planned = conditions(run.config.seed, wordings, synonyms)
    measured = measure(model, load_split(model, data.test), run.record["precision"], planned)
    as_it_is = next(measured)
    rows = []
    for condition, metrics in zip(planned, measured, strict=True):
        row = {
            "corruption": condition.corruption,
            "level": condition.level,
            "R@1": metrics["R@1"],
            "interval": metrics["intervals"]["R@1"],
            "mAP": metrics["mAP"],
        }
        on_row(row)
        rows.append(row)
    return {
        **run.record,
        "kind": "robustness",
        "run": run.folder.name,
        "dataset": data.name,
        "data_fingerprint": data.fingerprint,
        "metrics": {"text_to_image": as_it_is},
        "conditions": rows,
        "history": None,
        "started": started,
        "duration_s": round(time.monotonic() - start, 3),
        **environment(device),
    }
