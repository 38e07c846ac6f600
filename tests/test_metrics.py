"""Metrics against the released evaluator's figures, scikit-learn, a plain per-query implementation,
and properties."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cskt import metrics
from cskt.errors import CSKTError
from cskt.metrics import both_directions, rank_features, retrieval_metrics

pytestmark = pytest.mark.numerics
GOLDEN = json.loads((Path(__file__).parent / "data" / "metrics.json").read_text())


def plain(similarity, query_ids, gallery_ids, ranks=(1, 5, 10)):
    """One query at a time with a full stable sort: the definition, written out."""
    first, precision, penalty = [], [], []
    for scores, identity in zip(np.asarray(similarity, dtype=np.float64), query_ids, strict=True):
        order = np.argsort(-scores, kind="stable")
        found = np.flatnonzero(np.asarray(gallery_ids)[order] == identity) + 1
        if len(found):
            first.append(found[0])
            precision.append(np.mean(np.arange(1, len(found) + 1) / found))
            penalty.append(len(found) / found[-1])
    result = {f"R@{k}": 100 * np.mean(np.array(first) <= k) for k in ranks}
    result |= {"mAP": 100 * np.mean(precision), "mINP": 100 * np.mean(penalty)}
    return result | {"queries": len(query_ids), "unmatched_queries": len(query_ids) - len(first)}


SCORES = st.integers(-2, 2) | st.floats(-1, 1, width=32)


@st.composite
def cases(draw, scores=SCORES):
    """Similarities with many ties, few identities, some queries without a match, at least one
    with."""
    queries, gallery = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    values = draw(st.lists(scores, min_size=queries * gallery, max_size=queries * gallery))
    identities = st.integers(-1, 3)
    query_ids = draw(st.lists(identities, min_size=queries, max_size=queries))
    gallery_ids = draw(st.lists(identities, min_size=gallery, max_size=gallery))
    gallery_ids[0] = query_ids[0]
    return (
        np.array(values, dtype=np.float32).reshape(queries, gallery),
        np.array(query_ids),
        np.array(gallery_ids),
    )


def golden_similarity():
    random = np.random.default_rng(GOLDEN["seed"])
    query, gallery = (random.integers(0, GOLDEN["npid"], GOLDEN[size]) for size in ("Q", "G"))
    query[: GOLDEN["npid"]] = gallery[: GOLDEN["npid"]] = np.arange(GOLDEN["npid"])
    noise = random.standard_normal((GOLDEN["Q"], GOLDEN["G"])).astype(np.float32)
    return noise + np.float32(1.5) * (query[:, None] == gallery[None]).astype(np.float32)


def test_equals_the_released_evaluator():
    similarity = golden_similarity()
    assert similarity.sum(dtype=np.float64) == pytest.approx(
        GOLDEN["sim_checksum"]["sum"], abs=1e-6
    )
    identity = np.eye(
        GOLDEN["G"], dtype=np.float32
    )  # features whose products are the similarities themselves
    result = both_directions(
        similarity, identity, GOLDEN["query_pids"], GOLDEN["gallery_pids"], ranks=range(1, 11)
    )
    for direction, key in (("text_to_image", "t2i"), ("image_to_text", "i2t")):
        expected = GOLDEN[key]
        assert result[direction]["mAP"] == pytest.approx(expected["mAP_float64"], abs=1e-9)
        assert result[direction]["mINP"] == pytest.approx(expected["mINP_float64"], abs=1e-9)
        # the released evaluator works in float32
        assert [result[direction][f"R@{k}"] for k in range(1, 11)] == pytest.approx(
            expected["cmc_1_to_10"], abs=1e-4
        )
        assert result[direction]["unmatched_queries"] == 0


@given(cases())
@settings(deadline=None)
def test_equals_the_definition_with_ties_ranked_by_gallery_index(case):
    assert retrieval_metrics(*case) == pytest.approx(plain(*case))


@given(cases(), st.integers(1, 30))
@settings(deadline=None)
def test_the_size_of_chunks_changes_nothing(case, scores_per_chunk):
    expected = retrieval_metrics(*case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_CHUNK_SCORES", scores_per_chunk)
        assert retrieval_metrics(*case) == expected
    assert expected == pytest.approx(plain(*case))


def oracle(similarity, query_ids, gallery_ids):
    """The definition in Python's own numbers and sort; the sort is stable."""
    first, precision, penalty = [], [], []
    for scores, identity in zip(similarity.tolist(), query_ids.tolist(), strict=True):
        ranking = sorted(range(len(scores)), key=lambda item: -scores[item])
        places = [rank for rank, item in enumerate(ranking, 1) if gallery_ids[item] == identity]
        if places:
            first.append(places[0])
            precision.append(sum(i / place for i, place in enumerate(places, 1)) / len(places))
            penalty.append(len(places) / places[-1])
    values = {f"R@{k}": sum(place <= k for place in first) for k in (1, 5, 10)}
    values |= {"mAP": sum(precision), "mINP": sum(penalty)}
    return {name: 100 * value / len(first) for name, value in values.items()} | {
        "queries": len(query_ids),
        "unmatched_queries": len(query_ids) - len(first),
    }


