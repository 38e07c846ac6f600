"""Retrieval metrics: R@k, mAP and mINP from a similarity matrix, in percent.

Ranks are counted, not sorted for: every gallery score is placed between the sorted scores of the query's relevant
items, which gives the ranks of those items alone. Rows where a relevant score is tied fall back to a stable sort, so
that equal scores rank by gallery index whatever the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cskt.config import CSKTError

_CHUNK_SCORES = 1 << 22  # scores ranked at a time: about 100 MB of working memory


def retrieval_metrics(
    similarity: Tensor | np.ndarray,
    query_ids: Tensor | np.ndarray | Sequence[int],
    gallery_ids: Tensor | np.ndarray | Sequence[int],
    ranks: Sequence[int] = (1, 5, 10),
) -> dict[str, float | int]:
    """R@k, mAP and mINP of queries (rows) against a gallery (columns), in percent.

    With r_1 < ... < r_n the ranks of a query's n relevant items (same identity; equal scores rank by gallery index):
    R@k is the share of queries with r_1 <= k, mAP the mean of (1/n) sum_i i/r_i, mINP the mean of n/r_n (Ye et al.,
    TPAMI 2021). Queries without any relevant item are left out of all three and counted as ``unmatched_queries``;
    ``queries`` counts all of them.

    Args:
        similarity: (Q, G), larger is closer; ranked on the device it lies on, in chunks of rows.
        query_ids: (Q,) integers.
        gallery_ids: (G,) integers.
        ranks: the k of R@k.

    Raises:
        CSKTError: shapes or types that do not fit, NaN scores, or no query with a relevant item.
    """
    scores, queries, gallery = _validate(similarity, query_ids, gallery_ids, ranks)
    items, starts, counts = _relevant_items(queries, gallery)
    matched = np.flatnonzero(counts)
    if not len(matched):
        raise CSKTError("no query identity occurs in gallery_ids; check that both come from the same split.")
    first, precision, penalty = (np.zeros(len(matched)) for _ in range(3))
    step = max(1, _CHUNK_SCORES // len(gallery))
    for begin in range(0, len(matched), step):
        rows = matched[begin : begin + step]
        slots = np.arange(counts[rows].max())
        valid = slots < counts[rows, None]
        relevant = items[np.where(valid, starts[rows, None] + slots, 0)]
        # A run of consecutive rows is a view; an index would copy it (and again for a transposed matrix).
        whole = len(rows) == rows[-1] - rows[0] + 1
        chunk = scores[rows[0] : rows[-1] + 1] if whole else scores[torch.from_numpy(rows).to(scores.device)]
        rank = _relevant_ranks(chunk, torch.from_numpy(relevant), torch.from_numpy(valid)).cpu().numpy()
        found = slice(begin, begin + len(rows))
        first[found] = rank[:, 0]
        precision[found] = np.where(valid, (slots + 1) / rank, 0.0).sum(1) / counts[rows]
        penalty[found] = counts[rows] / np.where(valid, rank, 0).max(1)
    result: dict[str, float | int] = {f"R@{k}": 100.0 * float((first <= k).mean()) for k in ranks}
    result |= {"mAP": 100.0 * float(precision.mean()), "mINP": 100.0 * float(penalty.mean())}
    return result | {"queries": len(queries), "unmatched_queries": len(queries) - len(matched)}


def both_directions(
    similarity: Tensor | np.ndarray,
    text_ids: Tensor | np.ndarray | Sequence[int],
    image_ids: Tensor | np.ndarray | Sequence[int],
    ranks: Sequence[int] = (1, 5, 10),
) -> dict[str, dict[str, float | int]]:
    """:func:`retrieval_metrics` of a (captions, images) similarity matrix and of its transpose."""
    return {
        "text_to_image": retrieval_metrics(similarity, text_ids, image_ids, ranks),
        "image_to_text": retrieval_metrics(similarity.T, image_ids, text_ids, ranks),
    }


def _validate(similarity: Any, query_ids: Any, gallery_ids: Any, ranks: Any) -> tuple[Tensor, np.ndarray, np.ndarray]:
    if isinstance(similarity, np.ndarray) and min(similarity.strides, default=0) < 0:
        similarity = similarity.copy()  # torch knows no negative strides
    scores = torch.as_tensor(similarity).detach()
    if scores.ndim != 2 or scores.is_complex():
        raise CSKTError(f"similarity must be a real (queries, gallery) matrix, got shape {tuple(scores.shape)}.")
    ids = []
    for name, values, size in zip(("query_ids", "gallery_ids"), (query_ids, gallery_ids), scores.shape, strict=True):
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.shape != (size,) or size == 0 or array.dtype.kind not in "iu":
            raise CSKTError(f"{name} must hold {size} (at least one) integers for a similarity matrix of shape "
                            f"{tuple(scores.shape)}, got shape {array.shape} of {array.dtype}.")
        ids.append(array.astype(np.int64))
    if not len(ranks) or any(isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 for k in ranks):
        raise CSKTError(f"ranks must be integers >= 1, got {ranks!r}.")
    return scores, ids[0], ids[1]


def _relevant_items(queries: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gallery indices grouped by identity, and for each query where its group starts and how long it is."""
    items = np.argsort(gallery, kind="stable")
    starts = np.searchsorted(gallery[items], queries, side="left")
    return items, starts, np.searchsorted(gallery[items], queries, side="right") - starts


