"""A gallery's answers to marked hits, to a picture with words, and without what was seen."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from cskt.analysis.feedback import combined_query, refined_query
from cskt.search.feedback import marks_csv, search_without
from cskt.search.gallery import Gallery
from cskt.search.hits import Hit
from tests.demos import FACTS, IMAGES, QUERY, small_models


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    with Gallery(tmp_path_factory.mktemp("marks") / "g", small_models()["CSKT"]) as gallery:
        gallery.add(IMAGES, FACTS)
        yield gallery


def ids(hits) -> list[str]:
    return [hit.id for hit in hits]


def test_marks_move_the_query_by_rocchios_formula(gallery):
    hits = gallery.search(QUERY, k=20)
    right, wrong = hits[10:12], hits[:3]
    vectors = [np.stack([gallery.encode(hit) for hit in marked]) for marked in (right, wrong)]
    expected = gallery.search(refined_query(gallery.encode(QUERY), *vectors), k=20)
    found = gallery.search(QUERY, k=20, right=right, wrong=wrong)
    assert ids(found) == ids(expected)
    before = {hit.id: hit.score for hit in hits}
    after = {hit.id: hit.score for hit in found}
    assert after[right[0].id] > before[right[0].id]


def test_a_picture_and_words_are_one_query(gallery):
    hit = gallery.search(QUERY, k=20)[7]
    vector = combined_query(gallery.encode(hit), gallery.encode(QUERY))
    found = gallery.search(QUERY, image=hit)
    assert ids(found) == ids(gallery.search(vector))
    assert found[0].score == pytest.approx(gallery.search(vector)[0].score)


def test_what_was_seen_is_left_out_and_the_rest_moves_up(gallery):
    hits = gallery.search(QUERY, k=20)
    found = gallery.search(QUERY, k=5, exclude=[hits[0], hits[2].id])
    assert ids(found) == ids([hits[1], *hits[3:7]])


def test_a_person_who_was_seen_is_left_out_with_all_pictures(gallery):
    hits = gallery.search(QUERY, k=20)
    person = hits[0].identity
    found = gallery.search(QUERY, k=18, exclude=[person])
    assert ids(found) == ids([hit for hit in hits if hit.identity != person])


def test_a_filter_and_exclusions_both_hold(gallery):
    hits = gallery.search(QUERY, k=20, where="camera == 'c2'")
    found = gallery.search(QUERY, k=20, where="camera == 'c2'", exclude=hits[:2])
    assert ids(found) == ids(hits[2:])


def test_a_search_is_widened_until_enough_is_left():
    gallery = [Hit(str(i), 1 - i / 100, "x.png", identity=int(i >= 40)) for i in range(50)]
    asked = []

    def search(number: int) -> list[Hit]:
        asked.append(number)
        return gallery[:number]

    found = search_without(search, 3, [0], most=100)
    assert ids(found) == ["40", "41", "42"]
    assert asked == [4, 8, 16, 32, 64]


def test_marked_hits_as_a_table():
    right = [Hit("a", 0.5, "=cmd()|x.png", identity=3, camera="c1")]
    wrong = [Hit("b", 0.25, 'with "quotes", and comma.png')]
    rows = list(csv.DictReader(io.StringIO(marks_csv(right, wrong))))
    assert [row["mark"] for row in rows] == ["right", "wrong"]
    assert rows[0]["source"] == "'=cmd()|x.png", "no spreadsheet takes it for a formula"
    assert rows[0]["identity"] == "3"
    assert rows[1]["source"] == 'with "quotes", and comma.png'
    assert rows[1]["camera"] == ""
