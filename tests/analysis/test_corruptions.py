"""Corruptions of captions and images: nothing at their null level, and what each one does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cskt.analysis import corruptions
from cskt.analysis.corruptions import (
    LEVELS,
    NULL,
    OF_CAPTIONS,
    OF_IMAGES,
    drop_words,
    shuffle_words,
    swap_synonyms,
)

CAPTION = "A man in a red coat with a black hat and white shoes."
SYNONYMS = {"coat": ["jacket"], "red coat": ["crimson coat"], "a": ["some"]}
SEED = (0, 0, 0)
SEEDS = st.tuples(st.integers(0, 3), st.integers(0, 2**32 - 1), st.integers(0, 9))
TEXTS = st.lists(st.text("abcxyz.,", min_size=1), max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """(3, 40, 20) uint8: a bright square on a gradient."""
    rows = torch.arange(0, 160, 4, dtype=torch.uint8)
    image = rows[:, None].repeat(3, 1, 20)
    image[0, 10:20, 5:15] = 250
    return image


# Both


@pytest.mark.parametrize("name", OF_CAPTIONS)
@given(caption=TEXTS, seed=SEEDS)
def test_a_caption_at_the_null_level_is_as_it_was(name, caption, seed):
    assert OF_CAPTIONS[name](caption, NULL[name], seed) == caption


@pytest.mark.parametrize("name", OF_IMAGES)
def test_an_image_at_the_null_level_is_as_it_was(image, name):
    unchanged = OF_IMAGES[name](image, NULL[name], SEED)
    assert torch.equal(unchanged, image)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_level_makes_another_picture_of_the_same_size_and_leaves_the_first_alone(image, name):
    before = image.clone()
    losses = []
    for level in LEVELS[name]:
        changed = OF_IMAGES[name](image, level, SEED)
        assert changed.shape == image.shape
        assert changed.dtype == torch.uint8
        difference = changed.float() - image.float()
        losses.append(difference.abs().mean().item())
    assert torch.equal(image, before)
    assert losses[0] > 0
    assert losses == sorted(losses), "each level is worse than the one before"


@pytest.mark.parametrize("name", OF_CAPTIONS)
def test_a_seed_draws_one_thing_and_others_another(name):
    corrupt = OF_CAPTIONS[name]
    level = LEVELS[name][-1]
    texts = [corrupt(CAPTION, level, (0, 0, index)) for index in range(8)]
    assert texts[0] == corrupt(CAPTION, level, SEED)
    assert len(set(texts)) > 4


# Captions


@given(caption=TEXTS, seed=SEEDS, share=st.floats(0, 1))
def test_dropped_words_leave_the_others_in_their_order(caption, seed, share):
    words = caption.split()
    kept = drop_words(caption, share, seed).split()
    remaining = iter(words)
    for word in kept:
        assert word in remaining, "the iterator goes on behind the word before"
    expected = len(words) - round(share * len(words))
    at_least = min(1, len(words))
    assert len(kept) == max(expected, at_least)


@given(seed=SEEDS)
def test_what_a_smaller_share_drops_a_larger_one_drops_too(seed):
    distinct = " ".join(map(str, range(20)))
    after_few = drop_words(distinct, 0.2, seed)
    after_many = drop_words(distinct, 0.5, seed)
    assert set(after_many.split()) < set(after_few.split())


@given(caption=TEXTS, seed=SEEDS, share=st.floats(0, 1))
def test_shuffled_words_are_the_same_words(caption, seed, share):
    shuffled = shuffle_words(caption, share, seed).split()
    words = caption.split()
    assert sorted(shuffled) == sorted(words)
    moved = [word for word, other in zip(shuffled, words, strict=True) if word != other]
    assert len(moved) <= round(share * len(words))


def test_the_longest_phrase_is_swapped_and_a_capital_stays():
    swapped = swap_synonyms(CAPTION, 1.0, SEED, SYNONYMS)
    assert swapped == "Some man in some crimson coat with some black hat and white shoes."


def test_a_word_within_another_is_no_word():
    text = "raincoat, coat-hanger and coats"
    swapped = swap_synonyms(text, 1.0, SEED, {"coat": ["jacket"]})
    assert swapped == "raincoat, jacket-hanger and coats"


def test_a_share_of_the_words_that_have_synonyms_is_swapped():
    caption = 400 * "coat "
    swapped = swap_synonyms(caption, 0.5, SEED, {"coat": ["jacket", "parka"]})
    assert 150 < swapped.count("coat") < 250
    assert 70 < swapped.count("parka") < 130
    assert swap_synonyms(caption, 0.0, SEED, SYNONYMS) == caption


# Images


def test_low_resolution_knows_no_detail():
    board = torch.zeros(3, 32, 16, dtype=torch.uint8)
    board[:, ::2, ::2] = 200
    board[:, 1::2, 1::2] = 200
    flat = corruptions.lower_resolution(board, 4, SEED)
    assert flat.float().std() < 10
    assert flat.float().mean() == pytest.approx(100, abs=2)


def test_blur_spreads_a_point_and_keeps_its_light():
    point = torch.zeros(3, 101, 101, dtype=torch.uint8)
    point[:, 50, 50] = 255
    spread = corruptions.blur(point, 0.01, SEED)[0].float()
    of_gaussian = 255 / (2 * torch.pi * 1.01**2)
    assert spread[50, 50] == pytest.approx(of_gaussian, rel=0.1)
    assert spread.sum() == pytest.approx(255, rel=0.1)


def test_noise_is_as_wide_as_its_sigma():
    grey = torch.full((3, 100, 100), 127, dtype=torch.uint8)
    noisy = corruptions.add_noise(grey, 0.1, SEED)
    assert noisy.float().std() == pytest.approx(25.5, rel=0.03)
    other = corruptions.add_noise(grey, 0.1, (0, 0, 1))
    assert not torch.equal(noisy, other)


def test_darkness_takes_a_share_of_the_light(image):
    dark = corruptions.darken(image, 0.4, SEED)
    expected = 0.6 * image.float()
    torch.testing.assert_close(dark.float(), expected, rtol=0, atol=1)


def test_what_is_hidden_is_grey_and_the_rest_as_it_was(image):
    heights = [10, 20, 10]
    top, middle, bottom = image.split(heights, dim=1)
    hidden, *rest = corruptions.hide_upper(image, 0.25, SEED).split(heights, dim=1)
    assert hidden.unique().tolist() == [corruptions.GREY]
    assert torch.equal(torch.cat(rest, dim=1), torch.cat([middle, bottom], dim=1))
    *rest, hidden = corruptions.hide_lower(image, 0.25, SEED).split(heights, dim=1)
    assert hidden.unique().tolist() == [corruptions.GREY]
    assert torch.equal(torch.cat(rest, dim=1), torch.cat([top, middle], dim=1))
