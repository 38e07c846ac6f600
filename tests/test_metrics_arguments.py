"""What metrics take, what they refuse, what they say of a single query, and their intervals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cskt import metrics
from cskt.errors import CSKTError
from cskt.metrics import rank_features, retrieval_metrics
from tests.ranking_cases import cases, feature_cases, ranked_queries

pytestmark = pytest.mark.numerics


def numbers():
    """Whole numbers as float64, which every type holds."""
    return np.random.default_rng(1).integers(-50, 50, (9, 20)) / 1.0


CONVERSIONS = {
    "tensor": torch.from_numpy,
    "half": lambda array: torch.from_numpy(array).half(),
    "integers": lambda array: array.astype(int),
    "negative strides": lambda array: array[::-1].copy()[::-1],
    "with gradient": lambda array: torch.from_numpy(array).requires_grad_(),
}


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_arrays_and_tensors_of_any_type(kind):
    similarity = numbers()
    query_ids = np.random.default_rng(2).integers(0, 4, 9)
    gallery_ids = np.arange(20) % 4
    expected = retrieval_metrics(similarity, query_ids, gallery_ids)
    converted = CONVERSIONS[kind](similarity)
    result = retrieval_metrics(converted, torch.from_numpy(query_ids), list(gallery_ids))
    assert result == expected


@pytest.mark.parametrize(
    ("similarity", "query_ids", "gallery_ids", "message"),
    [
        (np.zeros(3), [1], [1], "similarity must be"),
        (np.zeros((2, 3)), [1], [1, 2, 3], "query_ids must hold 2"),
        (np.zeros((2, 3)), [1, 2], [[1, 2, 3]], "gallery_ids must hold 3"),
        (np.zeros((2, 3)), [1.0, 2.0], [1, 2, 3], "query_ids must hold 2.*float64"),
        (np.zeros((0, 3)), [], [1, 2, 3], "query_ids must hold 0"),
        (np.full((1, 2), np.nan), [1], [1, 2], "NaN"),
        (np.zeros((1, 2)), [3], [1, 2], "no query identity"),
    ],
)
def test_a_similarity_that_does_not_fit_is_named(similarity, query_ids, gallery_ids, message):
    with pytest.raises(CSKTError, match=message):
        retrieval_metrics(similarity, query_ids, gallery_ids)


def test_nan_is_an_error_in_a_query_that_counts_for_nothing_too():
    similarity = np.array([[0, 1], [np.nan, np.inf]])
    with pytest.raises(CSKTError, match="NaN"):
        retrieval_metrics(similarity, [1, 9], [1, 2])


@pytest.mark.parametrize("ranks", [(0,), (), (True,), (1.5,)])
def test_ranks_are_positive_integers(ranks):
    with pytest.raises(CSKTError, match="ranks must be"):
        retrieval_metrics(np.zeros((1, 1)), [1], [1], ranks)


@pytest.mark.parametrize(
    ("query_features", "gallery_features", "message"),
    [
        (
            np.zeros((2, 3)),
            np.zeros((3, 4)),
            r"agree in width.*\(2, 3\) of torch.float64 on cpu and \(3, 4\)",
        ),
        (np.zeros((2, 3)), np.zeros((3, 3), dtype=np.float32), "agree in width, type"),
        (np.zeros(3), np.zeros((3, 3)), "query_features must be"),
        (np.zeros((2, 3)), np.zeros((1, 3, 3)), "gallery_features must be"),
        (np.zeros((2, 3)), np.zeros((2, 3)), "gallery_ids must hold 2"),
        (np.full((2, 3), np.nan), np.zeros((3, 3)), "NaN"),
    ],
)
def test_features_that_do_not_fit_are_named(query_features, gallery_features, message):
    with pytest.raises(CSKTError, match=message):
        rank_features(query_features, gallery_features, [1, 2], [1, 2, 3])


# One query at a time


def test_first_ranks_and_margins_on_a_hand_made_case():
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.7, 0.6], [0.5, 0.4, 0.3]])
    query_ids, gallery_ids = np.array([1, 2, 9]), np.array([1, 1, 2])
    ranks = metrics.first_match_ranks(similarity, query_ids, gallery_ids)
    assert ranks.tolist() == [1, 2, 0]
    margins = metrics.match_margins(similarity, query_ids, gallery_ids)
    assert np.allclose(margins[:2], [0.7, -0.1])
    assert np.isnan(margins[2])


@given(cases())
@settings(deadline=None)
def test_first_ranks_are_those_of_a_stable_sort(case):
    """Ties included: they rank by gallery index, never in the query's favour."""
    expected = [query.first_rank for query in ranked_queries(*case)]
    ranks = metrics.first_match_ranks(*case)
    assert ranks.dtype == np.int32
    assert ranks.tolist() == expected
    tensors = case._replace(similarity=torch.from_numpy(case.similarity))
    assert metrics.first_match_ranks(*tensors).tolist() == expected
    first = ranks[ranks > 0] == 1
    assert retrieval_metrics(*case)["R@1"] == pytest.approx(100 * np.mean(first))


