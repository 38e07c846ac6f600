"""Rocchio's formula, a picture with words, and users who mark hits truthfully."""

from __future__ import annotations

import numpy as np
import pytest

from cskt.analysis.feedback import Weights, combined_query, refined_query
from cskt.analysis.simulated_users import SimulatedUsers, round_row
from cskt.errors import ConfigurationError

EAST, NORTH, UP = np.eye(3, dtype=np.float32)
NONE = np.zeros((0, 3), np.float32)


def unit(vector) -> np.ndarray:
    return np.asarray(vector) / np.linalg.norm(vector)


def users(queries, gallery, match, weights=None) -> SimulatedUsers:
    arrays = [np.array(vectors, np.float32) for vectors in (queries, gallery)]
    return SimulatedUsers(*arrays, np.array(match, bool), weights or Weights())


def test_a_refined_query_is_the_query_and_the_means_of_the_marked():
    refined = refined_query(EAST, np.stack([NORTH, UP]), np.stack([UP]))
    np.testing.assert_allclose(refined, unit([1, 0.375, 0.375 - 0.15]), rtol=1e-6)
    assert refined.dtype == np.float32


def test_without_marks_the_query_stays():
    np.testing.assert_array_equal(refined_query(EAST, NONE, NONE), EAST)


def test_marks_of_one_kind_are_enough():
    np.testing.assert_allclose(refined_query(EAST, NONE, NORTH[None]), unit([1, -0.15, 0]))
    np.testing.assert_allclose(refined_query(EAST, NORTH[None], NONE), unit([1, 0.75, 0]))


def test_marks_that_cancel_the_query_are_refused():
    with pytest.raises(ConfigurationError, match="take some of them back"):
        refined_query(EAST, NONE, EAST[None], Weights(wrong=1.0))


def test_words_and_a_picture_count_by_their_share():
    np.testing.assert_allclose(combined_query(EAST, NORTH), unit([1, 1, 0]))
    np.testing.assert_allclose(combined_query(EAST, NORTH, 0.75), unit([1, 3, 0]))
    np.testing.assert_array_equal(combined_query(EAST, NORTH, 1.0), NORTH)
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        combined_query(EAST, NORTH, 1.5)


# A query to the east whose two right pictures lie up; a wrong one lies nearer to it.
GALLERY = np.stack([unit([1, 0.1, 0]), unit([1, 0, 0.6]), unit([0.9, 0.5, 0]), unit([0.1, 0, 1])])
MATCH = [[False, True, False, True]]


def test_before_any_mark_the_residual_collection_is_the_gallery():
    state = users([EAST], GALLERY, MATCH).state()
    assert state.left.all()
    assert state.first == state.first_before == 0
    assert state.precision == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert state.found == state.found_before == 0


def test_what_was_seen_is_no_longer_ranked():
    marking = users([EAST], GALLERY, MATCH, Weights(right=0, wrong=0))
    marking.mark(1)
    state = marking.state()  # left: the second wrong one, and both right ones at ranks 2 and 3
    assert state.precision == pytest.approx((1 / 2 + 2 / 3) / 2)
    marking.mark(2)
    state = marking.state()
    assert marking.seen.tolist() == [[True, True, True, False]]
    assert state.found == state.found_before == 0.5
    assert state.precision == state.first == 1


def test_a_picture_marked_right_brings_what_is_like_it_nearer():
    marking = users([EAST], GALLERY, MATCH)
    marking.mark(3)
    assert marking.state().first == 1
    more = np.concatenate([GALLERY, [unit([0.2, 0.9, 0])]])
    marking = users([EAST], more, [[False, True, False, True, False]])
    marking.mark(3)
    state = marking.state()
    assert state.first == 1
    assert state.first_before == 0


def test_a_query_with_nothing_left_is_in_no_mean_but_counts_as_found():
    marking = users([EAST, UP], GALLERY, [[True, False, False, False], MATCH[0]])
    marking.mark(1)
    state = marking.state()
    assert np.isnan(state.first).tolist() == [True, False]
    row = round_row(state, np.array([7, 8]))
    assert row["left"] == 50
    assert row["R@1"] == 100
    assert row["found"] == 75
    assert row["intervals"]["found"][0] <= 75 <= row["intervals"]["found"][1]


def test_a_gain_is_the_difference_of_the_same_queries():
    marking = users([EAST], GALLERY, MATCH)
    marking.mark(1)
    row = round_row(marking.state(), np.array([0]))
    assert row["mAP gain"] == pytest.approx(row["mAP"] - row["mAP before"])
