"""The official layouts, read from small hand-made copies, with every defect planted that users
meet."""

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from cskt.data.benchmarks import load_dataset, subset
from cskt.data.synthetic import VERSION
from cskt.errors import CSKTError

PATH_FIELD = {"CUHK-PEDES": "file_path", "ICFG-PEDES": "file_path", "RSTPReid": "img_path"}
FILE = {
    "CUHK-PEDES": "reid_raw.json",
    "ICFG-PEDES": "ICFG-PEDES.json",
    "RSTPReid": "data_captions.json",
}
SPLIT_OF = ("train", "train", "train", "val", "test", "test")
IDENTITIES = (40, 7, 40, 11500, 12500, 12501)


def records(name="CUHK-PEDES", **changes):
    """Six images, identities with gaps, one to two captions each; ``changes`` are written into
    every record."""
    return [
        {
            "split": split,
            PATH_FIELD[name]: f"cam{i % 2}/{i}.png",
            "id": identity,
            "processed_tokens": [["a"]],
            "captions": [f"caption {i} {j}" for j in range(1 + i % 2)],
            **changes,
        }
        for i, (split, identity) in enumerate(zip(SPLIT_OF, IDENTITIES, strict=True))
    ]


def write(folder, entries, file="reid_raw.json", images="imgs"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(entries))
    (folder / "recipe.json").write_text(json.dumps({"version": VERSION}))  # read of SynthPEDES only
    for i in range(len(SPLIT_OF)):
        path = folder / images / f"cam{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + i, 8), (40 * i, 0, 0)).save(path)
    return folder


@pytest.mark.parametrize("name", list(FILE))
def test_layouts(tmp_path, name):
    dataset = load_dataset(name, write(tmp_path, records(name), FILE[name]))
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [4, 2, 3]
    train, test = dataset.train, dataset.test
    assert train.image_identities.tolist() == [1, 0, 1]  # relabelled from 0
    assert test.image_identities.tolist() == [12500, 12501]
    assert train.captions == ("caption 0 0", "caption 1 0", "caption 1 1", "caption 2 0")
    assert train.caption_images.tolist() == [0, 1, 1, 2]
    assert train.caption_identities.tolist() == [1, 0, 0, 1]
    assert test.image_paths == (tmp_path / "imgs/cam0/4.png", tmp_path / "imgs/cam1/5.png")
    assert train.image_identities.dtype == train.caption_images.dtype == np.int64
    assert (dataset.name, dataset.root, dataset.notes, dataset.synthetic) == (
        name,
        tmp_path,
        (),
        False,
    )
    assert train.cameras is None


@pytest.mark.parametrize(
    ("name", "file"), [("CUHK-PEDES", "caption_all.json"), ("ICFG-PEDES", "ICFG_PEDES.json")]
)
def test_other_file_names(tmp_path, name, file):
    assert len(load_dataset(name, write(tmp_path, records(name), file)).train) == 4


def test_caption_all_without_split_divides_by_identity(tmp_path):
    entries = records()
    for entry in entries:
        del entry["split"]
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, entries, "caption_all.json"))
    assert [len(split.image_paths) for split in (dataset.train, dataset.val, dataset.test)] == [
        3,
        1,
        2,
    ]
    entries[2]["id"] = 13004
    write(tmp_path, entries, "caption_all.json")
    with pytest.raises(
        CSKTError, match="caption_all.json: record 2: field 'id' must be from 1 to 13003"
    ):
        load_dataset("CUHK-PEDES", tmp_path)


def test_parent_folder_images_beside_and_split_names_in_any_case(tmp_path):
    entries = [{**entry, "split": entry["split"].upper()} for entry in records()]
    write(tmp_path / "CUHK-PEDES", entries, images=".")
    dataset = load_dataset("CUHK-PEDES", tmp_path)
    assert dataset.train.image_paths[0] == tmp_path / "CUHK-PEDES/cam0/0.png"
    assert dataset.root == tmp_path / "CUHK-PEDES"


