"""The command reproduce: which runs it trains, what it leaves, and what a failing run does."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml

from cskt.cli import reproduce
from cskt.cli.common import train_config
from cskt.config import MINI, REAL_DATASETS, SYNTHETIC_DATASETS
from cskt.errors import CSKTError
from cskt.report import run_files
from cskt.runs import run_name
from tests.tiny_runs import write_dataset

pytestmark = pytest.mark.usefixtures("tiny_settings")


def options_of(settings_path, *names):
    """The settings of a yaml file as ``--set`` options."""
    values = yaml.safe_load(settings_path.read_text())
    return [f"--set={name}={values[name]}" for name in names]


def read_records(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.fixture
def command(tiny_settings):
    """Words of a reproduction of one tiny epoch."""
    values = yaml.safe_load(tiny_settings.read_text())
    return (
        "reproduce",
        *("--data-root", values["data_root"]),
        *("--backbone", values["backbone"]),
        *("--pretrained", "random"),
        *("--records", "records"),
        "--set=epochs=1",
        *options_of(tiny_settings, "image_size", "batch_size", "device", "precision"),
    )


@pytest.mark.slow
def test_reproduce_trains_what_is_new_and_copies_the_records(cskt, command, tmp_path):
    command = (
        *command,
        *("--datasets", "CUHK-PEDES"),
        *("--methods", "zero-shot,cskt"),
        "--set=selection=val",
    )
    code, out, err = cskt(*command, "--seeds", 1)
    assert code == 0, err
    assert out.count("epoch 1: ") == 1
    code, out, err = cskt(*command, "--seeds", 2)
    assert code == 0, err
    assert out.count("epoch 1: ") == 1  # seed 0 was finished
    assert out.count("(zero-shot ") == 3
    runs, records = tmp_path / "runs", tmp_path / "records"
    names = {path.name for path in runs.glob("CUHK*")}
    assert {path.stem for path in records.iterdir()} == names
    assert len(list(records.iterdir())) == 2 * len(names)
    for name in names:
        queries = (records / f"{name}.npz").read_bytes()
        assert queries == (runs / name / "queries.npz").read_bytes()
        record = json.loads((runs / name / "metrics.json").read_text())
        record["config"]["data_root"] = None  # a folder of this machine is nobody else's business
        assert json.loads((records / f"{name}.json").read_text()) == record
    trained = {(record["method"], record["seed"]) for record in read_records(records)}
    assert trained == {("cskt", 0), ("cskt", 1), ("zero-shot", 0)}


@pytest.mark.slow
def test_missing_leaves_out_what_has_a_record(cskt, command, tmp_path):
    """Whether or not its run folder is still there."""
    command = (*command, "--datasets", "CUHK-PEDES", "--methods", "cskt,dat", "--seeds", 1)
    command = (*command, "--set=selection=last", "--missing")
    code, out, err = cskt(*command)
    assert code == 0, err
    assert out.startswith("0 of 2 runs have a record in records and are skipped\n")
    [dat] = (tmp_path / "records").glob("*-dat-*.json")
    [ours] = (tmp_path / "records").glob("*-cskt-*.json")
    before = ours.read_text()
    dat.unlink()
    (tmp_path / "runs").rename(tmp_path / "gone")
    code, out, err = cskt(*command)
    assert code == 0, err
    assert out.startswith("1 of 2 runs have a record in records and are skipped\n")
    assert out.count("epoch 1: ") == 1
    assert dat.is_file()
    assert ours.read_text() == before
    code, out, err = cskt(*command)
    assert code == 0, err
    assert out == "2 of 2 runs have a record in records and are skipped\n"


def test_a_transfer_is_recorded_when_every_data_set_is(tmp_path):
    others = [types.SimpleNamespace(name="ICFG-PEDES"), types.SimpleNamespace(name="RSTPReid")]
    planned = reproduce.PlannedRun("CSKT", train_config({}, {}), others)
    name = run_name(planned.config)
    (tmp_path / f"{name}.json").touch()
    (tmp_path / f"{name}-on-ICFG-PEDES.json").touch()
    assert not planned.is_recorded(tmp_path)
    (tmp_path / f"{name}-on-RSTPReid.json").touch()
    assert planned.is_recorded(tmp_path)
    alone = dataclasses.replace(planned, others=[])  # leaves no record
    assert not alone.is_recorded(tmp_path)
    assert dataclasses.replace(planned, others=None).is_recorded(tmp_path)


@pytest.mark.slow
def test_a_grid_says_what_varies(cskt, command, tmp_path):
    code, _, err = cskt(
        *command,
        *("--datasets", "CUHK-PEDES"),
        *("--grid", "reduction"),
        *("--seeds", 1),
        "--set=cskt={'prompt_length': 2}",
    )
    assert code == 0, err
    reductions = {}
    for record in read_records(tmp_path / "records" / "reduction"):
        method = record["config"]["cskt"]
        assert method["prompt_length"] == 2
        reductions[record["row"]] = method["reduction"]
    assert reductions == {"4": 4, "8": 8, "16": 16, "32": 32}


@pytest.mark.slow
def test_transfer_tests_each_model_on_the_other_data_sets(cskt, command, tmp_path):
    write_dataset(tmp_path / "data" / "CUHK-PEDES")
    rstp = write_dataset(tmp_path / "data" / "RSTPReid", seed=1)
    (rstp / "reid_raw.json").rename(rstp / "data_captions.json")
    code, _, err = cskt(
        *command,
        *("--data-root", tmp_path / "data"),
        *("--datasets", "CUHK-PEDES,RSTPReid"),
        *("--grid", "transfer"),
        *("--methods", "cskt"),
        *("--seeds", 1),
    )
    assert code == 0, err
    assert set(run_files.read_grid(tmp_path / "records", "transfer")["row"]) == {"CSKT"}
    records = read_records(tmp_path / "records" / "transfer")
    pairs = {(record["source"], record["dataset"]) for record in records}
    assert pairs == {("CUHK-PEDES", "RSTPReid"), ("RSTPReid", "CUHK-PEDES")}


def test_methods_and_grids_that_do_not_exist_are_named(cskt, command):
    code, _, err = cskt(*command, "--grid", "reduction", "--methods", "cskt")
    assert code == 2
    assert "--methods belongs to the grids" in err
    code, _, err = cskt(*command, "--grid", "everything")
    assert code == 2
    assert "grid 'everything' is unknown; choose one of benchmark" in err


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The configurations that would be trained; nothing is, and no data are read."""
    configs = []

    def load(name, root):
        val = object()
        test = val if name == "ICFG-PEDES" else object()
        synthetic = name in SYNTHETIC_DATASETS
        return types.SimpleNamespace(synthetic=synthetic, val=val, test=test)

    def train(config, **options):
        configs.append(config)
        folder = tmp_path / f"run{len(configs)}"
        folder.mkdir()
        (folder / "queries.npz").write_bytes(b"")
        return types.SimpleNamespace(folder=folder, record={"config": {}})

    monkeypatch.setattr(reproduce, "load_dataset", load)
    monkeypatch.setattr(reproduce, "train_and_report", train)
    return configs


