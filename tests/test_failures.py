"""What failed queries have in common: counted on a small SynthPEDES against the attribute table
read by hand."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cskt import CSKTError, failures, load_dataset
from cskt.data.synthetic import synthetic_dataset

from .tiny_runs import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    synthetic_dataset("SynthPEDES-A", folder, identities=(4, 2, 12))
    return load_dataset("SynthPEDES-A", folder)


@pytest.fixture(scope="module")
def attributes(data):
    """What the person in each test image wears."""
    rows = json.loads((data.root / "attributes.json").read_text())
    by_path = {row["path"]: row["attributes"] for row in rows}
    images = data.root / "imgs"
    return [by_path[path.relative_to(images).as_posix()] for path in data.test.image_paths]


def similarity(data, first: np.ndarray) -> torch.Tensor:
    """(M, N) with image ``first[m]`` first for caption m."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(len(data.test), len(data.test.image_paths), generator=generator) / 2
    matrix[torch.arange(len(first)), torch.from_numpy(first)] = 1.0
    return matrix


def wrong_images(split) -> np.ndarray:
    """(M,): for each caption, the first image of somebody else."""
    wrong = []
    for identity in split.caption_identities:
        wrong.append(np.flatnonzero(split.image_identities != identity)[0])
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


def test_another_gender_is_another_kind(missed_by_image):
    for described, other, missed in missed_by_image:
        same = described["gender"] == other["gender"]
        assert missed["gender"] == ("" if same else "kind")


def test_a_bag_of_another_colour_is_another_look(missed_by_image):
    for described, other, missed in missed_by_image:
        if described["bag"] != other["bag"]:
            assert missed["bag"] == "kind"
        elif described["bag_colour"] != other["bag_colour"]:
            assert missed["bag"] == "look"
        else:
            assert missed["bag"] == ""


def test_the_colour_of_a_pattern_counts_only_where_there_is_one(missed_by_image):
    for described, other, missed in missed_by_image:
        same_colour = described["upper_colour"] == other["upper_colour"]
        same_cloth = described["pattern"] == other["pattern"]
        if described["pattern"] != "plain":
            same_cloth = same_cloth and described["pattern_colour"] == other["pattern_colour"]
        if described["upper"] != other["upper"]:
            assert missed["upper"] == "kind"
        else:
            assert missed["upper"] == ("" if same_cloth and same_colour else "look")


def test_nobody_lacks_what_they_wear_themselves(data):
    missed = failures.missed_parts(data, data.test.caption_images)
    assert (missed == "").all(axis=None)


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


@pytest.mark.parametrize("part", list(failures.PARTS))
def test_the_table_counts_failures_only(data, part):
    failed, first = failing(data.test, every=3)
    row = failures.failure_table(data, similarity(data, first)).set_index("part").loc[part]
    named = failures.named_parts(data)[part].to_numpy()
    lacking = failures.missed_parts(data, first)[part][failed & named]
    assert row["failed"] == len(lacking)
    assert row["named"] == pytest.approx(100 * named.mean())
    if len(lacking):
        assert row["missed"] == pytest.approx(100 * (lacking != "").mean())
        assert row["kind"] + row["look"] == pytest.approx(row["missed"])
        assert row["R@1 named"] == pytest.approx(100 * (~failed[named]).mean())
        difference = row["missed"] - row["by chance"]
        assert row["low"] - 1e-9 <= difference <= row["high"] + 1e-9


def test_recall_by_the_number_of_parts_counts_every_caption(data):
    failed, first = failing(data.test, every=3)
    table = failures.recall_by_parts(data, similarity(data, first))
    captions = table["captions"]
    assert captions.sum() == len(data.test)
    mean = (table["R@1"] * captions).sum() / len(data.test)
    assert mean == pytest.approx(100 * (~failed).mean())


# The sentences


def test_sentences_give_the_same_numbers(data):
    failed, first = failing(data.test, every=2)
    count = len(data.test)
    lines = failures.failure_findings(data, similarity(data, first))
    assert lines[0].startswith(f"{failed.sum()} of {count} captions (50.0%)")
    named = failures.named_parts(data).to_numpy()
    missed = failures.missed_parts(data, first).to_numpy() != ""
    lacking = (named & missed)[failed].sum(axis=1)
    assert f"lacks {lacking.mean():.2f}," in lines[1]
    assert f"{100 * (lacking == 0).mean():.1f}% lack nothing" in lines[1]


def test_all_right_and_all_wrong_are_said(data):
    right = similarity(data, data.test.caption_images)
    assert failures.failure_findings(data, right) == ["No query failed."]
    wrong = similarity(data, wrong_images(data.test))
    assert failures.failure_findings(data, wrong) == ["Every query failed."]


# Captions of people who are not in the gallery: neither a success nor a failure


@pytest.fixture(scope="module")
def incomplete(data):
    """The data without the first person's images in the gallery, the similarities, and which
    captions describe somebody else."""
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
    _, first = failing(split, every=2)
    known = split.caption_identities != gone
    assert 0 < known.sum() < len(split)
    return dataclasses.replace(data, test=test), similarity(data, first), known


def test_the_table_leaves_them_out(data, incomplete):
    changed, scores, known = incomplete
    failed = failing(data.test, every=2)[0][known]
    named = failures.named_parts(data)[known]
    table = failures.failure_table(changed, scores).set_index("part")
    for part in failures.PARTS:
        is_named = named[part].to_numpy()
        assert table.loc[part, "failed"] == (is_named & failed).sum()
        if is_named.any():
            recall = 100 * (~failed[is_named]).mean()
            assert table.loc[part, "R@1 named"] == pytest.approx(recall)


def test_the_sentences_say_how_many_are_left_out(data, incomplete):
    changed, scores, known = incomplete
    failed = failing(data.test, every=2)[0][known]
    lines = failures.failure_findings(changed, scores)
    assert lines[0].startswith(f"{(~known).sum()} of {len(known)} captions are left out")
    assert lines[1].startswith(f"{failed.sum()} of {len(failed)} captions ")


def test_recall_leaves_them_out(data, incomplete):
    changed, scores, known = incomplete
    failed = failing(data.test, every=2)[0][known]
    table = failures.recall_by_parts(changed, scores)
    assert table["captions"].sum() == len(failed)
    mean = (table["R@1"] * table["captions"]).sum() / len(failed)
    assert mean == pytest.approx(100 * (~failed).mean())


def test_strangers_are_other_people(data):
    split = data.test
    images = failures.random_strangers(split.caption_identities, split.image_identities, 0)
    assert (split.image_identities[images] != split.caption_identities).all()
    assert len(set(images)) > len(images) / 4


def test_only_drawn_people_have_known_attributes(tmp_path):
    real = load_dataset("CUHK-PEDES", write_dataset(tmp_path))
    with pytest.raises(CSKTError, match="no attribute table"):
        failures.named_parts(real)
