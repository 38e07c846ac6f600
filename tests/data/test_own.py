"""Data of one's own: read from a table or a json layout, under any name."""

import json

import numpy as np
import pytest

from cskt.config import TrainConfig
from cskt.data.datasets import load_dataset, subset
from cskt.data.own import IDENTITY_TEXT
from cskt.errors import ConfigurationError, DataError
from cskt.search.pictures import items_of
from tests import own_data
from tests.annotations import FILE, records
from tests.annotations import write as write_published
from tests.own_data import NAME, rows, write

NAMES = ("my-people", "my people", "a/b", "../up", "/absolute", "Мои люди", "人物", "x" * 100, "é")


def captions_by_image(split):
    captions = {path.name: [] for path in split.image_paths}
    for caption, image in zip(split.captions, split.caption_images, strict=True):
        captions[split.image_paths[image].name].append(caption)
    return captions


@pytest.mark.parametrize("file", own_data.FILES)
def test_every_layout_gives_the_same_data(tmp_path, file):
    data = load_dataset(NAME, write(tmp_path, rows(), file))
    assert data.name == NAME
    assert not data.synthetic
    assert data.notes == ()
    assert [len(split) for split in (data.train, data.val, data.test)] == [24, 6, 6]
    assert data.test.image_identities.tolist() == [100, 100, 101, 101]
    assert captions_by_image(data.test) == {
        "100-0.png": ["person 100, caption 0", "person 100, caption 1"],
        "100-1.png": ["person 100, caption 2"],
        "101-0.png": ["person 101, caption 0", "person 101, caption 1"],
        "101-1.png": ["person 101, caption 2"],
    }
    assert data.train.cameras == ("c0", "c1") * 8


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_kept_as_it_is(tmp_path, name):
    assert load_dataset(name, write(tmp_path, rows())).name == name
    assert TrainConfig(dataset=name).dataset == name


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 101, "a\nb", "a\x1b[1m", "\ud800", "a,b", "<b>", 3, None]
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ConfigurationError, match="dataset must be a name of 1 to 100 printable"):
        TrainConfig(dataset=name)


@pytest.mark.parametrize(
    ("name", "like"),
    [("cuhk-pedes", "CUHK-PEDES"), ("ICFG_PEDES", "ICFG-PEDES"), ("RSTP ReID", "RSTPReid")],
)
def test_a_name_like_a_published_one_s_is_refused(name, like):
    with pytest.raises(ConfigurationError, match=f"reads like {like}; write it so"):
        TrainConfig(dataset=name)


@pytest.mark.parametrize("name", ["my-people", "人物"])
def test_the_root_may_be_the_parent(tmp_path, name):
    folder = write(tmp_path / name, rows())
    assert load_dataset(name, tmp_path).root == folder


@pytest.mark.parametrize("name", ["../up", "..", "a\\b"])
def test_a_name_is_no_path(tmp_path, name):
    write(tmp_path / "up", rows())
    write(tmp_path / "a" / "b", rows())
    (tmp_path / "here").mkdir()
    with pytest.raises(DataError, match="looked for captions.csv"):
        load_dataset(name, tmp_path / "here")


def test_a_csv_may_have_other_columns_a_byte_order_mark_and_any_order(tmp_path):
    folder = write(tmp_path, rows())
    path = own_data.write_csv(folder, rows(), own_data.HEADER[::-1])
    content = path.read_bytes().replace(b"caption,", b" caption ,", 1)
    path.write_bytes(b"\xef\xbb\xbf" + content + b"\r\n\r\n")
    data = load_dataset(NAME, folder)
    assert data.train.facts == {"weather": ("rain", "") * 8}
    assert len(data.train) == 24


def test_a_caption_may_hold_commas_quotes_and_line_ends(tmp_path):
    table = rows()
    table[0]["caption"] = 'a man, "tall",\nin black'
    assert load_dataset(NAME, write(tmp_path, table)).train.captions[0] == table[0]["caption"]


def test_the_camera_may_be_left_out(tmp_path):
    folder = write(tmp_path, rows())
    own_data.write_csv(folder, rows(), own_data.HEADER[:4])
    data = load_dataset(NAME, folder)
    assert data.train.cameras is None
    assert data.train.facts == {}


def test_facts_follow_the_image_into_subsets_and_galleries(tmp_path):
    table = rows()
    for row in table:
        row["weather"] = row["image"]
    folder = write(tmp_path, table, "captions.jsonl")
    part = subset(load_dataset(NAME, folder).train, 0.3, seed=0)
    expected = [f"train/{path.name}" for path in part.image_paths]
    assert list(part.facts["weather"]) == expected
    items = items_of(part, None, {})
    assert [item.facts["weather"] for item in items] == expected
    assert [item.facts["identity"] for item in items] == part.image_identities.tolist()


def test_identities_may_be_any_text(tmp_path):
    table = rows()
    for row in table:
        row["identity"] = f"Frau Müller/{row['identity']} 子"
    train = load_dataset(NAME, write(tmp_path, table)).train
    numbers = train.image_identities.tolist()
    assert numbers == sorted(2 * list(range(8)))
    texts = train.facts[IDENTITY_TEXT]
    for number, text in zip(numbers, texts, strict=True):
        assert text == f"Frau Müller/{number} 子"


