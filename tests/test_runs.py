"""The files of a run: written and read back, damaged ones named; fingerprints and environment."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cskt import runs
from cskt.config import TrainConfig
from cskt.data.datasets import load_dataset
from cskt.environment import environment
from cskt.errors import ConfigurationError, CSKTError, RunError
from cskt.files import write_atomically
from cskt.model import backbone
from cskt.runs import Run, build_model, read_config, run_name, weights_fingerprint
from tests.tiny_runs import tiny_config

pytestmark = [pytest.mark.numerics, pytest.mark.usefixtures("own_cache")]

ROW = {
    "epoch": 1,
    "lr": 3e-05,
    "loss": 1 / 3,
    "val R@1": 50.0,
    "val R@5": 75.0,
    "val R@10": 100.0,
    "val mAP": 200 / 3,
    "val mINP": 1 / 9,
    "test R@1": 40.0,
    "test R@5": 70.0,
    "test R@10": 90.0,
    "test mAP": 100 / 3,
    "test mINP": 1 / 11,
    "seconds": 0.25,
    "T2V norm": 1.5,
    "T2V rank": 1 / 7,
    "V2T norm": 2.0,
    "V2T rank": 3.0,
}


@pytest.fixture
def copied(finished, tmp_path):
    """The folder of a finished run, to be damaged."""
    return shutil.copytree(finished.folder, tmp_path / "copy")


# Names


def test_name_tells_runs_apart_but_not_their_folders(tiny_data):
    config = tiny_config(tiny_data)
    assert run_name(config).startswith("CUHK-PEDES-cskt-seed0-")
    assert run_name(config) == run_name(dataclasses.replace(config, output="elsewhere"))
    assert run_name(config) == run_name(dataclasses.replace(config, data_root="moved"))
    assert run_name(config) != run_name(dataclasses.replace(config, epochs=4))
    index = dataclasses.replace(config, noise_index="here/index.npy")
    assert run_name(index) != run_name(config)
    assert run_name(index) == run_name(dataclasses.replace(config, noise_index="index.npy"))
    deeper = dataclasses.replace(config, cskt=dataclasses.replace(config.cskt, reduction=4))
    assert run_name(config) != run_name(deeper)


# What is read back


def test_config_round_trip(finished):
    assert read_config(finished.folder / "config.yaml") == finished.config
    assert Run.load(finished.folder).config == finished.config


@pytest.mark.parametrize("epochs", [0, 2])
def test_history_comes_back_exactly(copied, epochs):
    runs.write_history(copied, [ROW] * epochs)
    assert Run.load(copied).history == [ROW] * epochs


def test_history_without_the_maps_between_the_towers_comes_back(copied):
    """Older runs did not measure them."""
    names = [name for name in ROW if name not in runs.SPECTRUM]
    figures = ",".join(str(ROW[name]) for name in names)
    (copied / "history.csv").write_text(f"{','.join(names)}\n{figures}\n")
    [row] = Run.load(copied).history
    assert row["test mINP"] == ROW["test mINP"]
    assert np.isnan(row["V2T rank"])


def test_queries_say_what_the_metrics_average(finished, tiny_data):
    queries = finished.queries()
    assert {name: array.dtype for name, array in queries.items()} == {
        "query_identities": np.int64,
        "first_rank": np.int32,
        "average_precision": np.float32,
        "inverse_negative_penalty": np.float32,
    }
    test = load_dataset("CUHK-PEDES", tiny_data).test
    assert list(queries["query_identities"]) == list(test.caption_identities)
    assert (queries["first_rank"] > 0).all()  # every query has a match
    measures = finished.record["metrics"]["text_to_image"]
    for k in (1, 5, 10):
        recall = 100 * (queries["first_rank"] <= k).mean()
        assert recall == pytest.approx(measures[f"R@{k}"])
    precision = 100 * queries["average_precision"].mean()
    assert precision == pytest.approx(measures["mAP"], rel=1e-6)
    penalty = 100 * queries["inverse_negative_penalty"].mean()
    assert penalty == pytest.approx(measures["mINP"], rel=1e-6)


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    def half(path):
        path.write_text("half")
        raise KeyboardInterrupt

    path = tmp_path / "metrics.json"
    write_atomically(path, "whole")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_text() == "whole"


# What is missing or damaged


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dataset: [", "is not valid yaml"),
        (b"\xff\xfe\x00", "is not valid yaml"),
        (b"- 1", "must hold 'field: value'"),
        (b"seed: 2001-02-45", "is not valid yaml"),
        (b"[" * 5000, "is not valid yaml"),
        (b"epohcs: 3", "has no field epohcs"),
        (b"epochs: many", "epochs must be"),
    ],
)
def test_bad_config_files_are_named(tmp_path, content, message):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_config(tmp_path / "config.yaml")
    assert "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        Run.load(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{"),
        ("metrics.json", "[]"),
        ("metrics.json", "[" * 100_000),
        ("history.csv", "epoch,lr\none,two\n"),
        ("history.csv", ""),
        ("history.csv", "epoch,lr,loss\n1,a,1\n"),
    ],
)
def test_damaged_run_files_are_named(copied, name, content):
    (copied / name).write_text(content)
    with pytest.raises(RunError, match="damaged"):
        Run.load(copied)


def test_damaged_or_missing_queries_are_named(copied):
    for content in (b"damaged", b""):
        (copied / "queries.npz").write_bytes(content)
        with pytest.raises(RunError, match=r"queries.npz is not a readable npz file"):
            Run.load(copied).queries()
    (copied / "queries.npz").unlink()
    with pytest.raises(RunError, match=r"queries.npz is missing"):
        Run.load(copied)


def test_damaged_adapter_is_named(copied):
    (copied / "adapter.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match="adapter.safetensors is not a readable"):
        Run.load(copied).load_model()


def test_run_is_not_loaded_onto_other_backbone_weights(finished, monkeypatch):
    monkeypatch.setattr(runs, "weights_fingerprint", lambda config: "0123456789abcdef")
    with pytest.raises(RunError, match="was trained on backbone weights random"):
        finished.load_model()


# Weights


def test_new_weights_follow_from_the_seed_alone(tiny_data):
    config = tiny_config(tiny_data)
    generator_state = torch.get_rng_state()
    first = build_model(config).state_dict()
    assert torch.equal(generator_state, torch.get_rng_state())
    torch.rand(3)
    again = build_model(config).state_dict()
    other = build_model(tiny_config(tiny_data, seed=1)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_weights_fingerprint_follows_the_file(tmp_path):
    path = tmp_path / "weights.pt"
    config = TrainConfig(pretrained=str(path))
    path.write_bytes(b"one")
    first = weights_fingerprint(config)
    path.write_bytes(b"two")
    assert len(first) == 16
    assert weights_fingerprint(config) != first
    assert weights_fingerprint(TrainConfig(pretrained="openai")) == "openai"
    assert weights_fingerprint(TrainConfig(pretrained=None)) == "random"


def test_weights_are_found_in_the_home_folder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = TrainConfig(pretrained="~/weights.pt")
    message = "neither a tag of ViT-B-16-quickgelu .* nor an existing file"
    with pytest.raises(CSKTError, match=message):
        weights_fingerprint(config)
    (tmp_path / "weights.pt").write_bytes(b"one")
    first = weights_fingerprint(config)
    assert len(first) == 16
    assert first == weights_fingerprint(TrainConfig(pretrained=str(tmp_path / "weights.pt")))
    (tmp_path / "weights.pt").write_bytes(b"two")
    assert weights_fingerprint(config) != first


def test_a_tag_is_not_taken_for_a_file_of_its_name(tmp_path, monkeypatch):
    """What is fingerprinted is what is loaded."""
    monkeypatch.chdir(tmp_path)
    for name in ("openai", "laion2b_s34b_b88k", "random"):
        (tmp_path / name).write_bytes(b"no weights")
    assert weights_fingerprint(TrainConfig(pretrained="openai")) == "openai"
    assert backbone.weights_source("ViT-B-16-quickgelu", "openai") == "openai"
    assert weights_fingerprint(TrainConfig(pretrained="random")) == "random"
    # A tag of other backbones only is no tag here.
    foreign = "laion2b_s34b_b88k"
    assert backbone.weights_source("ViT-B-16-quickgelu", foreign) == Path(foreign)


# Where and with what


def test_environment_says_where_and_with_what():
    facts = environment("cpu")
    assert list(facts) == ["commit", "dirty", "versions", "hardware"]
    assert facts["versions"]["torch"]
    assert facts["hardware"]["cpu_count"] >= 1


def test_without_git_the_commit_is_not_known(monkeypatch):
    def missing(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    facts = environment("cpu")
    assert facts["commit"] is None
    assert facts["dirty"] is None


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A git clone with one commit of a package and of a result."""

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    package = tmp_path / "cskt"
    package.mkdir()
    (tmp_path / "book" / "results").mkdir(parents=True)
    (package / "runs.py").write_text("one")
    (tmp_path / "book" / "results" / "table.csv").write_text("one")
    git("init")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "one")
    monkeypatch.setattr("cskt.environment.__file__", str(package / "environment.py"))
    return tmp_path


