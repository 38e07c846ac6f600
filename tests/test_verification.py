"""verify-data on small hand-made copies of every layout: a clean one, and one for each defect that
it must name."""

import json
import os
import shutil
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cskt.backbones import clip_tokenizer
from cskt.data.benchmarks import load_dataset
from cskt.data.images import load_images
from cskt.data.verification import PUBLISHED, Finding, verify
from cskt.errors import CSKTError
from tests.test_benchmarks import FILE, records, write

COUNTS = {
    "train": (3, 2, 4),
    "val": (1, 1, 2),
    "test": (2, 2, 3),
}  # of records() in test_benchmarks
NAME = "CUHK-PEDES"


@pytest.fixture
def published(monkeypatch):
    """As if the small copies were the complete data sets."""
    for name in FILE:
        monkeypatch.setitem(PUBLISHED, name, {split: COUNTS[split] for split in PUBLISHED[name]})


@pytest.fixture
def copy(tmp_path, published):
    """``copy(index, field=value, ...)``: CUHK-PEDES with one record changed; returns its folder."""

    def make(index=0, **changes):
        entries = records()
        entries[index].update(changes)
        return write(tmp_path, entries)

    return make


def found(findings):
    return [(finding.kind, finding.where) for finding in findings]


# Clean copies and their counts


@pytest.mark.parametrize(
    ("name", "file"), [*FILE.items(), (NAME, "caption_all.json"), ("ICFG-PEDES", "ICFG_PEDES.json")]
)
@pytest.mark.parametrize("deep", [False, True])
def test_a_clean_copy_of_every_layout(tmp_path, published, name, file, deep):
    report = verify(name, write(tmp_path / name, records(name), file).parent, deep)
    assert (report.faults, report.notes, report.counts) == ((), (), COUNTS)
    assert (report.name, report.annotation, report.deep) == (name, tmp_path / name / file, deep)


def test_caption_all_without_split_is_divided_by_identity(tmp_path, published):
    entries = [
        {key: value for key, value in entry.items() if key != "split"} for entry in records()
    ]
    report = verify(NAME, write(tmp_path, entries, "caption_all.json"))
    assert report.faults == () and report.counts == COUNTS
    with_split = [{**entry, "split": "test"} for entry in records()]
    assert verify(NAME, write(tmp_path, with_split, "caption_all.json")).counts["test"] == (6, 5, 9)
    entries[2]["id"] = 13004
    report = verify(NAME, write(tmp_path, entries, "caption_all.json"))
    assert "from 1 to 13003" in next(
        finding.message for finding in report.faults if finding.kind == "record"
    )


def test_counts_are_compared_with_what_is_published(tmp_path):
    report = verify(NAME, write(tmp_path, records()))
    assert found(report.faults) == [("counts", "train"), ("counts", "val"), ("counts", "test")]
    assert report.faults[0].message == (
        "3 images instead of 34,054, 2 identities instead of 11,003, "
        "4 captions instead of 68,126; obtain the complete data set"
    )


@pytest.mark.parametrize(
    ("captions", "file", "right"),
    [(2, "caption_all.json", True), (2, "reid_raw.json", False), (3, "caption_all.json", False)],
)
def test_two_captions_per_image_are_right_in_caption_all(
    tmp_path, published, captions, file, right
):
    entries = records(captions=["a man"] * captions)
    assert (verify(NAME, write(tmp_path, entries, file)).faults == ()) == right


def test_the_published_statistics_add_up_to_the_totals_in_the_papers():
    totals = {
        name: tuple(map(sum, zip(*splits.values(), strict=True)))
        for name, splits in PUBLISHED.items()
    }
    assert totals == {
        "CUHK-PEDES": (40206, 13003, 80440),
        "ICFG-PEDES": (54522, 4102, 54522),
        "RSTPReid": (20505, 4101, 41010),
    }


