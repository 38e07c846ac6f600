"""Captions at wrong images: how many, whose, which, and the files that say so."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cskt.config import TrainConfig
from cskt.data.datasets import Split
from cskt.data.noise import (
    draw_sources,
    move_captions,
    read_noise_index,
    training_captions,
    wrong_captions,
)
from cskt.errors import DataError

SHARES = st.floats(0, 1)
SEEDS = st.integers(0, 20)


def people(captions_of):
    """A split with an image for each identity, ``captions_of[k]`` captions of the k-th."""
    identities = np.arange(len(captions_of))
    caption_images = np.repeat(identities, captions_of)
    captions = tuple(f"caption {number}" for number in range(len(caption_images)))
    return Split(
        name="train",
        image_paths=tuple(Path(f"{identity}.png") for identity in identities),
        image_identities=identities,
        captions=captions,
        caption_images=caption_images,
    )


@pytest.fixture
def index(tmp_path):
    """Where the file lies whose entries a test writes."""
    return tmp_path / "index.npy"


SPLITS = st.lists(st.integers(1, 6), min_size=1, max_size=8).map(people)


@given(SPLITS, SHARES, SEEDS)
def test_every_caption_is_kept_once_and_no_image_changes(split, share, seed):
    sources = draw_sources(split, share, seed)
    moved = move_captions(split, sources)
    assert sorted(moved.captions) == sorted(split.captions)
    assert moved.caption_images is split.caption_images
    assert moved.image_identities is split.image_identities


@given(SPLITS, SHARES, SEEDS)
def test_no_more_than_the_share_is_wrong_and_all_of_it_where_people_are_many(split, share, seed):
    chosen = round(share * len(split))
    sources = draw_sources(split, share, seed)
    wrong = wrong_captions(split, sources).sum()
    assert wrong <= chosen
    most = np.bincount(split.caption_identities).max()
    if 2 * most <= chosen:
        assert wrong == chosen


@given(SPLITS, SEEDS)
def test_of_all_captions_only_those_stay_right_that_have_nowhere_to_go(split, seed):
    """Of n captions k are of one identity: 2k - n of them find no other image free."""
    most = np.bincount(split.caption_identities).max()
    stuck = max(0, 2 * most - len(split))
    sources = draw_sources(split, 1.0, seed)
    wrong = wrong_captions(split, sources).sum()
    assert wrong == len(split) - stuck


@given(st.integers(4, 40), SHARES, SHARES, SEEDS)
def test_the_captions_of_a_smaller_share_are_among_those_of_a_larger_one(count, one, other, seed):
    split = people([1] * count)
    small, large = sorted((one, other))
    of_small = draw_sources(split, small, seed)
    of_large = draw_sources(split, large, seed)
    few = wrong_captions(split, of_small)
    many = wrong_captions(split, of_large)
    assert many[few].all()


def test_the_seed_decides_which_captions_move():
    split = people([2] * 50)
    first = draw_sources(split, 0.5, 0)
    assert (first == draw_sources(split, 0.5, 0)).all()
    assert (first != draw_sources(split, 0.5, 1)).any()


def test_the_text_moves_and_the_label_stays_with_the_image():
    split = people([1, 1, 1])
    sources = np.array([2, 0, 1])
    moved = move_captions(split, sources)
    assert moved.captions == ("caption 2", "caption 0", "caption 1")
    assert list(moved.caption_identities) == [0, 1, 2]


# What a run trains on


def test_without_noise_a_run_trains_on_the_captions_as_they_are():
    split = people([2, 2])
    assert training_captions(split, TrainConfig.mini()) == (split, None)


def test_the_facts_tell_captions_moved_from_captions_at_another_person(index):
    np.save(index, [1, 0, 2, 4, 3])  # within the first person, then between the others
    config = TrainConfig.mini(noise_index=str(index))
    split, facts = training_captions(people([2, 2, 1]), config)
    assert split.captions[3:] == ("caption 4", "caption 3")
    assert facts == {"captions": 5, "moved": 4, "wrong": 2, "wrong_share": 0.4}


def test_noise_is_a_share_of_the_captions_that_are_used():
    config = TrainConfig.mini(noise=0.5, train_fraction=0.5)
    split, facts = training_captions(people([2] * 20), config)
    assert len(split) == 20
    assert facts == {"captions": 20, "moved": 10, "wrong": 10, "wrong_share": 0.5}


# Index files


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint64"])
def test_an_index_file_says_which_caption_goes_where(index, dtype):
    entries = np.array([0, 3, 2, 1], dtype=dtype)
    np.save(index, entries)
    sources = read_noise_index(index, people([2, 2]))
    assert list(sources) == [0, 3, 2, 1]
    assert sources.dtype == np.int64


REFUSED = {
    "has 3 entries but training has 4 captions; give the file made for this data": [0, 1, 2],
    "is not one row of integers; give a .npy file of caption indices": [0.0, 1.0, 2.0, 3.0],
    "is not one row of integers": [[0, 1], [2, 3]],
    "entry 3: 4 is not a caption from 0 to 3; give the file made": [0, 1, 2, 4],
    "entry 2: -1 is not a caption from 0 to 3": [0, 1, -1, 2],
    "never names caption 2 and names another one twice; give a file that": [0, 1, 1, 3],
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_index_file_that_does_not_fit_is_refused_in_one_sentence(index, message):
    np.save(index, REFUSED[message])
    with pytest.raises(DataError) as caught:
        read_noise_index(index, people([2, 2]))
    text = str(caught.value)
    assert text.startswith(f"noise index {index}")
    assert message in text
    assert ". " not in text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"[0, 1]"])
def test_an_index_file_that_cannot_be_read_is_named(index, content):
    index.write_bytes(content)
    with pytest.raises(DataError, match=f"^noise index {index} cannot be read .*; give a .npy"):
        read_noise_index(index, people([2, 2]))


def test_an_index_file_that_is_not_there_is_named(index):
    with pytest.raises(DataError, match=f"^noise index {index} cannot be read"):
        read_noise_index(index, people([2, 2]))
