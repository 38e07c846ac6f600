"""An interrupted run goes on to the same result, and is not trusted before it is finished."""

import dataclasses
import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cskt import runs
from cskt.epoch import EpochLoop
from cskt.errors import ResourceError, RunError, RunStopped
from cskt.resuming import StopRequest
from cskt.runs import Run
from cskt.training import Trainer, train
from tests.tiny_runs import (
    Interrupted,
    assert_same_tensors,
    interrupt_after,
    tiny_config,
    without_seconds,
    write_dataset,
)

pytestmark = [
    pytest.mark.numerics,
    pytest.mark.slow,
    pytest.mark.usefixtures("own_cache"),
]


def begin(config, epochs=1):
    """Train until the run is cut off after ``epochs``."""
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(epochs))


def assert_same_weights(run, other):
    weights = load_file(run.folder / "adapter.safetensors")
    assert_same_tensors(weights, load_file(other.folder / "adapter.safetensors"))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_interrupted_run_continues_to_the_same_result(finished, tiny_data, tmp_path, epoch):
    config = tiny_config(tiny_data, tmp_path / "run")
    begin(config, epoch)
    torch.rand(7)  # the resumed process has another history of random numbers
    rows = []
    run = train(config, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == list(range(epoch + 1, 4))
    assert without_seconds(run.history) == without_seconds(finished.history)
    for name in ("metrics", "val_metrics", "zero_shot", "zero_shot_val", "best_epoch", "selected"):
        assert run.record[name] == finished.record[name]
    queries = (run.folder / "queries.npz").read_bytes()
    assert queries == (finished.folder / "queries.npz").read_bytes()
    assert_same_weights(run, finished)
    assert not (run.folder / "state.pt").exists()


def test_a_run_begun_in_one_precision_is_not_continued_in_another(tiny_data, tmp_path, monkeypatch):
    """ "auto", or a chip without bf16, may mean another precision on the machine that goes on."""

    def processor_with(**capabilities):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)

    config = tiny_config(tiny_data, tmp_path / "run", precision="bf16")
    processor_with(avx512_bf16=True)
    begin(config)
    processor_with()
    message = "was begun in bf16 and would go on in fp32; continue it where it was begun"
    with pytest.raises(RunError, match=message):
        train(config)
    processor_with(amx_bf16=True)
    assert train(config).record["precision"] == "bf16"


@pytest.mark.parametrize(
    ("owner", "function"),
    [(runs, "save_file"), (Trainer, "_finish")],
    ids=["while it is written", "before it is written"],
)
def test_run_cut_after_its_last_epoch_is_finished_later(
    finished, tiny_data, tmp_path, monkeypatch, owner, function
):
    config = tiny_config(tiny_data, tmp_path / "run")

    def cut(*arguments):
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(owner, function, cut)
        train(config)
    with pytest.raises(RunError, match="unfinished run"):
        Run.load(tmp_path / "run")
    run = train(config)
    assert without_seconds(run.history) == without_seconds(finished.history)
    assert_same_weights(run, finished)


def test_interrupted_run_is_not_trusted(tiny_data, tmp_path):
    begin(tiny_config(tiny_data, tmp_path / "run"))
    with pytest.raises(RunError, match=r"unfinished run \(metrics.json is missing\)"):
        Run.load(tmp_path / "run")


def test_file_write_that_fails_leaves_the_old_state(tiny_data, tmp_path, monkeypatch):
    config = tiny_config(tiny_data, tmp_path / "run")
    begin(config)
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def half(values, path):
        path.write_bytes(b"half")
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(torch, "save", half)
        train(config)
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert [row["epoch"] for row in train(config).history] == [1, 2, 3]


def test_damaged_state_is_named(tiny_data, tmp_path):
    config = tiny_config(tiny_data, tmp_path / "run")
    begin(config)
    (tmp_path / "run" / "state.pt").write_bytes(b"damaged")
    with pytest.raises(RunError, match="state.pt cannot be read"):
        train(config)


def test_finished_run_is_returned_as_it_is_unless_overwritten(tiny_data, tmp_path):
    config = tiny_config(tiny_data, tmp_path / "run", epochs=1)
    first = train(config)
    assert train(config, on_epoch=interrupt_after(1)).record == first.record
    rows = []
    second = train(config, on_epoch=rows.append, overwrite=True)
    assert len(rows) == 1
    assert rows == second.history
    assert second.record["metrics"] == first.record["metrics"]


def test_folder_of_another_run_is_refused(tiny_data, tmp_path):
    config = tiny_config(tiny_data, tmp_path / "run", epochs=1)
    train(config)
    changed = dataclasses.replace(config, learning_rate=2e-2)
    with pytest.raises(RunError, match=r"run holds a run with other settings \(learning_rate\)"):
        train(changed)
    assert train(changed, overwrite=True).config == changed


def test_changed_data_are_noticed(tmp_path):
    data = write_dataset(tmp_path / "CUHK-PEDES")
    config = tiny_config(data, tmp_path / "run", epochs=1)
    train(config)
    write_dataset(data, identities=5)
    with pytest.raises(RunError, match="was made with data_fingerprint"):
        train(config)