TIED = st.sampled_from([-1.0, -0.0, 0.0, 0.5, float("inf"), float("-inf")])


@given(st.integers(1, 90), st.data())
@settings(deadline=None, max_examples=60)
def test_equals_the_oracle_from_one_match_to_all(gallery, data):
    """Rows of every kind in one matrix: without a match, with one, with some, with all; mostly tied
    or not at all."""
    relevant = data.draw(st.integers(1, gallery))
    gallery_ids = np.where(np.random.default_rng(gallery).permutation(gallery) < relevant, 1, 2)
    query_ids = np.array([1, *data.draw(st.lists(st.integers(0, 2), max_size=4))])
    scores = data.draw(
        st.sampled_from([TIED, st.floats(-1, 1, width=32), st.integers(-3, 3).map(float)])
    )
    size = len(query_ids) * gallery
    similarity = np.array(data.draw(st.lists(scores, min_size=size, max_size=size))).reshape(
        -1, gallery
    )
    for dtype in (np.float64, np.float32):
        case = similarity.astype(dtype), query_ids, gallery_ids
        assert retrieval_metrics(*case) == pytest.approx(oracle(*case))


@pytest.mark.parametrize("relevant", [1, 2, 40, 200])
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool"]
)
def test_equals_the_oracle_in_every_type(relevant, dtype):
    random = torch.Generator().manual_seed(relevant)
    similarity = (torch.randn(6, 200, generator=random) * 20).abs().to(getattr(torch, dtype))
    gallery_ids = torch.randperm(200, generator=random) < relevant
    case = similarity.double(), np.array([1, 1, 0, 5, 1, 0]), gallery_ids.long().numpy()
    assert retrieval_metrics(similarity, *case[1:]) == pytest.approx(oracle(*case))


@st.composite
def feature_cases(draw):
    """Features of small integers: their products are exact, and often equal."""
    queries, gallery, width = (
        draw(st.integers(1, 7)),
        draw(st.integers(1, 11)),
        draw(st.integers(1, 4)),
    )
    numbers = np.random.default_rng(draw(st.integers(0, 999)))
    features = [numbers.integers(-2, 3, (n, width)).astype(np.float32) for n in (queries, gallery)]
    query_ids, gallery_ids = numbers.integers(0, 4, queries), numbers.integers(0, 4, gallery)
    query_ids[0] = gallery_ids[0]
    return *features, query_ids, gallery_ids


