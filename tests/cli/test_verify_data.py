"""The command verify-data: what it prints, as text and json, and its exit codes."""

import json
import sys

import pytest

from tests.annotations import FILE, records, write
from tests.copies import NAME, copy, published

__all__ = ["copy", "published"]  # fixtures


def test_a_clean_copy_exits_with_0_and_nothing_is_published_of_synthpedes(cskt, tmp_path):
    folder = write(tmp_path / "SynthPEDES-C", records("RSTPReid"), FILE["RSTPReid"])
    code, out, err = cskt("verify-data", "SynthPEDES-C", tmp_path, "--deep")
    assert code == 0
    assert err == ""  # no progress bar where there is no terminal
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
    assert code == 1
    assert err == ""
    assert out.split("\n")[4:] == [
        "test             2           2           2   2 / 2 / 3",
        "fault: test: 2 captions instead of 3; obtain the complete data set",
        "fault: imgs/gone: missing images: 1 (5.png), looked for without imgs/ too; "
        "unpack the folder again",
        "note: test: captions over 77 tokens: 1 (longest 102, record 5); they are cut, and 24.27% "
        "of the words are lost",
        "note: test: captions over 69 tokens, which 8 prompts leave: 1 (longest 102, record 5); "
        "they are cut, and 32.04% of the words are lost",
        "faults: 2, notes: 2 (images were not opened; --deep decodes every one)",
        "",
    ]


def test_notes_alone_exit_with_0(cskt, copy):
    code, _, _ = cskt("verify-data", NAME, copy(0, captions=["red " * 100]))
    assert code == 0


def test_names_from_the_annotation_cannot_break_a_line_or_the_terminal(cskt, tmp_path):
    entries = records()
    for name in ("a\nb", "\x1b[31m", "\ud800", "é"):
        entries.append({**records()[0], "file_path": f"gone/{name}"})
    code, out, _ = cskt("verify-data", "SynthPEDES-A", write(tmp_path, entries))
    assert code == 1
    assert r"(a\nb, \x1b[31m, \ud800, é)" in out


def test_a_progress_bar_on_a_terminal_only(cskt, copy, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cskt("verify-data", NAME, copy(), "--deep")
    assert code == 0
    assert "captions:" in err
    assert "images:" in err
    assert "images:" not in out


def test_json_holds_everything(cskt, copy):
    folder = copy(5, file_path="gone/5.png")
    code, out, err = cskt("verify-data", NAME, folder, "--json", "--deep")
    assert code == 1
    assert err == ""
    report = json.loads(out)
    fields = {"name", "annotation", "deep", "counts", "published", "faults", "notes"}
    assert set(report) == fields
    assert report["name"] == NAME
    assert report["annotation"] == str(folder / "reid_raw.json")
    assert report["deep"] is True
    counts = {"images": 2, "identities": 2, "captions": 3}
    assert report["counts"]["test"] == counts
    assert report["published"]["test"] == counts
    (fault,) = report["faults"]
    assert set(fault) == {"kind", "where", "message", "places"}
    assert fault["kind"] == "missing"
    assert report["notes"] == []


def test_of_many_findings_of_a_kind_ten_are_told(cskt, tmp_path):
    malformed = [{"id": index} for index in range(25)]
    folder = write(tmp_path, records() + malformed)
    _, out, _ = cskt("verify-data", "SynthPEDES-A", folder)
    assert out.count("fault: record ") == 10
    assert "fault: 15 more of kind 'record'; --json lists all" in out


def test_of_many_findings_of_a_kind_json_holds_all(cskt, tmp_path):
    malformed = [{"id": index} for index in range(25)]
    folder = write(tmp_path, records() + malformed)
    _, out, _ = cskt("verify-data", "SynthPEDES-A", folder, "--json")
    assert len(json.loads(out)["faults"]) == 25


def assert_refused(result, message):
    """One line on stderr and exit code 2."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("cskt: error: ")
    assert message in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuhk pedes", "dataset 'cuhk pedes' reads like CUHK-PEDES; write it so"),
        ("SynthPEDES-D", "dataset 'SynthPEDES-D' is not drawn here; take one of SynthPEDES-A"),
        ("a,b", "dataset must be a name of 1 to 100 printable characters without , < and >"),
    ],
)
def test_what_cannot_name_one_s_own_data_is_refused(cskt, tmp_path, name, message):
    assert_refused(cskt("verify-data", name, tmp_path), message)


@pytest.mark.parametrize("name", ["RSTPReid", "SynthPEDES-C"])
def test_a_missing_annotation_is_refused_and_nothing_is_rendered(cskt, tmp_path, name):
    message = (
        f"{name} is not in {tmp_path}: looked for data_captions.json there and in "
        f"{tmp_path / name}; pass"
    )
    assert_refused(cskt("verify-data", name, tmp_path), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": 1,', "data_captions.json is not valid JSON"),
        (b"\xff\xfe\x00", "data_captions.json is not valid JSON"),
        (b"{}", "data_captions.json must hold a list of records"),
        (b"[]", "data_captions.json must hold a list of records"),
    ],
)
def test_a_damaged_annotation_is_refused(cskt, tmp_path, content, message):
    (tmp_path / "data_captions.json").write_bytes(content)
    assert_refused(cskt("verify-data", "RSTPReid", tmp_path), message)