@pytest.mark.parametrize("other", ["007", "+7", "7.0", "٧", "9" * 30, "9" * 5000, "7a"])
def test_identities_that_are_not_all_plain_integers_are_texts(tmp_path, other):
    table = rows()
    table.append({**table[0], "image": "train/other.png", "identity": other})
    data = load_dataset(NAME, write(tmp_path, table))
    people = set(data.train.image_identities)
    assert len(people) == 9
    assert max(people) < 13  # all are numbered


def test_identities_of_jsonl_may_be_integers_or_text(tmp_path):
    table = rows()
    for row in table[::2]:
        row["identity"] = int(row["identity"])
    data = load_dataset(NAME, write(tmp_path, table, "captions.jsonl"))
    assert data.test.image_identities.tolist() == [100, 100, 101, 101]


# Without val


@pytest.mark.parametrize("file", own_data.FILES)
def test_val_is_split_off_by_identity_and_the_run_says_so(tmp_path, file):
    data = load_dataset(NAME, write(tmp_path, rows(val=False), file))
    assert data.notes == (
        "val of my people was split off: 2 of the 8 training identities, chosen by seed 0",
    )
    assert data.val.name == "val"
    assert len(np.unique(data.val.image_identities)) == 2
    assert len(np.unique(data.train.image_identities)) == 6
    images = {path.name for path in (*data.train.image_paths, *data.val.image_paths)}
    assert images == {row["image"].removeprefix("train/") for row in rows()[:24]}
    assert len(data.test) == 6


def test_the_seed_alone_chooses_val_and_is_in_the_fingerprint(tmp_path):
    folder = write(tmp_path, rows(val=False))
    first = load_dataset(NAME, folder)
    again = load_dataset(NAME, folder)
    other = load_dataset(NAME, folder, seed=1)
    assert first.val.image_paths == again.val.image_paths != other.val.image_paths
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert set(first.test.image_paths) == set(other.test.image_paths)


def test_the_seed_changes_nothing_where_there_is_val(tmp_path):
    folder = write(tmp_path, rows())
    assert load_dataset(NAME, folder).fingerprint == load_dataset(NAME, folder, 1).fingerprint


def test_the_name_is_not_in_the_fingerprint(tmp_path):
    folder = write(tmp_path, rows(val=False))
    assert load_dataset("a", folder).fingerprint == load_dataset("b", folder).fingerprint


def test_a_tenth_of_many_identities_is_split_off(tmp_path):
    table = rows(val=False)[24:]  # of test
    for number in range(40):
        row = {
            "image": f"{number}.png",
            "caption": f"a {number}",
            "identity": f"{number}",
            "split": "train",
        }
        table.append(row)
    data = load_dataset(NAME, write(tmp_path, table))
    assert len(data.val.image_paths) == 4
    assert len(data.train.image_paths) == 36


@pytest.mark.parametrize("people", [1, 3])
def test_too_few_people_to_split_val_off_are_refused(tmp_path, people):
    table = rows(val=False)
    del table[3 * people : 24]
    message = f"captions.csv: train has {people} identities, too few to split val off; add records"
    folder = write(tmp_path, table)
    with pytest.raises(DataError, match=message):
        load_dataset(NAME, folder)


def test_train_and_test_must_be_there(tmp_path):
    table = [row for row in rows() if row["split"] == "test"]
    with pytest.raises(DataError, match="captions.csv has no record of split train;"):
        load_dataset(NAME, write(tmp_path, table))


# What published data may do and one's own may not


def test_two_annotation_files_in_a_folder_are_refused(tmp_path):
    folder = write(tmp_path, rows())
    own_data.write_json(folder, rows(), "reid_raw.json")
    with pytest.raises(DataError, match="holds captions.csv and reid_raw.json; keep the one"):
        load_dataset(NAME, folder)
    assert load_dataset("CUHK-PEDES", folder).name == "CUHK-PEDES"


def test_a_published_name_reads_no_table(tmp_path):
    with pytest.raises(DataError, match="CUHK-PEDES is not in .*: looked for reid_raw.json or cap"):
        load_dataset("CUHK-PEDES", write(tmp_path, rows()))


def test_identities_of_one_s_own_mean_no_split(tmp_path):
    entries = json.loads(own_data.write_json(tmp_path, rows(), "caption_all.json").read_text())
    for entry in entries:
        del entry["split"]
    folder = write(tmp_path, rows(), "caption_all.json")
    (folder / "caption_all.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match="record 0: field 'split' is missing"):
        load_dataset(NAME, folder)


@pytest.mark.parametrize("name", ["CUHK-PEDES", "my people"])
def test_a_copy_of_a_benchmark_loads_under_either_name(tmp_path, name):
    folder = write_published(tmp_path / "x", records(), FILE["CUHK-PEDES"])
    data = load_dataset(name, folder)
    assert [len(split) for split in (data.train, data.val, data.test)] == [4, 2, 3]