@given(feature_cases(), st.integers(1, 30))
@settings(deadline=None)
def test_features_rank_as_their_products(case, scores_per_chunk):
    query, gallery, *ids = case
    expected = retrieval_metrics(query @ gallery.T, *ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_CHUNK_SCORES", scores_per_chunk)
        assert (
            rank_features(*case)
            == rank_features(*map(torch.from_numpy, (query, gallery)), *ids)
            == expected
        )
        assert both_directions(*case) == {
            "text_to_image": expected,
            "image_to_text": rank_features(gallery, query, *ids[::-1]),
        }


def test_only_some_rows_of_scores_exist_at_a_time(monkeypatch):
    sizes = []
    rank = metrics._match_ranks

    def recorded(scores, *arguments):
        sizes.append(scores.numel())
        return rank(scores, *arguments)

    monkeypatch.setattr(metrics, "_match_ranks", recorded)
    monkeypatch.setattr(metrics, "_CHUNK_SCORES", 1000)
    features = torch.nn.functional.normalize(
        torch.randn(300, 16, generator=torch.Generator().manual_seed(0)), dim=1
    )
    result = rank_features(features, features, range(300), range(300))
    assert max(sizes) <= 1000 and sum(sizes) == 300 * 300
    assert result["R@1"] == result["mAP"] == 100.0


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
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
def test_features_that_do_not_fit_are_named(query, gallery, message):
    with pytest.raises(CSKTError, match=message):
        rank_features(query, gallery, [1, 2], [1, 2, 3])


def test_average_precision_is_scikit_learns():
    random = np.random.default_rng(3)
    similarity = (
        random.permutation(25 * 40).reshape(25, 40) / 1000.0
    )  # no ties: scikit-learn pools tied scores
    query, gallery = random.integers(0, 6, 25), random.integers(0, 6, 40)
    expected = np.mean(
        [
            average_precision_score(gallery == q, row)
            for q, row in zip(query, similarity, strict=True)
        ]
    )
    assert retrieval_metrics(similarity, query, gallery)["mAP"] == pytest.approx(
        100 * expected, abs=1e-9
    )


@given(cases(scores=st.just(0.0)), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_permuting_the_gallery_changes_nothing_without_ties(case, random):
    similarity, query, gallery = case
    distinct = list(range(similarity.size))
    random.shuffle(distinct)
    similarity = np.array(distinct, dtype=np.float64).reshape(similarity.shape)
    order = random.sample(range(len(gallery)), len(gallery))
    permuted = retrieval_metrics(similarity[:, order], query, gallery[order])
    assert permuted == pytest.approx(retrieval_metrics(similarity, query, gallery))


@given(cases())
@settings(deadline=None, max_examples=50)
def test_every_query_twice_changes_only_the_counts(case):
    similarity, query, gallery = case
    once, twice = (
        retrieval_metrics(*case),
        retrieval_metrics(np.repeat(similarity, 2, 0), np.repeat(query, 2), gallery),
    )
    for name in ("queries", "unmatched_queries"):
        assert twice.pop(name) == 2 * once.pop(name)
    assert twice == pytest.approx(once)


@pytest.mark.parametrize("place", [0, 3, 9])
def test_one_match(place):
    similarity = -np.arange(10.0)[None]
    result = retrieval_metrics(similarity, [7], np.where(np.arange(10) == place, 7, 1))
    assert result["mAP"] == result["mINP"] == pytest.approx(100 / (place + 1))
    assert (result["R@1"], result["R@5"]) == (100.0 * (place < 1), 100.0 * (place < 5))


def test_every_item_matches():
    result = retrieval_metrics(
        np.random.default_rng(0).standard_normal((4, 300)), [5] * 4, [5] * 300
    )
    assert result.pop("queries") == 4 and result.pop("unmatched_queries") == 0
    assert set(result.values()) == {100.0}


def test_unmatched_queries_are_left_out_and_counted():
    similarity = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    result = retrieval_metrics(similarity, [1, 8, 9], [1, 2])
    assert (result["R@1"], result["mAP"], result["queries"], result["unmatched_queries"]) == (
        100,
        100,
        3,
        2,
    )


def test_all_scores_equal_and_infinite_scores():
    assert retrieval_metrics(np.zeros((1, 4)), [2], [1, 2, 1, 2])["mAP"] == pytest.approx(
        100 * (1 / 2 + 2 / 4) / 2
    )
    signed = np.array([[0.0, -0.0, np.inf, -np.inf]])
    assert retrieval_metrics(signed, [2], [1, 2, 1, 2]) == pytest.approx(
        plain(signed, [2], [1, 2, 1, 2])
    )


def test_ties_are_stable_in_long_rows():
    random = np.random.default_rng(2)
    case = (
        random.integers(0, 3, (5, 2000)).astype(np.float32),
        random.integers(0, 50, 5),
        random.integers(0, 50, 2000),
    )
    assert retrieval_metrics(*case) == pytest.approx(plain(*case))


@pytest.mark.parametrize(
    "convert",
    [
        torch.from_numpy,
        lambda a: torch.from_numpy(a).half(),
        lambda a: a.astype(int),
        lambda a: a[::-1][::-1],
        lambda a: torch.from_numpy(a).requires_grad_(),
    ],
)
def test_arrays_and_tensors_of_any_type(convert):
    random = np.random.default_rng(1)
    similarity, query, gallery = (
        random.integers(-50, 50, (9, 20)) / 1.0,
        random.integers(0, 4, 9),
        np.arange(20) % 4,
    )
    expected = retrieval_metrics(similarity, query, gallery)
    assert (
        retrieval_metrics(convert(similarity), torch.from_numpy(query), list(gallery)) == expected
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_same_on_the_gpu():
    similarity = torch.from_numpy(golden_similarity()).round(decimals=1)  # with ties
    identity = torch.eye(GOLDEN["G"])
    identities = (GOLDEN["query_pids"], GOLDEN["gallery_pids"])
    on_cpu = both_directions(similarity, identity, *identities)
    assert both_directions(similarity.cuda(), identity.cuda(), *identities) == on_cpu


@pytest.mark.parametrize(
    ("similarity", "query", "gallery", "ranks", "message"),
    [
        (np.zeros(3), [1], [1], (1,), "similarity must be"),
        (np.zeros((2, 3)), [1], [1, 2, 3], (1,), "query_ids must hold 2"),
        (np.zeros((2, 3)), [1, 2], [[1, 2, 3]], (1,), "gallery_ids must hold 3"),
        (np.zeros((2, 3)), [1.0, 2.0], [1, 2, 3], (1,), "query_ids must hold 2.*float64"),
        (np.zeros((0, 3)), [], [1, 2, 3], (1,), "query_ids must hold 0"),
        (np.zeros((1, 1)), [1], [1], (0,), "ranks must be"),
        (np.zeros((1, 1)), [1], [1], (), "ranks must be"),
        (np.full((1, 2), np.nan), [1], [1, 2], (1,), "NaN"),
        (
            np.array([[0, 1], [np.nan, np.inf]]),
            [1, 9],
            [1, 2],
            (1,),
            "NaN",
        ),  # in a query that counts for nothing
        (np.zeros((1, 2)), [3], [1, 2], (1,), "no query identity"),
    ],
)
def test_bad_input_is_named(similarity, query, gallery, ranks, message):
    with pytest.raises(CSKTError, match=message):
        retrieval_metrics(similarity, query, gallery, ranks)


# One query at a time


def test_first_ranks_and_margins_on_a_hand_made_case():
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.7, 0.6], [0.5, 0.4, 0.3]])
    queries, gallery = np.array([1, 2, 9]), np.array([1, 1, 2])
    assert list(metrics.first_match_ranks(similarity, queries, gallery)) == [1, 2, 0]
    margins = metrics.match_margins(similarity, queries, gallery)
    assert np.allclose(margins[:2], [0.7, -0.1]) and np.isnan(margins[2])


