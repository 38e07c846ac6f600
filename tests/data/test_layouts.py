"""Annotation files in every official layout, with every defect planted that users meet."""

import json

import pytest

from cskt.config import DATASETS
from cskt.data.datasets import load_dataset
from cskt.data.layouts import LAYOUTS, read_annotation
from cskt.errors import CSKTError, DataError
from tests.annotations import FILE, records, without, write


def numbers_of_images(dataset):
    splits = (dataset.train, dataset.val, dataset.test)
    return [len(split.image_paths) for split in splits]


def test_every_published_data_set_has_a_layout():
    assert tuple(LAYOUTS) == DATASETS


@pytest.mark.parametrize("name", list(FILE))
def test_every_layout_is_read(tmp_path, name):
    dataset = load_dataset(name, write(tmp_path, records(name), FILE[name]))
    assert numbers_of_images(dataset) == [3, 1, 2]
    assert dataset.train.captions == ("caption 0 0", "caption 1 0", "caption 1 1", "caption 2 0")


@pytest.mark.parametrize(
    ("name", "file"), [("CUHK-PEDES", "caption_all.json"), ("ICFG-PEDES", "ICFG_PEDES.json")]
)
def test_an_annotation_may_go_under_another_name(tmp_path, name, file):
    dataset = load_dataset(name, write(tmp_path, records(name), file))
    assert numbers_of_images(dataset) == [3, 1, 2]


def test_caption_all_without_split_divides_by_identity(tmp_path):
    entries = without(records(), "split")
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, entries, "caption_all.json"))
    assert numbers_of_images(dataset) == [3, 1, 2]


@pytest.mark.parametrize("identity", [0, 13004])
def test_caption_all_without_split_knows_identities_1_to_13003(tmp_path, identity):
    entries = without(records(), "split")
    entries[2]["id"] = identity
    write(tmp_path, entries, "caption_all.json")
    with pytest.raises(CSKTError, match="all.json: record 2: field 'id' must be from 1 to 13003"):
        load_dataset("CUHK-PEDES", tmp_path)


def test_split_names_are_read_in_any_case(tmp_path):
    entries = records()
    for entry in entries:
        entry["split"] = entry["split"].upper()
    assert numbers_of_images(load_dataset("CUHK-PEDES", write(tmp_path, entries))) == [3, 1, 2]


def test_the_root_may_be_the_parent_and_the_images_lie_beside_the_annotation(tmp_path):
    folder = write(tmp_path / "CUHK-PEDES", records(), images=".")
    dataset = load_dataset("CUHK-PEDES", tmp_path)
    assert dataset.root == folder
    assert dataset.train.image_paths[0] == folder / "cam0/0.png"


def test_either_path_field_is_read_in_every_layout(tmp_path):
    entries = records()
    for entry in entries:
        entry["img_path"] = entry.pop("file_path")
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, entries))
    assert dataset.train.image_paths[0] == tmp_path / "imgs/cam0/0.png"


def test_cameras_are_read_where_every_record_of_a_split_names_one(tmp_path):
    entries = records(weather={"rain": True})  # a field that nobody knows
    for index, entry in enumerate(entries):
        entry["camera"] = f"c{index}"
    del entries[3]["camera"]
    dataset = load_dataset("CUHK-PEDES", write(tmp_path, entries))
    assert dataset.train.cameras == ("c0", "c1", "c2")
    assert dataset.val.cameras is None


CAPTIONS_ARE = "field 'captions' must be a list of at least one string"
SPLIT_IS = "field 'split' must be 'train', 'val' or 'test'"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("captions", None, f"{CAPTIONS_ARE}, got null"),
        ("captions", [], CAPTIONS_ARE),
        ("captions", "a man", f"{CAPTIONS_ARE}, got str 'a man'"),
        ("captions", ["a man", 3], CAPTIONS_ARE),
        ("id", "12", "field 'id' must be an integer, got str"),
        ("id", True, "field 'id' must be an integer"),
        ("id", 2.0, "field 'id' must be an integer"),
        ("id", 2**70, "field 'id' must be an integer"),
        ("file_path", 5, "field 'file_path' must be a path"),
        ("file_path", " ", "field 'file_path' must be a path"),
        ("split", "trian", f"{SPLIT_IS}, got str 'trian'"),
        ("split", None, SPLIT_IS),
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
def test_a_missing_image_is_named_with_both_places(tmp_path, image):
    entries = records()
    entries[1]["file_path"] = image
    with pytest.raises(DataError) as caught:
        load_dataset("CUHK-PEDES", write(tmp_path, entries))
    message = str(caught.value)
    assert f"record 1: image {tmp_path / 'imgs' / image} is missing" in message
    assert f"(also looked for {tmp_path / image})" in message


def test_the_first_defect_in_the_file_is_the_one_that_is_told(tmp_path):
    entries = records()
    entries[2]["file_path"] = "gone.png"
    entries[4]["id"] = "12"
    folder = write(tmp_path, entries)
    with pytest.raises(DataError, match="record 2: image .* is missing"):
        load_dataset("CUHK-PEDES", folder)
    entries[1]["id"] = None
    write(tmp_path, entries)
    with pytest.raises(DataError, match="record 1: field 'id' must be an integer, got null"):
        load_dataset("CUHK-PEDES", folder)


def test_reading_an_annotation_keeps_what_is_sound_and_says_what_is_not(tmp_path):
    entries = records()
    entries[0]["file_path"] = "gone.png"
    entries[3]["captions"] = "a man"
    folder = write(tmp_path, entries)
    annotation = read_annotation(folder / "reid_raw.json")
    assert list(annotation.records) == [0, 1, 2, 4, 5]
    assert annotation.records[0].missing
    assert annotation.records[0].image == folder / "imgs/gone.png"
    assert not annotation.records[1].missing
    assert list(annotation.malformed) == [3]
    assert annotation.malformed[3].startswith(CAPTIONS_ARE)


def test_a_byte_order_mark_is_no_defect(tmp_path):
    folder = write(tmp_path, records())
    (folder / "reid_raw.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(records()).encode())
    assert numbers_of_images(load_dataset("CUHK-PEDES", folder)) == [3, 1, 2]
