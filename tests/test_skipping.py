"""A run on images of which some cannot be read: left out, listed, and otherwise the same run."""

import json

import pytest
from safetensors.torch import load_file

from cskt.errors import DataError, RunError
from cskt.training import train
from tests.tiny_runs import (
    Interrupted,
    assert_same_tensors,
    interrupt_after,
    register_backbone,
    tiny_config,
    without_seconds,
    write_dataset,
)

pytestmark = [pytest.mark.numerics, pytest.mark.slow]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    register_backbone(tmp_path)


def damaged_copy(folder, *names):
    """The tiny data set in which these images are cut short."""
    data = write_dataset(folder)
    for name in names:
        path = data / "imgs" / "CUHK01" / name
        path.write_bytes(path.read_bytes()[:200])
    return data


def without(folder, *names):
    """The tiny data set without these images."""
    data = write_dataset(folder)
    records = json.loads((data / "reid_raw.json").read_text())
    kept = [record for record in records if record["file_path"].split("/")[1] not in names]
    (data / "reid_raw.json").write_text(json.dumps(kept))
    return data


def weights(run):
    return load_file(run.folder / "adapter.safetensors")


def assert_same_result(run, other):
    assert without_seconds(run.history) == without_seconds(other.history)
    assert run.record["metrics"] == other.record["metrics"]
    assert run.record["val_metrics"] == other.record["val_metrics"]
    assert_same_tensors(weights(run), weights(other))


BROKEN = ("train_1_0.png", "train_4_1.png", "test_0_1.png")


def test_by_default_an_unreadable_image_ends_the_run_by_name(tmp_path):
    data = damaged_copy(tmp_path / "data", *BROKEN)
    with pytest.raises(DataError, match="test_0_1.png: cannot be read"):
        train(tiny_config(data, tmp_path / "run"))


def test_skipping_gives_the_run_on_data_without_those_images(tmp_path):
    data = damaged_copy(tmp_path / "damaged", *BROKEN)
    run = train(tiny_config(data, tmp_path / "run", on_error="skip"))
    expected = train(tiny_config(without(tmp_path / "less", *BROKEN), tmp_path / "expected"))
    assert_same_result(run, expected)
    assert len(run.queries()["first_rank"]) == 11


def test_the_record_counts_and_lists_what_was_left_out(tmp_path):
    data = damaged_copy(tmp_path / "data", *BROKEN)
    run = train(tiny_config(data, tmp_path / "run", on_error="skip", epochs=1))
    skipped = run.record["skipped"]
    assert skipped.keys() == {"train", "test"}
    assert skipped["train"]["images"] == 2
    assert skipped["test"]["of"] == 12
    (file, why), *others = skipped["test"]["files"].items()
    assert not others
    assert file == "imgs/CUHK01/test_0_1.png"
    assert why.startswith("cannot be read")
    notes = " ".join(run.record["notes"])
    assert "1 of 12 images of test cannot be read" in notes
    assert "they cannot be found" in notes
    assert str(tmp_path) not in json.dumps(skipped)


def test_with_all_images_sound_skipping_changes_nothing(tmp_path):
    data = write_dataset(tmp_path / "data")
    plain = train(tiny_config(data, tmp_path / "plain"))
    run = train(tiny_config(data, tmp_path / "run", on_error="skip"))
    assert_same_result(run, plain)
    assert run.record["skipped"] == plain.record["skipped"] == {}
    assert run.record["notes"] == plain.record["notes"]


def test_pieces_of_a_batch_without_its_unreadable_images_give_the_same_run(tmp_path):
    data = damaged_copy(tmp_path / "data", *BROKEN)
    whole = train(tiny_config(data, tmp_path / "whole", on_error="skip", epochs=1))
    pieces = train(
        tiny_config(data, tmp_path / "pieces", on_error="skip", epochs=1, micro_batch_size=2)
    )
    assert pieces.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-5)


def test_an_interrupted_run_that_skips_goes_on_to_the_same_result(tmp_path):
    data = damaged_copy(tmp_path / "data", *BROKEN)
    whole = train(tiny_config(data, tmp_path / "whole", on_error="skip"))
    config = tiny_config(data, tmp_path / "run", on_error="skip")
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(1))
    run = train(config)
    assert_same_result(run, whole)
    assert run.record["skipped"] == whole.record["skipped"]


def test_a_run_does_not_go_on_when_other_images_can_be_read(tmp_path):
    data = damaged_copy(tmp_path / "data", *BROKEN)
    config = tiny_config(data, tmp_path / "run", on_error="skip")
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(1))
    broken = data / "imgs" / "CUHK01" / "train_2_0.png"
    broken.write_bytes(b"x" * broken.stat().st_size)  # of the same size: the fingerprint holds
    with pytest.raises(RunError, match="other images than before can be read"):
        train(config)


def test_evaluation_skips_as_its_run_did_and_says_so(tmp_path, cskt, monkeypatch):
    data = write_dataset(tmp_path / "data")
    run = train(tiny_config(data, tmp_path / "run", epochs=1))
    damaged = damaged_copy(tmp_path / "damaged", "test_0_1.png")
    asked = ("evaluate", run.folder, "--data-root", damaged)
    code, _, error = cskt(*asked)
    assert code == 2
    assert "test_0_1.png" in error
    code, output, _ = cskt(*asked, "--on-error", "skip")
    assert code == 0
    result = json.loads(output)
    assert result["skipped"]["files"].keys() == {"imgs/CUHK01/test_0_1.png"}
    assert "cannot be found" in result["notes"][0]