def one_by_one(scores, identity, gallery_ids):
    """First rank, average precision and inverse negative penalty of a query by a stable sort of its
    scores."""
    ranking = sorted(range(len(scores)), key=lambda item: -scores[item])
    places = [rank for rank, item in enumerate(ranking, 1) if gallery_ids[item] == identity]
    if not places:
        return 0, float("nan"), float("nan")
    precision = sum(i / place for i, place in enumerate(places, 1)) / len(places)
    return places[0], precision, len(places) / places[-1]


@given(cases())
@settings(deadline=None)
def test_first_ranks_are_those_of_a_stable_sort(case):
    """Ties included: they rank by gallery index, never in the query's favour."""
    similarity, query_ids, gallery_ids = case
    expected = [
        one_by_one(scores, identity, gallery_ids)[0]
        for scores, identity in zip(similarity.tolist(), query_ids, strict=True)
    ]
    ranks = metrics.first_match_ranks(*case)
    assert ranks.dtype == np.int32 and ranks.tolist() == expected
    assert metrics.first_match_ranks(torch.from_numpy(similarity), *case[1:]).tolist() == expected
    matched = ranks[ranks > 0]
    assert retrieval_metrics(*case)["R@1"] == pytest.approx(100 * np.mean(matched == 1))


@given(feature_cases(), st.integers(1, 30))
@settings(deadline=None)
def test_every_query_is_that_of_a_stable_sort_and_the_means_are_the_metrics(case, scores_per_chunk):
    query, gallery, query_ids, gallery_ids = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_CHUNK_SCORES", scores_per_chunk)
        found = metrics.per_query(*case)
    expected = [
        one_by_one(scores, identity, gallery_ids)
        for scores, identity in zip((query @ gallery.T).tolist(), query_ids, strict=True)
    ]
    first, precision, penalty = zip(*expected, strict=True)
    assert (
        found.query_identities.tolist() == query_ids.tolist()
        and found.query_identities.dtype == np.int64
    )
    assert found.first_rank.tolist() == list(first)
    np.testing.assert_allclose(found.average_precision, precision, rtol=1e-12)
    np.testing.assert_allclose(found.inverse_negative_penalty, penalty, rtol=1e-12)
    means, matched = rank_features(*case), found.first_rank > 0
    assert means["mAP"] == 100 * found.average_precision[matched].mean()
    assert means["mINP"] == 100 * found.inverse_negative_penalty[matched].mean()
    assert means["unmatched_queries"] == np.count_nonzero(~matched)