def test_a_missing_split(tmp_path, published):
    without = [entry for entry in records() if entry["split"] != "val"]
    report = verify("ICFG-PEDES", write(tmp_path / "B", without, FILE["ICFG-PEDES"]))
    assert report.faults == ()
    assert report.notes == (Finding("counts", "val", "no records; test stands in for it"),)
    for name in (NAME, "SynthPEDES-A"):
        assert found(verify(name, write(tmp_path / "A", without)).faults) == [("counts", "val")]
    without = [entry for entry in without if entry["split"] != "test"]
    report = verify("SynthPEDES-B", write(tmp_path / "B", without, FILE["ICFG-PEDES"]))
    assert (found(report.faults), found(report.notes)) == (
        [("counts", "test")],
        [("counts", "val")],
    )


# One defect at a time


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"captions": None},
            "field 'captions' must be a list of at least one string, got null; correct the annotation.",
        ),
        ({"captions": "a man"}, "field 'captions' must be"),
        ({"id": "12"}, "field 'id' must be an integer, got str '12'"),
        ({"file_path": " "}, "field 'file_path' must be a path"),
        ({"split": "trian"}, "field 'split' must be 'train', 'val' or 'test'"),
    ],
)
def test_a_malformed_record_is_named_in_the_loader_s_words(copy, changes, message):
    report = verify(NAME, copy(1, **changes))
    assert found(report.faults) == [("counts", "train"), ("record", "record 1")]
    assert report.faults[1].message.startswith(message)
    assert report.counts == {**COUNTS, "train": (2, 1, 2)}


def test_every_malformed_record_is_named_and_the_rest_is_counted(tmp_path, published):
    entries = records()
    del entries[0]["captions"], entries[3]["file_path"]
    entries[5] = [1]
    report = verify(NAME, write(tmp_path, entries))
    assert [where for kind, where in found(report.faults) if kind == "record"] == [
        "record 0",
        "record 3",
        "record 5",
    ]
    assert report.counts == {"train": (2, 2, 3), "val": (0, 0, 0), "test": (1, 1, 1)}


@pytest.mark.parametrize("name", list(FILE))
def test_missing_images_are_grouped_by_folder(tmp_path, published, name):
    folder = write(tmp_path, records(name), FILE[name])
    shutil.rmtree(folder / "imgs" / "cam1")
    report = verify(name, folder)
    assert report.counts == COUNTS  # the records are there
    assert report.faults == (
        Finding(
            "missing",
            "imgs/cam1",
            (
                "missing images: 3 (1.png, 3.png, 5.png), looked for without imgs/ too; unpack the folder again"
            ),
        ),
    )


def test_of_many_missing_images_ten_are_named(tmp_path):
    entries = [{**records()[0], "file_path": f"Market/{i:02}.png"} for i in range(12)]
    (missing,) = (
        f for f in verify("SynthPEDES-A", write(tmp_path, entries)).faults if f.kind == "missing"
    )
    assert (
        missing.where == "imgs/Market" and "missing images: 12 (00.png, 01.png, " in missing.message
    )
    assert "09.png, ...)" in missing.message and "10.png" not in missing.message


