"""What failed queries have in common: counted on a small SynthPEDES against the attribute table
read by hand."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cskt import CSKTError, load_dataset
from cskt.analysis import failures
from cskt.synthetic import synthetic_dataset
from tests.tiny_runs import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    synthetic_dataset("SynthPEDES-A", folder, identities=(4, 2, 12))
    return load_dataset("SynthPEDES-A", folder)


@pytest.fixture(scope="module")
def attributes(data):
    """What the person in each test image wears."""
    file = data.root / "attributes.json"
    rows = json.loads(file.read_text())
    by_path = {row["path"]: row["attributes"] for row in rows}
    folder = data.root / "imgs"
    worn = []
    for path in data.test.image_paths:
        name = path.relative_to(folder).as_posix()
        worn.append(by_path[name])
    return worn


def similarity(data, first: np.ndarray) -> torch.Tensor:
    """(M, N) with image ``first[m]`` first for caption m."""
    captions = len(data.test)
    images = len(data.test.image_paths)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(captions, images, generator=generator) / 2
    matrix[torch.arange(captions), torch.from_numpy(first)] = 1.0
    return matrix


def wrong_images(split) -> np.ndarray:
    """(M,): for each caption, the first image of somebody else."""
    wrong = []
    for identity in split.caption_identities:
        is_other = split.image_identities != identity
        wrong.append(is_other.argmax())
    return np.array(wrong)


def failing(split, every: int) -> tuple[np.ndarray, np.ndarray]:
    """(M,) bool: each so manieth caption; and first hits that are wrong for these only."""
    fails = np.arange(len(split)) % every == 0
    return fails, np.where(fails, wrong_images(split), split.caption_images)


# What a person lacks


@pytest.fixture(scope="module")
def missed_by_image(data, attributes):
    """Pairs of what a caption's person and another one wear, and the row of what the latter
    lacks."""
    images = np.random.default_rng(0).integers(len(attributes), size=len(data.test))
    missed = failures.missed_parts(data, images)
    pairs = []
    for caption, image in enumerate(images):
        described = attributes[data.test.caption_images[caption]]
        pairs.append((described, attributes[image], missed.iloc[caption]))
    return pairs


@pytest.mark.parametrize("part", ["gender", "bag"])
def test_another_kind_or_colour_is_missed(missed_by_image, part):
    outcomes = set()
    for described, other, missed in missed_by_image:
        same = described[part] == other[part]
        if part == "bag":
            same = same and described["bag_colour"] == other["bag_colour"]
        assert missed[part] != same
        outcomes.add(same)
    assert outcomes == {True, False}, "both are tried"


def test_the_colour_of_a_pattern_counts_only_where_there_is_one(missed_by_image):
    for described, other, missed in missed_by_image:
        looks = ["upper_colour", "pattern"]
        if described["pattern"] != "plain":
            looks.append("pattern_colour")
        looks.append("upper")
        assert missed["upper"] == any(described[look] != other[look] for look in looks)


def test_nobody_lacks_what_they_wear_themselves(data):
    missed = failures.missed_parts(data, data.test.caption_images)
    assert not missed.any(axis=None)


# What a caption names


def test_every_caption_names_the_gender(data):
    named = failures.named_parts(data)
    assert list(named) == list(failures.PARTS)
    assert len(named) == len(data.test)
    assert named["gender"].all()


@pytest.mark.parametrize(
    ("part", "word"), [("umbrella", "umbrella"), ("scarf", "scarf"), ("headwear", "cap")]
)
def test_a_part_is_named_where_its_word_stands(data, part, word):
    named = failures.named_parts(data)[part]
    for caption, is_named in zip(data.test.captions, named, strict=True):
        assert is_named or word not in caption.lower().split()


def test_nothing_is_named_that_nobody_wears(data, attributes):
    named = failures.named_parts(data)["bag"]
    for image, is_named in zip(data.test.caption_images, named, strict=True):
        assert not is_named or attributes[image]["bag"] != "none"


# The table


@pytest.fixture(scope="module")
def third(data):
    """Every third caption fails: which, the first hits, and the table."""
    failed, first = failing(data.test, every=3)
    table = failures.failure_table(data, similarity(data, first))
    return failed, first, table.set_index("part")


@pytest.mark.parametrize("part", list(failures.PARTS))
def test_the_table_counts_failures_only(data, third, part):
    failed, first, table = third
    row = table.loc[part]
    named = failures.named_parts(data)[part].to_numpy()
    missed = failures.missed_parts(data, first)[part]
    lacking = missed[failed & named]
    assert row["failed"] == len(lacking)
    assert row["named"] == pytest.approx(100 * named.mean())
    if row["failed"] > 0:
        assert row["missed"] == pytest.approx(100 * lacking.mean())
        recall = 1 - failed[named].mean()
        assert row["R@1 named"] == pytest.approx(100 * recall)


def test_the_interval_holds_the_difference_from_chance(third):
    table = third[2].query("failed > 0")
    difference = table["missed"] - table["by chance"]
    assert (table["low"] - 1e-9 <= difference).all()
    assert (difference <= table["high"] + 1e-9).all()


def mean_recall(table) -> float:
    """Over all captions, of those by the number of parts."""
    return np.average(table["R@1"], weights=table["captions"])


def test_recall_by_the_number_of_parts_counts_every_caption(data, third):
    failed, first, _ = third
    table = failures.recall_by_parts(data, similarity(data, first))
    assert table["captions"].sum() == len(data.test)
    assert mean_recall(table) == pytest.approx(100 * (1 - failed.mean()))


# Captions of people who are not in the gallery: neither a success nor a failure


@pytest.fixture(scope="module")
def incomplete(data):
    """The data without the first person's images in the gallery, the similarities, which captions
    describe somebody else, and whether each of these fails."""
    split = data.test
    gone = split.image_identities[0]
    identities = np.where(split.image_identities == gone, -1, split.image_identities)
    test = SimpleNamespace(
        captions=split.captions,
        caption_images=split.caption_images,
        caption_identities=split.caption_identities,
        image_paths=split.image_paths,
        image_identities=identities,
    )
    failed, first = failing(split, every=2)
    known = split.caption_identities != gone
    assert 0 < known.sum() < len(split)
    changed = dataclasses.replace(data, test=test)
    return changed, similarity(data, first), known, failed[known]


def test_the_table_leaves_them_out(data, incomplete):
    changed, scores, known, failed = incomplete
    named = failures.named_parts(data)[known]
    table = failures.failure_table(changed, scores).set_index("part")
    for part, row in table.iterrows():
        fails = failed[named[part]]
        assert row["failed"] == fails.sum()
        if len(fails):
            recall = 100 * (1 - fails.mean())
            assert row["R@1 named"] == pytest.approx(recall)


def test_recall_leaves_them_out(incomplete):
    changed, scores, _, failed = incomplete
    table = failures.recall_by_parts(changed, scores)
    assert table["captions"].sum() == len(failed)
    assert mean_recall(table) == pytest.approx(100 * (1 - failed.mean()))


def test_strangers_are_other_people(data):
    split = data.test
    wanted = split.caption_identities
    images = failures.random_strangers(wanted, split.image_identities, seed=0)
    drawn = split.image_identities[images]
    assert (drawn != wanted).all()
    assert len(set(images)) > len(images) / 4


def test_only_drawn_people_have_known_attributes(tmp_path):
    real = load_dataset("CUHK-PEDES", write_dataset(tmp_path))
    with pytest.raises(CSKTError, match="no attribute table"):
        failures.named_parts(real)
