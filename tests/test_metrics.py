"""Metrics against the released evaluator's figures, scikit-learn, the definition written out, and
properties."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cskt import metrics
from cskt.metrics import both_directions, rank_features, retrieval_metrics
from tests.ranking_cases import Case, cases, definition, feature_cases

pytestmark = pytest.mark.numerics
GOLDEN = json.loads((Path(__file__).parent / "data" / "metrics.json").read_text())


# The released evaluator


def golden_similarity():
    random = np.random.default_rng(GOLDEN["seed"])
    people = GOLDEN["npid"]
    query = random.integers(0, people, GOLDEN["Q"])
    gallery = random.integers(0, people, GOLDEN["G"])
    query[:people] = np.arange(people)
    gallery[:people] = np.arange(people)
    noise = random.standard_normal((GOLDEN["Q"], GOLDEN["G"])).astype(np.float32)
    same = (query[:, None] == gallery[None]).astype(np.float32)
    return noise + np.float32(1.5) * same


def test_equals_the_released_evaluator():
    similarity = golden_similarity()
    checksum = similarity.sum(dtype=np.float64)
    assert checksum == pytest.approx(GOLDEN["sim_checksum"]["sum"], abs=1e-6)
    # Features whose products are the similarities themselves.
    identity = np.eye(GOLDEN["G"], dtype=np.float32)
    result = both_directions(
        similarity, identity, GOLDEN["query_pids"], GOLDEN["gallery_pids"], ranks=range(1, 11)
    )
    for direction, key in (("text_to_image", "t2i"), ("image_to_text", "i2t")):
        measured, expected = result[direction], GOLDEN[key]
        assert measured["mAP"] == pytest.approx(expected["mAP_float64"], abs=1e-9)
        assert measured["mINP"] == pytest.approx(expected["mINP_float64"], abs=1e-9)
        recalls = [measured[f"R@{k}"] for k in range(1, 11)]
        # The released evaluator works in float32.
        assert recalls == pytest.approx(expected["cmc_1_to_10"], abs=1e-4)
        assert measured["unmatched_queries"] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_same_on_the_gpu():
    similarity = torch.from_numpy(golden_similarity()).round(decimals=1)  # with ties
    identity = torch.eye(GOLDEN["G"])
    identities = (GOLDEN["query_pids"], GOLDEN["gallery_pids"])
    on_cpu = both_directions(similarity, identity, *identities)
    assert both_directions(similarity.cuda(), identity.cuda(), *identities) == on_cpu


# The definition


@given(cases())
@settings(deadline=None)
def test_equals_the_definition_with_ties_ranked_by_gallery_index(case):
    assert retrieval_metrics(*case) == pytest.approx(definition(*case))


@given(cases(), st.integers(1, 30))
@settings(deadline=None)
def test_the_size_of_chunks_changes_nothing(case, scores_per_chunk):
    expected = retrieval_metrics(*case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_CHUNK_SCORES", scores_per_chunk)
        assert retrieval_metrics(*case) == expected
    assert expected == pytest.approx(definition(*case))


TIED = st.sampled_from([-1.0, -0.0, 0.0, 0.5, float("inf"), float("-inf")])
UNTIED = st.floats(-1, 1, width=32)
SOMETIMES_TIED = st.integers(-3, 3).map(float)


@given(st.integers(1, 90), st.data())
@settings(deadline=None, max_examples=60)
def test_equals_the_definition_from_one_match_to_all(gallery, data):
    """Rows of every kind in one matrix: without a match, with one, with some, with all; mostly tied
    or not at all."""
    relevant = data.draw(st.integers(1, gallery))
    order = np.random.default_rng(gallery).permutation(gallery)
    gallery_ids = np.where(order < relevant, 1, 2)
    others = data.draw(st.lists(st.integers(0, 2), max_size=4))
    query_ids = np.array([1, *others])
    scores = data.draw(st.sampled_from([TIED, UNTIED, SOMETIMES_TIED]))
    size = len(query_ids) * gallery
    values = data.draw(st.lists(scores, min_size=size, max_size=size))
    similarity = np.array(values).reshape(-1, gallery)
    for dtype in (np.float64, np.float32):
        case = Case(similarity.astype(dtype), query_ids, gallery_ids)
        assert retrieval_metrics(*case) == pytest.approx(definition(*case))


@pytest.mark.parametrize("relevant", [1, 2, 40, 200])
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool"]
)
def test_equals_the_definition_in_every_type(relevant, dtype):
    random = torch.Generator().manual_seed(relevant)
    numbers = torch.randn(6, 200, generator=random) * 20
    similarity = numbers.abs().to(getattr(torch, dtype))
    query_ids = np.array([1, 1, 0, 5, 1, 0])
    gallery_ids = (torch.randperm(200, generator=random) < relevant).long().numpy()
    expected = definition(similarity.double(), query_ids, gallery_ids)
    assert retrieval_metrics(similarity, query_ids, gallery_ids) == pytest.approx(expected)


def test_ties_are_stable_in_long_rows():
    random = np.random.default_rng(2)
    similarity = random.integers(0, 3, (5, 2000)).astype(np.float32)
    case = Case(similarity, random.integers(0, 50, 5), random.integers(0, 50, 2000))
    assert retrieval_metrics(*case) == pytest.approx(definition(*case))


def test_all_scores_equal():
    result = retrieval_metrics(np.zeros((1, 4)), [2], [1, 2, 1, 2])
    assert result["mAP"] == pytest.approx(100 * (1 / 2 + 2 / 4) / 2)


def test_zeros_of_both_signs_and_infinite_scores():
    case = Case(np.array([[0.0, -0.0, np.inf, -np.inf]]), [2], [1, 2, 1, 2])
    assert retrieval_metrics(*case) == pytest.approx(definition(*case))


def test_average_precision_is_scikit_learns():
    random = np.random.default_rng(3)
    # No ties: scikit-learn pools tied scores.
    similarity = random.permutation(25 * 40).reshape(25, 40) / 1000.0
    queries, gallery = random.integers(0, 6, 25), random.integers(0, 6, 40)
    precisions = []
    for query, scores in zip(queries, similarity, strict=True):
        precisions.append(average_precision_score(gallery == query, scores))
    result = retrieval_metrics(similarity, queries, gallery)
    assert result["mAP"] == pytest.approx(100 * np.mean(precisions), abs=1e-9)


# Features


@given(feature_cases(), st.integers(1, 30))
@settings(deadline=None)
def test_features_rank_as_their_products(case, scores_per_chunk):
    queries, gallery = case.query_features, case.gallery_features
    expected = retrieval_metrics(queries @ gallery.T, case.query_ids, case.gallery_ids)
    backwards = rank_features(gallery, queries, case.gallery_ids, case.query_ids)
    tensors = case._replace(
        query_features=torch.from_numpy(queries), gallery_features=torch.from_numpy(gallery)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_CHUNK_SCORES", scores_per_chunk)
        assert rank_features(*case) == expected
        assert rank_features(*tensors) == expected
        both = both_directions(*case)
    assert both == {"text_to_image": expected, "image_to_text": backwards}


def test_only_some_rows_of_scores_exist_at_a_time(monkeypatch):
    sizes = []
    rank = metrics._match_ranks

    def recorded(scores, *arguments):
        sizes.append(scores.numel())
        return rank(scores, *arguments)

    monkeypatch.setattr(metrics, "_match_ranks", recorded)
    monkeypatch.setattr(metrics, "_CHUNK_SCORES", 1000)
    features = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.normalize(features, dim=1)
    result = rank_features(features, features, range(300), range(300))
    assert max(sizes) <= 1000
    assert sum(sizes) == 300 * 300
    assert result["R@1"] == result["mAP"] == 100.0


# Properties


@given(cases(scores=st.just(0.0)), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_permuting_the_gallery_changes_nothing_without_ties(case, random):
    distinct = list(range(case.similarity.size))
    random.shuffle(distinct)
    similarity = np.array(distinct, dtype=np.float64).reshape(case.similarity.shape)
    count = len(case.gallery_ids)
    order = random.sample(range(count), count)
    expected = retrieval_metrics(similarity, case.query_ids, case.gallery_ids)
    permuted = retrieval_metrics(similarity[:, order], case.query_ids, case.gallery_ids[order])
    assert permuted == pytest.approx(expected)


@given(cases())
@settings(deadline=None, max_examples=50)
def test_every_query_twice_changes_only_the_counts(case):
    once = retrieval_metrics(*case)
    twice = retrieval_metrics(
        np.repeat(case.similarity, 2, 0), np.repeat(case.query_ids, 2), case.gallery_ids
    )
    for name in ("queries", "unmatched_queries"):
        assert twice.pop(name) == 2 * once.pop(name)
    assert twice == pytest.approx(once)


@pytest.mark.parametrize("place", [0, 3, 9])
def test_one_match(place):
    similarity = -np.arange(10.0)[None]
    gallery_ids = np.where(np.arange(10) == place, 7, 1)
    result = retrieval_metrics(similarity, [7], gallery_ids)
    assert result["mAP"] == result["mINP"] == pytest.approx(100 / (place + 1))
    assert result["R@1"] == 100.0 * (place < 1)
    assert result["R@5"] == 100.0 * (place < 5)


def test_every_item_matches():
    similarity = np.random.default_rng(0).standard_normal((4, 300))
    result = retrieval_metrics(similarity, [5] * 4, [5] * 300)
    assert result.pop("queries") == 4
    assert result.pop("unmatched_queries") == 0
    assert set(result.values()) == {100.0}


def test_unmatched_queries_are_left_out_and_counted():
    similarity = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    result = retrieval_metrics(similarity, [1, 8, 9], [1, 2])
    assert result["R@1"] == result["mAP"] == 100
    assert result["queries"] == 3
    assert result["unmatched_queries"] == 2
