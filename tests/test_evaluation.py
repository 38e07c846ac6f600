"""Evaluation: features, ranking, and the files of a run."""

import dataclasses
import itertools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from cskt import backbones, evaluation
from cskt.config import TrainConfig
from cskt.data.augment import normalize
from cskt.data.datasets import load_dataset
from cskt.data.loading import load_images
from cskt.errors import CSKTError
from cskt.evaluation import (
    Run,
    build_model,
    embed,
    environment,
    evaluate,
    load_split,
    precision_effect,
    read_config,
    resolve_device,
    resolve_precision,
    weights_fingerprint,
)
from cskt.files import write_atomically
from cskt.training import train
from tests.tiny_runs import IMAGE_SIZE, register_backbone, tiny_config, write_dataset

pytestmark = pytest.mark.numerics


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSKT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    register_backbone(folder)
    return load_dataset("CUHK-PEDES", write_dataset(folder / "CUHK-PEDES"))


@pytest.fixture(scope="module")
def model(dataset):
    return build_model(tiny_config(dataset.root))


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return train(tiny_config(dataset.root, tmp_path_factory.mktemp("runs") / "run", epochs=1))


def test_features_are_the_models_own_normalised_and_in_order(model, dataset):
    images, texts = embed(model, dataset.test, "fp32", batch_size=5)
    assert images.dtype == texts.dtype == torch.float32
    with torch.no_grad():
        one = model.encode_image(normalize(load_images(dataset.test, IMAGE_SIZE)), normalize=True)
        other = model.encode_text(model.tokenize(list(dataset.test.captions)), normalize=True)
    torch.testing.assert_close(images, one, rtol=0, atol=1e-5)
    torch.testing.assert_close(texts, other, rtol=0, atol=1e-5)


def test_evaluate_ranks_captions_against_images(model, dataset):
    metrics = evaluate(model, dataset.test, "fp32")
    images, texts = embed(model, dataset.test, "fp32")
    best = (texts @ images.T).argmax(dim=1).numpy()
    hits = dataset.test.image_identities[best] == dataset.test.caption_identities
    assert metrics["text_to_image"]["R@1"] == pytest.approx(100 * hits.mean())
    best = (images @ texts.T).argmax(dim=1).numpy()
    hits = dataset.test.caption_identities[best] == dataset.test.image_identities
    assert metrics["image_to_text"]["R@1"] == pytest.approx(100 * hits.mean())
    assert json.loads(json.dumps(metrics)) == metrics


def test_loaded_split_gives_the_same_numbers(model, dataset):
    loaded = load_split(model, dataset.val)
    assert evaluate(model, loaded, precision="fp32") == evaluate(model, dataset.val, "fp32")


def test_embedding_leaves_the_models_mode_and_gradients_alone(model, dataset):
    model.train()
    embed(model, dataset.val, "bf16")
    assert model.training
    model.eval()
    embed(model, dataset.val)
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_bf16_features_are_close_and_fp32(model, dataset):
    exact, _ = embed(model, dataset.val, "fp32")
    rounded, _ = embed(model, dataset.val, "bf16")
    assert rounded.dtype == torch.float32
    assert (exact * rounded).sum(dim=1).min() > 0.99
    torch.testing.assert_close(rounded.norm(dim=1), torch.ones(len(rounded)))


def test_new_weights_follow_from_the_seed_alone(dataset):
    config = tiny_config(dataset.root)
    before = torch.get_rng_state()
    first = build_model(config)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    second, other = build_model(config), build_model(tiny_config(dataset.root, seed=1))
    assert all(
        torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items()
    )
    assert any(
        not torch.equal(value, other.state_dict()[name])
        for name, value in first.state_dict().items()
    )


def test_figures_are_those_of_the_files_as_they_are(model, tmp_path, monkeypatch):
    """Equal names and no fingerprint, and files replaced in place: nothing of what was there
    before."""
    folders = [write_dataset(tmp_path / name, seed=seed) for name, seed in (("one", 1), ("two", 2))]
    splits = []
    for folder in folders:
        test = load_dataset("CUHK-PEDES", folder).test
        splits.append(dataclasses.replace(test, fingerprint=""))
    features = [embed(model, split, precision="fp32")[0] for split in splits]
    write_dataset(folders[0], seed=3)
    features.append(embed(model, splits[0], precision="fp32")[0])
    for one, other in itertools.combinations(features, 2):
        assert not torch.allclose(one, other, atol=1e-4)
    figures = [evaluate(model, split, precision="fp32") for split in splits]
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path / "cache"))
    assert figures == [evaluate(model, split, precision="fp32") for split in splits]