@pytest.mark.parametrize(
    ("options", "datasets", "backbone"),
    [
        ({}, SYNTHETIC_DATASETS, MINI),
        ({"data_root": "DIR"}, REAL_DATASETS, "ViT-B-16-quickgelu"),
        ({"datasets": "RSTPReid", "data_root": "DIR"}, ["RSTPReid"], "ViT-B-16-quickgelu"),
        ({"datasets": "SynthPEDES-B", "data_root": "DIR"}, ["SynthPEDES-B"], MINI),
        ({"data_root": "DIR", "backbone": "ViT-L-14"}, REAL_DATASETS, "ViT-L-14"),
    ],
)
def test_reproduce_takes_the_real_data_where_they_are(
    trained, tmp_path, options, datasets, backbone
):
    reproduce.reproduce(methods="cskt,zero-shot", seeds=2, records=tmp_path / "records", **options)
    assert {config.backbone for config in trained} == {backbone}
    expected = []
    for seed in (0, 1):  # all of seed 0 first: an interrupted call leaves whole seeds
        for name in datasets:
            expected.append((name, "cskt", "val", seed))
            if name in ("CUHK-PEDES", "RSTPReid"):  # val and test are two real splits
                expected.append((name, "cskt", "test", seed))
            if seed == 0:
                expected.append((name, "zero-shot", "val", 0))
    assert [(c.dataset, c.method, c.selection, c.seed) for c in trained] == expected


