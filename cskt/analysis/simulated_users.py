"""Simulated users who mark hits: what a query gains from relevance feedback where the truth is
known.

A user looks at the first pictures of a ranking that he has not seen, marks each of them as right
or wrong, truthfully, and searches again. What he has seen is then no longer part of the gallery:
a picture that was marked right would otherwise come first and count as found (the residual
collection of Chang, Cirillo and Razon, in Salton (ed.), The SMART Retrieval System, 1971; Salton
and Buckley, JASIS 41, 1990). The query as it was asked ranks the same residual collection beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from cskt.analysis.feedback import Weights
from cskt.data.datasets import PersonRetrievalDataset
from cskt.environment import environment
from cskt.evaluation import RESAMPLES, embed
from cskt.metrics import bootstrap, rank_features
from cskt.numerics import resolve_device
from cskt.runs import Run

MARKS = (1, 3, 5)  # hits marked a round
ROUNDS = 3


@dataclass(frozen=True)
class Round:
    """How Q queries do after a round of marks, each (Q,).

    ``left``: whether a right picture is left that has not been seen. Of the pictures not seen,
    ``first``: whether the best is right, and ``precision``: the average precision; both NaN where
    none is left. ``first_before`` and ``precision_before``: the same of the query as it was asked.
    ``found``: the share of a query's right pictures among those seen; ``found_before``: among as
    many at the head of the first ranking, seen without giving any feedback.
    """

    left: np.ndarray
    first: np.ndarray
    precision: np.ndarray
    first_before: np.ndarray
    precision_before: np.ndarray
    found: np.ndarray
    found_before: np.ndarray


class SimulatedUsers:
    """A user for each of Q queries (Q, D), against a gallery (G, D), all of length one; ``match``
    (Q, G): whether a picture is right. Every query has at least one right picture."""

    def __init__(
        self, queries: np.ndarray, gallery: np.ndarray, match: np.ndarray, weights: Weights
    ) -> None:
        self.queries = queries
        self.gallery = gallery
        self.match = match
        self.weights = weights
        self.seen = np.zeros(match.shape, bool)
        self.asked_scores = queries @ gallery.T
        self.scores = self.asked_scores

    def mark(self, count: int) -> None:
        """Mark the first ``count`` pictures that have not been seen, and search again."""
        unseen = np.where(self.seen, -np.inf, self.scores)
        first = ranking(unseen)[:, :count]
        np.put_along_axis(self.seen, first, True, axis=1)
        right = _means(self.seen & self.match, self.gallery)
        wrong = _means(self.seen & ~self.match, self.gallery)
        weights = self.weights
        # Of other lengths than refined_query's, but each ranks the gallery as that one does.
        refined = weights.asked * self.queries + weights.right * right - weights.wrong * wrong
        self.scores = refined @ self.gallery.T

    def state(self) -> Round:
        """How the queries do now."""
        first, precision = self._residual(self.scores)
        first_before, precision_before = self._residual(self.asked_scores)
        number_right = self.match.sum(1)
        number_seen = self.seen.sum(1)
        in_order = np.take_along_axis(self.match, ranking(self.asked_scores), axis=1)
        looked_at = np.arange(self.match.shape[1]) < number_seen[:, None]
        return Round(
            left=np.asarray((self.match & ~self.seen).any(1)),
            first=first,
            precision=precision,
            first_before=first_before,
            precision_before=precision_before,
            found=(self.match & self.seen).sum(1) / number_right,
            found_before=(in_order & looked_at).sum(1) / number_right,
        )

    def _residual(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether the best picture not seen is right, and the average precision over those, each
        (Q,)."""
        order = ranking(np.where(self.seen, -np.inf, scores))
        relevant = np.take_along_axis(self.match & ~self.seen, order, axis=1)
        matches = relevant.cumsum(1)
        ranks = np.arange(1, relevant.shape[1] + 1)
        number = matches[:, -1].astype(float)
        number[number == 0] = np.nan  # nothing is left to find
        precision = (relevant * matches / ranks).sum(1) / number
        first = np.where(np.isnan(number), np.nan, relevant[:, 0])
        return first, precision


def ranking(scores: np.ndarray) -> np.ndarray:
    """Indices (Q, G), best first; equal scores rank by index."""
    return np.argsort(-scores, axis=1, kind="stable")


def _means(chosen: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(Q, D): the mean of the pictures that are chosen (Q, G); 0 where none is."""
    number = np.maximum(chosen.sum(1, keepdims=True), 1)
    return (chosen.astype(gallery.dtype) @ gallery) / number.astype(gallery.dtype)


def round_row(state: Round, identities: np.ndarray) -> dict[str, Any]:
    """Means in percent and their 95 % intervals, bootstrap over identities (Q,): ``R@1``, ``mAP``
    and ``found`` with feedback, ``... before`` of the query as asked, ``... gain``: the paired
    difference, in points. ``left``: the share of queries with anything left, which R@1 and mAP
    are means of."""
    pairs = {
        "R@1": (state.first, state.first_before),
        "mAP": (state.precision, state.precision_before),
        "found": (state.found, state.found_before),
    }
    row: dict[str, Any] = {"left": 100.0 * float(state.left.mean()), "intervals": {}}
    for measure, (after, before) in pairs.items():
        known = ~np.isnan(after)
        values = {
            measure: after[known],
            f"{measure} before": before[known],
            f"{measure} gain": after[known] - before[known],
        }
        table = 100.0 * np.stack(list(values.values()), axis=1)
        ends = bootstrap(table, identities[known], RESAMPLES)
        row.update(zip(values, table.mean(0).tolist(), strict=True))
        row["intervals"].update(zip(values, ends.tolist(), strict=True))
    return row


def feedback_record(
    run: Run, data: PersonRetrievalDataset, on_row: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The record of a run's model with simulated users on test: the run's own with, in ``rounds``,
    a :func:`round_row` for each number of ``marks`` a round and each ``round`` from 0, and the
    ``weights``. ``on_row`` is given each as it comes."""
    start = time.monotonic()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    device = resolve_device(run.config.device)
    model = run.load_model().to(device)
    images, texts = embed(model, data.test, run.record["precision"])
    queries = data.test.caption_identities
    gallery = data.test.image_identities
    metrics = rank_features(texts, images, queries, gallery, resamples=RESAMPLES)
    match = queries[:, None] == gallery[None]
    kept = match.any(1)
    weights = Weights()
    rows = []
    for marks in MARKS:
        users = SimulatedUsers(
            texts.cpu().numpy()[kept], images.cpu().numpy(), match[kept], weights
        )
        for number in range(ROUNDS + 1):
            if number:
                users.mark(marks)
            row = {"marks": marks, "round": number, **round_row(users.state(), queries[kept])}
            on_row(row)
            rows.append(row)
    return {
        **run.record,
        "kind": "feedback",
        "run": run.folder.name,
        "dataset": data.name,
        "data_fingerprint": data.fingerprint,
        "metrics": {"text_to_image": metrics},
        "weights": asdict(weights),
        "rounds": rows,
        "history": None,
        "started": started,
        "duration_s": round(time.monotonic() - start, 3),
        **environment(device),
    }
