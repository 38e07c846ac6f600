"""Several processes that share every batch train the model that one process trains."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from safetensors.torch import load_file

from cskt.config import TrainConfig
from cskt.errors import ConfigurationError
from cskt.evaluation import MEASURES
from cskt.ranks import Ranks, launched
from tests.rank_training import MICRO_BATCH_SIZES, trained
from tests.tiny_runs import register_backbone, tiny_config

REPOSITORY = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.numerics, pytest.mark.usefixtures("own_cache")]


def torchrun(count: int, *arguments, check: bool = True) -> subprocess.CompletedProcess:
    """``torchrun --nproc-per-node COUNT -m ...`` on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), "-m", *map(str, arguments)]
    return run(command, check)


def run(command: list[str], check: bool = True) -> subprocess.CompletedProcess:
    """A command in the repository, each of its processes with one thread."""
    process = start(command)
    output, errors = process.communicate()
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def start(command: list[str]) -> subprocess.Popen:
    """:func:`run` without waiting for its end."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=pipe, stderr=pipe, text=True
    )


def single(precision: str = "64-true") -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    return fabric


@pytest.fixture(scope="module")
def alone(tiny_data, shared_cache):
    """What one process trains, each batch at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSKT_CACHE", str(shared_cache))
        return trained(single(), tiny_data, 5, None)


def assert_equal_to_rounding(result, expected):
    torch.testing.assert_close(result["losses"], expected["losses"], rtol=0, atol=1e-9)
    torch.testing.assert_close(result["weights"], expected["weights"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 100])
def test_pieces_of_a_batch_give_what_the_batch_gives(tiny_data, alone, micro_batch_size):
    assert alone["captions"] % 5  # the last batch is shorter
    assert_equal_to_rounding(trained(single(), tiny_data, 5, micro_batch_size), alone)


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_give_what_one_process_gives(tiny_data, alone, tmp_path, count):
    """Batches of 5 do not divide by 2 or 4, and the last one has fewer rows than 4 ranks."""
    torchrun(count, "tests.rank_training", tiny_data, tmp_path)
    for micro_batch_size in MICRO_BATCH_SIZES:
        for rank in range(count):
            result = torch.load(tmp_path / f"rank-{rank}-{micro_batch_size}.pt")
            assert_equal_to_rounding(result, alone)


def test_separate_losses_of_two_halves_would_train_another_model(tiny_data, alone):
    """The check above can fail: with batches of half the size, as processes that do not share their
    features have them, the weights differ by far more than rounding."""
    other = trained(single(), tiny_data, 3, None)
    difference = 0.0
    for name, tensor in alone["weights"].items():
        difference = max(difference, (other["weights"][name] - tensor).abs().max().item())
    assert difference > 1e-4


@pytest.fixture
def settings(tiny_data, tmp_path, monkeypatch):
    """A yaml file of the tiny run in ``tmp_path / "run"``, for commands that know its backbone."""
    register_backbone(tmp_path)
    monkeypatch.setenv("TINY_BACKBONE", str(tmp_path))
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tiny_data, tmp_path / "run").to_dict()))
    return path


def assert_same_run(folder, finished):
    """Two processes made in ``folder`` the run that one process made."""
    record = json.loads((folder / "metrics.json").read_text())
    assert record["devices"] == 2
    assert finished.record["devices"] == 1
    assert record["best_epoch"] == finished.record["best_epoch"]
    measured = record["metrics"]["text_to_image"]
    expected = finished.record["metrics"]["text_to_image"]
    for measure in MEASURES:
        assert measured[measure] == pytest.approx(expected[measure], abs=1e-3), measure
    losses = [row["loss"] for row in record["history"]]
    assert losses == pytest.approx([row["loss"] for row in finished.history], abs=1e-4)
    weights = load_file(folder / "adapter.safetensors")
    of_one_process = load_file(finished.folder / "adapter.safetensors")
    torch.testing.assert_close(weights, of_one_process, rtol=0, atol=1e-3)


def test_training_under_torchrun_makes_the_run_of_one_process(settings, finished):
    """The whole command: one folder, one record, the metrics and history of one process."""
    done = torchrun(2, "tests.tiny_command", "train", "--config", settings)
    assert done.stdout.count("epoch 3:") == 1
    assert_same_run(settings.parent / "run", finished)


def test_the_setting_devices_starts_the_processes_itself(settings, finished):
    command = [sys.executable, "-m", "tests.tiny_command", "train", "--config", str(settings)]
    done = run([*command, "--set", "devices=2"])
    assert done.stdout.count("epoch 3:") == 1
    assert_same_run(settings.parent / "run", finished)


def test_fabric_run_starts_the_processes_as_well(settings, finished):
    command = [sys.executable, "-m", "lightning_fabric.cli"]
    command += ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp"]
    command += ["tests/tiny_command.py", "train", "--config", str(settings)]
    done = run(command)
    assert done.stdout.count("epoch 3:") == 1
    assert_same_run(settings.parent / "run", finished)


def test_two_machines_train_one_run(settings, finished):
    """Two calls of torchrun that find each other by an address, as on two machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    machines = []
    for number in (0, 1):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        command += ["--node-rank", str(number), "--nproc-per-node", "1"]
        command += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
        command += ["-m", "tests.tiny_command", "train", "--config", str(settings)]
        machines.append(start(command))
    ends = [machine.communicate() for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], ends
    shown = [output.count("epoch 3:") for output, _ in ends]
    assert shown == [1, 0]  # the second machine shows nothing
    assert_same_run(settings.parent / "run", finished)


def test_an_error_of_the_first_rank_ends_all_of_them_with_its_sentence(settings, tmp_path):
    values = yaml.safe_load(settings.read_text()) | {"data_root": str(tmp_path / "nowhere")}
    settings.write_text(yaml.safe_dump(values))
    done = torchrun(2, "tests.tiny_command", "train", "--config", settings, check=False)
    assert done.returncode != 0
    assert f"cskt: error: CUHK-PEDES is not in {tmp_path / 'nowhere'}" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("total", range(9))
def test_shares_cover_all_rows_once_in_order(total):
    for count in (1, 2, 3, 4):
        rows = []
        for rank in range(count):
            ranks = Ranks()
            ranks.rank = rank
            ranks.count = count
            share = ranks.share(total)
            assert share.stop - share.start == ranks.sizes(total)[rank]
            rows.extend(range(total)[share])
        assert rows == list(range(total))


def test_devices_that_contradict_torchrun_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    config = TrainConfig(devices=3)
    message = "devices is 3, but torchrun started 2 processes on this machine"
    with pytest.raises(ConfigurationError, match=message):
        launched(config, "cpu", "fp32", tmp_path)
