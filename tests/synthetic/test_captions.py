"""The grammar writes good English about what the image shows, and only about that."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cskt.data.synthetic.canvas import PART
from cskt.data.synthetic.captions import (
    LEXICON,
    WORDINGS,
    caption,
    visible_attributes,
    with_article,
)
from cskt.data.synthetic.domains import DOMAINS
from cskt.data.synthetic.identities import sample_identity
from cskt.data.synthetic.render import render
from cskt.data.synthetic.style import Scene

VIEWS = ("front", "back", "left", "right")


def shot(seed: int, view: str, domain: str = "A", **attributes):
    person = dataclasses.replace(sample_identity(np.random.default_rng(seed)), **attributes)
    _, labels = render(
        person, Scene(view, seed % 5, seed), dataclasses.replace(DOMAINS[domain], occlusion=0.0)
    )
    return person, labels


def words_for(*keys: str) -> set[str]:
    return {word for key in keys for word in LEXICON.get(key, (key,))}


@given(seed=st.integers(0, 10_000), view=st.sampled_from(VIEWS), domain=st.sampled_from("ABC"))
@settings(max_examples=60, deadline=None)
def test_english(seed, view, domain):
    person = sample_identity(np.random.default_rng(seed))
    _, labels = render(person, Scene(view, seed % 5, seed), DOMAINS[domain])
    text = caption(person, labels, view, domain, np.random.default_rng(seed))
    assert not re.search(r"\b[Aa] [aeiou]", text), text
    assert not re.search(r"\b[Aa]n [^aeiou]", text), text
    assert not re.search(
        r"\ba (?:\w+ )?(?:jeans|pants|trousers|shorts|leggings|boots|sneakers|shoes)\b", text
    ), text
    assert "{" not in text and "none" not in text and "None" not in text and "  " not in text
    assert text.endswith(".") and all(sentence[0].isupper() for sentence in text.split(". "))
    assert len(text.split()) <= 45
    other = r"\b(he|him|his)\b" if person.gender == "woman" else r"\b(she|her)\b"
    assert not re.search(other, text, re.IGNORECASE), text


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("orange hat", "an orange hat"),
        ("red hat", "a red hat"),
        ("emerald coat", "an emerald coat"),
    ],
)
def test_article(phrase, expected):
    assert with_article(phrase) == expected


@given(seed=st.integers(0, 10_000), view=st.sampled_from(VIEWS), domain=st.sampled_from("ABC"))
@settings(max_examples=30, deadline=None)
def test_a_caption_names_nothing_that_is_hidden(seed, view, domain):
    person, labels = shot(
        seed, view, domain, bag="backpack", bag_colour="red", eyewear="sunglasses"
    )
    text = caption(person, labels, view, domain, np.random.default_rng(seed)).lower()
    if view == "front":
        assert not any(word in text for word in words_for("backpack")), text
    if view == "back":
        assert not any(word in text for word in words_for("sunglasses")), text


@pytest.mark.parametrize(
    ("part", "keys"), [("shoes", ("boots",)), ("bag", ("backpack",)), ("scarf", ("scarf",))]
)
def test_a_covered_part_is_never_named(part, keys):
    for seed in range(8):
        person, labels = shot(
            seed,
            "back",
            shoes="boots",
            bag="backpack",
            scarf_colour="red",
            headwear="none",
            umbrella_colour="none",
        )
        covered = np.where(labels == PART[part], PART["occluder"], labels)
        assert part not in visible_attributes(person, covered, "back")
        text = caption(person, covered, "back", "A", np.random.default_rng(seed)).lower()
        assert not any(re.search(rf"\b{word}\b", text) for word in words_for(*keys)), text


def test_what_is_visible_is_sometimes_left_out_and_sometimes_said():
    person, labels = shot(3, "back", bag="backpack", bag_colour="red", umbrella_colour="none")
    texts = [
        caption(person, labels, "back", "A", np.random.default_rng(seed)) for seed in range(60)
    ]
    named = sum(any(word in text for word in words_for("backpack")) for text in texts)
    assert 20 < named < 60
    assert len(set(texts)) > 30


def test_the_three_wordings_differ_in_their_words():
    shots = [(*shot(seed, VIEWS[seed % 4]), VIEWS[seed % 4], seed) for seed in range(40)]
    vocabularies = []
    for domain in WORDINGS:
        texts = [
            caption(person, labels, view, domain, np.random.default_rng(seed))
            for person, labels, view, seed in shots
        ]
        vocabularies.append(set(re.findall(r"[a-z-]+", " ".join(texts).lower())))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert len(vocabularies[first] - vocabularies[second]) >= 5


@pytest.mark.parametrize("domain", ["A", "B", "C"])
def test_a_picture_with_much_to_say_is_still_described_in_45_words(domain):
    """Everything there is, in long words: the grammar leaves something out."""
    for seed in range(30):
        person, labels = shot(
            seed,
            "front",
            domain,
            upper="coat",
            pattern="plain",
            lower="trousers",
            bag="shoulder bag",
            headwear="cap",
            eyewear="sunglasses",
            scarf_colour="navy",
            umbrella_colour="navy",
            upper_colour="navy",
            lower_colour="navy",
            shoes="sneakers",
            hair="long",
        )
        assert (
            len(caption(person, labels, "front", domain, np.random.default_rng(seed)).split()) <= 45
        )


def test_most_captions_have_20_to_45_words():
    lengths = []
    for seed in range(40):
        person = sample_identity(np.random.default_rng(seed))
        _, labels = render(person, Scene(VIEWS[seed % 4], seed % 5, seed), DOMAINS["ABC"[seed % 3]])
        lengths += [
            len(
                caption(
                    person, labels, VIEWS[seed % 4], domain, np.random.default_rng(seed)
                ).split()
            )
            for domain in WORDINGS
        ]
    assert np.mean([20 <= length <= 45 for length in lengths]) > 0.98
