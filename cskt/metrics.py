"""Retrieval metrics: R@k, mAP and mINP from a similarity matrix, in percent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cskt.config import CSKTError

Matrix = Tensor | np.ndarray
Identities = Tensor | np.ndarray | Sequence[int]
_CHUNK_SCORES = 1 << 22  # scores ranked at a time: about 150 MB of working memory


def retrieval_metrics(similarity: Matrix, query_ids: Identities, gallery_ids: Identities,
                      ranks: Sequence[int] = (1, 5, 10)) -> dict[str, float | int]:
    """R@k, mAP and mINP of queries (rows) against a gallery (columns), in percent.

    With r_1 < ... < r_n the ranks of a query's n relevant items (same identity; equal scores rank by gallery index):
    R@k is the share of queries with r_1 <= k, mAP the mean of (1/n) sum_i i/r_i, mINP the mean of n/r_n (Ye et al.,
    TPAMI 2021). Queries without any relevant item are left out of all three and counted as ``unmatched_queries``;
    ``queries`` counts all of them.

    ``similarity`` (Q, G), larger is closer, is ranked on the device it lies on, in chunks of rows; ``query_ids`` (Q,)
    and ``gallery_ids`` (G,) are integers; ``ranks`` holds the k. Raises :class:`CSKTError` on shapes or types that do
    not fit, NaN scores, and where no query has a relevant item.
    """
    if not isinstance(similarity, Tensor):
        similarity = torch.from_numpy(np.ascontiguousarray(similarity))  # torch knows no negative strides
    if similarity.ndim != 2 or similarity.is_complex():
        raise CSKTError(f"similarity must be a real (queries, gallery) matrix, got shape {tuple(similarity.shape)}.")
    queries = _identities("query_ids", query_ids, similarity, 0)
    gallery = _identities("gallery_ids", gallery_ids, similarity, 1)
    if not len(ranks) or any(isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 for k in ranks):
        raise CSKTError(f"ranks must be integers >= 1, got {ranks!r}.")
    step = max(1, _CHUNK_SCORES // len(gallery))
    counts, places = [], []  # of each query's relevant items: how many, and their ranks in ascending order
    for scores, identities in zip(similarity.detach().split(step), queries.split(step), strict=True):
        if scores.isnan().any():
            raise CSKTError("similarity holds NaN; check the features it was made from.")
        order = (scores + 0).argsort(dim=1, descending=True, stable=True)  # + 0: -0.0 becomes 0.0
        match = gallery[order] == identities[:, None]
        counts.append(match.sum(1).cpu())
        places.append(match.nonzero()[:, 1].cpu() + 1)
    count, place = torch.cat(counts).numpy(), torch.cat(places).numpy()
    count = count[count > 0]
    if not len(count):
        raise CSKTError("no query identity occurs in gallery_ids; check that both come from the same split.")
    end = count.cumsum()
    start = end - count
    found = np.arange(1, len(place) + 1) - start.repeat(count)  # relevant items up to and with each one
    result: dict[str, float | int] = {f"R@{k}": 100.0 * float((place[start] <= k).mean()) for k in ranks}
    result["mAP"] = 100.0 * float((np.add.reduceat(found / place, start) / count).mean())
    result["mINP"] = 100.0 * float((count / place[end - 1]).mean())
    return result | {"queries": len(queries), "unmatched_queries": len(queries) - len(count)}


def both_directions(similarity: Matrix, text_ids: Identities, image_ids: Identities,
                    ranks: Sequence[int] = (1, 5, 10)) -> dict[str, dict[str, float | int]]:
    """:func:`retrieval_metrics` of a (captions, images) similarity matrix and of its transpose."""
    return {"text_to_image": retrieval_metrics(similarity, text_ids, image_ids, ranks),
            "image_to_text": retrieval_metrics(similarity.T, image_ids, text_ids, ranks)}


def _identities(name: str, values: Identities, similarity: Tensor, dim: int) -> Tensor:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    size = similarity.shape[dim]
    if array.shape != (size,) or size == 0 or array.dtype.kind not in "iu":
        raise CSKTError(f"{name} must hold {size} (at least one) integers for a similarity matrix of shape "
                        f"{tuple(similarity.shape)}, got shape {array.shape} of {array.dtype}.")
    return torch.from_numpy(array.astype(np.int64)).to(similarity.device)


def first_match_ranks(similarity: Tensor, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """(Q,) int: rank from 1 of each query's best placed relevant item (ties in its favour); 0 without any."""
    match = torch.from_numpy(query_ids[:, None] == gallery_ids[None]).to(similarity.device)
    best = similarity.masked_fill(~match, -torch.inf).amax(1, keepdim=True)
    return ((1 + (similarity > best).sum(1)) * match.any(1)).cpu().numpy()


def match_margins(similarity: Tensor, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    """(Q,) float: each query's worst relevant score less its best other one; positive where it ranks perfectly."""
    match = torch.from_numpy(query_ids[:, None] == gallery_ids[None]).to(similarity.device)
    worst = similarity.masked_fill(~match, torch.inf).amin(1)
    return (worst - similarity.masked_fill(match, -torch.inf).amax(1)).cpu().numpy()