def test_results_do_not_make_a_run_dirty_but_code_does(clone):
    facts = environment("cpu")
    assert len(facts["commit"]) == 40
    assert facts["dirty"] is False
    (clone / "book" / "results" / "table.csv").write_text("two")
    (clone / "new.txt").write_text("not in git")
    assert environment("cpu")["dirty"] is False
    (clone / "cskt" / "runs.py").write_text("two")
    assert environment("cpu")["dirty"] is True


@pytest.fixture
def edited(finished, tmp_path):
    """``edited(change)``: a copy of the finished run whose record ``change`` has changed."""

    def copy(change):
        folder = tmp_path / "edited"
        shutil.copytree(finished.folder, folder)
        record = json.loads((folder / "metrics.json").read_text())
        change(record)
        (folder / "metrics.json").write_text(json.dumps(record))
        return folder

    return copy


@pytest.mark.parametrize("name", ["precision", "hardware", "config", "dataset", "seed"])
def test_a_record_without_a_field_is_damaged(edited, name):
    folder = edited(lambda record: record.pop(name))
    with pytest.raises(RunError, match=f"damaged .*its field {name} is missing or of another kind"):
        Run.load(folder)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"text_to_image": {"R@1": "<b>", "R@5": 1}}, "its measure R@1 is no number"),
        ({"a": {"b": [1]}}, "text_to_image"),
        ([1], "its field metrics is missing or of another kind"),
    ],
)
def test_metrics_of_another_shape_are_damaged(edited, metrics, message):
    folder = edited(lambda record: record.update(metrics=metrics))
    with pytest.raises(RunError, match=message):
        Run.load(folder)


def test_integers_in_place_of_weights_are_refused(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "integers")
    weights = load_file(folder / "adapter.safetensors")
    integers = {name: tensor.to(torch.int8) for name, tensor in weights.items()}
    save_file(integers, folder / "adapter.safetensors")
    with pytest.raises(CSKTError, match=r"expected real numbers, got torch\.int8"):
        Run.load(folder).load_model()