def _relevant_ranks(scores: Tensor, relevant: Tensor, valid: Tensor) -> Tensor:
    """Ranks, from 1 and ascending, of each row's relevant columns.

    ``scores`` (C, G); ``relevant`` (C, R) column indices, of which ``valid`` (C, R) marks the true ones (the first of
    each row). Returns (C, R) int64; entries that are not valid hold ranks beyond G.
    """
    relevant, valid = relevant.to(scores.device), valid.to(scores.device)
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    elif not scores.is_floating_point():
        scores = scores.double()
    scores = scores.contiguous()
    if scores.isnan().any():
        raise CSKTError("similarity holds NaN; check the features it was made from.")
    (rows, columns), slots = scores.shape, relevant.shape[1]
    marks = scores.gather(1, relevant).masked_fill(~valid, torch.inf).sort(dim=1).values
    below = torch.searchsorted(marks, scores)  # (C, G): how many relevant scores lie strictly below this score
    tied = (marks.gather(1, below.clamp(max=slots - 1)) == scores).sum(1) != valid.sum(1)
    tied |= ((marks[:, 1:] == marks[:, :-1]) & valid[:, 1:]).any(1)
    below += torch.arange(rows, device=scores.device)[:, None] * (slots + 1)
    counts = torch.bincount(below.flatten(), minlength=rows * (slots + 1)).view(rows, slots + 1)
    # The j-th smallest relevant score is outranked by every score with more than j relevant ones below it.
    ascending = columns - counts.cumsum(1)[:, :slots] + 1
    ranks = ascending.masked_fill(~valid, columns + 1).sort(dim=1).values
    if tied.any():
        order = torch.argsort(scores[tied] + 0.0, dim=1, descending=True, stable=True)  # + 0.0: -0.0 becomes 0.0
        places = torch.arange(1, columns + 1, device=order.device).expand_as(order)
        places = torch.empty_like(order).scatter_(1, order, places).gather(1, relevant[tied])
        ranks[tied] = places.masked_fill(~valid[tied], columns + 1).sort(dim=1).values
    return ranks


def first_match_ranks(similarity: Tensor, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """(Q,) int: rank from 1 of each query's best placed relevant item (ties in its favour); 0 without any."""
    match = torch.from_numpy(query_ids[:, None] == gallery_ids[None]).to(similarity.device)
    best = similarity.masked_fill(~match, -torch.inf).amax(1, keepdim=True)
    ranks = 1 + ((similarity > best) & ~match).sum(1)
    return ranks.masked_fill(~match.any(1), 0).cpu().numpy()


def match_margins(similarity: Tensor, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """(Q,) float: each query's worst relevant score less its best other one; positive where it ranks perfectly."""
    match = torch.from_numpy(query_ids[:, None] == gallery_ids[None]).to(similarity.device)
    worst = similarity.masked_fill(~match, torch.inf).amin(1)
    return (worst - similarity.masked_fill(match, -torch.inf).amax(1)).cpu().numpy()