def cut_in_step(monkeypatch, number):
    """Cut the power in the optimiser step ``number`` (from 1) of the process."""
    steps = []
    step = EpochLoop._step

    def counted(self, captions):
        steps.append(captions)
        if len(steps) == number:
            raise Interrupted
        return step(self, captions)

    monkeypatch.setattr(EpochLoop, "_step", counted)


@pytest.mark.parametrize("cut", [2, 3, 5, 6])
def test_a_run_cut_inside_an_epoch_goes_on_from_its_last_stored_step(
    finished, tiny_data, tmp_path, monkeypatch, cut
):
    """12 captions in batches of 5 are three steps an epoch; every one is stored."""
    config = tiny_config(tiny_data, tmp_path / "run", checkpoint_every=1)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        cut_in_step(patch, cut)
        train(config)
    torch.rand(7)
    with monkeypatch.context() as patch:
        cut_in_step(patch, 9 - (cut - 1) + 1)  # one more than what is left: nothing is repeated
        run = train(config)
    assert without_seconds(run.history) == without_seconds(finished.history)
    assert run.record["metrics"] == finished.record["metrics"]
    assert_same_weights(run, finished)


def test_storing_every_step_changes_nothing(finished, tiny_data, tmp_path):
    run = train(tiny_config(tiny_data, tmp_path / "run", checkpoint_every=1))
    assert run.folder.name == "run"
    assert without_seconds(run.history) == without_seconds(finished.history)
    assert_same_weights(run, finished)


def test_a_damaged_newest_state_falls_back_to_the_one_before(finished, tiny_data, tmp_path, caplog):
    config = tiny_config(tiny_data, tmp_path / "run")
    begin(config, 2)
    (tmp_path / "run" / "state.pt").write_bytes(b"damaged")
    rows = []
    run = train(config, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [2, 3]
    assert "state.pt cannot be read" in caplog.text
    assert "going on from state.previous.pt" in caplog.text
    assert_same_weights(run, finished)
    assert not (tmp_path / "run" / "state.previous.pt").exists()


def test_a_run_killed_between_the_two_renames_goes_on_from_the_state_before(
    finished, tiny_data, tmp_path
):
    config = tiny_config(tiny_data, tmp_path / "run")
    begin(config, 1)
    os.replace(tmp_path / "run" / "state.pt", tmp_path / "run" / "state.previous.pt")
    assert_same_weights(train(config), finished)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_stores_it_and_says_how_to_go_on(
    finished, tiny_data, tmp_path, monkeypatch, number
):
    config = tiny_config(tiny_data, tmp_path / "run")
    step = EpochLoop._step

    def signalled(self, captions):
        loss = step(self, captions)
        if self.step == 1:  # the second step of an epoch
            signal.raise_signal(number)
        return loss

    name = signal.Signals(number).name
    message = f"stopped by {name} after step 2 of epoch 1; .* the same command goes on"
    with monkeypatch.context() as patch, pytest.raises(RunStopped, match=message):
        patch.setattr(EpochLoop, "_step", signalled)
        patch.setattr(signal, "SIG_IGN", object())  # where tests run in the background
        train(config)
    rows = []
    run = train(config, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert_same_weights(run, finished)


def test_a_second_signal_ends_at_once():
    signal_before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.asked == "SIGINT"
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal_before)


def test_signals_are_obeyed_again_after_the_block():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:668] . PytorchStreamWriter failed"),
    ],
    ids=["python", "torch"],
)
def test_a_full_disk_is_a_sentence_and_leaves_the_last_state(
    finished, tiny_data, tmp_path, monkeypatch, error
):
    config = tiny_config(tiny_data, tmp_path / "run")
    begin(config)

    def full(values, path):
        path.write_bytes(b"half")
        raise error

    message = "state.pt cannot be written .* free space there and run the same command"
    with monkeypatch.context() as patch, pytest.raises(ResourceError, match=message):
        patch.setattr(torch, "save", full)
        train(config)
    assert not list((tmp_path / "run").glob(".*.tmp"))
    assert_same_weights(train(config), finished)


def test_a_loss_that_is_no_number_names_its_step_and_files(tiny_data, tmp_path, monkeypatch):
    config = tiny_config(tiny_data, tmp_path / "run", checkpoint_every=1)
    step = EpochLoop._step

    def diverging(self, captions):
        loss = step(self, captions)
        if len(captions) == 5 and self.step == 1:
            return loss * float("nan")
        return loss

    with monkeypatch.context() as patch, pytest.raises(RunError, match="at step 2") as caught:
        patch.setattr(EpochLoop, "_step", diverging)
        train(config)
    report = json.loads((tmp_path / "run" / "diverged.json").read_text())
    assert report["epoch"] == 1
    assert report["step"] == 2
    assert len(report["images"]) == len(report["captions"]) == 5
    assert report["images"][0] in str(caught.value)
    for image, caption in zip(report["images"], report["captions"], strict=True):
        identity = int(Path(image).stem.split("_")[1])
        assert f"number {identity} " in caption
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["loop"]["step"] == 1  # of before


def test_a_run_begun_by_an_older_version_is_named(tiny_data, tmp_path):
    config = tiny_config(tiny_data, tmp_path / "run")
    begin(config)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    del state["loop"]
    torch.save(state, tmp_path / "run" / "state.pt")
    with pytest.raises(RunError, match="was begun by an older version"):
        train(config)