def test_precision_effect_is_the_difference_of_two_evaluations(run, dataset):
    table = precision_effect(run, dataset.test)
    assert table.loc["fp32", "R@1"] == pytest.approx(run.metrics["metrics"]["text_to_image"]["R@1"])
    model = run.load_model()
    with model.fused(torch.bfloat16):  # on a machine without bf16 too
        expected = evaluate(model, dataset.test, "fp32")["text_to_image"]
    assert table.loc["bf16", "mAP"] == expected["mAP"]
    assert table.loc["bf16 - fp32", "mAP"] == table.loc["bf16", "mAP"] - table.loc["fp32", "mAP"]


# Devices and precision


def test_explicit_choices_are_kept_and_auto_is_resolved(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(CSKTError, match="no CUDA GPU"):
        resolve_device("cuda")
    assert resolve_precision("fp32", "cpu") == "fp32"


@pytest.mark.parametrize(
    "capabilities",
    [
        {},
        {"avx512_f": True, "avx512_bf16": False},
        {"avx512_bf16": True},
        {"amx_bf16": True},
    ],
)
def test_auto_is_fp32_on_every_processor_and_bf16_must_be_asked_for(monkeypatch, capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", "cpu") == resolve_precision("fp32", "cpu") == "fp32"
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    assert resolve_precision("bf16", "cpu") == ("bf16" if native else "fp32")
    with pytest.raises(CSKTError, match="precision must be 'auto', 'fp32' or 'bf16', got 'fp16'"):
        resolve_precision("fp16", "cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_on_a_gpu_that_computes_it(monkeypatch, native):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: native and not including_emulation,
    )
    assert (
        resolve_precision("auto", "cuda")
        == resolve_precision("bf16", "cuda")
        == ("bf16" if native else "fp32")
    )
    assert resolve_precision("fp32", "cuda") == "fp32"


def test_bf16_falls_back_with_a_line_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert resolve_precision("auto", "cpu") == "fp32" and not caplog.records
    assert resolve_precision("bf16", "cpu") == "fp32"
    assert [record.message for record in caplog.records] == [
        "This cpu does not compute bf16 natively: fp32 is used instead."
    ]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert resolve_precision("bf16", "cpu") == "bf16" and len(caplog.records) == 1


# Files


def test_config_round_trip(run):
    assert read_config(run.folder / "config.yaml") == run.config == Run.load(run.folder).config


def test_history_comes_back_exactly(run, tmp_path):
    row = {
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
    shutil.copytree(run.folder, tmp_path / "copy")
    lines = [",".join(row), *2 * [",".join(map(str, row.values()))]]
    for count in (1, 3):
        (tmp_path / "copy" / "history.csv").write_text("\n".join(lines[:count]) + "\n")
        assert Run.load(tmp_path / "copy").history == (count - 1) * [row]
    old = [
        ",".join(line.split(",")[:14]) for line in lines
    ]  # the maps between the towers were not measured
    (tmp_path / "copy" / "history.csv").write_text("\n".join(old) + "\n")
    assert np.isnan(Run.load(tmp_path / "copy").history[0]["V2T rank"])


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    def half(path):
        path.write_text("half")
        raise KeyboardInterrupt

    path = tmp_path / "metrics.json"
    write_atomically(path, "whole")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_text() == "whole"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dataset: [", "is not valid yaml"),
        (b"\xff\xfe\x00", "is not valid yaml"),
        (b"- 1", "must hold 'field: value'"),
        (b"epohcs: 3", "has no field epohcs"),
        (b"epochs: many", "epochs must be"),
    ],
)
def test_bad_config_files_are_named(tmp_path, content, message):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(CSKTError, match=message) as caught:
        read_config(tmp_path / "config.yaml")
    assert "config.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(CSKTError, match="holds no run"):
        Run.load(tmp_path)
    with pytest.raises(CSKTError, match="cannot be read"):
        read_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{"),
        ("history.csv", "epoch,lr\none,two\n"),
        ("metrics.json", "[]"),
        ("history.csv", ""),
        ("history.csv", "epoch,lr,loss\n1,a,1\n"),
    ],
)
def test_damaged_run_files_are_named(run, tmp_path, name, content):
    shutil.copytree(run.folder, tmp_path / "copy")
    (tmp_path / "copy" / name).write_text(content)
    with pytest.raises(CSKTError, match="damaged"):
        Run.load(tmp_path / "copy")


def test_damaged_adapter_is_named(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "copy")
    (tmp_path / "copy" / "adapter.safetensors").write_bytes(b"damaged")
    with pytest.raises(CSKTError, match="adapter.safetensors is not a readable"):
        Run.load(tmp_path / "copy").load_model()


def test_run_is_not_loaded_onto_other_backbone_weights(run, monkeypatch):
    monkeypatch.setattr(evaluation, "weights_fingerprint", lambda config: "0123456789abcdef")
    with pytest.raises(CSKTError, match="was trained on backbone weights random"):
        run.load_model()


def test_weights_fingerprint_follows_the_file(tmp_path):
    path = tmp_path / "weights.pt"
    config = TrainConfig(pretrained=str(path))
    path.write_bytes(b"one")
    first = weights_fingerprint(config)
    path.write_bytes(b"two")
    assert len(first) == 16 and weights_fingerprint(config) != first
    assert weights_fingerprint(TrainConfig(pretrained="openai")) == "openai"
    assert weights_fingerprint(TrainConfig(pretrained=None)) == "random"


def test_weights_are_found_in_the_home_folder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = TrainConfig(pretrained="~/weights.pt")
    with pytest.raises(
        CSKTError, match="neither a tag of ViT-B-16-quickgelu .* nor an existing file"
    ):
        weights_fingerprint(config)
    (tmp_path / "weights.pt").write_bytes(b"one")
    first = weights_fingerprint(config)
    assert (
        first == weights_fingerprint(TrainConfig(pretrained=str(tmp_path / "weights.pt")))
        and len(first) == 16
    )
    (tmp_path / "weights.pt").write_bytes(b"two")
    assert weights_fingerprint(config) != first


def test_a_tag_is_not_taken_for_a_file_of_its_name(tmp_path, monkeypatch):
    """What is fingerprinted is what is loaded."""
    monkeypatch.chdir(tmp_path)
    for name in ("openai", "laion2b_s34b_b88k", "random"):
        (tmp_path / name).write_bytes(b"no weights")
    assert weights_fingerprint(TrainConfig(pretrained="openai")) == "openai"
    assert backbones.weights_source("ViT-B-16-quickgelu", "openai") == "openai"
    assert weights_fingerprint(TrainConfig(pretrained="random")) == "random"
    # A tag of other backbones only is no tag here.
    assert backbones.weights_source("ViT-B-16-quickgelu", "laion2b_s34b_b88k") == Path(
        "laion2b_s34b_b88k"
    )


def test_environment_says_where_and_with_what(monkeypatch):
    facts = environment("cpu")
    assert facts["versions"]["torch"] and facts["hardware"]["cpu_count"] >= 1
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(FileNotFoundError("git"))
    )
    assert environment("cpu")["commit"] is None and environment("cpu")["dirty"] is None


def test_results_do_not_make_a_run_dirty_but_code_does(monkeypatch, tmp_path):
    package = tmp_path / "cskt"
    (tmp_path / "book" / "results").mkdir(parents=True)
    package.mkdir()
    monkeypatch.setattr("cskt.evaluation.__file__", str(package / "evaluation.py"))
    for name in ("cskt/evaluation.py", "book/results/table.csv"):
        (tmp_path / name).write_text("one")
    for command in (
        ["init"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "one"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    assert len(environment("cpu")["commit"]) == 40 and environment("cpu")["dirty"] is False
    (tmp_path / "book" / "results" / "table.csv").write_text("two")
    (tmp_path / "new.txt").write_text("not in git")
    assert environment("cpu")["dirty"] is False
    (package / "evaluation.py").write_text("two")
    assert environment("cpu")["dirty"] is True
