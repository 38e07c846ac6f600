"""Mentions are the words that name a part, and their masks are the renderer's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cskt import CSKTError, load_dataset
from cskt.data.synthetic import synthetic_dataset
from cskt.data.synthetic.mentions import attribute_rows, find_mentions, mentions_of


@pytest.mark.parametrize(
    ("caption", "shown", "expected"),
    [
        (
            "The man has short black hair and is wearing a dark blue and gray plaid shirt and gray jeans.",
            {"hair": "short", "upper": "shirt", "lower": "jeans", "bag": "backpack"},
            {
                "hair": "short black hair",
                "upper": "dark blue and gray plaid shirt",
                "lower": "gray jeans.",
            },
        ),
        (
            "A woman wears a t-shirt. She also has sports shoes on.",
            {"upper": "t-shirt", "shoes": "sneakers"},
            {"upper": "t-shirt.", "shoes": "sports shoes"},
        ),
        (
            "A guy with a beanie hat and red and white striped jacket over a white t-shirt.",
            {"headwear": "beanie", "upper": "jacket", "inner": "t-shirt"},
            {"headwear": "beanie hat", "upper": "red and white striped jacket"},
        ),
        ("", {"upper": "coat"}, {}),
    ],
)
def test_words_that_name_a_part(caption, shown, expected):
    words = caption.split()
    found = find_mentions(caption, shown)
    assert {part: " ".join(words[first:last]) for part, (first, last) in found.items()} == expected


@pytest.mark.parametrize("domain", ["A", "B", "C"])
def test_every_domain_s_captions_are_understood(domain, tmp_path):
    synthetic_dataset(f"SynthPEDES-{domain}", tmp_path, identities=(2, 1, 12))
    data = load_dataset(f"SynthPEDES-{domain}", tmp_path)
    images = list(range(len(data.test.image_paths)))
    mentions = mentions_of(data, images)
    parts = {mention.part for mention in mentions}
    assert {"upper", "lower", "shoes", "hair"} <= parts and len(mentions) > 2 * len(images)
    for mention in mentions:
        assert mention.mask.shape == (256, 128) and mention.mask.any()
        assert mention.identity == data.test.image_identities[mention.image]
        assert mention.caption in data.test.captions and 0 <= mention.span[0] < mention.span[1]
    upper = {m.image for m in mentions if m.part == "upper"}
    shows = [i for i, row in enumerate(attribute_rows(data, images)) if "upper" in row["shown"]]
    assert len(upper & set(shows)) > 0.9 * len(shows), (
        "captions nearly always name the upper garment"
    )
    again = mentions_of(data, images[:2])
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(again, mentions, strict=False))
    with pytest.raises(CSKTError, match="only SynthPEDES"):
        mentions_of(dataclasses.replace(data, name="CUHK-PEDES"), [0])