@given(feature_cases(), st.integers(1, 30))
@settings(deadline=None)
def test_every_query_is_that_of_a_stable_sort(case, scores_per_chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_CHUNK_SCORES", scores_per_chunk)
        queries = metrics.per_query(*case)
    similarity = case.query_features @ case.gallery_features.T
    expected = ranked_queries(similarity, case.query_ids, case.gallery_ids)
    precisions = [query.average_precision for query in expected]
    penalties = [query.inverse_negative_penalty for query in expected]
    assert queries.query_identities.tolist() == case.query_ids.tolist()
    assert queries.query_identities.dtype == np.int64
    assert queries.first_rank.tolist() == [query.first_rank for query in expected]
    np.testing.assert_allclose(queries.average_precision, precisions, rtol=1e-12)
    np.testing.assert_allclose(queries.inverse_negative_penalty, penalties, rtol=1e-12)


@given(feature_cases())
@settings(deadline=None)
def test_the_metrics_are_means_over_queries(case):
    queries = metrics.per_query(*case)
    matched = queries.first_rank > 0
    result = rank_features(*case)
    assert result["mAP"] == 100 * queries.average_precision[matched].mean()
    assert result["mINP"] == 100 * queries.inverse_negative_penalty[matched].mean()
    assert result["unmatched_queries"] == np.count_nonzero(~matched)


def test_queries_without_a_match_have_rank_0_and_no_precision():
    queries = metrics.per_query(np.eye(2), np.eye(2), [7, 8], [1, 2])
    assert queries.first_rank.tolist() == [0, 0]
    assert np.isnan(queries.average_precision).all()
    assert np.isnan(queries.inverse_negative_penalty).all()


# Intervals


def drawn_recall(right, query_ids, random):
    """R@1 of identities drawn one by one, with every query of each."""
    present = np.unique(query_ids)
    drawn = []
    for identity in random.choice(present, len(present)):
        drawn.append(np.flatnonzero(query_ids == identity))
    return 100 * right[np.concatenate(drawn)].mean()


def test_intervals_are_the_bootstrap_over_identities():
    random = np.random.default_rng(1)
    gallery_ids = np.repeat(np.arange(30), 2)
    query_ids = random.integers(0, 30, 200)
    same = query_ids[:, None] == gallery_ids
    similarity = random.standard_normal((200, 60)) + 1.5 * same
    result = retrieval_metrics(similarity, query_ids, gallery_ids, resamples=4000)
    right = gallery_ids[similarity.argmax(1)] == query_ids
    means = [drawn_recall(right, query_ids, random) for _ in range(4000)]
    expected = np.percentile(means, (2.5, 97.5))
    assert result["intervals"]["R@1"] == pytest.approx(expected, abs=1.0)
    for name, (low, high) in result["intervals"].items():
        assert low <= result[name] <= high
    again = retrieval_metrics(similarity, query_ids, gallery_ids, resamples=4000)
    assert again == result
    assert "intervals" not in retrieval_metrics(similarity, query_ids, gallery_ids)


def test_intervals_leave_unmatched_queries_out_and_close_on_certainty():
    result = retrieval_metrics(np.eye(4), [0, 1, 2, 9], [0, 1, 2, 3], resamples=50)
    certain = dict.fromkeys(("R@1", "R@5", "R@10", "mAP", "mINP"), [100.0, 100.0])
    assert result["unmatched_queries"] == 1
    assert result["intervals"] == certain
