"""The audit of captions: every defect planted is found, and nothing else."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cskt.data.audit import ambiguous_captions, normalised
from cskt.data.datasets import Split
from cskt.synthetic import synthetic_dataset
from tests import own_data
from tests.annotations import records, write
from tests.copies import NAME, copy, published, verify

__all__ = ["copy", "published"]  # fixtures

KINDS = ("ambiguous", "near-duplicate", "letters", "code", "script")


def told(report, *kinds):
    """Kind, split and places of the notes about captions."""
    notes = [note for note in report.notes if note.kind in (kinds or KINDS)]
    return [(note.kind, note.where, note.places) for note in notes]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A man in Black.", "a man in black"),
        ("a  man\tin\nblack", "a man in black"),
        ("a man, in-black!", "a man in black"),
        ("a man in “black”", 'a man in "black"'),
        ("Ａ man in black", "a man in black"),
        ("a caf\u00e9", "a cafe\u0301"),
        ("STRASSE", "straße"),
    ],
)
def test_case_punctuation_and_spaces_do_not_count(one, other):
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("a man", "a men"), ("2 bags", "3 bags"), ("की", "का"), ("a man", "aman")],
)
def test_letters_marks_and_digits_do_count(one, other):
    assert normalised(one) != normalised(other)


@given(st.text())
def test_a_normalised_text_stays_what_it_is(text):
    once = normalised(text)
    assert normalised(once.upper().lower()) == normalised(once)
    assert once == " ".join(once.split())


def test_the_same_caption_on_two_identities_is_ambiguous(copy):
    folder = copy(1, captions=["a man in black", "Caption 0 0!"])  # of 7; and 40 has "caption 0 0"
    (ambiguous, near) = [note for note in verify(NAME, folder).notes if note.kind in KINDS]
    assert ambiguous.message == (
        "the same caption on 2 identities (7, 40; records 0, 1): 'caption 0 0'; say what tells "
        "them apart, or evaluate --without-ambiguous"
    )
    assert (ambiguous.kind, ambiguous.where, ambiguous.places) == ("ambiguous", "train", (0, 1))
    assert near.message == (
        "captions that differ in case, punctuation or spaces alone (records 0, 1): 'Caption 0 0!', "
        "'caption 0 0'; keep one wording"
    )


def test_the_same_caption_of_one_person_is_not_ambiguous(copy):
    assert told(verify(NAME, copy(2, captions=["caption 0 0"]))) == []


def test_the_same_caption_in_two_splits_is_not_ambiguous(copy):
    assert told(verify(NAME, copy(5, captions=["caption 0 0"]))) == []


@pytest.mark.parametrize("caption", [".", "123", "!?", "☃"])
def test_captions_without_a_letter(copy, caption):
    report = verify(NAME, copy(4, captions=[caption]))
    assert told(report) == [("letters", "test", (4,))]
    assert {fault.kind for fault in report.faults} <= {"counts"}  # a caption less


@pytest.mark.parametrize(
    "caption",
    [
        "a man <br> in black",
        "if x == 3: print(x)",
        "a man &amp; a woman",
        "see https://example.org",
        "a man in {colour}",
        "\\u4e00 a man",
        "import the man",
        "file_name of a man",
    ],
)
def test_captions_with_code(copy, caption):
    assert told(verify(NAME, copy(4, captions=[caption]))) == [("code", "test", (4,))]


@pytest.mark.parametrize(
    "caption",
    [
        "A man (tall), about 30 years old; in a T-shirt with 'No. 1' & stripes: red/white!",
        "A woman's café-au-lait coat costs $30, 50% off - her bag is an A4 one.",
    ],
)
def test_a_sentence_is_no_code(copy, caption):
    assert told(verify(NAME, copy(4, captions=[caption]))) == []


def test_captions_in_other_scripts_say_which(copy):
    report = verify(NAME, copy(5, captions=["a man 人", "мужчина и 人", "女の子", "a woman"]))
    notes = [note for note in report.notes if note.kind == "script"]
    shown = [note.message.split(" (")[0] for note in notes]
    assert shown == [
        "captions with CJK letters: 3",
        "captions with Cyrillic letters: 1",
        "captions with Hiragana letters: 1",
    ]
    assert "such as 'a man 人'); correct or remove them" in notes[0].message


def test_places_of_a_table_are_its_rows(tmp_path):
    table = own_data.rows()
    table[1]["caption"] = "a man"
    table[5]["caption"] = "A man"
    table[31]["caption"] = "人"
    folder = own_data.write(tmp_path, table)
    assert told(verify(own_data.NAME, folder)) == [
        ("ambiguous", "train", (3, 7)),
        ("near-duplicate", "train", (3, 7)),
        ("script", "val", (33,)),
    ]


def test_an_empty_caption_of_a_record_is_named_by_its_record(copy):
    report = verify(NAME, copy(3, captions=["a man", "&nbsp;"]))
    assert [(fault.kind, fault.where) for fault in report.faults] == [("caption", "record 3")]


def test_every_defect_at_once(tmp_path):
    planted = [
        (records()[0], "a man in black"),
        (records()[1], "A man in black."),
        (records()[2], "..."),
        (records()[4], "for i in range(3): pass"),
        (records()[5], "женщина"),
        (records()[3], "red " * 90),
    ]
    entries = [{**record, "captions": [caption]} for record, caption in planted]
    report = verify("SynthPEDES-A", write(tmp_path, entries))
    assert report.faults == ()
    kinds = [note.kind for note in report.notes]
    assert kinds == ["caption", "caption", *KINDS]
    assert [len(note.places) for note in report.notes] == [1, 1, 2, 2, 1, 1, 1]
    lines = report.to_text().split("\n")
    assert len([line for line in lines if line.startswith("note: ")]) == 7


def test_of_many_ambiguous_captions_ten_are_told_and_json_has_all(tmp_path):
    entries = records()
    for number in range(15):
        for record in records()[:2]:
            entries.append({**record, "captions": [f"number {number}"]})
    report = verify("SynthPEDES-A", write(tmp_path, entries))
    assert "note: 5 more of kind 'ambiguous'; --json lists all" in report.to_text()
    notes = report.to_dict()["notes"]
    places = [note["places"] for note in notes if note["kind"] == "ambiguous"]
    assert places[0] == (6, 7)
    assert places[-1] == (34, 35)
    assert len(places) == 15


# Which queries are left out


def split_of(captions, identities):
    return Split("test", (), np.array(identities), tuple(captions), np.arange(len(captions)))


def test_ambiguous_are_queries_whose_words_stand_under_several_identities():
    captions = ["a man", "A man!", "a woman", "a woman", "a child"]
    split = split_of(captions, [1, 2, 3, 3, 4])
    assert ambiguous_captions(split).tolist() == [True, True, False, False, False]


WORDS = st.sampled_from(["a man", "A MAN", "a man.", "a woman", "Woman", "", "!"])


@given(st.lists(st.tuples(WORDS, st.integers(0, 2)), max_size=12))
def test_a_query_is_ambiguous_where_a_pair_says_so(pairs):
    captions = [text for text, _ in pairs]
    identities = [identity for _, identity in pairs]
    plain = [text.lower().strip(".!") for text in captions]
    expected = []
    for words, identity in zip(plain, identities, strict=True):
        people = {identity}
        for other_words, other in zip(plain, identities, strict=True):
            if other_words == words:
                people.add(other)
        expected.append(len(people) > 1)
    assert ambiguous_captions(split_of(captions, identities)).tolist() == expected


# Drawn data, which have no defects but captions that fit several people


@pytest.fixture(scope="module")
def drawn():
    """The annotation of SynthPEDES-A, as written."""
    folder = synthetic_dataset("SynthPEDES-A")
    return folder, json.loads((folder / "reid_raw.json").read_text())


@pytest.mark.slow
def test_of_clean_annotations_it_tells_what_is_there_and_nothing_else(drawn):
    folder, entries = drawn
    report = verify("SynthPEDES-A", folder)
    assert report.faults == ()
    assert {note.kind for note in report.notes} <= {"ambiguous", "caption"}
    people = defaultdict(set)
    for entry in entries:
        for caption in entry["captions"]:
            people[entry["split"], caption].add(entry["id"])
    expected = Counter()
    for (split, _), identities in people.items():
        if len(identities) > 1:
            expected[split] += 1
    told = Counter(note.where for note in report.notes if note.kind == "ambiguous")
    assert told == expected
