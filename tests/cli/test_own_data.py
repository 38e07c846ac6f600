"""The command line on data of one's own: train, evaluate, reproduce and verify-data under a name
with spaces, a slash and another script."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests import own_data
from tests.own_data import rows

NAME = "my people/人物"


@pytest.fixture
def folder(tmp_path):
    """Data without val; two of six captions in test are ambiguous."""
    table = rows(val=False)
    test = [row for row in table if row["split"] == "test"]
    test[0]["caption"] = "A man."
    test[1]["caption"] = "a woman"
    test[3]["caption"] = "a man"
    test[4]["caption"] = "a woman, too"
    return own_data.write(tmp_path / "own", table)


@pytest.fixture
def options(tiny_settings, folder):
    """The tiny run's settings, for the data of one's own."""
    values = yaml.safe_load(tiny_settings.read_text())
    values |= {"dataset": NAME, "data_root": str(folder), "output": None, "epochs": 1}
    tiny_settings.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return "--config", tiny_settings


@pytest.mark.slow
def test_train_then_evaluate_without_ambiguous(cskt, options, tmp_path):
    code, out, err = cskt("train", *options)
    assert code == 0, err
    (run,) = (tmp_path / "runs").glob("[!.]*")
    assert run.name.startswith("my-people-")
    assert run.name.isascii()
    record = json.loads((run / "metrics.json").read_text())
    assert record["dataset"] == NAME
    assert record["synthetic"] is False
    assert record["notes"] == [
        f"val of {NAME} was split off: 2 of the 8 training identities, chosen by seed 0"
    ]
    code, out, err = cskt("evaluate", run)
    assert code == 0, err
    usual = json.loads(out)
    assert usual["metrics"] == record["metrics"]
    code, out, err = cskt("evaluate", run, "--without-ambiguous")
    assert code == 0, err
    both = json.loads(out)
    without = both.pop("without_ambiguous")
    del both["cost"], usual["cost"]  # seconds are never the same
    assert both == usual
    assert (without["left_out"], without["of"]) == (2, 6)
    assert 0 <= without["text_to_image"]["R@1"] <= 100


def test_verify_data_counts_without_published_counts(cskt, folder):
    code, out, err = cskt("verify-data", NAME, folder, "--deep")
    assert (code, err) == (0, "")
    lines = out.split("\n")
    assert lines[2] == "train           16           8          24   -"
    assert "note: val: no records; a share of the training identities is split off" in lines
    assert lines[-2] == "faults: 0, notes: 3"


@pytest.mark.slow
def test_reproduce_leaves_records_under_the_run_s_name(cskt, options, tiny_settings, folder):
    values = yaml.safe_load(tiny_settings.read_text())
    names = ("image_size", "batch_size", "device", "precision", "epochs")
    code, _, err = cskt(
        *("reproduce", "--datasets", NAME, "--data-root", folder, "--methods", "zero-shot"),
        *("--backbone", values["backbone"], "--pretrained", "random", "--records", "records"),
        *(f"--set={name}={values[name]}" for name in names),
    )
    assert code == 0, err
    (path,) = (folder.parent / "records").glob("*.json")
    assert path.name.startswith("my-people-")
    assert json.loads(path.read_text())["dataset"] == NAME


@pytest.mark.parametrize("file", ["gone\x1b[31m.png", "gone\n.png"])
def test_names_in_a_table_cannot_break_a_line_or_the_terminal(cskt, tmp_path, file):
    own_data.write_csv(tmp_path, [{**rows()[0], "image": file}])
    code, out, err = cskt("train", "--dataset", NAME, "--data-root", tmp_path)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.strip().isprintable()
    assert f"row 2: image {tmp_path}/imgs/gone" in err


def test_the_example_of_the_book_runs(cskt, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[2] / "book" / "own-data.md"
    example = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len([line for line in example.splitlines() if line.strip()]) == 10
    monkeypatch.chdir(tmp_path)
    exec(compile(example, page.name, "exec"), {})
    assert capsys.readouterr().out.startswith("('val of my people was split off: 2 of the 4")
    code, _, err = cskt("verify-data", "my people", ".", "--deep")
    assert (code, err) == (0, "")
