"""An interrupted run goes on to the same result, and is not trusted before it is finished."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from cskt import runs
from cskt.errors import RunError
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
