"""Data sets as the rest of the package sees them: splits, fingerprints, and the drawn ones."""

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from cskt.data.datasets import load_dataset, subset
from cskt.errors import CSKTError, DataError
from cskt.synthetic import VERSION
from tests.annotations import FILE, SPLITS, image_name, records, write


def test_a_data_set_has_three_splits_of_images_and_captions(tmp_path):
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, records()))
    train = dataset.train
    test = dataset.test
    assert [len(split) for split in (train, dataset.val, test)] == [4, 2, 3]
    assert train.caption_images.tolist() == [0, 1, 1, 2]
    assert train.caption_identities.tolist() == [1, 0, 0, 1]
    assert test.image_paths == (tmp_path / "imgs/cam0/4.png", tmp_path / "imgs/cam1/5.png")
    assert train.image_identities.dtype == train.caption_images.dtype == np.int64
    assert train.cameras is None


def test_identities_are_numbered_from_0_in_train_and_as_annotated_elsewhere(tmp_path):
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, records()))
    assert dataset.train.image_identities.tolist() == [1, 0, 1]
    assert dataset.test.image_identities.tolist() == [12500, 12501]


@pytest.mark.parametrize("name", list(FILE))
def test_a_real_data_set_knows_its_name_and_root(tmp_path, name):
    dataset = load_dataset(name, write(tmp_path, records(name), FILE[name]))
    assert dataset.name == name
    assert dataset.root == tmp_path
    assert dataset.notes == ()
    assert dataset.version is None
    assert not dataset.synthetic


def test_icfg_without_val_lets_test_stand_in_and_says_so(tmp_path):
    entries = [entry for entry in records() if entry["split"] != "val"]
    dataset = load_dataset("ICFG-PEDES", write(tmp_path, entries, "ICFG-PEDES.json"))
    assert dataset.val is dataset.test
    assert dataset.val.name == "test"
    assert dataset.notes == ("ICFG-PEDES has no val split; test stands in",)


def test_an_empty_split_is_refused(tmp_path):
    entries = [entry for entry in records() if entry["split"] != "val"]
    with pytest.raises(DataError, match="reid_raw.json has no record of split val"):
        load_dataset("CUHK-PEDES", write(tmp_path, entries))


def test_a_root_without_the_annotation_says_what_was_looked_for(tmp_path):
    looked = f"ICFG-PEDES.json or ICFG_PEDES.json there and in {tmp_path / 'ICFG-PEDES'}"
    with pytest.raises(DataError, match=looked):
        load_dataset("ICFG-PEDES", tmp_path)


def test_a_real_data_set_needs_a_root():
    needed = "RSTPReid needs root: the folder that holds data_captions.json"
    with pytest.raises(DataError, match=needed):
        load_dataset("RSTPReid")


def test_any_other_name_is_of_one_s_own_data_and_says_what_is_looked_for(tmp_path):
    looked = "Market-1501 is not in .*: looked for captions.csv or captions.jsonl or reid_raw.json"
    with pytest.raises(DataError, match=looked):
        load_dataset("Market-1501", tmp_path)
    with pytest.raises(
        DataError, match="none of CUHK-PEDES, .*, and as data of your own needs root"
    ):
        load_dataset("Market-1501")


def test_the_fingerprint_does_not_follow_the_place(tmp_path):
    here = load_dataset("CUHK-PEDES", write(tmp_path / "a", records()))
    there = load_dataset("CUHK-PEDES", write(tmp_path / "b", records(), images="."))
    assert here.fingerprint == there.fingerprint


def test_the_fingerprint_follows_the_annotation_and_the_sizes_of_the_images(tmp_path):
    folder = write(tmp_path / "a", records())
    before = load_dataset("CUHK-PEDES", folder).fingerprint
    other = load_dataset("CUHK-PEDES", write(tmp_path / "c", records(captions=["another"])))
    assert other.fingerprint != before
    with open(folder / "imgs/cam1/5.png", "ab") as file:
        file.write(b"0")
    assert load_dataset("CUHK-PEDES", folder).fingerprint != before


def test_splits_carry_the_fingerprint_and_so_does_a_subset(tmp_path):
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, records()))
    for split in (dataset.train, dataset.val, dataset.test, subset(dataset.train, 0.5, 0)):
        assert split.fingerprint == dataset.fingerprint


