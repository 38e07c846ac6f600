"""Embed the images and captions of a split and rank them against each other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cskt.cost import ENCODE_GALLERY, ENCODE_QUERIES, RANK, Stopwatch, count_flops
from cskt.data import unreadable
from cskt.data.audit import ambiguous_captions
from cskt.data.augment import normalize
from cskt.data.datasets import PersonRetrievalDataset, Split
from cskt.data.loading import load_images
from cskt.metrics import Metrics, both_directions, per_query, rank_features
from cskt.model.cskt import CSKT
from cskt.numerics import resolve_precision, upload
from cskt.ranks import Ranks

MEASURES = ("R@1", "R@5", "R@10", "mAP", "mINP")
SplitMetrics = dict[str, dict[str, Metrics]]  # "val" or "test" -> direction -> measures
RESAMPLES = 1000  # of the bootstrap intervals in a run's record


@dataclass(frozen=True)
class LoadedSplit:
    """A split in memory: ``images`` uint8 (N, 3, H, W), possibly memory-mapped, and ``tokens``
    int64 (M, 77). ``skipped`` says which images were left out, as :func:`unreadable.listed` does;
    ``split`` is then without them."""

    split: Split
    images: Tensor
    tokens: Tensor
    skipped: dict[str, Any] | None = None


def load_split(
    model: CSKT,
    split: Split,
    on_error: str = "raise",
    root: Path = Path(),
    ranks: Ranks | None = None,
) -> LoadedSplit:
    """Decode (cached) and tokenise ``split``, at the image size of ``model``.

    ``on_error="skip"`` leaves out the images that cannot be read, with their captions, and lists
    them by their path below ``root``; "raise" raises :class:`cskt.errors.DataError` about the
    first. The first of the ``ranks`` decides for all.
    """
    skipped = None
    if on_error == "skip":
        ranks = ranks or Ranks()
        found = ranks.ask_first(lambda: unreadable.find_unreadable(split, model.image_size))
        skipped = unreadable.listed(split, found, root)
        split = unreadable.leave_out(split, found) if found else split
    images = load_images(split, model.image_size)
    tokens = model.tokenize(list(split.captions))
    return LoadedSplit(split, images, tokens, skipped)


def evaluate(
    model: CSKT,
    split: Split | LoadedSplit,
    precision: str = "auto",
    batch_size: int = 256,
    resamples: int = RESAMPLES,
    ranks: Ranks | None = None,
) -> dict[str, Metrics]:
    """Rank ``split`` with ``model``: R@1/5/10, mAP and mINP in percent, ``text_to_image`` and
    ``image_to_text``, with 95 % intervals from ``resamples`` bootstrap samples (0: without).

    ``ranks``: the processes that share the work; all of them get the result.
    """
    ranks = ranks or Ranks()
    loaded = _as_loaded(model, split)
    image_features, text_features = embed(model, loaded, precision, batch_size, ranks)
    return ranks.ask_first(lambda: _rank(image_features, text_features, loaded.split, resamples))


def evaluate_unambiguous(model: CSKT, split: Split, precision: str = "auto") -> dict[str, Any]:
    """The ``metrics`` of :func:`evaluate`, and under ``without_ambiguous`` those text-to-image when
    the captions that stand under several identities
    (:func:`cskt.data.audit.ambiguous_captions`) are no queries, with how many were ``left_out``
    ``of`` all; None where none would be left."""
    image_features, text_features = embed(model, split, precision)
    kept = np.flatnonzero(~ambiguous_captions(split))
    metrics = None
    if len(kept):
        metrics = rank_features(
            text_features[torch.from_numpy(kept)],
            image_features,
            split.caption_identities[kept],
            split.image_identities,
            resamples=RESAMPLES,
        )
    return {
        "metrics": _rank(image_features, text_features, split, RESAMPLES),
        "without_ambiguous": {
            "left_out": len(split) - len(kept),
            "of": len(split),
            "text_to_image": metrics,
        },
    }


def evaluate_queries(
    model: CSKT, loaded: LoadedSplit, precision: str, ranks: Ranks | None = None
) -> tuple[dict[str, Metrics], dict[str, np.ndarray], dict[str, Any]]:
    """What :func:`evaluate` gives, the arrays of a run's ``queries.npz`` (how each caption ranked
    the images), and what it cost (see :func:`_cost`)."""
    ranks = ranks or Ranks()
    watch = Stopwatch()
    image_features, text_features = embed(model, loaded, precision, ranks=ranks, watch=watch)

    def rank() -> tuple[dict[str, Metrics], dict[str, np.ndarray], dict[str, Any]]:
        with watch.step(RANK):
            queries = _rank_queries(image_features, text_features, loaded.split)
        metrics = _rank(image_features, text_features, loaded.split, RESAMPLES)
        return metrics, queries, _cost(model, loaded, precision, watch.seconds)

    return ranks.ask_first(rank)


@torch.inference_mode()
def _cost(
    model: CSKT, loaded: LoadedSplit, precision: str, seconds: dict[str, float]
) -> dict[str, Any]:
    """The entry ``cost`` of a run's record: ``seconds`` of encoding all captions, encoding all
    images (decoded before), ranking every image for every caption, and of the three as a whole;
    then ``seconds`` and ``flops`` (see :func:`count_flops`) per query and per image, the flops of a
    query being those of the caption of median length, of so many ``tokens``."""
    lengths = loaded.tokens.ne(0).sum(1)
    middle = int(lengths.argsort(stable=True)[len(lengths) // 2])
    caption = loaded.tokens[middle : middle + 1]
    image = normalize(loaded.images[:1].to(model.device))
    with ready(model, precision):
        query_flops = count_flops(lambda: model.encode_text(caption))
        image_flops = count_flops(lambda: model.encode_image(image))
    num_queries = len(loaded.tokens)
    num_images = len(loaded.images)
    return {
        "queries": num_queries,
        "images": num_images,
        "seconds": seconds | {"whole": sum(seconds.values())},
        "per_query": {
            "seconds": seconds[ENCODE_QUERIES] / num_queries,
            "flops": query_flops,
            "tokens": int(lengths[middle]),
        },
        "per_image": {"seconds": seconds[ENCODE_GALLERY] / num_images, "flops": image_flops},
    }


class Evaluator:
    """val and test of a data set, loaded once; where test stands in for val, evaluated once.
    ``ranks`` share the work; ``on_error`` is that of :func:`load_split`."""

    def __init__(
        self,
        model: CSKT,
        dataset: PersonRetrievalDataset,
        precision: str,
        ranks: Ranks | None = None,
        on_error: str = "raise",
    ) -> None:
        self.precision = precision
        self.ranks = ranks or Ranks()
        self.test = load_split(model, dataset.test, on_error, dataset.root, ranks)
        self.val = self.test
        if dataset.val is not dataset.test:
            self.val = load_split(model, dataset.val, on_error, dataset.root, ranks)

    def after_epoch(self, model: CSKT) -> SplitMetrics:
        """Both directions on val and on test, without intervals."""
        test = evaluate(model, self.test, self.precision, resamples=0, ranks=self.ranks)
        val = test
        if self.val is not self.test:
            val = evaluate(model, self.val, self.precision, resamples=0, ranks=self.ranks)
        return {"val": val, "test": test}

    def at_the_end(self, model: CSKT) -> tuple[SplitMetrics, dict[str, np.ndarray], dict[str, Any]]:
        """Both directions on val and on test, with intervals; and how each caption of test
        ranked and what that cost (see :func:`evaluate_queries`)."""
        test, queries, cost = evaluate_queries(model, self.test, self.precision, self.ranks)
        val = test
        if self.val is not self.test:
            val = evaluate(model, self.val, self.precision, ranks=self.ranks)
        return {"val": val, "test": test}, queries, cost


def precision_effect(model: CSKT, split: Split | LoadedSplit) -> pd.DataFrame:
    """Text-to-image measures of ``model``, on its device, in fp32 and in bf16, and the difference,
    in points.

    Where the device has no bf16 of its own, torch computes it in software: the same rounding, only
    slower.
    """
    loaded = _as_loaded(model, split)
    rows = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with model.fused(dtype):
            metrics = evaluate(model, loaded, precision="fp32")["text_to_image"]
        rows[name] = {measure: metrics[measure] for measure in MEASURES}
    table = pd.DataFrame(rows).T
    table.loc["bf16 - fp32"] = table.loc["bf16"] - table.loc["fp32"]
    return table


def embed(
    model: CSKT,
    split: Split | LoadedSplit,
    precision: str = "auto",
    batch_size: int = 256,
    ranks: Ranks | None = None,
    watch: Stopwatch | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`embed_images` and :func:`embed_texts` of a split, each of the ``ranks`` its share;
    ``watch`` gets the seconds of both."""
    ranks = ranks or Ranks()
    watch = watch or Stopwatch()
    loaded = _as_loaded(model, split)
    num_images = len(loaded.images)
    num_captions = len(loaded.tokens)
    share = LoadedSplit(
        loaded.split,
        loaded.images[ranks.share(num_images)],
        loaded.tokens[ranks.share(num_captions)],
    )
    with watch.step(ENCODE_GALLERY):
        image_features = embed_images(model, share, precision, batch_size)
        image_features = ranks.gather(image_features, num_images)
    with watch.step(ENCODE_QUERIES):
        text_features = embed_texts(model, share, precision, batch_size)
        text_features = ranks.gather(text_features, num_captions)
    return image_features, text_features


