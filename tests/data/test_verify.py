"""Checking the annotation of small hand-made copies of every layout: a clean one, and one for each
defect that must be named."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cskt.data.datasets import load_dataset
from cskt.data.findings import PUBLISHED, Finding
from cskt.errors import CSKTError
from cskt.model.backbone import clip_tokenizer
from tests.annotations import FILE, records, without, write
from tests.copies import COUNTS, NAME, copy, places, published, verify

__all__ = ["copy", "published"]  # fixtures


# Clean copies and their counts


CLEAN_COPIES = [*FILE.items(), (NAME, "caption_all.json"), ("ICFG-PEDES", "ICFG_PEDES.json")]


@pytest.mark.parametrize(("name", "file"), CLEAN_COPIES)
@pytest.mark.parametrize("deep", [False, True])
def test_a_clean_copy_of_every_layout(tmp_path, published, name, file, deep):
    folder = write(tmp_path / name, records(name), file)
    report = verify(name, tmp_path, deep=deep)
    assert report.faults == ()
    assert report.notes == ()
    assert report.counts == COUNTS
    assert report.name == name
    assert report.annotation == folder / file
    assert report.deep == deep


def test_caption_all_without_split_is_divided_by_identity(tmp_path, published):
    entries = without(records(), "split")
    report = verify(NAME, write(tmp_path, entries, "caption_all.json"))
    assert report.faults == ()
    assert report.counts == COUNTS


def test_caption_all_with_split_is_divided_by_split(tmp_path, published):
    folder = write(tmp_path, records(split="test"), "caption_all.json")
    assert verify(NAME, folder).counts["test"] == (6, 5, 9)


def test_caption_all_without_split_knows_identities_1_to_13003(tmp_path, published):
    entries = without(records(), "split")
    entries[2]["id"] = 13004
    report = verify(NAME, write(tmp_path, entries, "caption_all.json"))
    (fault,) = [finding for finding in report.faults if finding.kind == "record"]
    assert "from 1 to 13003" in fault.message


def test_counts_are_compared_with_what_is_published(tmp_path):
    report = verify(NAME, write(tmp_path, records()))
    assert places(report.faults) == [("counts", "train"), ("counts", "val"), ("counts", "test")]
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
    report = verify(NAME, write(tmp_path, entries, file))
    assert (report.faults == ()) == right


@pytest.mark.parametrize(
    ("name", "images", "identities", "captions"),
    [
        ("CUHK-PEDES", 40206, 13003, 80440),
        ("ICFG-PEDES", 54522, 4102, 54522),
        ("RSTPReid", 20505, 4101, 41010),
    ],
)
def test_the_published_statistics_add_up_to_the_totals_in_the_papers(
    name, images, identities, captions
):
    splits = PUBLISHED[name].values()
    assert sum(counts.images for counts in splits) == images
    assert sum(counts.identities for counts in splits) == identities
    assert sum(counts.captions for counts in splits) == captions


def records_of(*splits):
    return [entry for entry in records() if entry["split"] in splits]


def test_icfg_may_lack_val(tmp_path, published):
    folder = write(tmp_path, records_of("train", "test"), FILE["ICFG-PEDES"])
    report = verify("ICFG-PEDES", folder)
    assert report.faults == ()
    assert report.notes == (Finding("counts", "val", "no records; test stands in for it"),)


@pytest.mark.parametrize("name", [NAME, "SynthPEDES-A"])
def test_other_data_sets_may_not_lack_val(tmp_path, published, name):
    folder = write(tmp_path, records_of("train", "test"))
    assert places(verify(name, folder).faults) == [("counts", "val")]


def test_a_missing_test_split_is_a_fault(tmp_path, published):
    folder = write(tmp_path, records_of("train"), FILE["ICFG-PEDES"])
    report = verify("SynthPEDES-B", folder)
    assert places(report.faults) == [("counts", "test")]
    assert places(report.notes) == [("counts", "val")]


# One defect at a time


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "captions",
            None,
            "field 'captions' must be a list of at least one string, got null; "
            "correct the annotation.",
        ),
        ("captions", "a man", "field 'captions' must be"),
        ("id", "12", "field 'id' must be an integer, got str '12'"),
        ("file_path", " ", "field 'file_path' must be a path"),
        ("split", "trian", "field 'split' must be 'train', 'val' or 'test'"),
    ],
)
def test_a_malformed_record_is_named_in_the_loaders_words(copy, field, value, message):
    report = verify(NAME, copy(1, **{field: value}))
    assert places(report.faults) == [("counts", "train"), ("record", "record 1")]
    assert report.faults[1].message.startswith(message)
    assert report.counts == {**COUNTS, "train": (2, 1, 2)}


def test_every_malformed_record_is_named_and_the_rest_is_counted(tmp_path, published):
    entries = records()
    del entries[0]["captions"]
    del entries[3]["file_path"]
    entries[5] = [1]
    report = verify(NAME, write(tmp_path, entries))
    malformed = [finding.where for finding in report.faults if finding.kind == "record"]
    assert malformed == ["record 0", "record 3", "record 5"]
    assert report.counts == {"train": (2, 2, 3), "val": (0, 0, 0), "test": (1, 1, 1)}


@pytest.mark.parametrize("empty", ["", " \n\t", "&nbsp;"])
def test_empty_captions(copy, empty):
    report = verify(NAME, copy(3, captions=["a man", empty]))
    message = "empty captions: 1 of 2 (number 2); write or remove them"
    assert report.faults == (Finding("caption", "record 3", message),)


CUT_BY_PROMPTS = "captions over 69 tokens, which 8 prompts leave: 1"


def test_captions_of_77_tokens_are_cut_behind_prompts_alone(copy):
    longest = "red " * 75
    assert len(clip_tokenizer(context_length=77).encode(longest)) == 75  # and start and end
    folder = copy(0, captions=[longest])
    assert verify(NAME, folder, prompts=0).notes == ()
    (note,) = verify(NAME, folder).notes
    assert note.message.startswith(CUT_BY_PROMPTS)
    # 8 of the 84 words of train: 75, and 9 of the three other captions
    assert note.message.endswith("they are cut, and 9.52% of the words are lost")
    assert note.places == (0,)


def test_captions_of_69_tokens_are_sound(copy):
    assert verify(NAME, copy(0, captions=["red " * 67])).notes == ()


def test_captions_over_77_tokens_are_noted(copy):
    report = verify(NAME, copy(0, captions=["red " * 76]))
    message = (
        "captions over 77 tokens: 1 (longest 78, record 0); they are cut, and 1.18% of the words "
        "are lost"
    )
    assert report.faults == ()
    assert report.notes[0] == Finding("caption", "train", message)
    assert report.notes[1].message.startswith(CUT_BY_PROMPTS)


def test_an_identity_in_two_splits(copy):
    report = verify(NAME, copy(5, id=40))
    message = "identities in both: 1 (40); obtain the annotation again"
    assert report.faults == (Finding("identity", "train, test", message),)


def test_drawn_data_of_another_version_are_a_fault(tmp_path):
    folder = write(tmp_path / "SynthPEDES-A", records())
    assert verify("SynthPEDES-A", folder).faults == ()
    (folder / "recipe.json").unlink()
    (fault,) = verify("SynthPEDES-A", folder, deep=True).faults
    assert fault.kind == "version"
    assert "older version" in fault.message


def test_all_defects_are_reported_together_by_kind(tmp_path, published):
    listed_again = records()[0]
    of_another_split = {**records()[5], "id": 40, "captions": [" "]}
    malformed = {"split": "train"}
    without_image = {**records()[1], "file_path": "gone/1.png"}
    entries = [*records(), listed_again, of_another_split, malformed, without_image]
    folder = write(tmp_path, entries)
    shutil.copy(folder / "imgs/cam0/0.png", folder / "imgs/cam0/4.png")
    (folder / "imgs/cam0/2.png").write_bytes(b"")
    kinds = [finding.kind for finding in verify(NAME, folder).faults]
    order = "counts record missing identity caption path image duplicate"
    assert list(dict.fromkeys(kinds)) == order.split()


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
REMOVED = object()
FIELDS = ("split", "id", "captions", "file_path", "img_path")
CHANGE = st.tuples(st.integers(0, 5), st.sampled_from(FIELDS), st.sampled_from((*ODD, REMOVED)))
FUZZING = settings(
    max_examples=75, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def changed(changes):
    """The records after changes of index, field and value."""
    entries = records()
    for index, field, value in changes:
        if value is REMOVED:
            entries[index].pop(field, None)
        else:
            entries[index][field] = value
    return entries


def fuzzed_copy(folder, changes):
    if not (folder / "reid_raw.json").exists():
        write(folder, records())
    (folder / "reid_raw.json").write_text(json.dumps(changed(changes)))
    return folder


@pytest.mark.slow
@FUZZING
@given(st.lists(CHANGE, min_size=1, max_size=4))
def test_what_the_loader_refuses_is_a_fault_and_what_it_reads_is_counted(tmp_path, changes):
    folder = fuzzed_copy(tmp_path, changes)
    report = verify("SynthPEDES-A", folder)
    refused = {finding.kind for finding in report.faults} & {"counts", "record", "missing"}
    try:
        data = load_dataset("SynthPEDES-A", folder)
    except CSKTError:
        assert refused
        return
    assert not refused
    for split in (data.train, data.val, data.test):
        identities = set(split.image_identities)
        counts = (len(split.image_paths), len(identities), len(split))
        assert report.counts[split.name] == counts


@pytest.mark.slow
@FUZZING
@given(st.lists(CHANGE, min_size=1, max_size=4))
def test_whatever_the_annotation_holds_the_report_is_lines_and_json(tmp_path, changes):
    report = verify("SynthPEDES-A", fuzzed_copy(tmp_path, changes))
    text = report.to_text()
    text.encode()
    lines = text.split("\n")
    assert len(lines) == 6 + len(report.faults) + len(report.notes)
    assert all(line.isprintable() for line in lines)
    images = report.counts["train"].images
    assert json.loads(json.dumps(report.to_dict()))["counts"]["train"]["images"] == images