def test_queries_without_a_match_have_rank_0_and_no_precision():
    found = metrics.per_query(np.eye(2), np.eye(2), [7, 8], [1, 2])
    assert found.first_rank.tolist() == [0, 0] and np.isnan(found.average_precision).all()
    assert np.isnan(found.inverse_negative_penalty).all()


# Intervals


def test_intervals_are_the_bootstrap_over_identities():
    """The oracle draws identities one by one, with every query of each."""
    rng = np.random.default_rng(1)
    gallery = np.repeat(np.arange(30), 2)
    queries = rng.integers(0, 30, 200)
    similarity = rng.standard_normal((200, 60)) + (queries[:, None] == gallery) * 1.5
    result = retrieval_metrics(similarity, queries, gallery, resamples=4000)
    best = similarity.argmax(1)
    right, present = gallery[best] == queries, np.unique(queries)
    means = []
    for _ in range(4000):
        drawn = np.concatenate(
            [np.flatnonzero(queries == i) for i in rng.choice(present, len(present))]
        )
        means.append(100 * right[drawn].mean())
    assert result["intervals"]["R@1"] == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=1.0)
    for name, (low, high) in result["intervals"].items():
        assert low <= result[name] <= high
    assert result == retrieval_metrics(similarity, queries, gallery, resamples=4000)
    assert "intervals" not in retrieval_metrics(similarity, queries, gallery)


def test_intervals_leave_unmatched_queries_out_and_close_on_certainty():
    result = retrieval_metrics(np.eye(4), [0, 1, 2, 9], [0, 1, 2, 3], resamples=50)
    assert result["unmatched_queries"] == 1
    assert result["intervals"] == dict.fromkeys(
        ("R@1", "R@5", "R@10", "mAP", "mINP"), [100.0, 100.0]
    )