# Runs that fail, and runs side by side


@pytest.fixture
def on_mini(tmp_path):
    """Words of a reproduction on tiny images with the embedded backbone, which a new process knows
    too."""
    write_dataset(tmp_path / "data" / "CUHK-PEDES")
    return (
        "reproduce",
        *("--datasets", "CUHK-PEDES"),
        *("--data-root", tmp_path / "data"),
        *("--backbone", MINI),
        *("--methods", "dat,full"),
        *("--records", tmp_path / "records"),
        *SETTINGS_ON_MINI,
    )


SETTINGS_ON_MINI = (
    "--set=selection=last",
    "--set=epochs=1",
    "--set=image_size=(32, 16)",
    "--set=batch_size=5",
    "--set=device=cpu",
    "--set=precision=fp32",
    "--set=pretrained=None",
)


def from_a_shell(command):
    """As a user calls it, where worker processes cannot import ``__main__``; exit code and
    stderr."""
    words = [str(word) for word in command]
    done = subprocess.run(
        [sys.executable, "-m", "cskt", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return done.returncode, done.stderr


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def without_times(record):
    return {name: record[name] for name in set(record) - {"started", "duration_s", "cost"}}


@pytest.mark.slow
def test_runs_side_by_side_make_the_same_records(cskt, on_mini, tmp_path, monkeypatch, one_thread):
    """One after the other in this process of one thread, and in two processes."""
    command = (*on_mini, "--seeds", 2, "--methods", "dat")
    alone = tmp_path / "alone"
    beside = tmp_path / "beside"
    for folder in (alone, beside):
        folder.mkdir()
    monkeypatch.chdir(alone)  # its runs are in runs/
    code, _, err = cskt(*command, "--records", alone / "records")
    assert code == 0, err
    monkeypatch.chdir(beside)
    code, err = from_a_shell((*command, "--records", beside / "records", "--jobs", 2))
    assert code == 0, err
    names = {path.name for path in (alone / "records").iterdir()}
    assert len(names) == 4
    assert {path.name for path in (beside / "records").iterdir()} == names
    for name in names:
        one, other = alone / "records" / name, beside / "records" / name
        if name.endswith(".npz"):
            assert one.read_bytes() == other.read_bytes()
            continue
        first = json.loads(one.read_text())
        second = json.loads(other.read_text())
        assert second["hardware"]["threads"] == 1
        assert without_times(first) == without_times(second)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_is_named_once_the_others_are_done(cskt, on_mini, tmp_path, jobs):
    """The folder of one run holds something else."""
    settings = [setting.removeprefix("--set=") for setting in SETTINGS_ON_MINI]
    config = train_config({"method": "dat"}, {"dataset": "CUHK-PEDES", "seed": 0}, settings)
    name = run_name(config)
    (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / name / "letter.txt").write_text("dear")
    code, _, err = cskt(*on_mini, "--seeds", 1, "--jobs", jobs)
    assert code == 2
    message = f"cskt: error: 1 of 2 runs failed: {name}: runs/{name} holds"
    assert err.splitlines()[-1].startswith(message)
    assert "Traceback" not in err
    assert [record["method"] for record in read_records(tmp_path / "records")] == ["full"]


def test_a_fault_of_the_code_is_logged_and_does_not_stop_the_other_runs(
    cskt, on_mini, monkeypatch, caplog
):
    def train(config, **options):
        if config.method == "dat":
            raise RuntimeError("two\nlines")
        raise CSKTError("full is wrong.")

    monkeypatch.setattr(reproduce, "train_and_report", train)
    code, _, err = cskt(*on_mini, "--seeds", 1)
    assert code == 2
    assert "2 of 2 runs failed: " in err
    assert ": RuntimeError: two lines; CUHK-PEDES-full-" in err
    assert err.endswith(": full is wrong.\n")
    assert caplog.records[-1].exc_info[0] is RuntimeError
