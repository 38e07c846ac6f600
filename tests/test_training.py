"""Training: the run folder and its record, settings of a run, errors, and the real setting."""

import dataclasses
import math
import shutil
import sys

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from cskt import epoch
from cskt.config import TrainConfig
from cskt.data.datasets import load_dataset, subset
from cskt.epoch import EpochLoop
from cskt.errors import CSKTError, ResourceError, RunError
from cskt.evaluation import MEASURES, evaluate
from cskt.runs import build_model, run_name
from cskt.training import train
from tests.tiny_runs import (
    Interrupted,
    assert_same_tensors,
    interrupt_after,
    tiny_config,
    without_seconds,
    write_dataset,
)

pytestmark = [pytest.mark.numerics, pytest.mark.usefixtures("own_cache")]


RUN_FILES = {
    "adapter.safetensors",
    "config.yaml",
    "history.csv",
    "metrics.json",
    "queries.npz",
}
RECORD_FIELDS = {
    "kind",
    "dataset",
    "synthetic",
    "data_fingerprint",
    "data_version",
    "weights_fingerprint",
    "split",
    "selection",
    "selected",
    "best_epoch",
    "seed",
    "method",
    "config",
    "commit",
    "dirty",
    "versions",
    "hardware",
    "precision",
    "started",
    "duration_s",
    "trainable_parameters",
    "total_parameters",
    "history",
    "metrics",
    "val_metrics",
    "zero_shot",
    "zero_shot_val",
    "cost",
    "notes",
}


def test_finished_run_has_the_record_of_the_contract(finished, tiny_data):
    assert {path.name for path in finished.folder.iterdir()} == RUN_FILES
    record = finished.record
    assert set(record) >= RECORD_FIELDS
    assert record["data_fingerprint"] == load_dataset("CUHK-PEDES", tiny_data).fingerprint
    assert record["split"] == "test"
    assert record["selection"] == "val"
    assert record["synthetic"] is False
    assert TrainConfig.from_dict(record["config"]) == finished.config
    assert [row["epoch"] for row in finished.history] == [1, 2, 3]
    for row, written in zip(finished.history, record["history"], strict=True):
        assert row["val R@1"] == written["val R@1"]
    assert record["metrics"] != record["zero_shot"]


def test_record_holds_the_bare_backbone_on_both_splits(finished, tiny_data):
    dataset = load_dataset("CUHK-PEDES", tiny_data)
    bare = build_model(dataclasses.replace(finished.config, method="zero-shot"))
    assert evaluate(bare, dataset.test, "fp32") == finished.record["zero_shot"]
    assert evaluate(bare, dataset.val, "fp32") == finished.record["zero_shot_val"]


def test_only_the_trained_tensors_change(finished):
    fresh = build_model(finished.config)
    trained = finished.load_model()
    before = fresh.state_dict()
    after = trained.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= set(fresh.trainable_state())


def test_zero_shot_trains_nothing(tiny_data, tmp_path):
    run = train(tiny_config(tiny_data, tmp_path / "run", method="zero-shot"))
    assert run.history == []
    assert run.record["best_epoch"] == 0
    assert run.record["trainable_parameters"] == 0
    assert run.record["metrics"] == run.record["zero_shot"]
    assert run.record["val_metrics"] == run.record["zero_shot_val"]
    for rule in ("val", "test", "last"):
        choice = run.record["selected"][rule]
        assert choice["epoch"] == 0
        for direction, measures in choice["metrics"].items():
            for name in MEASURES:
                assert measures[name] == run.record["zero_shot"][direction][name]
    assert run.load_model().num_trainable == 0


def test_full_fine_tuning_starts_from_the_same_backbone(tiny_data, finished, tmp_path):
    settings = {"method": "full", "epochs": 1, "learning_rate": 1e-3}
    run = train(tiny_config(tiny_data, tmp_path / "run", **settings))
    assert run.record["zero_shot"] == finished.record["zero_shot"]
    assert run.record["trainable_parameters"] > finished.record["trainable_parameters"]


