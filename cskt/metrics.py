"""Retrieval metrics: R@k, mAP and mINP from a similarity matrix or from features, in percent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cskt.errors import ConfigurationError, DataError

Matrix = Tensor | np.ndarray
Identities = Tensor | np.ndarray | Sequence[int]
Metrics = dict[str, Any]  # measure -> percent, counts, and with resamples the intervals
# Scores ranked at a time: about 20 MB of working memory, near the processor.
_CHUNK_SCORES = 1 << 20
_EXACT_FLOAT32 = 1 << 24  # up to here float32 counts without an error


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
    scores = _Scores(_matrix("similarity", similarity))
    return _metrics(scores, query_ids, gallery_ids, ranks, resamples)


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
    scores = _feature_scores(query_features, gallery_features)
    return _metrics(scores, query_ids, gallery_ids, ranks, resamples)


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
    text_to_image = rank_features(
        text_features, image_features, text_ids, image_ids, ranks, resamples
    )
    image_to_text = rank_features(
        image_features, text_features, image_ids, text_ids, ranks, resamples
    )
    return {"text_to_image": text_to_image, "image_to_text": image_to_text}


def per_query(
    query_features: Matrix, gallery_features: Matrix, query_ids: Identities, gallery_ids: Identities
) -> PerQuery:
    """How each query ranks by ``query_features @ gallery_features.T``, of which only some rows
    exist at a time.

    What :func:`rank_features` averages; the arguments are the same. Equal scores rank by gallery
    index.
    """
    scores = _feature_scores(query_features, gallery_features)
    return _per_query(scores, query_ids, gallery_ids)


def first_match_ranks(
    similarity: Matrix, query_ids: Identities, gallery_ids: Identities
) -> np.ndarray:
    """(Q,) int32: the rank from 1 of each query's best placed relevant item in ``similarity`` (Q,
    G); 0 without any.

    Equal scores rank by gallery index, as in :func:`retrieval_metrics`. A success is a rank of 1; a
    query of rank 0 is neither success nor failure and has to be left out.
    """
    scores = _Scores(_matrix("similarity", similarity))
    return _per_query(scores, query_ids, gallery_ids).first_rank


def match_margins(similarity: Tensor, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """(Q,) float: each query's worst relevant score less its best other one; positive where it
    ranks perfectly, NaN without any relevant item."""
    match = torch.from_numpy(query_ids[:, None] == gallery_ids[None])
    match = match.to(similarity.device)
    relevant = similarity.masked_fill(~match, torch.inf)
    others = similarity.masked_fill(match, -torch.inf)
    margins = relevant.amin(1) - others.amax(1)
    unmatched = ~match.any(1)
    margins = margins.masked_fill(unmatched, torch.nan)
    return margins.cpu().numpy()


def bootstrap(values: np.ndarray, identities: np.ndarray, resamples: int = 1000) -> np.ndarray:
    """(M, 2): the 2.5th and 97.5th percentile of the mean of values (Q, M) over resampled
    identities (Q,)."""
    groups = np.unique(identities, return_inverse=True)[1]
    columns = [*values.T, np.ones(len(groups))]
    sums = [np.bincount(groups, column) for column in columns]
    totals = np.stack(sums, 1)  # of each identity: the sums of its queries' values, their number
    count = len(totals)
    random = np.random.default_rng(0)
    draws = random.multinomial(count, np.full(count, 1 / count), resamples)
    drawn = draws @ totals
    drawn_values = drawn[:, :-1]
    drawn_queries = drawn[:, -1:]
    means = drawn_values / drawn_queries
    return np.percentile(means, (2.5, 97.5), axis=0).T


@dataclass(frozen=True)
class _Scores:
    """Scores of queries against a gallery: a matrix (Q, G), or features (Q, D) and (G, D) whose
    products exist only for the rows that are asked for."""

    queries: Tensor
    gallery: Tensor | None = None

    @property
    def gallery_size(self) -> int:
        return self.queries.shape[1] if self.gallery is None else len(self.gallery)

    def rows(self, start: int, stop: int) -> Tensor:
        """(up to stop - start, G)."""
        rows = self.queries[start:stop]
        return rows if self.gallery is None else rows @ self.gallery.T


@dataclass(frozen=True)
class _Relevant:
    """The relevant items of each query: ``items[start : start + count]``, indices into the gallery;
    ``items`` (G,), ``start`` and ``count`` (Q,)."""

    items: Tensor
    start: Tensor
    count: Tensor


def _metrics(
    scores: _Scores,
    query_ids: Identities,
    gallery_ids: Identities,
    ranks: Sequence[int],
    resamples: int,
) -> Metrics:
    if not len(ranks) or not all(map(_is_rank, ranks)):
        raise ConfigurationError(f"ranks must be integers >= 1, got {ranks!r}.")
    queries = _per_query(scores, query_ids, gallery_ids)
    matched = queries.first_rank > 0
    if not matched.any():
        raise DataError(
            "no query identity occurs in gallery_ids; check that both come from the same split."
        )
    first = queries.first_rank[matched]
    values = {f"R@{k}": first <= k for k in ranks}
    values["mAP"] = queries.average_precision[matched]
    values["mINP"] = queries.inverse_negative_penalty[matched]
    result: Metrics = {name: 100.0 * float(value.mean()) for name, value in values.items()}
    if resamples:
        table = np.stack(list(values.values()), 1)
        intervals = 100.0 * bootstrap(table, queries.query_identities[matched], resamples)
        result["intervals"] = dict(zip(values, intervals.tolist(), strict=True))
    result["queries"] = len(matched)
    result["unmatched_queries"] = len(matched) - len(first)
    return result


def _is_rank(k: Any) -> bool:
    return isinstance(k, (int, np.integer)) and not isinstance(k, bool) and bool(k >= 1)


def _per_query(scores: _Scores, query_ids: Identities, gallery_ids: Identities) -> PerQuery:
    """How queries rank, a chunk of them at a time."""
    count, device = len(scores.queries), scores.queries.device
    queries = _identities("query_ids", query_ids, count, device)
    gallery = _identities("gallery_ids", gallery_ids, scores.gallery_size, device)
    relevant = _relevant_items(queries, gallery)
    result = PerQuery(
        queries.cpu().numpy(),
        np.zeros(count, np.int32),
        np.full(count, np.nan),
        np.full(count, np.nan),
    )
    step = max(1, _CHUNK_SCORES // scores.gallery_size)
    for offset in range(0, count, step):
        rows = scores.rows(offset, offset + step)
        if rows.amin().isnan():
            raise ConfigurationError("similarity holds NaN; check the features it was made from.")
        _rank_chunk(rows, offset, relevant, result)
    return result


def _relevant_items(queries: Tensor, gallery: Tensor) -> _Relevant:
    grouped, items = gallery.sort()
    start = torch.searchsorted(grouped, queries)
    end = torch.searchsorted(grouped, queries, right=True)
    return _Relevant(items, start, end - start)


def _rank_chunk(scores: Tensor, offset: int, relevant: _Relevant, result: PerQuery) -> None:
    """Ranks the queries from ``offset`` on by their scores (R, G) and puts them into ``result``."""
    counts, order = relevant.count[offset : offset + len(scores)].sort(descending=True, stable=True)
    matched = int((counts > 0).sum())
    if not matched:
        return
    order = order[:matched]
    queries = order + offset
    ranks = _match_ranks(
        scores.index_select(0, order), relevant.items, relevant.start[queries], counts[:matched]
    )
    place = ranks.cpu().numpy()  # the matches of all queries, one query behind the other
    index = queries.cpu().numpy()
    count = counts[:matched].cpu().numpy()
    end = count.cumsum()
    start = end - count
    matches = np.arange(1, len(place) + 1) - start.repeat(count)  # up to and with each one
    result.first_rank[index] = place[start]
    result.average_precision[index] = np.add.reduceat(matches / place, start) / count
    result.inverse_negative_penalty[index] = count / place[end - 1]


def _match_ranks(scores: Tensor, items: Tensor, start: Tensor, count: Tensor) -> Tensor:
    """Ranks from 1 of ``items[start : start + count]`` by the scores (R, G) of each row, ascending,
    row after row; ``count`` (R,) never grows.

    A rank is one more than the number of larger scores, and of equal ones that stand before. As
    people have few pictures and captions, counting is much faster than sorting every row (14 times
    at the size of CUHK-PEDES, in half the memory). Behind some 40 matches a query it is slower.
    """
    size, device = scores.shape[1], scores.device
    most = int(count[0])
    slots = torch.arange(most, device=device)
    filled = slots < count[:, None]
    ranks = torch.full(filled.shape, size + 1, device=device)
    dtype = torch.float32 if size < _EXACT_FLOAT32 else torch.int32  # float32 sums are the fastest
    columns = torch.arange(size, dtype=dtype, device=device)
    larger = torch.empty(scores.shape, dtype=dtype, device=device)
    equal = torch.empty(scores.shape, dtype=dtype, device=device)
    rows_with_match = filled.sum(0).tolist()
    for slot, n in enumerate(rows_with_match):
        index = start[:n] + slot
        item = items[index][:, None]
        ranks[:n, slot] = _item_ranks(
            scores[:n],
            item,
            columns,
            larger[:n],
            equal[:n],
        )
    ascending = ranks.sort(1).values
    return ascending[filled]


def _item_ranks(
    scores: Tensor, item: Tensor, columns: Tensor, larger: Tensor, equal: Tensor
) -> Tensor:
    """(R,): the rank of one ``item`` (R, 1) of each row; ``columns`` (G,) number the gallery,
    ``larger`` and ``equal`` (R, G) are room to count in."""
    own = scores.gather(1, item)
    torch.gt(scores, own, out=larger)
    ranks = 1 + larger.sum(1)
    torch.eq(scores, own, out=equal)
    tied = equal.sum(1).amax() > 1
    if tied:
        stands_before = torch.lt(columns, item.to(columns.dtype), out=larger)
        equal.mul_(stands_before)
        ranks = ranks + equal.sum(1)
    return ranks


def _matrix(name: str, values: Matrix) -> Tensor:
    if not isinstance(values, Tensor):
        values = torch.from_numpy(np.ascontiguousarray(values))  # torch knows no negative strides
    if values.ndim != 2 or values.is_complex():
        raise ConfigurationError(
            f"{name} must be a real matrix with a row for each query or item, got "
            f"{tuple(values.shape)}."
        )
    return values.detach()


def _feature_scores(query_features: Matrix, gallery_features: Matrix) -> _Scores:
    """:class:`ConfigurationError` unless both agree in width, type and device."""
    queries = _matrix("query_features", query_features)
    gallery = _matrix("gallery_features", gallery_features)
    same_width = queries.shape[1] == gallery.shape[1]
    if not same_width or queries.dtype != gallery.dtype or queries.device != gallery.device:
        raise ConfigurationError(
            "query_features and gallery_features must agree in width, type and device, got "
            f"{tuple(queries.shape)} of {queries.dtype} on {queries.device} and "
            f"{tuple(gallery.shape)} of {gallery.dtype} on {gallery.device}"
        )
    return _Scores(queries, gallery)


def _identities(name: str, values: Identities, size: int, device: torch.device) -> Tensor:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (size,) or size == 0 or array.dtype.kind not in "iu":
        raise ConfigurationError(
            f"{name} must hold {size} (at least one) integers, one for each query or gallery item, "
            f"got shape {array.shape} of {array.dtype}."
        )
    return torch.from_numpy(array.astype(np.int64)).to(device)