def test_either_path_field_cameras_and_unknown_fields(tmp_path):
    entries = [
        {**entry, "img_path": entry["file_path"], "camera": f"c{i}", "weather": {"rain": True}}
        for i, entry in enumerate(records())
    ]
    for entry in entries:
        del entry["file_path"]
    del entries[3]["camera"]
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, entries))
    assert dataset.train.cameras == ("c0", "c1", "c2")
    assert dataset.val.cameras is None


def test_icfg_without_val_lets_test_stand_in_and_says_so(tmp_path):
    entries = [entry for entry in records() if entry["split"] != "val"]
    dataset = load_dataset("ICFG-PEDES", write(tmp_path, entries, "ICFG-PEDES.json"))
    assert dataset.val is dataset.test and dataset.val.name == "test"
    assert dataset.notes == ("ICFG-PEDES has no val split; test stands in",)
    with pytest.raises(CSKTError, match="reid_raw.json has no record of split val"):
        load_dataset("CUHK-PEDES", write(tmp_path, entries))


def test_fingerprint_follows_content_and_not_place(tmp_path):
    here = load_dataset("CUHK-PEDES", write(tmp_path / "a", records()))
    there = load_dataset("CUHK-PEDES", write(tmp_path / "b", records(), images="."))
    assert here.fingerprint == there.fingerprint
    other = load_dataset("CUHK-PEDES", write(tmp_path / "c", records(captions=["another"])))
    assert other.fingerprint != here.fingerprint
    with open(tmp_path / "a/imgs/cam1/5.png", "ab") as file:
        file.write(b"0")
    assert load_dataset("CUHK-PEDES", tmp_path / "a").fingerprint != here.fingerprint


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("captions", None, "field 'captions' must be a list of at least one string, got null"),
        ("captions", [], "field 'captions' must be"),
        ("captions", "a man", "field 'captions' must be .*, got str 'a man'"),
        ("captions", ["a man", 3], "field 'captions' must be"),
        ("id", "12", "field 'id' must be an integer, got str"),
        ("id", True, "field 'id' must be an integer"),
        ("id", 2.0, "field 'id' must be an integer"),
        ("id", 2**70, "field 'id' must be an integer"),
        ("file_path", 5, "field 'file_path' must be a path"),
        ("file_path", " ", "field 'file_path' must be a path"),
        ("split", "trian", "field 'split' must be 'train', 'val' or 'test', got str 'trian'"),
        ("split", None, "field 'split' must be"),
    ],
)
def test_a_wrong_field_is_named_with_its_record(tmp_path, field, value, message):
    entries = records()
    entries[4][field] = value
    with pytest.raises(CSKTError, match=f"reid_raw.json: record 4: {message}"):
        load_dataset("CUHK-PEDES", write(tmp_path, entries))


@pytest.mark.parametrize("field", ["captions", "id", "file_path", "split"])
def test_a_missing_field_is_named_with_its_record(tmp_path, field):
    entries = records()
    del entries[3][field]
    with pytest.raises(CSKTError, match=f"reid_raw.json: record 3: field '{field}'.* is missing"):
        load_dataset("CUHK-PEDES", write(tmp_path, entries))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": 1,', "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"{}", "must hold a list of records"),
        (b"[]", "at least one entry"),
        (b"[[1]]", "record 0: must be an object with fields, got list"),
    ],
)
def test_a_damaged_annotation_file_is_named(tmp_path, content, message):
    (tmp_path / "data_captions.json").write_bytes(content)
    with pytest.raises(CSKTError, match=f"data_captions.json.*{message}"):
        load_dataset("RSTPReid", tmp_path)