def test_bf16_trains_fp32_weights(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    run = train(tiny_config(tiny_data, tmp_path / "run", precision="bf16", epochs=1))
    assert run.record["precision"] == "bf16"
    weights = load_file(run.folder / "adapter.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_same_seed_same_numbers_and_another_seed_other_numbers(finished, tiny_data, tmp_path):
    again = train(tiny_config(tiny_data, tmp_path / "again"))
    assert without_seconds(again.history) == without_seconds(finished.history)
    weights = load_file(again.folder / "adapter.safetensors")
    assert_same_tensors(weights, load_file(finished.folder / "adapter.safetensors"))
    other = train(tiny_config(tiny_data, tmp_path / "other", seed=1))
    assert [row["loss"] for row in other.history] != [row["loss"] for row in finished.history]


def test_data_that_moved_are_the_same_data(finished, tiny_data, tmp_path):
    moved = shutil.copytree(tiny_data, tmp_path / "elsewhere" / "CUHK-PEDES")
    config = dataclasses.replace(finished.config, data_root=str(moved))
    assert train(config).record == finished.record


# Errors before anything is written


def test_folder_that_is_no_run_is_refused(tiny_data, tmp_path):
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "mother.txt").write_text("dear")
    with pytest.raises(RunError, match="letters holds files but no run"):
        train(tiny_config(tiny_data, letters), overwrite=True)
    with pytest.raises(RunError, match="mother.txt is a file"):
        train(tiny_config(tiny_data, letters / "mother.txt"))
    with pytest.raises(ResourceError, match="cannot be written"):
        train(tiny_config(tiny_data, letters / "mother.txt" / "run"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_root": "nowhere"}, "nowhere"),
        ({"backbone": "ViT-Z"}, "ViT-Z"),
        ({"pretrained": "no-such-tag"}, "no-such-tag"),
        ({"image_size": (4, 4)}, "image_size"),
    ],
)
def test_bad_input_leaves_no_folder(tiny_data, tmp_path, change, message):
    config = dataclasses.replace(tiny_config(tiny_data, tmp_path / "run"), **change)
    with pytest.raises(CSKTError, match=message):
        train(config)
    assert not (tmp_path / "run").exists()


def test_missing_gpu_is_named(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CSKTError, match="device is 'cuda'"):
        train(tiny_config(tiny_data, tmp_path / "run", device="cuda"))


def test_diverged_loss_is_named_and_nothing_is_kept(tiny_data, tmp_path, monkeypatch):
    def diverged(image_features, *rest, **options):
        return (image_features * rest[0] * float("nan")).sum()

    monkeypatch.setattr(epoch, "sdm_loss", diverged)
    with pytest.raises(RunError, match="loss of epoch 1 is nan"):
        train(tiny_config(tiny_data, tmp_path / "run"))
    assert not (tmp_path / "run" / "state.pt").exists()


def write_openai_checkpoint(path):
    """Random weights with the names, shapes and half precision of OpenAI's ViT-B/16, scalars of its
    own included."""
    with torch.device("meta"):
        settings = open_clip.get_model_config("ViT-B-16-quickgelu")
        shapes = open_clip.CLIP(**settings, cast_dtype=None).state_dict()
    state = {}
    for name, tensor in shapes.items():
        if name != "attn_mask":
            state[name] = torch.empty(tensor.shape, dtype=torch.half).normal_(std=0.02)
    state["input_resolution"] = torch.tensor(224)
    state["context_length"] = torch.tensor(77)
    state["vocab_size"] = torch.tensor(49408)
    torch.save(state, path)


@pytest.mark.slow
def test_clip_checkpoint_file_reaches_its_first_training_step(tmp_path, monkeypatch):
    """The paper's setting: ViT-B/16 at 384x128 from a file in OpenAI's format, on a
    CUHK-PEDES-shaped folder."""
    write_openai_checkpoint(tmp_path / "ViT-B-16.pt")
    data = write_dataset(tmp_path / "CUHK-PEDES", identities=1, size=(96, 48))
    config = TrainConfig.paper(
        data_root=str(data.parent),
        pretrained=str(tmp_path / "ViT-B-16.pt"),
        epochs=1,
        batch_size=2,
        device="cpu",
        output=str(tmp_path / "run"),
    )
    real_loss = epoch.sdm_loss
    losses = []

    def observed(image_features, text_features, identities, temperature):
        assert image_features.shape == text_features.shape == (2, 512)
        assert temperature == 0.02
        loss = real_loss(image_features, text_features, identities, temperature=temperature)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(epoch, "sdm_loss", observed)
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(1))
    assert len(losses) == 1
    assert math.isfinite(losses[0])
    trained = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
    assert sum(tensor.numel() for tensor in trained.values()) == 12_117_888


# Memory and speed


