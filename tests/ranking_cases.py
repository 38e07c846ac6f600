"""Ranking written out, one query at a time, and made-up cases to compare cskt.metrics with."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Query:
    """How one query ranks; ``first_rank`` is 0 without any match."""

    first_rank: int
    average_precision: float
    inverse_negative_penalty: float


def ranked_query(scores, identity, gallery_ids):
    """By Python's own numbers and sort, which is stable: ties rank by gallery index."""
    ranking = sorted(range(len(scores)), key=lambda item: -scores[item])
    places = []
    for rank, item in enumerate(ranking, 1):
        if gallery_ids[item] == identity:
            places.append(rank)
    if not places:
        return Query(0, float("nan"), float("nan"))
    count = len(places)
    precisions = [i / place for i, place in enumerate(places, 1)]
    return Query(places[0], sum(precisions) / count, count / places[-1])


def ranked_queries(similarity, query_ids, gallery_ids):
    queries = []
    for scores, identity in zip(np.asarray(similarity).tolist(), query_ids, strict=True):
        queries.append(ranked_query(scores, identity, gallery_ids))
    return queries


def definition(similarity, query_ids, gallery_ids, ranks=(1, 5, 10)):
    """The metrics, as their definition has them."""
    queries = ranked_queries(similarity, query_ids, gallery_ids)
    matched = [query for query in queries if query.first_rank]
    result = {}
    for k in ranks:
        result[f"R@{k}"] = 100 * np.mean([query.first_rank <= k for query in matched])
    result["mAP"] = 100 * np.mean([query.average_precision for query in matched])
    result["mINP"] = 100 * np.mean([query.inverse_negative_penalty for query in matched])
    result["queries"] = len(queries)
    result["unmatched_queries"] = len(queries) - len(matched)
    return result


class Case(NamedTuple):
    """The arguments of retrieval_metrics."""

    similarity: np.ndarray
    query_ids: np.ndarray
    gallery_ids: np.ndarray


class FeatureCase(NamedTuple):
    """The arguments of rank_features."""

    query_features: np.ndarray
    gallery_features: np.ndarray
    query_ids: np.ndarray
    gallery_ids: np.ndarray


SCORES = st.integers(-2, 2) | st.floats(-1, 1, width=32)


@st.composite
def cases(draw, scores=SCORES):
    """Similarities with many ties, few identities, some queries without a match, at least one
    with."""
    queries = draw(st.integers(1, 8))
    gallery = draw(st.integers(1, 12))
    size = queries * gallery
    values = draw(st.lists(scores, min_size=size, max_size=size))
    identities = st.integers(-1, 3)
    query_ids = draw(st.lists(identities, min_size=queries, max_size=queries))
    gallery_ids = draw(st.lists(identities, min_size=gallery, max_size=gallery))
    gallery_ids[0] = query_ids[0]
    similarity = np.array(values, dtype=np.float32).reshape(queries, gallery)
    return Case(similarity, np.array(query_ids), np.array(gallery_ids))


@st.composite
def feature_cases(draw):
    """Features of small integers: their products are exact, and often equal."""
    queries = draw(st.integers(1, 7))
    gallery = draw(st.integers(1, 11))
    width = draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    query_features = random.integers(-2, 3, (queries, width)).astype(np.float32)
    gallery_features = random.integers(-2, 3, (gallery, width)).astype(np.float32)
    query_ids = random.integers(0, 4, queries)
    gallery_ids = random.integers(0, 4, gallery)
    query_ids[0] = gallery_ids[0]
    return FeatureCase(query_features, gallery_features, query_ids, gallery_ids)
