"""Mentions are the words that name a part, and their masks are the renderer's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cskt import load_dataset
from cskt.data.datasets import PersonRetrievalDataset
from cskt.errors import DataError
from cskt.synthetic import synthetic_dataset
from cskt.synthetic.mentions import attribute_rows, find_mentions, mentions_of


def named(caption: str, shown: dict[str, str]) -> dict[str, str]:
    """The words that name each group, as they stand in the caption."""
    words = caption.split()
    spans = find_mentions(caption, shown)
    return {group: " ".join(words[first:last]) for group, (first, last) in spans.items()}


def test_a_mention_is_the_noun_with_its_colours_and_pattern():
    caption = (
        "The man has short black hair and is wearing a dark blue and gray plaid shirt and "
        "gray jeans."
    )
    shown = {"hair": "short", "upper": "shirt", "lower": "jeans", "bag": "backpack"}
    assert named(caption, shown) == {
        "hair": "short black hair",
        "upper": "dark blue and gray plaid shirt",
        "lower": "gray jeans.",
    }


def test_a_noun_may_have_several_words():
    caption = "A woman wears a t-shirt. She also has sports shoes on."
    shown = {"upper": "t-shirt", "shoes": "sneakers"}
    assert named(caption, shown) == {"upper": "t-shirt.", "shoes": "sports shoes"}


def test_what_is_under_a_jacket_is_no_mention():
    caption = "A guy with a beanie hat and red and white striped jacket over a white t-shirt."
    shown = {"headwear": "beanie", "upper": "jacket", "inner": "t-shirt"}
    assert named(caption, shown) == {
        "headwear": "beanie hat",
        "upper": "red and white striped jacket",
    }


def test_an_empty_caption_mentions_nothing():
    assert named("", {"upper": "coat"}) == {}


@pytest.fixture(scope="module", params=["A", "B", "C"])
def data(request, tmp_path_factory) -> PersonRetrievalDataset:
    folder = tmp_path_factory.mktemp("data")
    name = f"SynthPEDES-{request.param}"
    synthetic_dataset(name, folder, identities=(2, 1, 12))
    return load_dataset(name, folder)


def test_every_domain_s_captions_are_understood(data):
    images = range(len(data.test.image_paths))
    mentions = mentions_of(data, images)
    assert {"upper", "lower", "shoes", "hair"} <= {mention.part for mention in mentions}
    assert len(mentions) > 2 * len(images)
    for mention in mentions:
        first, last = mention.span
        assert 0 <= first < last
        assert mention.mask.shape == (256, 128) and mention.mask.any()
        assert mention.identity == data.test.image_identities[mention.image]
        assert mention.caption in data.test.captions


def test_captions_nearly_always_name_the_upper_garment(data):
    images = range(len(data.test.image_paths))
    rows = attribute_rows(data, images)
    showing = {image for image in images if "upper" in rows[image]["shown"]}
    mentions = mentions_of(data, images)
    naming = {mention.image for mention in mentions if mention.part == "upper"}
    assert len(naming & showing) > 0.9 * len(showing)


def test_mentions_are_found_again(data):
    for first, second in zip(mentions_of(data, [0, 1]), mentions_of(data, [0, 1]), strict=True):
        assert first.span == second.span
        assert np.array_equal(first.mask, second.mask)


def test_only_synthpedes_has_mentions(data):
    real = dataclasses.replace(data, name="CUHK-PEDES")
    with pytest.raises(DataError, match="only SynthPEDES"):
        mentions_of(real, [0])