@pytest.mark.parametrize("image", ["cam0/none.png", "cam0", "a\0b"])
def test_a_missing_image_is_named(tmp_path, image):
    entries = records()
    entries[1]["file_path"] = image
    with pytest.raises(CSKTError) as caught:
        load_dataset("CUHK-PEDES", write(tmp_path, entries))
    assert f"record 1: image {tmp_path / 'imgs' / image} is missing" in str(caught.value)


def test_a_wrong_root_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        CSKTError,
        match=f"ICFG-PEDES.json or ICFG_PEDES.json there and in {tmp_path / 'ICFG-PEDES'}",
    ):
        load_dataset("ICFG-PEDES", tmp_path)
    with pytest.raises(
        CSKTError, match="RSTPReid needs root: the folder that holds data_captions.json"
    ):
        load_dataset("RSTPReid")
    with pytest.raises(CSKTError, match="'Market-1501' is unknown; choose one of CUHK-PEDES"):
        load_dataset("Market-1501", tmp_path)


@pytest.mark.parametrize(("name", "layout"), list(zip("ABC", FILE, strict=True)))
def test_synthetic_domains_are_rendered_when_absent_and_read_by_the_same_reader(
    tmp_path, monkeypatch, name, layout
):
    name, rendered = f"SynthPEDES-{name}", []

    def synthetic_dataset(domain, root=None):
        rendered.append((domain, root))
        return write(
            (root or tmp_path / "cache") / domain, records(layout, camera="c1"), FILE[layout]
        )

    renderer = types.SimpleNamespace(synthetic_dataset=synthetic_dataset, VERSION=VERSION)
    monkeypatch.setitem(sys.modules, "cskt.data.synthetic", renderer)
    dataset = load_dataset(name)
    assert dataset.version == VERSION
    assert dataset.synthetic and len(dataset.train) == 4 and dataset.val.cameras == ("c1",)
    assert load_dataset(name, tmp_path / "mine").fingerprint == dataset.fingerprint
    assert load_dataset(name, tmp_path / "mine").root == tmp_path / "mine" / name
    assert rendered == [
        (name, None),
        (name, tmp_path / "mine"),
    ]  # found, not rendered, the third time


def test_splits_carry_the_fingerprint_and_so_does_a_part(tmp_path):
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, records()))
    assert dataset.version is None
    for split in (dataset.train, dataset.val, dataset.test, subset(dataset.train, 0.5, 0)):
        assert split.fingerprint == dataset.fingerprint


def test_the_fingerprint_of_drawn_data_is_of_recipe_splits_and_identities(tmp_path):
    """Not of what Pillow's encoder or the grammar makes of them."""
    folder = write(tmp_path, records(), FILE["CUHK-PEDES"])
    before = load_dataset("SynthPEDES-A", folder).fingerprint
    for i in range(len(SPLIT_OF)):
        Image.new("RGB", (64 + i, 80), "red").save(folder / "imgs" / f"cam{i % 2}" / f"{i}.png")
    (folder / FILE["CUHK-PEDES"]).write_text(json.dumps(records(captions=["another"]), indent=1))
    assert load_dataset("SynthPEDES-A", folder).fingerprint == before
    (folder / "recipe.json").write_text(json.dumps({"version": VERSION, "seed": 1}))
    seeded = load_dataset("SynthPEDES-A", folder).fingerprint
    (folder / "recipe.json").write_text(json.dumps({"seed": 1, "version": VERSION}, indent=2))
    assert load_dataset("SynthPEDES-A", folder).fingerprint == seeded != before
    entries = records()
    entries[0]["id"] += 1
    (folder / FILE["CUHK-PEDES"]).write_text(json.dumps(entries))
    assert load_dataset("SynthPEDES-A", folder).fingerprint not in (before, seeded)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (None, "holds SynthPEDES of an older version, without recipe.json"),
        (
            json.dumps({"version": VERSION - 1}),
            f"of version {VERSION - 1}, and this is version {VERSION}",
        ),
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
    assert load_dataset("CUHK-PEDES", folder).version is None