def embed_images(
    model: CSKT, loaded: LoadedSplit, precision: str = "auto", batch_size: int = 256
) -> Tensor:
    """L2-normalised fp32 features (N, D) of every image, on the model's device."""
    return encode_images(model, loaded.images, precision, batch_size)


@torch.inference_mode()
def encode_images(
    model: CSKT, images: Tensor, precision: str = "auto", batch_size: int = 256
) -> Tensor:
    """The same of images (N, 3, H, W) uint8."""

    def encode(batch: Tensor) -> Tensor:
        pixels = normalize(upload(batch, model.device))
        return model.encode_image(pixels, normalize=True)

    return _encode_in_batches(model, encode, images, precision, batch_size)


@torch.inference_mode()
def embed_texts(
    model: CSKT, loaded: LoadedSplit, precision: str = "auto", batch_size: int = 256
) -> Tensor:
    """L2-normalised fp32 features (M, D) of every caption, on the model's device."""

    def encode(batch: Tensor) -> Tensor:
        return model.encode_text(batch, normalize=True)

    lengths = loaded.tokens.ne(0).sum(1)
    order = lengths.argsort(stable=True)  # captions of one length pad little
    features = _encode_in_batches(model, encode, loaded.tokens[order], precision, batch_size)
    return torch.empty_like(features).index_copy(0, order.to(features.device), features)


