"""The search demo and bad input: a sentence, and what was shown stays."""

from __future__ import annotations

import html
import re

import pytest
from PIL import Image

from cskt.search import question
from tests.demos import (
    HOSTILE,
    IMAGES,
    QUERY,
    cards,
    ids,
    page,
    png,
    said,
    upload,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("notes.png", b"just text", "not an image"),
        ("empty.jpg", b"", "not an image"),
        ("cut.png", png(Image.fromarray(IMAGES[0]))[:600], "cannot be read"),
        ("huge.png", png(Image.new("1", (9000, 9000))), "too large (9000 x 9000 pixels"),
    ],
    ids=["text", "empty", "cut", "huge"],
)
def test_a_bad_picture_gets_a_sentence_and_changes_nothing(shown, name, content, sentence):
    shown.ask(QUERY)
    before = ids(shown)
    upload(shown, name, content)
    assert said(shown).startswith(f"Not done: {name}: {sentence}")
    assert ids(shown) == before
    assert QUERY in shown.heading.value


def test_after_a_bad_picture_a_good_one_is_searched_for(shown):
    upload(shown, "notes.png", b"just text")
    upload(shown, "good.png", png(Image.fromarray(IMAGES[1])))
    assert "good.png" in shown.heading.value
    assert said(shown) == ""


def test_an_empty_box_asks_for_a_description(shown):
    shown.button.click()
    assert "type a description" in said(shown)
    assert shown.results.children == ()


@pytest.mark.parametrize(
    "query, sentence",
    [
        ("", "type a description"),
        ("   \t ", "type a description"),
        ("x" * 10_000, "10000 characters; shorten it to 500"),
        ("coat " * 101, "504 characters"),
    ],
)
def test_a_bad_query_gets_a_sentence_and_changes_nothing(shown, query, sentence):
    shown.ask(QUERY)
    before = ids(shown)
    heading = shown.heading.value
    shown.query.value = query
    shown.button.click()
    assert said(shown).startswith("Not done: ")
    assert sentence in said(shown)
    assert ids(shown) == before
    assert shown.heading.value == heading
    shown.hits.value = 3
    assert ids(shown) == before[:3], "what was asked before is still what is shown"
    assert said(shown) == ""


@pytest.mark.parametrize(
    "query", ["😀🧥", "穿红衣服的女人", "<script>alert(1)</script>", HOSTILE, "a\x00b", "‮tac"]
)
def test_other_scripts_and_markup_are_only_text(shown, query):
    shown.query.value = query
    assert len(ids(shown)) == 10
    assert said(shown) == ""
    assert html.escape(query) in shown.heading.value
    cards(shown)[0].map.click()
    assert not re.search(r"<script|<img src=x|<b>\d", page(shown))
    assert "&lt;b&gt;" in page(shown), "names of files are shown as text"


def test_a_fault_of_ours_is_not_hidden(shown, monkeypatch):
    monkeypatch.setattr(question, "word_differences", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shown.ask(QUERY)
    assert said(shown) == "This failed and should not have: ZeroDivisionError: division by zero"