@pytest.mark.parametrize(
    ("checkpointing", "advice"),
    [
        (False, "set micro_batch_size, or lower image_size, or set checkpointing True"),
        (True, "set micro_batch_size, or lower image_size"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_says_what_to_lower(
    tiny_data, tmp_path, monkeypatch, error, checkpointing, advice
):
    def too_large(self, *batch):
        raise error

    monkeypatch.setattr(EpochLoop, "_step", too_large)
    message = f"^batch_size 5 does not fit into the memory of cpu; {advice}.$"
    with pytest.raises(ResourceError, match=message):
        train(tiny_config(tiny_data, tmp_path / "run", checkpointing=checkpointing))


def test_other_runtime_errors_pass(tiny_data, tmp_path, monkeypatch):
    def backward(self, *batch):
        raise RuntimeError("something else")

    monkeypatch.setattr(EpochLoop, "_step", backward)
    with pytest.raises(RuntimeError, match="something else"):
        train(tiny_config(tiny_data, tmp_path / "run"))


def test_compile_hands_over_the_vision_layers(finished, tiny_data, tmp_path, monkeypatch):
    """The compiler takes half a minute; that what it is given is used, and changes nothing, is seen
    without it."""
    calls = []

    def compiler(function, dynamic):
        def compiled(*arguments):
            calls.append(dynamic)
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    run = train(tiny_config(tiny_data, tmp_path / "run", compile=True))
    assert set(calls) == {False}
    assert len(calls) % 2 == 0
    assert run.record["metrics"] == finished.record["metrics"]


def test_checkpointing_trains_to_the_same_result(finished, tiny_data, tmp_path):
    run = train(tiny_config(tiny_data, tmp_path / "run", checkpointing=True))
    weights = load_file(run.folder / "adapter.safetensors")
    expected = load_file(finished.folder / "adapter.safetensors")
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name])


def test_frozen_matrices_are_cast_once_and_no_feature_changes(tiny_data):
    model = build_model(tiny_config(tiny_data, "unused"))
    images = torch.randn(2, 3, *model.image_size)
    tokens = model.tokenize(["a man", "a woman in red"])
    kept = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        image_features, text_features = model(images, tokens)
        model.cast_frozen(torch.bfloat16)
        cast_image_features, cast_text_features = model(images, tokens)
    assert torch.equal(cast_image_features, image_features)
    assert torch.equal(cast_text_features, text_features)
    assert model.backbone.transformer.resblocks[0].mlp.c_fc.weight.dtype == torch.bfloat16
    assert_same_tensors(model.trainable_state(), kept)


def test_a_share_of_the_identities(tiny_data):
    split = load_dataset("CUHK-PEDES", tiny_data).train
    small = subset(split, 1 / 3, seed=3)
    large = subset(split, 2 / 3, seed=3)
    assert len(set(small.image_identities)) == 2
    assert len(set(large.image_identities)) == 4
    assert set(small.captions) < set(large.captions) < set(split.captions)
    for share in (small, large):
        paths = list(split.image_paths)
        for caption, image in zip(share.captions, share.caption_images, strict=True):
            index = split.captions.index(caption)
            assert paths.index(share.image_paths[image]) == split.caption_images[index]
        identities = sorted(set(share.image_identities))
        assert identities == list(range(len(identities)))


def test_a_run_on_a_share_of_the_identities_has_a_name_of_its_own(tiny_data, tmp_path):
    run = train(tiny_config(tiny_data, tmp_path / "run", train_fraction=0.5, epochs=1))
    assert run.record["config"]["train_fraction"] == 0.5
    assert "-cskt-seed0-" in run_name(run.config)
    assert run_name(run.config) != run_name(tiny_config(tiny_data))


def test_a_run_on_noisy_captions_says_how_many_and_is_no_other_run(tiny_data, tmp_path):
    clean = tiny_config(tiny_data, tmp_path / "run", epochs=1)
    noisy = dataclasses.replace(clean, noise=0.5)
    run = train(noisy)
    assert run.record["noise"] == {"captions": 12, "moved": 6, "wrong": 6, "wrong_share": 0.5}
    assert run_name(noisy) != run_name(clean)
    with pytest.raises(RunError, match=r"holds a run with other settings \(noise\)"):
        train(clean)


def test_a_noise_index_is_an_input_of_the_run(tiny_data, tmp_path):
    path = tmp_path / "index.npy"
    np.save(path, np.arange(12)[::-1])
    config = tiny_config(tiny_data, tmp_path / "run", epochs=1, noise_index=str(path))
    assert train(config).record["noise"]["wrong"] == 12
    np.save(path, np.arange(12))
    with pytest.raises(RunError, match="was made with noise_index_fingerprint .* restore"):
        train(config)


def test_tensorboard_gets_every_epoch_on_request(finished, tiny_data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tiny_config(tiny_data, tmp_path / "run", tensorboard=True))
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([row["loss"] for row in finished.history], rel=1e-6)
    assert run_name(run.config) == run_name(finished.config)


def test_without_tensorboard_a_sentence_names_the_extra(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    config = tiny_config(tiny_data, tmp_path / "run", tensorboard=True)
    with pytest.raises(
        ResourceError, match=r"tensorboard is not installed; pip install 'cskt\[log\]'"
    ):
        train(config)


@pytest.mark.parametrize("micro_batch_size", [1, 2])
def test_pieces_of_a_batch_train_the_same_run(finished, tiny_data, tmp_path, micro_batch_size):
    run = train(tiny_config(tiny_data, tmp_path / "run", micro_batch_size=micro_batch_size))
    assert run_name(run.config) == run_name(finished.config)
    losses = [row["loss"] for row in finished.history]
    assert [row["loss"] for row in run.history] == pytest.approx(losses, abs=1e-4)