@pytest.mark.parametrize("deep", [False, True])
def test_an_image_of_zero_bytes_is_found_without_opening_the_others(copy, deep):
    folder = copy()
    (folder / "imgs/cam0/2.png").write_bytes(b"")
    report = verify(NAME, folder, deep)
    assert report.faults == (
        Finding("image", "imgs/cam0/2.png", "has 0 bytes; restore it from the original archive"),
    )


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        (
            "jpg",
            lambda content: content[: len(content) // 2],
            "cannot be read (image file is truncated",
        ),
        ("png", lambda content: content[: len(content) // 2], "cannot be read ("),
        ("png", lambda content: b"<html>404</html>", "not an image"),
    ],
)
def test_damaged_images_are_found_by_deep_alone(copy, suffix, damage, message):
    folder = copy(4, file_path=f"large.{suffix}")
    image = folder / "imgs" / f"large.{suffix}"
    Image.effect_noise((96, 192), 80).convert("RGB").save(image)
    assert verify(NAME, folder, deep=True).faults == ()
    image.write_bytes(damage(image.read_bytes()))
    assert verify(NAME, folder).faults == ()
    (fault,) = verify(NAME, folder, deep=True).faults
    assert (fault.kind, fault.where) == ("image", f"imgs/large.{suffix}")
    assert fault.message.startswith(message) and fault.message.endswith(
        "; restore it from the original archive"
    )


@pytest.mark.parametrize("empty", ["", " \n\t", "&nbsp;"])
def test_empty_captions(copy, empty):
    report = verify(NAME, copy(3, captions=["a man", empty]))
    assert report.faults == (
        Finding("caption", "record 3", ("empty captions: 1 of 2 (number 2); write or remove them")),
    )


def test_captions_over_77_tokens_are_noted(copy):
    assert len(clip_tokenizer(context_length=77).encode("red " * 75)) == 75
    assert verify(NAME, copy(0, captions=["red " * 75])).notes == ()  # 77 with start and end
    report = verify(NAME, copy(0, captions=["red " * 76]))
    assert report.faults == ()
    assert report.notes == (
        Finding(
            "caption", "train", ("captions over 77 tokens: 1 (longest 78, record 0); they are cut")
        ),
    )


def test_an_identity_in_two_splits(copy):
    report = verify(NAME, copy(5, id=40))
    assert report.faults == (
        Finding(
            "identity", "train, test", ("identities in both: 1 (40); obtain the annotation again")
        ),
    )


@pytest.mark.parametrize(
    ("one", "other", "splits", "people"),
    [
        (0, 2, "train", "40"),
        (0, 1, "train", "7, 40"),
        (4, 5, "test", "12500, 12501"),
        (0, 4, "train, test", "40, 12500"),
        (1, 3, "train, val", "7, 11500"),
        (3, 5, "val, test", "11500, 12501"),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_duplicate_files_are_a_fault_across_splits_and_a_note_within(
    copy, one, other, splits, people, deep
):
    folder = copy()
    paths = [f"imgs/cam{i % 2}/{i}.png" for i in (one, other)]
    shutil.copy(folder / paths[0], folder / paths[1])
    report = verify(NAME, folder, deep)
    expected = Finding(
        "duplicate",
        splits,
        (f"the same file: {', '.join(paths)} (identity {people}); keep one of them"),
    )
    assert (report.faults, report.notes) == (
        ((expected,), ()) if "," in splits else ((), (expected,))
    )


def test_files_of_equal_size_and_different_content_are_no_duplicates(copy):
    folder = copy()
    content = (folder / "imgs/cam0/0.png").read_bytes()
    (folder / "imgs/cam0/4.png").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert verify(NAME, folder).faults == ()


def test_an_image_listed_twice(copy):
    """Of one person it is a note: an official annotation is said to do so; of two it is a fault."""
    found = Finding("path", "imgs/cam0/0.png", "listed by records 0, 2; merge them into one")
    report = verify(NAME, copy(2, file_path="cam0/0.png"))
    assert found in report.notes and not report.faults
    assert found in verify(NAME, copy(2, file_path="cam0/0.png", id=77)).faults


def test_all_defects_are_reported_together(tmp_path, published):
    entries = records() + [
        records()[0],
        {**records()[5], "id": 40, "captions": [" "]},
        {"split": "train"},
        {**records()[1], "file_path": "gone/1.png"},
    ]
    folder = write(tmp_path, entries)
    shutil.copy(folder / "imgs/cam0/0.png", folder / "imgs/cam0/4.png")
    (folder / "imgs/cam0/2.png").write_bytes(b"")
    kinds = [kind for kind, _ in found(verify(NAME, folder).faults)]
    assert list(dict.fromkeys(kinds)) == [
        "counts",
        "record",
        "missing",
        "identity",
        "caption",
        "path",
        "image",
        "duplicate",
    ]


# With the loader


ODD = (
    None,
    True,
    3,
    12500,
    2**70,
    float("nan"),
    "",
    " ",
    "TRAIN",
    "val",
    "x",
    "a\nb",
    "\ud800",
    "\0",
    "../x.png",
    "cam0/0.png",
    "cam1/1.png",
    "gone/\x1b[31m.png",
    [],
    [""],
    ["a man"],
    ["a man", 3],
    {},
)
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["split", "id", "captions", "file_path", "img_path"]),
        st.one_of(st.sampled_from(ODD), st.just(...)),
    ),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(CHANGES)
def test_whatever_the_annotation_holds_it_is_reported_and_what_the_loader_refuses_is_a_fault(
    tmp_path, changes
):
    entries = records()
    for index, field, value in changes:
        if value is ...:
            entries[index].pop(field, None)
        else:
            entries[index][field] = value
    if not (tmp_path / "reid_raw.json").exists():
        write(tmp_path, entries)
    (tmp_path / "reid_raw.json").write_text(json.dumps(entries))
    report = verify("SynthPEDES-A", tmp_path)
    refused = {finding.kind for finding in report.faults} & {"counts", "record", "missing"}
    try:
        data = load_dataset("SynthPEDES-A", tmp_path)
    except CSKTError:
        assert refused
    else:
        assert not refused
        assert report.counts == {
            split.name: (len(split.image_paths), len(set(split.image_identities)), len(split))
            for split in (data.train, data.val, data.test)
        }
    text = report.to_text()
    text.encode()
    assert len(text.split("\n")) == 6 + len(report.faults) + len(report.notes)
    assert all(line.isprintable() for line in text.split("\n"))
    assert (
        json.loads(json.dumps(report.to_dict()))["counts"]["train"]["images"]
        == report.counts["train"][0]
    )


def test_deep_compares_the_image_cache_with_the_files(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    folder = copy()
    test = load_dataset(NAME, folder).test
    load_images(test, (8, 4))
    assert verify(NAME, folder, deep=True).faults == ()
    image = test.image_paths[1]
    state, content = image.stat(), image.read_bytes()
    swapped = Image.new("RGB", Image.open(image).size, "black")
    swapped.save(image)
    image.write_bytes(
        image.read_bytes().ljust(len(content), b"\0")
    )  # after its end, which nobody reads
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert image.stat().st_size == state.st_size
    assert verify(NAME, folder).faults == ()
    (fault,) = verify(NAME, folder, deep=True).faults
    assert (fault.kind, fault.where) == ("cache", "test")
    assert "holds other pixels than the files: 1 (imgs/cam1/5.png); remove it" in fault.message
    image.write_bytes(b"0" * len(content))
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert [kind for kind, _ in found(verify(NAME, folder, deep=True).faults)] == ["image"]


def test_drawn_data_of_another_version_are_a_fault(tmp_path):
    folder = write(tmp_path / "SynthPEDES-A", records())
    assert verify("SynthPEDES-A", folder).faults == ()
    (folder / "recipe.json").unlink()
    (fault,) = verify("SynthPEDES-A", folder, deep=True).faults
    assert fault.kind == "version" and "older version" in fault.message


# The command


def test_a_clean_copy_exits_with_0_and_nothing_is_published_of_synthpedes(cskt, tmp_path):
    folder = write(tmp_path / "SynthPEDES-C", records("RSTPReid"), FILE["RSTPReid"])
    code, out, err = cskt("verify-data", "SynthPEDES-C", tmp_path, "--deep")
    assert (code, err) == (0, "")  # no progress bar where there is no terminal
    assert out.split("\n") == [
        f"SynthPEDES-C: {folder / 'data_captions.json'}",
        "split       images  identities    captions   published",
        "train            3           2           4   -",
        "val              1           1           2   -",
        "test             2           2           3   -",
        "faults: 0, notes: 0",
        "",
    ]


def test_faults_exit_with_1_and_stand_under_the_table(cskt, copy):
    folder = copy(5, file_path="gone/5.png", captions=["red " * 100])
    code, out, err = cskt("verify-data", NAME, folder)
    assert (code, err) == (1, "")
    assert out.split("\n")[4:] == [
        "test             2           2           2   2 / 2 / 3",
        "fault: test: 2 captions instead of 3; obtain the complete data set",
        "fault: imgs/gone: missing images: 1 (5.png), looked for without imgs/ too; unpack the folder again",
        "note: test: captions over 77 tokens: 1 (longest 102, record 5); they are cut",
        "faults: 2, notes: 1 (images were not opened; --deep decodes every one)",
        "",
    ]


def test_notes_alone_exit_with_0(cskt, copy):
    assert cskt("verify-data", NAME, copy(0, captions=["red " * 100]))[0] == 0


def test_names_from_the_annotation_cannot_break_a_line_or_the_terminal(cskt, tmp_path):
    names = "a\nb", "\x1b[31m", "\ud800", "é"
    entries = records() + [{**records()[0], "file_path": f"gone/{name}"} for name in names]
    code, out, _ = cskt("verify-data", "SynthPEDES-A", write(tmp_path, entries))
    assert code == 1 and r"(a\nb, \x1b[31m, \ud800, é)" in out


def test_a_progress_bar_on_a_terminal_only(cskt, copy, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cskt("verify-data", NAME, copy(), "--deep")
    assert code == 0 and "captions:" in err and "images:" in err and "images:" not in out


def test_json_holds_everything(cskt, copy):
    folder = copy(5, file_path="gone/5.png")
    code, out, err = cskt("verify-data", NAME, folder, "--json", "--deep")
    assert (code, err) == (1, "")
    held = json.loads(out)
    assert set(held) == {"name", "annotation", "deep", "counts", "published", "faults", "notes"}
    assert (
        held["name"] == NAME
        and held["annotation"] == str(folder / "reid_raw.json")
        and held["deep"] is True
    )
    assert (
        held["counts"]["test"]
        == held["published"]["test"]
        == {"images": 2, "identities": 2, "captions": 3}
    )
    (fault,) = held["faults"]
    assert (
        set(fault) == {"kind", "where", "message"}
        and fault["kind"] == "missing"
        and held["notes"] == []
    )


def test_of_many_findings_of_a_kind_ten_are_told_and_json_holds_all(cskt, tmp_path):
    folder = write(tmp_path, records() + [{"id": i} for i in range(25)])
    _, out, _ = cskt("verify-data", "SynthPEDES-A", folder)
    assert (
        out.count("fault: record ") == 10
        and "fault: 15 more of kind 'record'; --json lists all" in out
    )
    assert len(json.loads(cskt("verify-data", "SynthPEDES-A", folder, "--json")[1])["faults"]) == 25


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("Market-1501", b"[]", "data set 'Market-1501' is unknown; choose one of CUHK-PEDES"),
        (
            "RSTPReid",
            None,
            "RSTPReid is not in {root}: looked for data_captions.json there and in {root}/RSTPReid; pass",
        ),
        (
            "SynthPEDES-C",
            None,
            "SynthPEDES-C is not in {root}: looked for data_captions.json there",
        ),  # nothing is rendered
        ("RSTPReid", b'[{"id": 1,', "data_captions.json is not valid JSON"),
        ("RSTPReid", b"\xff\xfe\x00", "data_captions.json is not valid JSON"),
        ("RSTPReid", b"{}", "data_captions.json must hold a list of records"),
        ("RSTPReid", b"[]", "data_captions.json must hold a list of records"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cskt, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / "data_captions.json").write_bytes(content)
    code, out, err = cskt("verify-data", name, tmp_path)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("cskt: error: ") and message.format(root=tmp_path) in err


def test_progress_wraps_the_long_loops(copy):
    loops = []

    def progress(items, description, total):
        loops.append((description, total))
        return items

    verify(NAME, copy(), deep=True, progress=progress)
    assert loops == [("captions", 6), ("images", 6)]
