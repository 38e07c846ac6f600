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
    captions = [f"caption {number}" for number in range(len(caption_images))]
    paths = [Path(f"{identity}.png") for identity in identities]
    return Split("train", tuple(paths), identities, tuple(captions), caption_images)


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
    wrong = wrong_captions(split, draw_sources(split, share, seed)).sum()
    assert wrong <= chosen
    if 2 * np.bincount(split.caption_identities).max() <= chosen:
        assert wrong == chosen


@given(SPLITS, SEEDS)
def test_of_all_captions_only_those_stay_right_that_have_nowhere_to_go(split, seed):
    """Of n captions k are of one identity: 2k - n of them find no other image free."""
    most = np.bincount(split.caption_identities).max()
    wrong = wrong_captions(split, draw_sources(split, 1.0, seed)).sum()
    assert wrong == min(len(split), 2 * (len(split) - most))


@given(st.integers(4, 40), SHARES, SHARES, SEEDS)
def test_the_captions_of_a_smaller_share_are_among_those_of_a_larger_one(count, one, other, seed):
    split = people([1] * count)
    small, large = sorted((one, other))
    few = wrong_captions(split, draw_sources(split, small, seed))
    many = wrong_captions(split, draw_sources(split, large, seed))
    assert (few <= many).all()


def test_the_seed_decides_which_captions_move():
    split = people([2] * 50)
    first = draw_sources(split, 0.5, 0)
    assert (first == draw_sources(split, 0.5, 0)).all()
    assert (first != draw_sources(split, 0.5, 1)).any()


def test_the_text_moves_and_the_label_stays_with_the_image():
    split = people([1, 1, 1])
    moved = move_captions(split, np.array([2, 0, 1]))
    assert moved.captions == ("caption 2", "caption 0", "caption 1")
    assert moved.caption_identities.tolist() == [0, 1, 2]


# What a run trains on


def test_without_noise_a_run_trains_on_the_captions_as_they_are():
    split = people([2, 2])
    assert training_captions(split, TrainConfig.mini()) == (split, None)


def test_the_facts_tell_captions_moved_from_captions_at_another_person(tmp_path):
    path = tmp_path / "index.npy"
    np.save(path, [1, 0, 2, 4, 3])  # within the first person, then between the others
    split, facts = training_captions(people([2, 2, 1]), TrainConfig.mini(noise_index=str(path)))
    assert split.captions[3:] == ("caption 4", "caption 3")
    assert facts == {"captions": 5, "moved": 4, "wrong": 2, "wrong_share": 0.4}


def test_noise_is_a_share_of_the_captions_that_are_used():
    config = TrainConfig.mini(noise=0.5, train_fraction=0.5)
    split, facts = training_captions(people([2] * 20), config)
    assert len(split) == 20
    assert facts == {"captions": 20, "moved": 10, "wrong": 10, "wrong_share": 0.5}


# Index files


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint64"])
def test_an_index_file_says_which_caption_goes_where(tmp_path, dtype):
    path = tmp_path / "index.npy"
    np.save(path, np.array([0, 3, 2, 1], dtype=dtype))
    sources = read_noise_index(path, people([2, 2]))
    assert sources.tolist() == [0, 3, 2, 1]
    assert sources.dtype == np.int64


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([0, 1, 2], "has 3 entries but training has 4 captions; give the file made for this data"),
        ([0.0, 1.0, 2.0, 3.0], "is not one row of integers; give a .npy file of caption indices"),
        ([[0, 1], [2, 3]], "is not one row of integers"),
        ([0, 1, 2, 4], "entry 3: 4 is not a caption from 0 to 3; give the file made"),
        ([0, 1, -1, 2], "entry 2: -1 is not a caption from 0 to 3"),
        ([0, 1, 1, 3], "never names caption 2 and names another one twice; give a file that"),
    ],
)
def test_an_index_file_that_does_not_fit_is_refused_in_one_sentence(tmp_path, entries, message):
    path = tmp_path / "index.npy"
    np.save(path, entries)
    with pytest.raises(DataError, match=f"^noise index {path}.* {message}") as caught:
        read_noise_index(path, people([2, 2]))
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"[0, 1]"])
def test_an_index_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "index.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"^noise index {path} cannot be read .*; give a .npy file"):
        read_noise_index(path, people([2, 2]))