@pytest.fixture
def rendered(tmp_path, monkeypatch):
    """A renderer that writes the hand-made copy; the domains that it was asked for, with root."""
    asked = []
    layouts = {
        "SynthPEDES-A": "CUHK-PEDES",
        "SynthPEDES-B": "ICFG-PEDES",
        "SynthPEDES-C": "RSTPReid",
    }

    def synthetic_dataset(domain, root=None):
        asked.append((domain, root))
        folder = (root or tmp_path / "cache") / domain
        layout = layouts[domain]
        return write(folder, records(layout, camera="c1"), FILE[layout])

    renderer = types.SimpleNamespace(synthetic_dataset=synthetic_dataset, VERSION=VERSION)
    monkeypatch.setitem(sys.modules, "cskt.synthetic", renderer)
    return asked


@pytest.mark.parametrize("name", ["SynthPEDES-A", "SynthPEDES-B", "SynthPEDES-C"])
def test_a_drawn_data_set_is_rendered_where_it_is_absent(tmp_path, rendered, name):
    dataset = load_dataset(name)
    assert rendered == [(name, None)]
    assert dataset.version == VERSION
    assert dataset.synthetic
    assert len(dataset.train) == 4
    assert dataset.val.cameras == ("c1",)


def test_a_drawn_data_set_that_is_there_is_not_rendered_again(tmp_path, rendered):
    root = tmp_path / "mine"
    first = load_dataset("SynthPEDES-A", root)
    second = load_dataset("SynthPEDES-A", root)
    assert rendered == [("SynthPEDES-A", root)]
    assert first.fingerprint == second.fingerprint
    assert second.root == root / "SynthPEDES-A"


def fingerprint_of_drawn(folder):
    return load_dataset("SynthPEDES-A", folder).fingerprint


def test_the_fingerprint_of_drawn_data_is_not_of_what_pillow_or_the_grammar_makes(tmp_path):
    folder = write(tmp_path, records())
    before = fingerprint_of_drawn(folder)
    for index in range(len(SPLITS)):
        Image.new("RGB", (64 + index, 80), "red").save(folder / "imgs" / image_name(index))
    changed = records(captions=["another"])
    (folder / "reid_raw.json").write_text(json.dumps(changed, indent=1))
    assert fingerprint_of_drawn(folder) == before


def test_the_fingerprint_of_drawn_data_is_of_the_recipe(tmp_path):
    folder = write(tmp_path, records())
    before = fingerprint_of_drawn(folder)
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps({"version": VERSION, "seed": 1}))
    seeded = fingerprint_of_drawn(folder)
    recipe.write_text(json.dumps({"seed": 1, "version": VERSION}, indent=2))
    assert fingerprint_of_drawn(folder) == seeded != before


def test_the_fingerprint_of_drawn_data_is_of_splits_and_identities(tmp_path):
    folder = write(tmp_path, records())
    before = fingerprint_of_drawn(folder)
    entries = records()
    entries[0]["id"] += 1
    write(tmp_path, entries)
    assert fingerprint_of_drawn(folder) != before


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (None, "holds SynthPEDES of an older version, without recipe.json"),
        ('{"version": 0}', f"of version 0, and this is version {VERSION}"),
        ("{", "recipe.json cannot be read as a recipe"),
        ("[]", "recipe.json cannot be read as a recipe"),
        ("{}", "recipe.json cannot be read as a recipe"),
    ],
)
def test_drawn_data_of_another_version_are_refused(tmp_path, recipe, message):
    folder = write(tmp_path, records())
    (folder / "recipe.json").unlink()
    if recipe is not None:
        (folder / "recipe.json").write_text(recipe)
    with pytest.raises(CSKTError, match=f"{message}.*; remove that folder.* or give another root"):
        load_dataset("SynthPEDES-A", folder)


def test_real_data_need_no_recipe(tmp_path):
    folder = write(tmp_path, records())
    (folder / "recipe.json").unlink()
    assert load_dataset("CUHK-PEDES", folder).version is None


def test_a_smaller_subset_is_part_of_a_larger_one_and_numbered_from_0(tmp_path):
    entries = records(split="train", camera="c1")
    entries[3]["split"] = "val"
    entries[4]["split"] = "test"
    train = load_dataset("CUHK-PEDES", write(tmp_path, entries)).train
    everyone = subset(train, 1.0, seed=3)
    two = subset(train, 0.1, seed=3)
    assert everyone.captions == train.captions
    assert set(two.image_paths) < set(train.image_paths)
    assert sorted(set(two.image_identities.tolist())) == [0, 1]
    assert two.cameras == ("c1",) * len(two.image_paths)
    for caption, image in zip(two.captions, two.caption_images, strict=True):
        assert caption.startswith(f"caption {two.image_paths[image].stem} ")
