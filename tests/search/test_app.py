"""The search demo without a browser: what every action shows, against the gallery and the
probes."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
import torch
from PIL import Image

from cskt import CSKTError
from cskt.analysis import relevance
from cskt.data.augment import normalize
from cskt.data.images import resize
from cskt.search import app, controls, question
from cskt.search.gallery import Gallery
from tests.demos import (
    CAMERAS,
    HOSTILE,
    IMAGES,
    QUERY,
    cards,
    close,
    ids,
    page,
    panel,
    png,
    said,
    upload,
)

pytestmark = pytest.mark.slow


# Searching


def test_a_search_shows_what_each_gallery_finds(shown, galleries):
    shown.query.value = QUERY
    for name, gallery in galleries.items():
        expected = gallery.search(QUERY, 10)
        assert ids(shown, name) == [hit.id for hit in expected]
        for index, card in enumerate(cards(shown, name)):
            rank = index + 1
            assert f"{rank} · {expected[index].score:.2f} " in card.picture.value
            assert f"rank {rank} " in card.map.tooltip
            assert f"rank {rank}" in card.more.tooltip
    assert ids(shown, "CSKT") != ids(shown, "zero-shot")
    assert "synthetic" in shown.heading.value
    assert QUERY in shown.heading.value
    assert said(shown) == ""


def test_the_same_words_are_searched_again_by_the_button_only(shown, monkeypatch):
    shown.query.value = QUERY
    searched = []
    monkeypatch.setattr(shown, "_search", lambda asked, *_: searched.append(asked))
    shown.query.value = QUERY
    assert searched == []
    shown.button.click()
    assert [asked.text for asked in searched] == [QUERY]


def test_fewer_hits_are_shown_at_once(shown, galleries):
    shown.examples.value = QUERY
    assert shown.query.value == QUERY
    shown.hits.value = 4
    assert ids(shown) == [hit.id for hit in galleries["CSKT"].search(QUERY, 4)]


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_narrows_what_is_shown(shown, galleries, camera):
    shown.ask(QUERY)
    assert [label for label, _ in shown.camera.options] == ["all", *sorted(CAMERAS)]
    shown.camera.value = camera
    every = galleries["CSKT"].search(QUERY, 20)
    of_camera = [hit.id for hit in every if hit.camera == camera]
    assert ids(shown) == of_camera[:10]


def test_one_model_is_shown_or_both(shown, galleries):
    shown.ask(QUERY)
    shown.sides.value = ["zero-shot"]
    assert shown.results.children == (shown.views["zero-shot"].widget,)
    expected = galleries["zero-shot"].search(QUERY, 10)
    assert ids(shown, "zero-shot") == [hit.id for hit in expected]
    shown.sides.value = ["CSKT", "zero-shot"]
    assert len(shown.results.children) == 2


def test_right_and_wrong_are_framed_where_the_truth_is_known(shown):
    shown.ask(QUERY)
    marks = set()
    for card in cards(shown):
        right = card.hit.identity in (0, 3)
        mark = "✓ right" if right else "✗ wrong"
        assert mark in card.picture.value
        marks.add(mark)
    assert len(marks) == 2
    shown.ask("somebody else")
    for card in cards(shown):
        assert not re.search("right|wrong", card.picture.value)


def test_more_hits_than_there_are_say_so(shown):
    shown.hits.value = 30
    shown.ask(QUERY)
    assert len(ids(shown)) == 20
    assert said(shown) == "The gallery holds only 20 images."
    shown.camera.value = "c2"
    assert len(ids(shown)) == 7
    assert said(shown) == "Only 7 images fit the filter."


def test_no_more_hits_are_shown_than_a_page_can_bear(shown):
    shown.hits.value = 10_000
    assert shown.hits.value == controls.MOST


def test_what_no_model_reads_is_said_once(shown, galleries, monkeypatch):
    for gallery in galleries.values():
        known = set(gallery.model.tokenizer.encode("a coat"))
        monkeypatch.setattr(gallery.model, "known_tokens", known)
    shown.ask("a blue coat")
    assert said(shown) == "This backbone has never seen: blue."


def test_what_one_model_does_not_read_is_said_with_its_name(shown):
    shown.ask("coat " * 70)
    sentence = "Only the first 67 tokens of a description are read; the rest has no effect."
    assert said(shown) == f"CSKT: {sentence}"


# Why a picture was found


def expected_effects(gallery: Gallery, hit) -> list[float]:
    """What the similarity to a hit loses without each word of :data:`QUERY`."""
    words = QUERY.split()
    whole = gallery.encode(QUERY)
    effects = []
    for i in range(len(words)):
        without = gallery.encode(" ".join(words[:i] + words[i + 1 :]))
        effects.append(float((whole - without) @ gallery.encode(hit)))
    return effects


@pytest.mark.parametrize("name", ["CSKT", "zero-shot"])
def test_words_are_worth_what_the_similarity_loses_without_them(shown, galleries, name):
    shown.ask(QUERY)
    (hit,) = galleries[name].search(QUERY, 1)
    expected = expected_effects(galleries[name], hit)
    effects = question.word_effects(shown.asked, galleries[name], hit)
    assert [word for word, _ in effects] == QUERY.split()
    values = [value for _, value in effects]
    assert np.allclose(values, expected, atol=1e-5)
    assert np.ptp(expected) > 1e-4
    told = panel(shown, name)
    assert re.findall(r"<code>([+-][\d.]+)<", told) == [f"{value:+.3f}" for value in values]
    assert "rank 1" in told
    assert "<img" not in told


def test_a_single_word_has_a_bar_too(shown):
    shown.ask("coat")
    assert panel(shown).count("<code>") == 1


@pytest.mark.parametrize("name", ["CSKT", "zero-shot"])
def test_a_map_shows_what_the_probe_gives(shown, galleries, name):
    shown.ask(QUERY)
    card = cards(shown)[2]
    card.map.click()
    gallery = galleries[name]
    pixels = torch.tensor(resize(card.hit.image(), (32, 16)))[None]
    direction = torch.from_numpy(gallery.encode(QUERY))[None]
    expected = relevance.image_relevance(gallery.model, normalize(pixels), direction)[0].numpy()
    assert expected.shape == (4, 2)
    assert expected.any()
    shares = re.findall(r'title="([\d.]+)"', panel(shown, name))
    assert shares == [f"{share:.4f}" for share in expected.flat]
    assert 'alt="' in panel(shown, name)


@pytest.mark.parametrize("name", ["CSKT", "zero-shot"])
def test_a_map_names_the_hit_its_rank_and_its_similarity(shown, galleries, name):
    shown.ask(QUERY)
    card = cards(shown)[2]
    hit = card.hit
    card.map.click()
    gallery = galleries[name]
    score = gallery.encode(hit) @ gallery.encode(QUERY)
    assert f"{html.escape(hit.label())}: similarity {score:.3f}." in panel(shown, name)
    ranking = ids(shown, name)
    rank = "not among the hits"
    if hit.id in ranking:
        rank = f"rank {ranking.index(hit.id) + 1}<"
    assert rank in panel(shown, name)


# From one search to the next


def test_more_like_a_hit_is_the_gallery_s_own_search(shown, galleries):
    shown.ask(QUERY)
    card = cards(shown, "zero-shot")[3]
    hit = card.hit
    card.more.click()
    for name, gallery in galleries.items():
        assert ids(shown, name) == [found.id for found in gallery.search(hit, 10)]
        assert ids(shown, name)[0] == hit.id
        for shown_card in cards(shown, name):
            is_right = shown_card.hit.identity == hit.identity
            assert ("✓ right" in shown_card.picture.value) == is_right
        assert "<code>" not in panel(shown, name), "a picture has no words"
    assert "more like" in shown.heading.value
    assert "<img" in shown.heading.value
    assert shown.examples.value == ""
    cards(shown)[1].map.click()
    assert "<img" in panel(shown)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_picture_of_one_s_own_is_searched_for(shown, galleries, mode):
    picture = Image.fromarray(IMAGES[7]).convert(mode)
    upload(shown, f"{HOSTILE}.png", png(picture))
    assert said(shown) == ""
    assert shown.upload.value == ()
    expected = galleries["CSKT"].search(picture, 10)
    assert ids(shown) == [hit.id for hit in expected]
    assert "&lt;img src=x" in shown.heading.value
    assert "<img src=x" not in page(shown)


def test_a_picture_of_16_bits_is_searched_for(shown, galleries):
    picture = Image.new("I;16", (9, 20), 1000)
    upload(shown, "deep.png", png(picture))
    assert ids(shown) == [hit.id for hit in galleries["CSKT"].search(picture, 10)]


def test_a_picture_finds_itself(shown):
    upload(shown, "mine.png", png(Image.fromarray(IMAGES[7])))
    assert cards(shown)[0].hit.score == pytest.approx(1, abs=1e-5)


def test_every_picture_has_a_text_in_its_place(shown):
    upload(shown, "mine.png", png(Image.fromarray(IMAGES[3])))
    cards(shown)[0].map.click()
    tags = re.findall("<img[^>]*>", page(shown))
    assert len(tags) >= 20
    assert all(re.search('alt="[^"]+"', tag) for tag in tags)


# One gallery


def test_a_demo_of_one_gallery_has_no_model_to_choose(galleries):
    shown = app.RetrievalDemo({"mine": galleries["CSKT"]})
    shown.ask(QUERY)
    assert len(ids(shown, "mine")) == 10
    assert len(shown.views["mine"].widget.children) == 2
    rows = [getattr(row, "children", ()) for row in shown.widget.children]
    assert not any(shown.sides in row for row in rows)


def test_a_demo_of_no_gallery_is_refused():
    with pytest.raises(CSKTError, match="at least one gallery"):
        app.RetrievalDemo({})


def test_the_demo_of_a_gallery(tmp_path):
    Gallery(tmp_path / "g.db", "cskt-mini").close()
    shown = app.gallery_demo(str(tmp_path / "g.db"))
    shown.ask(QUERY)
    assert list(shown.galleries) == ["g.db"]
    assert said(shown) == "The gallery holds only 0 images."
    shown.galleries["g.db"].add(IMAGES)
    shown.show()
    cards(shown, "g.db")[1].map.click()
    assert "<img" in panel(shown, "g.db"), "a model that a search has loaded has gradients"
    close(shown.galleries)


def test_the_demo_of_no_gallery_says_where_it_looked(tmp_path):
    with pytest.raises(CSKTError, match="there is no gallery at"):
        app.gallery_demo(str(tmp_path / "gone.db"))
