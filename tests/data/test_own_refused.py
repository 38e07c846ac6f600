"""What is wrong with data of one's own: each defect is one sentence with file, row and remedy, from
the loader as from the verifier."""

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cskt.data.datasets import load_dataset
from cskt.errors import CSKTError, DataError
from tests import own_data
from tests.copies import verify
from tests.own_data import NAME, rows, write


def assert_refused(folder, message):
    """The loader's sentence: ``message`` is a regular expression from the file's name on."""
    with pytest.raises(DataError, match=f"{re.escape(str(folder))}/?.*{message}") as caught:
        load_dataset(NAME, folder)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")


def assert_told(folder, kind, where, message):
    """The verifier's first fault of a kind."""
    faults = [fault for fault in verify(NAME, folder).faults if fault.kind == kind]
    assert faults[0].where == where
    assert re.match(message, faults[0].message)


# The sixth caption stands in row 7, since the header is row 1, and in line 6.
WRITERS = {"captions.csv": own_data.write_csv, "captions.jsonl": own_data.write_jsonl}
DEFECTS = [
    ("image", "", "field 'image' is empty; fill it in, or remove the row"),
    ("caption", " ", "field 'caption' is empty"),
    ("identity", "", "field 'identity' is empty"),
    ("split", "", "field 'split' is empty"),
    ("split", "trian", "field 'split' must be train, val or test, got 'trian'; correct it"),
    ("split", "val", "identity '1' is in val here and in train in (row 5|line 4); .* one split"),
    ("identity", "100", "identity '100' is in test here and in train in (row 7|line 6); an"),
    ("image", "../../etc/passwd", "image '../../etc/passwd' leads out of .*; give its path below"),
    ("image", "/etc/passwd", "image '/etc/passwd' leads out of"),
    ("image", "a/../../x.png", "image .* leads out of"),
    ("image", "C:\\x.png", "image .* leads out of"),
    ("image", "..\\x.png", "image .* leads out of"),
    ("image", "train/0-0.png", "image 'train/0-0.png' is of identity '1' here and of '0' in"),
]


@pytest.mark.parametrize("file", ["captions.csv", "captions.jsonl"])
@pytest.mark.parametrize(("field", "value", "message"), DEFECTS)
def test_a_defect_of_a_row_is_told_with_the_row(tmp_path, file, field, value, message):
    table = rows()
    folder = write(tmp_path, table, file)
    table[5][field] = value
    WRITERS[file](folder, table)
    number = 24 if value == "100" else 5  # where the contradiction is seen
    place = f"row {number + 2}" if file == "captions.csv" else f"line {number + 1}"
    assert_refused(folder, f"{file}: {place}: {message}")
    assert_told(folder, "record", place, message)


@pytest.mark.parametrize("file", ["captions.csv", "captions.jsonl"])
def test_a_missing_image_is_told_with_both_places(tmp_path, file):
    folder = write(tmp_path, rows(), file)
    (folder / "imgs/train/1-0.png").unlink()
    place = "row 5" if file == "captions.csv" else "line 4"
    message = f"{place}: image .*/imgs/train/1-0.png is missing .also looked for .*put the images"
    assert_refused(folder, f"{file}: {message}")
    assert_told(folder, "missing", "imgs/train", r"missing images: 1 \(1-0.png\)")


@pytest.mark.parametrize("file", own_data.FILES)
def test_a_repeated_row_is_told_with_the_earlier_one(tmp_path, file):
    folder = write(tmp_path, rows(), "captions.csv")
    (folder / "captions.csv").unlink()
    table = [*rows(), rows()[1]]
    if file in WRITERS:
        WRITERS[file](folder, table)
        earlier = "row 2" if file == "captions.csv" else "line 1"
    else:
        written = own_data.write_json(folder, rows(), file)
        entries = json.loads(written.read_text())
        written.write_text(json.dumps([*entries, entries[0]]))
        earlier = "record 0"
    assert_refused(folder, f"{file}: .*: repeats image and caption of {earlier}; remove one of")


@pytest.mark.parametrize("path", ["./train/0-0.png", "train//0-0.png", "train/./0-0.png"])
def test_an_image_under_two_spellings_is_one_image(tmp_path, path):
    table = rows()
    table[1]["image"] = path
    folder = write(tmp_path, rows())
    own_data.write_csv(folder, table)
    assert len(load_dataset(NAME, folder).train.image_paths) == 16