@contextlib.contextmanager
def ready(model: CSKT, precision: str = "auto") -> Iterator[CSKT]:
    """Within the block, the model fused for inference in ``precision`` (see
    :func:`cskt.numerics.resolve_precision`)."""
    was_training = model.training
    dtype = None
    if resolve_precision(precision, model.device.type) == "bf16":
        dtype = torch.bfloat16
    try:
        with model.fused(dtype):
            yield model
    finally:
        model.train(was_training)


def _encode_in_batches(
    model: CSKT, encode: Callable[[Tensor], Tensor], inputs: Tensor, precision: str, batch_size: int
) -> Tensor:
    if not len(inputs):  # of a process without a row
        return torch.zeros(0, model.dimension, device=model.device)
    with ready(model, precision):
        features = [encode(batch) for batch in inputs.split(batch_size)]
    # Normalised in fp32 whatever the blocks computed in: rankings turn on small differences of
    # cosines.
    return torch.cat(features).float()


def _as_loaded(model: CSKT, split: Split | LoadedSplit) -> LoadedSplit:
    if isinstance(split, LoadedSplit):
        return split
    return load_split(model, split)


def _rank(
    image_features: Tensor, text_features: Tensor, split: Split, resamples: int
) -> dict[str, Metrics]:
    return both_directions(
        text_features,
        image_features,
        split.caption_identities,
        split.image_identities,
        resamples=resamples,
    )


def _rank_queries(
    image_features: Tensor, text_features: Tensor, split: Split
) -> dict[str, np.ndarray]:
    ranked = per_query(
        text_features, image_features, split.caption_identities, split.image_identities
    )
    return {
        "query_identities": ranked.query_identities.astype(np.int64),
        "first_rank": ranked.first_rank.astype(np.int32),
        "average_precision": ranked.average_precision.astype(np.float32),
        "inverse_negative_penalty": ranked.inverse_negative_penalty.astype(np.float32),
    }
