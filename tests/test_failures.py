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
def rows(data):
    """The attribute table, a row per test image."""
    table = {row["path"]: row for row in json.loads((data.root / "attributes.json").read_text())}
    return [
        table[path.relative_to(data.root / "imgs").as_posix()] for path in data.test.image_paths
    ]


def similarity(data, first: np.ndarray) -> torch.Tensor:
    """(M, N) with image ``first[m]`` first for caption m."""
    matrix = (
        torch.rand(
            len(data.test), len(data.test.image_paths), generator=torch.Generator().manual_seed(0)
        )
        / 2
    )
    matrix[torch.arange(len(first)), torch.from_numpy(first)] = 1.0
    return matrix


def test_a_person_lacks_what_the_attributes_say(data, rows):
    images = np.random.default_rng(0).integers(len(rows), size=len(data.test))
    missed = failures.missed_parts(data, images)
    for caption, image in enumerate(images):
        wanted, found = (
            rows[data.test.caption_images[caption]]["attributes"],
            rows[image]["attributes"],
        )
        assert missed["bag"][caption] == (
            "kind"
            if wanted["bag"] != found["bag"]
            else "look"
            if wanted["bag_colour"] != found["bag_colour"]
            else ""
        )
        assert missed["gender"][caption] == ("" if wanted["gender"] == found["gender"] else "kind")
        same_cloth = wanted["pattern"] == found["pattern"] and (
            wanted["pattern"] == "plain" or wanted["pattern_colour"] == found["pattern_colour"]
        )
        same_colour = wanted["upper_colour"] == found["upper_colour"]
        assert missed["upper"][caption] == (
            "kind"
            if wanted["upper"] != found["upper"]
            else ""
            if same_cloth and same_colour
            else "look"
        )
    assert (failures.missed_parts(data, data.test.caption_images) == "").all(axis=None)


def test_parts_are_named_where_their_words_stand(data, rows):
    named = failures.named_parts(data)
    assert (
        list(named) == list(failures.PARTS)
        and named["gender"].all()
        and len(named) == len(data.test)
    )
    for part, word in (("umbrella", "umbrella"), ("scarf", "scarf"), ("headwear", "cap")):
        for caption, says in zip(data.test.captions, named[part], strict=True):
            assert says or word not in caption.lower().split()
    for caption, image, says in zip(
        data.test.captions, data.test.caption_images, named["bag"], strict=True
    ):
        assert not says or rows[image]["attributes"]["bag"] != "none", caption


def test_the_table_counts_failures_only(data):
    split = data.test
    right, people = split.caption_images, split.image_identities
    wrong = np.array(
        [np.flatnonzero(people != identity)[0] for identity in split.caption_identities]
    )
    first = np.where(np.arange(len(split)) % 3 == 0, wrong, right)
    table = failures.failure_table(data, similarity(data, first)).set_index("part")
    named, missed = failures.named_parts(data), failures.missed_parts(data, first)
    failed = np.arange(len(split)) % 3 == 0
    for part in failures.PARTS:
        asked = failed & named[part].to_numpy()
        assert table.loc[part, "failed"] == asked.sum()
        assert table.loc[part, "named"] == pytest.approx(100 * named[part].mean())
        if asked.any():
            lacking = missed[part][asked]
            assert table.loc[part, "missed"] == pytest.approx(100 * (lacking != "").mean())
            assert table.loc[part, "kind"] + table.loc[part, "look"] == pytest.approx(
                table.loc[part, "missed"]
            )
            assert table.loc[part, "R@1 named"] == pytest.approx(
                100 * (~failed[named[part]]).mean()
            )
            assert (
                table.loc[part, "low"]
                <= table.loc[part, "missed"] - table.loc[part, "by chance"] + 1e-9
            )
            assert (
                table.loc[part, "missed"] - table.loc[part, "by chance"]
                <= table.loc[part, "high"] + 1e-9
            )
    grouped = failures.recall_by_parts(data, similarity(data, first))
    assert grouped["captions"].sum() == len(split)
    assert (grouped["R@1"] * grouped["captions"]).sum() / len(split) == pytest.approx(
        100 * (~failed).mean()
    )


def test_sentences_give_the_same_numbers(data):
    split = data.test
    wrong = np.array(
        [
            np.flatnonzero(split.image_identities != identity)[0]
            for identity in split.caption_identities
        ]
    )
    first = np.where(np.arange(len(split)) % 2 == 0, wrong, split.caption_images)
    said = failures.failure_findings(data, similarity(data, first))
    assert said[0].startswith(f"{-(-len(split) // 2)} of {len(split)} captions (50.0%)")
    named, missed = (
        failures.named_parts(data).to_numpy(),
        failures.missed_parts(data, first).to_numpy() != "",
    )
    lacking = (named & missed)[::2].sum(1)
    assert (
        f"lacks {lacking.mean():.2f}," in said[1]
        and f"{100 * (lacking == 0).mean():.1f}% lack nothing" in said[1]
    )
    assert failures.failure_findings(data, similarity(data, split.caption_images)) == [
        "No query failed."
    ]
    assert failures.failure_findings(data, similarity(data, wrong)) == ["Every query failed."]


def test_captions_of_people_who_are_not_in_the_gallery_are_left_out_and_counted(data):
    """Neither a success nor a failure: with them the figures are those of the others alone."""
    split = data.test
    wrong = np.array(
        [
            np.flatnonzero(split.image_identities != identity)[0]
            for identity in split.caption_identities
        ]
    )
    first = np.where(np.arange(len(split)) % 2 == 0, wrong, split.caption_images)
    scores = similarity(data, first)
    gone = split.image_identities == split.image_identities[0]
    strange = split.caption_identities == split.image_identities[0]
    assert 0 < strange.sum() < len(split)
    changed = dataclasses.replace(
        data,
        test=SimpleNamespace(
            captions=split.captions,
            caption_images=split.caption_images,
            caption_identities=split.caption_identities,
            image_paths=split.image_paths,
            image_identities=np.where(gone, -1, split.image_identities),
        ),
    )
    table = failures.failure_table(changed, scores).set_index("part")
    named = failures.named_parts(data)[~strange]
    failed = (np.arange(len(split)) % 2 == 0)[~strange]
    for part in failures.PARTS:
        says = named[part].to_numpy()
        assert table.loc[part, "failed"] == (says & failed).sum()
        if says.any():
            assert table.loc[part, "R@1 named"] == pytest.approx(100 * (~failed[says]).mean())
    said = failures.failure_findings(changed, scores)
    assert said[0].startswith(f"{strange.sum()} of {len(split)} captions are left out")
    assert said[1].startswith(f"{failed.sum()} of {len(failed)} captions ")
    grouped = failures.recall_by_parts(changed, scores)
    assert grouped["captions"].sum() == len(failed)
    assert (grouped["R@1"] * grouped["captions"]).sum() / len(failed) == pytest.approx(
        100 * (~failed).mean()
    )


def test_strangers_are_other_people(data):
    split = data.test
    images = failures._strangers(split.caption_identities, split.image_identities, 0)
    assert (split.image_identities[images] != split.caption_identities).all() and len(
        set(images)
    ) > len(images) / 4


def test_only_drawn_people_have_known_attributes(tmp_path):
    real = load_dataset("CUHK-PEDES", write_dataset(tmp_path))
    with pytest.raises(CSKTError, match="no attribute table"):
        failures.named_parts(real)