@pytest.mark.parametrize("column", ["image", "caption", "identity", "split"])
def test_a_column_that_is_missing_is_named(tmp_path, column):
    table = rows()
    for row in table:
        del row[column]
    header = [name for name in own_data.HEADER if name != column]
    path = own_data.write_csv(tmp_path, table, header)
    assert_refused(tmp_path, f"captions.csv: row 1: columns {column} are missing among .*; write i")
    path.unlink()
    own_data.write_jsonl(tmp_path, table)
    message = f"field '{column}' is missing; every row needs"
    assert_refused(tmp_path, f"captions.jsonl: line 1: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "captions.csv has no row with a caption; write one"),
        (b"image,caption,identity,split\n", "has no row with a caption"),
        (b"image;caption;identity;split\na;b;1;train\n", "row 1: columns image, .* with commas"),
        (b"image,caption,identity,split,image\n", "row 1: a column stands there twice; rename"),
        ("image,caption,identity,split\n".encode("utf-16"), "row 1: columns .* save as UTF-8"),
        (b"image,caption,identity,split\na.png,a", "row 2: has 2 fields where the header has 4"),
        (b"image,caption,identity,split\na,b,c,d,1,train\n", "row 2: has 6 fields where"),
        (b'image,caption,identity,split\na,"b,1,train\n', "row 2: unexpected end of data; put"),
        (b'image,caption,identity,split\na,"b"c,1,train\n', "row 2: .* expected after .*; put cap"),
        (b"image,caption,identity,split\na,caf\xe9,1,train\n", "row 2: is not UTF-8; save the fi"),
        (b"image,caption,identity,split\na," + b"x" * 200_000 + b",1,train\n", "row 2: .*limit"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, content, message):
    (tmp_path / "captions.csv").write_bytes(content)
    assert_refused(tmp_path, message)


DEEP = b"[" * 100_000
HUGE = b"9" * 5000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1]", "must be an object with fields, got list; correct it"),
        (b"{", "is not valid JSON"),
        (b'{"image": "caf\xe9"}', "is not valid JSON"),
        (b'{"ignored": ' + DEEP, "is not valid JSON .maximum recursion"),
        (b'{"ignored": ' + HUGE + b"}", "is not valid JSON .Exceeds the limit"),
        (b'{"image": 3, "caption": "a"}', "field 'image' must be text, got int"),
        (b'{"image": "a", "caption": null}', "field 'caption' is missing"),
        (b'{"image": "a", "caption": "a", "identity": true, "split": "a"}', "field 'identity' mus"),
        (b'{"image": "a", "caption": "a", "identity": 1.5, "split": "a"}', "field 'identity' must"),
        (b'{"image": "a", "caption": "\\ud800", "identity": "1", "split": "a"}', "is not UTF-8"),
    ],
)
def test_a_damaged_line_of_jsonl_is_refused(tmp_path, line, message):
    (tmp_path / "captions.jsonl").write_bytes(b"\n" + line + b"\n")
    assert_refused(tmp_path, f"captions.jsonl: line 2: {message}")


# Of one's own data and of the published ones alike


BOTH = [("CUHK-PEDES", "reid_raw.json"), (NAME, "reid_raw.json"), (NAME, "data_captions.json")]


@pytest.mark.parametrize(("name", "file"), BOTH)
@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "\\\\host\\x"])
def test_no_annotation_leads_out_of_its_folder(tmp_path, name, file, path):
    folder = write(tmp_path, rows(), file)
    written = folder / file
    entries = json.loads(written.read_text())
    field = "img_path" if file == "data_captions.json" else "file_path"
    entries[2][field] = path
    written.write_text(json.dumps(entries))
    with pytest.raises(DataError, match=f"{file}: record 2: image .* leads out of .*; give its pa"):
        load_dataset(name, folder)
    faults = verify(name, folder).faults
    told = [fault.where for fault in faults if fault.kind == "record"]
    assert told == ["record 2"]


def linked_image(folder, outside):
    image = folder / "imgs/train/1-0.png"
    image.rename(outside / "1-0.png")
    image.symlink_to(outside / "1-0.png")


def linked_folder(folder, outside):
    (folder / "imgs").rename(outside / "imgs")
    (folder / "imgs").symlink_to(outside / "imgs")


@pytest.mark.parametrize("link", [linked_image, linked_folder])
@pytest.mark.parametrize(("name", "file"), [*BOTH, (NAME, "captions.csv")])
def test_links_out_of_the_folder_are_followed_where_the_user_says_so(
    tmp_path, monkeypatch, link, name, file
):
    folder = write(tmp_path / "data", rows(), file)
    outside = tmp_path / "outside"
    outside.mkdir()
    link(folder, outside)
    with pytest.raises(DataError, match="is reached by a link out of .*set CSKT_FOLLOW_LINKS=1 if"):
        load_dataset(name, folder)
    assert "record" in {fault.kind for fault in verify(name, folder).faults}
    monkeypatch.setenv("CSKT_FOLLOW_LINKS", "1")
    assert len(load_dataset(name, folder).train) == 24


def test_links_within_the_folder_and_a_root_that_is_a_link_are_followed(tmp_path):
    folder = write(tmp_path / "data", rows())
    (folder / "imgs").rename(folder / "pictures")
    (folder / "imgs").symlink_to("pictures")
    (tmp_path / "link").symlink_to(folder)
    assert load_dataset(NAME, tmp_path / "link").root == tmp_path / "link"


@pytest.mark.parametrize("name", ["CUHK-PEDES", NAME])
@pytest.mark.parametrize("ignored", [DEEP, b"[" * 990 + b"]" * 990, HUGE], ids=len)
def test_nesting_and_numbers_that_python_refuses_are_a_sentence(tmp_path, name, ignored):
    folder = write(tmp_path, rows(), "reid_raw.json")
    path = folder / "reid_raw.json"
    for field in (b"ignored", b"captions"):
        path.write_bytes(b'[{"' + field + b'": ' + ignored + b"}]")
        with pytest.raises(DataError, match="reid_raw.json"):
            load_dataset(name, folder)
    path.write_bytes(b'[{"ignored": ' + DEEP + b"}]")
    with pytest.raises(DataError, match="reid_raw.json is not valid JSON .*; obtain the file ag"):
        verify(name, folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    folder = write(tmp_path, rows())
    (folder / "captions.csv").chmod(0)
    assert_refused(folder, "captions.csv cannot be read")


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@pytest.mark.parametrize("file", ["captions.csv", "captions.jsonl"])
def test_whatever_a_table_holds_it_is_read_or_refused(tmp_path_factory, file, content):
    folder = tmp_path_factory.getbasetemp() / f"fuzzed {file}"
    folder.mkdir(exist_ok=True)
    header = b"image,caption,identity,split\n" if file == "captions.csv" else b""
    (folder / file).write_bytes(header + content)
    with pytest.raises(CSKTError):  # there are no images
        load_dataset(NAME, folder)
    try:
        verify(NAME, folder).to_text()
    except CSKTError as error:
        assert "\n" not in str(error)
