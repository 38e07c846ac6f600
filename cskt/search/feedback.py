"""Queries that learn from marked hits or join a picture with words, hits without those that were
seen, and what was marked as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from cskt.analysis.feedback import combined_query, refined_query
from cskt.search.hits import Hit

Encode = Callable[[Any], np.ndarray]  # Gallery.encode
FIELDS = ("mark", "id", "source", "identity", "camera", "time", "similarity")


def query_vector(
    encode: Encode, query: Any, image: Any, right: Collection[Any], wrong: Collection[Any]
) -> np.ndarray:
    """The vector (D,) of a query, combined with that of an ``image`` (None: without), then moved
    towards what is ``right`` and away from what is ``wrong`` (see
    :func:`cskt.analysis.feedback.refined_query`)."""
    vector = encode(query)
    if image is not None:
        vector = combined_query(encode(image), vector)
    if not right and not wrong:
        return vector
    return refined_query(vector, _vectors(encode, right, vector), _vectors(encode, wrong, vector))


def _vectors(encode: Encode, marked: Collection[Any], like: np.ndarray) -> np.ndarray:
    """(M, D)."""
    if not marked:
        return np.zeros((0, len(like)), np.float32)
    return np.stack([encode(hit) for hit in marked])


def search_without(
    search: Callable[[int], list[Hit]],
    k: int,
    exclude: Collection[Hit | str | int],
    most: int,
) -> list[Hit]:
    """The first ``k`` hits of ``search(number)`` that are not excluded: hits and ids of images
    leave out these images, numbers leave out the identities. ``most``: what a search can give."""
    ids = {entry.id if isinstance(entry, Hit) else entry for entry in exclude}
    wanted = k + len(ids)
    while True:
        found = search(min(wanted, most))
        kept = [hit for hit in found if hit.id not in ids and hit.identity not in ids]
        if len(kept) >= k or len(found) < wanted or wanted >= most:
            return kept[:k]
        wanted *= 2  # a person may have many pictures


def marks_csv(right: Sequence[Hit], wrong: Sequence[Hit]) -> str:
    """Marked hits as csv, a row each, with the columns :data:`FIELDS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for mark, hits in (("right", right), ("wrong", wrong)):
        for hit in hits:
            facts = [hit.id, hit.source, hit.identity, hit.camera, hit.time]
            writer.writerow([mark, *(_safe(fact) for fact in facts), f"{hit.score:.4f}"])
    return text.getvalue()


def _safe(fact: Any) -> str:
    """A fact as a cell that no spreadsheet takes for a formula."""
    text = "" if fact is None else str(fact)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text
