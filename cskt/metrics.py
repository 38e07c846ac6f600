"""Retrieval metrics: R@k, mAP and mINP from a similarity matrix or from features, in percent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cskt.errors import CSKTError

Matrix = Tensor | np.ndarray
Identities = Tensor | np.ndarray | Sequence[int]
Metrics = dict[str, Any]  # measure -> percent, counts, and with resamples the intervals
_CHUNK_SCORES = (
    1 << 20
)  # scores ranked at a time: about 20 MB of working memory, near the processor
_COUNTED = (
    40  # relevant items of a query up to which counting for each costs less than a sort of the row
)


@dataclass(frozen=True)
class PerQuery:
    """How each of Q queries ranks; what R@k, mAP and mINP are means of.

    ``query_identities`` (Q,) int64. ``first_rank`` (Q,) int32: the rank, from 1, of the first
    relevant item; 0 for a query that has none in the gallery. ``average_precision`` and
    ``inverse_negative_penalty`` (Q,) float64: between 0 and 1; NaN for such a query, since it has
    to be left out of every mean.
    """

    query_identities: np.ndarray
    first_rank: np.ndarray
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray


def retrieval_metrics(
    similarity: Matrix,
    query_ids: Identities,
    gallery_ids: Identities,
    ranks: Sequence[int] = (1, 5, 10),
    resamples: int = 0,
) -> Metrics:
    """R@k, mAP and mINP of queries (rows) against a gallery (columns), in percent.

    With r_1 < ... < r_n the ranks of a query's n relevant items (same identity; equal scores rank
    by gallery index): R@k is the share of queries with r_1 <= k, mAP the mean of (1/n) sum_i i/r_i,
    mINP the mean of n/r_n (Ye et al., TPAMI 2021). Queries without any relevant item are left out
    of all three and counted as ``unmatched_queries``; ``queries`` counts all of them. With
    ``resamples`` > 0, ``intervals`` holds [low, high] of each measure: the 95 % percentile
    bootstrap over query identities, whose queries are drawn together (the same draws at every
    call).

    ``similarity`` (Q, G), larger is closer, is ranked on the device it lies on, in chunks of rows;
    ``query_ids`` (Q,) and ``gallery_ids`` (G,) are integers; ``ranks`` holds the k. Raises
    :class:`CSKTError` on shapes or types that do not fit, NaN scores, and where no query has a
    relevant item.
    """
    similarity = _matrix("similarity", similarity)
    return _metrics(
        similarity, lambda rows: rows, similarity.shape[1], query_ids, gallery_ids, ranks, resamples
    )


def rank_features(
    query_features: Matrix,
    gallery_features: Matrix,
    query_ids: Identities,
    gallery_ids: Identities,
    ranks: Sequence[int] = (1, 5, 10),
    resamples: int = 0,
) -> Metrics:
    """:func:`retrieval_metrics` of ``query_features @ gallery_features.T``, of which only some rows
    exist at a time.

    The features, (Q, D) and (G, D), L2-normalised for cosines, share type and device; else a
    :class:`CSKTError`.
    """
    queries, gallery = _features(query_features, gallery_features)
    return _metrics(
        queries,
        lambda rows: rows @ gallery.T,
        len(gallery),
        query_ids,
        gallery_ids,
        ranks,
        resamples,
    )


def both_directions(
    text_features: Matrix,
    image_features: Matrix,
    text_ids: Identities,
    image_ids: Identities,
    ranks: Sequence[int] = (1, 5, 10),
    resamples: int = 0,
) -> dict[str, Metrics]:
    """:func:`rank_features` of captions (M, D) against images (N, D), and of images against
    captions."""
    return {
        "text_to_image": rank_features(
            text_features, image_features, text_ids, image_ids, ranks, resamples
        ),
        "image_to_text": rank_features(
            image_features, text_features, image_ids, text_ids, ranks, resamples
        ),
    }


def per_query(
    query_features: Matrix, gallery_features: Matrix, query_ids: Identities, gallery_ids: Identities
) -> PerQuery:
    """How each query ranks by ``query_features @ gallery_features.T``, of which only some rows
    exist at a time.

    What :func:`rank_features` averages; the arguments are the same. Equal scores rank by gallery
    index.
    """
    queries, gallery = _features(query_features, gallery_features)
    return _per_query(queries, lambda rows: rows @ gallery.T, len(gallery), query_ids, gallery_ids)


def first_match_ranks(
    similarity: Matrix, query_ids: Identities, gallery_ids: Identities
) -> np.ndarray:
    """(Q,) int32: the rank from 1 of each query's best placed relevant item in ``similarity`` (Q,
    G); 0 without any.

    Equal scores rank by gallery index, as in :func:`retrieval_metrics`. A success is a rank of 1; a
    query of rank 0 is neither success nor failure and has to be left out.
    """
    similarity = _matrix("similarity", similarity)
    return _per_query(
        similarity, lambda rows: rows, similarity.shape[1], query_ids, gallery_ids
    ).first_rank


def match_margins(similarity: Tensor, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """(Q,) float: each query's worst relevant score less its best other one; positive where it
    ranks perfectly, NaN without any relevant item."""
    match = torch.from_numpy(query_ids[:, None] == gallery_ids[None]).to(similarity.device)
    worst = similarity.masked_fill(~match, torch.inf).amin(1)
    margins = worst - similarity.masked_fill(match, -torch.inf).amax(1)
    return margins.masked_fill(~match.any(1), torch.nan).cpu().numpy()


def _metrics(
    rows: Tensor,
    score: Callable[[Tensor], Tensor],
    size: int,
    query_ids: Identities,
    gallery_ids: Identities,
    ranks: Sequence[int],
    resamples: int,
) -> Metrics:
    """The metrics of queries, one a row, where ``score`` turns some rows into scores of ``size``
    gallery items."""
    if not len(ranks) or any(
        isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 for k in ranks
    ):
        raise CSKTError(f"ranks must be integers >= 1, got {ranks!r}.")
    found = _per_query(rows, score, size, query_ids, gallery_ids)
    matched = found.first_rank > 0
    if not matched.any():
        raise CSKTError(
            "no query identity occurs in gallery_ids; check that both come from the same split."
        )
    first = found.first_rank[matched]
    values = {f"R@{k}": first <= k for k in ranks}
    values["mAP"] = found.average_precision[matched]
    values["mINP"] = found.inverse_negative_penalty[matched]
    result: Metrics = {name: 100.0 * float(value.mean()) for name, value in values.items()}
    if resamples:
        ends = 100.0 * bootstrap(
            np.stack(list(values.values()), 1), found.query_identities[matched], resamples
        )
        result["intervals"] = dict(zip(values, ends.tolist(), strict=True))
    return result | {"queries": len(rows), "unmatched_queries": len(rows) - len(first)}


def _per_query(
    rows: Tensor,
    score: Callable[[Tensor], Tensor],
    size: int,
    query_ids: Identities,
    gallery_ids: Identities,
) -> PerQuery:
    """How queries rank, one a row, where ``score`` turns some rows into scores of ``size`` gallery
    items."""
    queries = _identities("query_ids", query_ids, len(rows), rows.device)
    gallery = _identities("gallery_ids", gallery_ids, size, rows.device)
    grouped, items = gallery.sort()  # a query's relevant items: items[start : start + count]
    starts, ends = (torch.searchsorted(grouped, queries, right=right) for right in (False, True))
    first_rank = np.zeros(len(rows), np.int32)
    precision, penalty = np.full((2, len(rows)), np.nan)
    step = max(1, _CHUNK_SCORES // size)
    for offset in range(0, len(rows), step):
        scores = score(rows[offset : offset + step])
        if scores.amin().isnan():
            raise CSKTError("similarity holds NaN; check the features it was made from.")
        count, order = (ends - starts)[offset : offset + step].sort(descending=True, stable=True)
        scores, chunk = scores.index_select(0, order), order + offset
        many, matched = int((count > _COUNTED).sum()), int((count > 0).sum())
        if not matched:
            continue
        few = slice(many, matched)
        sort = (scores[:many] + 0).argsort(
            dim=1, descending=True, stable=True
        )  # + 0: -0.0 becomes 0.0
        place = (
            torch.cat(
                [
                    (gallery[sort] == queries[chunk[:many], None]).nonzero()[:, 1] + 1,
                    _counted_ranks(scores[few], items, starts[chunk[few]], count[few]),
                ]
            )
            .cpu()
            .numpy()
        )
        count, chunk = count[:matched].cpu().numpy(), chunk[:matched].cpu().numpy()
        end = count.cumsum()
        start = end - count
        found = np.arange(1, len(place) + 1) - start.repeat(
            count
        )  # relevant items up to and with each one
        first_rank[chunk] = place[start]
        precision[chunk] = np.add.reduceat(found / place, start) / count
        penalty[chunk] = count / place[end - 1]
    return PerQuery(queries.cpu().numpy(), first_rank, precision, penalty)


def bootstrap(values: np.ndarray, identities: np.ndarray, resamples: int = 1000) -> np.ndarray:
    """(M, 2): the 2.5th and 97.5th percentile of the mean of values (Q, M) over resampled
    identities (Q,)."""
    groups = np.unique(identities, return_inverse=True)[1]
    totals = np.stack(
        [np.bincount(groups, column) for column in (*values.T, np.ones(len(groups)))], 1
    )
    draws = np.random.default_rng(0).multinomial(
        len(totals), np.full(len(totals), 1 / len(totals)), resamples
    )
    drawn = draws @ totals
    return np.percentile(drawn[:, :-1] / drawn[:, -1:], (2.5, 97.5), axis=0).T


def _counted_ranks(scores: Tensor, items: Tensor, start: Tensor, count: Tensor) -> Tensor:
    """Ranks of ``items[start : start + count]`` of each row, ascending, row after row; ``count``
    never grows."""
    size, device = scores.shape[1], scores.device
    held = torch.arange(int(count[0]) if len(count) else 0, device=device) < count[:, None]
    places = torch.full(held.shape, size + 1, device=device)
    counted = (
        torch.float32 if size < 1 << 24 else torch.int32
    )  # sums of float32 are the fastest, and exact up to here
    above, equal = torch.empty(2, *scores.shape, dtype=counted, device=device)
    columns = torch.arange(size, dtype=counted, device=device)
    for slot, n in enumerate(held.sum(0).tolist()):  # the first n rows have an item in this slot
        column = items[start[:n] + slot, None]
        own = scores[:n].gather(1, column)
        places[:n, slot] = 1 + torch.gt(scores[:n], own, out=above[:n]).sum(1)
        if torch.eq(scores[:n], own, out=equal[:n]).sum(1).amax() > 1:
            earlier = torch.lt(columns, column.to(counted), out=above[:n])
            places[:n, slot] += equal[:n].mul_(earlier).sum(1).long()
    return places.sort(1).values[held]


def _matrix(name: str, values: Matrix) -> Tensor:
    if not isinstance(values, Tensor):
        values = torch.from_numpy(np.ascontiguousarray(values))  # torch knows no negative strides
    if values.ndim != 2 or values.is_complex():
        raise CSKTError(
            f"{name} must be a real matrix with a row for each query or item, got {tuple(values.shape)}."
        )
    return values.detach()


def _features(query_features: Matrix, gallery_features: Matrix) -> tuple[Tensor, Tensor]:
    """Both as tensors; :class:`CSKTError` unless they agree in width, type and device."""
    queries, gallery = (
        _matrix("query_features", query_features),
        _matrix("gallery_features", gallery_features),
    )
    if (queries.shape[1], queries.dtype, queries.device) != (
        gallery.shape[1],
        gallery.dtype,
        gallery.device,
    ):
        raise CSKTError(
            "query_features and gallery_features must agree in width, type and device, got "
            + " and ".join(
                f"{tuple(features.shape)} of {features.dtype} on {features.device}"
                for features in (queries, gallery)
            )
        )
    return queries, gallery


def _identities(name: str, values: Identities, size: int, device: torch.device) -> Tensor:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (size,) or size == 0 or array.dtype.kind not in "iu":
        raise CSKTError(
            f"{name} must hold {size} (at least one) integers, one for each query or gallery item, got "
            f"shape {array.shape} of {array.dtype}."
        )
    return torch.from_numpy(array.astype(np.int64)).to(device)
