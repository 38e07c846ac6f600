"""Training: the released solver, resuming, the best checkpoint, and what an interrupted run leaves
behind."""

import dataclasses
import json
import shutil
import types
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cskt import training
from cskt.config import TrainConfig
from cskt.data.benchmarks import load_dataset, subset
from cskt.errors import CSKTError, ResourceError
from cskt.evaluation import Run, build_model, evaluate
from cskt.training import make_optimizer, parameter_groups, run_name, schedule_factor, train
from tests.tiny_runs import assert_same_tensors, register_backbone, tiny_config, write_dataset

pytestmark = pytest.mark.numerics
GOLDEN = json.loads((Path(__file__).parent / "data" / "solver.json").read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    register_backbone(folder)
    return write_dataset(folder / "CUHK-PEDES")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSKT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return train(tiny_config(data, tmp_path_factory.mktemp("runs") / "finished"))


class Interrupted(Exception):
    """Stands for the power cut."""


def interrupt_after(epoch):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise Interrupted

    return on_epoch


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


# The solver as released


def test_groups_are_the_released_ones():
    names = [name for name in GOLDEN["groups"] if name]
    groups = parameter_groups(
        [(name, nn.Parameter(torch.zeros(i + 1))) for i, name in enumerate(names)], TrainConfig()
    )
    found = {
        names[p.numel() - 1]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]
    }
    assert found == {
        name: (group["lr"], group["weight_decay"]) for name, group in GOLDEN["groups"].items()
    }


def test_frozen_tensors_are_in_no_group():
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    groups = parameter_groups([("a.weight", frozen), ("a.bias", frozen)], TrainConfig())
    assert [group["params"] for group in groups] == [[], []]


def test_schedule_is_the_released_one():
    config = TrainConfig()
    optimizer, schedule = make_optimizer(nn.Linear(2, 2), config)
    assert [(g["betas"], g["eps"]) for g in optimizer.param_groups] == 2 * [((0.9, 0.999), 1e-3)]
    rates = []
    for _ in range(config.epochs):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert [rate[0] for rate in rates] == pytest.approx(GOLDEN["lr_by_epoch"], rel=1e-9)
    assert [rate[1] for rate in rates] == pytest.approx(
        [2 * lr for lr in GOLDEN["lr_by_epoch"]], rel=1e-9
    )


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (1, 5), (3, 3), (2, 1)])
def test_schedule_of_short_runs_stays_positive(epochs, warmup):
    factors = [schedule_factor(epoch, epochs, warmup) for epoch in range(epochs)]
    assert all(0 < factor <= 1 for factor in factors)


# The run folder


def test_finished_run_has_the_record_of_the_contract(finished, data):
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        "adapter.safetensors",
        "config.yaml",
        "history.csv",
        "metrics.json",
        "queries.npz",
    ]
    record = finished.metrics
    assert set(record) >= {
        "kind",
        "dataset",
        "synthetic",
        "data_fingerprint",
        "data_version",
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
        "metrics",
        "val_metrics",
        "zero_shot",
        "zero_shot_val",
    }
    assert record["data_fingerprint"] == load_dataset("CUHK-PEDES", data).fingerprint
    assert (record["split"], record["selection"], record["synthetic"]) == ("test", "val", False)
    assert TrainConfig.from_dict(record["config"]) == finished.config
    assert [row["epoch"] for row in finished.history] == [1, 2, 3]
    assert [row["val R@1"] for row in record["history"]] == [
        row["val R@1"] for row in finished.history
    ]
    assert record["metrics"] != record["zero_shot"]


def test_best_epoch_is_the_one_kept(finished, data):
    ranked = [(row["val R@1"], row["val mAP"]) for row in finished.history]
    assert finished.metrics["best_epoch"] == ranked.index(max(ranked)) + 1
    model, dataset = finished.load_model(), load_dataset("CUHK-PEDES", data)
    for split, part in ((dataset.test, "metrics"), (dataset.val, "val_metrics")):
        assert evaluate(model, split, "fp32") == finished.metrics[part]


def test_record_holds_the_bare_backbone_on_both_splits(finished, data):
    dataset = load_dataset("CUHK-PEDES", data)
    bare = build_model(dataclasses.replace(finished.config, method="zero-shot"))
    for split, part in ((dataset.test, "zero_shot"), (dataset.val, "zero_shot_val")):
        assert evaluate(bare, split, "fp32") == finished.metrics[part]


def scores_per_epoch(monkeypatch, val, test):
    """Replace the text-to-image R@1 after each epoch by known values."""
    real, scores = training.evaluate, {"val": iter(val), "test": iter(test)}

    def scored(model, loaded, *arguments, **options):
        metrics = real(model, loaded, *arguments, **options)
        if options.get("resamples") == 0:  # without intervals: after an epoch
            metrics["text_to_image"]["R@1"] = next(scores[loaded.split.name])
        return metrics

    monkeypatch.setattr(training, "evaluate", scored)


@pytest.mark.parametrize("interrupted", [None, 1, 2, 3])
@pytest.mark.parametrize(("selection", "epoch"), [("val", 2), ("test", 1), ("last", 3)])
def test_the_kept_epoch_is_the_one_of_the_rule(
    data, tmp_path, monkeypatch, selection, epoch, interrupted
):
    kept, config = {}, tiny_config(data, tmp_path / "run", selection=selection)

    def keep(row):
        kept[row["epoch"]] = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
        if row["epoch"] == interrupted:
            raise Interrupted

    scores_per_epoch(monkeypatch, val=[30.0, 50.0, 40.0], test=[60.0, 20.0, 45.0])
    if interrupted:
        with pytest.raises(Interrupted):
            train(config, on_epoch=keep)
    run = train(config, on_epoch=keep)
    assert (run.metrics["best_epoch"], run.metrics["selection"]) == (epoch, selection)
    assert_same_tensors(load_file(tmp_path / "run" / "adapter.safetensors"), kept[epoch])
    for other in {1, 2, 3} - {epoch}:
        assert any(not torch.equal(kept[other][name], kept[epoch][name]) for name in kept[epoch])
    chosen = {
        rule: (values["epoch"], values["metrics"]["text_to_image"]["R@1"])
        for rule, values in run.metrics["selected"].items()
    }
    assert chosen == {"val": (2, 20.0), "test": (1, 60.0), "last": (3, 45.0)}
    assert [(row["val R@1"], row["test R@1"]) for row in run.history] == [
        (30.0, 60.0),
        (50.0, 20.0),
        (40.0, 45.0),
    ]


def test_equal_recalls_are_decided_by_map_and_then_by_the_earlier_epoch():
    trainer = types.SimpleNamespace(state={"chosen": {}})

    def ranked(r1, precision):
        measured = {**dict.fromkeys(training.MEASURES, 0.0), "R@1": r1, "mAP": precision}
        return {split: {"text_to_image": measured} for split in ("val", "test")}

    preferring = [
        training._Trainer._choose(trainer, epoch, ranked(*scores))
        for epoch, scores in enumerate([(50.0, 30.0), (50.0, 40.0), (50.0, 40.0), (49.0, 90.0)], 1)
    ]
    assert preferring == [["val", "test", "last"], ["val", "test", "last"], ["last"], ["last"]]


def test_selected_figures_are_those_of_the_history_and_of_the_kept_model(finished):
    record = finished.metrics
    for values in record["selected"].values():
        row = finished.history[values["epoch"] - 1]
        assert values["metrics"]["text_to_image"] == {
            name: row[f"test {name}"] for name in training.MEASURES
        }
    for direction, measured in record["selected"]["val"]["metrics"].items():
        assert measured == {name: record["metrics"][direction][name] for name in training.MEASURES}
    assert record["selected"]["last"]["epoch"] == 3


def test_queries_say_what_the_metrics_average(finished, data):
    queries, measured = finished.queries(), finished.metrics["metrics"]["text_to_image"]
    assert {name: array.dtype for name, array in queries.items()} == {
        "query_identities": np.int64,
        "first_rank": np.int32,
        "average_precision": np.float32,
        "inverse_negative_penalty": np.float32,
    }
    test = load_dataset("CUHK-PEDES", data).test
    assert list(queries["query_identities"]) == list(test.caption_identities)
    matched = queries["first_rank"] > 0
    assert matched.all()
    for k in (1, 5, 10):
        assert 100 * (queries["first_rank"] <= k).mean() == pytest.approx(measured[f"R@{k}"])
    assert 100 * queries["average_precision"].mean() == pytest.approx(measured["mAP"], rel=1e-6)
    assert 100 * queries["inverse_negative_penalty"].mean() == pytest.approx(
        measured["mINP"], rel=1e-6
    )


def test_damaged_or_missing_queries_are_named(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    (folder / "queries.npz").write_bytes(b"damaged")
    with pytest.raises(CSKTError, match=r"queries.npz is not a readable npz file"):
        Run.load(folder).queries()
    (folder / "queries.npz").unlink()
    with pytest.raises(CSKTError, match=r"queries.npz is missing"):
        Run.load(folder)


def test_where_test_stands_in_for_val_it_is_evaluated_once(data, tmp_path, monkeypatch):
    real, asked = training.evaluate, []

    def counted(*arguments, **options):
        asked.append(options)
        return real(*arguments, **options)

    def load(name, root):
        dataset = load_dataset(name, root)
        return dataclasses.replace(dataset, val=dataset.test)

    monkeypatch.setattr(training, "evaluate", counted)
    monkeypatch.setattr(training, "load_dataset", load)
    run = train(tiny_config(data, tmp_path / "run", epochs=2))
    assert len(asked) == 2  # once an epoch
    assert run.metrics["val_metrics"] == run.metrics["metrics"]
    assert run.metrics["zero_shot_val"] == run.metrics["zero_shot"]
    assert [row["val mAP"] for row in run.history] == [row["test mAP"] for row in run.history]


def test_only_the_trained_tensors_change(finished):
    fresh = build_model(finished.config)
    trained = finished.load_model()
    before, after = fresh.state_dict(), trained.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and changed <= {name for name, p in fresh.named_parameters() if p.requires_grad}


def test_same_seed_same_numbers_and_another_seed_other_numbers(finished, data, tmp_path):
    again = train(tiny_config(data, tmp_path / "again"))
    assert without_seconds(again.history) == without_seconds(finished.history)
    assert_same_tensors(
        load_file(again.folder / "adapter.safetensors"),
        load_file(finished.folder / "adapter.safetensors"),
    )
    other = train(tiny_config(data, tmp_path / "other", seed=1))
    assert [row["loss"] for row in other.history] != [row["loss"] for row in finished.history]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resumed_run_equals_the_uninterrupted_one(finished, data, tmp_path, epoch):
    config = tiny_config(data, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(epoch))
    torch.rand(7)  # the resumed process has another history of random numbers
    rows = []
    run = train(config, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == list(range(epoch + 1, 4))
    assert without_seconds(run.history) == without_seconds(finished.history)
    for part in ("metrics", "val_metrics", "zero_shot", "zero_shot_val", "best_epoch", "selected"):
        assert run.metrics[part] == finished.metrics[part]
    assert (run.folder / "queries.npz").read_bytes() == (
        finished.folder / "queries.npz"
    ).read_bytes()
    assert_same_tensors(
        load_file(run.folder / "adapter.safetensors"),
        load_file(finished.folder / "adapter.safetensors"),
    )
    assert not (run.folder / "state.pt").exists()


def test_a_run_begun_in_one_precision_is_not_continued_in_another(data, tmp_path, monkeypatch):
    """ "auto", or a chip without bf16, may mean another precision on the machine that goes on."""
    config = tiny_config(data, tmp_path / "run", precision="bf16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(1))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    with pytest.raises(
        CSKTError, match="was begun in bf16 and would go on in fp32; continue it where it was begun"
    ):
        train(config)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert train(config).metrics["precision"] == "bf16"


@pytest.mark.parametrize("function", ["save_file", "_measure"])
def test_run_cut_after_its_last_epoch_is_finished_later(
    finished, data, tmp_path, monkeypatch, function
):
    config = tiny_config(data, tmp_path / "run")

    def cut(*arguments):
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(training._Trainer if function.startswith("_") else training, function, cut)
        train(config)
    with pytest.raises(CSKTError, match="unfinished run"):
        Run.load(tmp_path / "run")
    run = train(config)
    assert without_seconds(run.history) == without_seconds(finished.history)
    assert_same_tensors(
        load_file(run.folder / "adapter.safetensors"),
        load_file(finished.folder / "adapter.safetensors"),
    )


def test_interrupted_run_is_not_trusted(data, tmp_path):
    config = tiny_config(data, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(1))
    with pytest.raises(CSKTError, match=r"unfinished run \(metrics.json is missing\)"):
        Run.load(tmp_path / "run")


def test_file_write_that_fails_leaves_the_old_state(data, tmp_path, monkeypatch):
    config = tiny_config(data, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(1))
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def half(values, path):
        path.write_bytes(b"half")
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(torch, "save", half)
        train(config)
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert [row["epoch"] for row in train(config).history] == [1, 2, 3]


def test_finished_run_is_returned_as_it_is_unless_overwritten(data, tmp_path):
    config = tiny_config(data, tmp_path / "run", epochs=1)
    first = train(config)
    assert train(config, on_epoch=interrupt_after(1)).metrics == first.metrics
    rows = []
    second = train(config, on_epoch=rows.append, overwrite=True)
    assert (
        rows == second.history
        and len(rows) == 1
        and second.metrics["metrics"] == first.metrics["metrics"]
    )


def test_folder_of_another_run_is_refused(data, tmp_path):
    config = tiny_config(data, tmp_path / "run", epochs=1)
    train(config)
    changed = dataclasses.replace(config, learning_rate=2e-2)
    with pytest.raises(CSKTError, match=r"run holds a run with other settings \(learning_rate\)"):
        train(changed)
    assert train(changed, overwrite=True).config == changed


def test_folder_that_is_no_run_is_refused(data, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")
    with pytest.raises(CSKTError, match="letters holds files but no run"):
        train(tiny_config(data, tmp_path / "letters"), overwrite=True)
    with pytest.raises(CSKTError, match="mother.txt is a file"):
        train(tiny_config(data, tmp_path / "letters" / "mother.txt"))
    with pytest.raises(CSKTError, match="cannot be written"):
        train(tiny_config(data, tmp_path / "letters" / "mother.txt" / "run"))


def test_changed_data_are_noticed(tmp_path):
    data = write_dataset(tmp_path / "CUHK-PEDES")
    config = tiny_config(data, tmp_path / "run", epochs=1)
    train(config)
    write_dataset(data, identities=5)
    with pytest.raises(CSKTError, match="was made with data_fingerprint"):
        train(config)


def test_zero_shot_trains_nothing(data, tmp_path):
    run = train(tiny_config(data, tmp_path / "run", method="zero-shot"))
    assert (
        run.history == []
        and run.metrics["best_epoch"] == 0
        and run.metrics["trainable_parameters"] == 0
    )
    assert run.metrics["metrics"] == run.metrics["zero_shot"]
    assert run.metrics["val_metrics"] == run.metrics["zero_shot_val"]
    bare = {
        direction: {name: values[name] for name in training.MEASURES}
        for direction, values in run.metrics["zero_shot"].items()
    }
    assert run.metrics["selected"] == {
        rule: {"epoch": 0, "metrics": bare} for rule in ("val", "test", "last")
    }
    assert run.load_model().num_trainable == 0


def test_full_fine_tuning_starts_from_the_same_backbone(data, finished, tmp_path):
    run = train(tiny_config(data, tmp_path / "run", method="full", epochs=1, learning_rate=1e-3))
    assert run.metrics["zero_shot"] == finished.metrics["zero_shot"]
    assert run.metrics["trainable_parameters"] > finished.metrics["trainable_parameters"]


def test_selection_on_test(data, tmp_path):
    run = train(tiny_config(data, tmp_path / "run", selection="test", epochs=2))
    best = run.history[run.metrics["best_epoch"] - 1]
    assert best["test R@1"] == run.metrics["metrics"]["text_to_image"]["R@1"]


def test_bf16_trains_fp32_weights(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    run = train(tiny_config(data, tmp_path / "run", precision="bf16", epochs=1))
    assert run.metrics["precision"] == "bf16"
    assert {tensor.dtype for tensor in load_file(run.folder / "adapter.safetensors").values()} == {
        torch.float32
    }


def test_name_tells_runs_apart_but_not_their_folders(data):
    config = tiny_config(data)
    assert run_name(config).startswith("CUHK-PEDES-cskt-seed0-")
    assert run_name(config) == run_name(dataclasses.replace(config, output="elsewhere"))
    assert run_name(config) != run_name(dataclasses.replace(config, epochs=4))
    assert run_name(config) == run_name(dataclasses.replace(config, data_root="moved"))
    deeper = dataclasses.replace(config, cskt=dataclasses.replace(config.cskt, reduction=4))
    assert run_name(config) != run_name(deeper)


def test_data_that_moved_are_the_same_data(finished, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "elsewhere" / "CUHK-PEDES")
    config = dataclasses.replace(finished.config, data_root=str(moved))
    assert train(config).metrics == finished.metrics


# Errors before anything is written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_root": "nowhere"}, "nowhere"),
        ({"backbone": "ViT-Z"}, "ViT-Z"),
        ({"pretrained": "no-such-tag"}, "no-such-tag"),
        ({"image_size": (4, 4)}, "image_size"),
    ],
)
def test_bad_input_leaves_no_folder(data, tmp_path, change, message):
    config = dataclasses.replace(tiny_config(data, tmp_path / "run"), **change)
    with pytest.raises(CSKTError, match=message):
        train(config)
    assert not (tmp_path / "run").exists()


def test_missing_gpu_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CSKTError, match="device is 'cuda'"):
        train(tiny_config(data, tmp_path / "run", device="cuda"))


def test_diverged_loss_is_named_and_nothing_is_kept(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        training, "sdm_loss", lambda images, *rest, **options: (images * float("nan")).sum()
    )
    with pytest.raises(CSKTError, match="loss of epoch 1 is nan"):
        train(tiny_config(data, tmp_path / "run"))
    assert not (tmp_path / "run" / "state.pt").exists()


def test_damaged_state_is_named(data, tmp_path):
    config = tiny_config(data, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(1))
    (tmp_path / "run" / "state.pt").write_bytes(b"damaged")
    with pytest.raises(CSKTError, match="state.pt cannot be read"):
        train(config)


# The real setting


def write_openai_checkpoint(path):
    """Random weights with the names, shapes and half precision of OpenAI's ViT-B/16, scalars of its
    own included."""
    with torch.device("meta"):
        shapes = open_clip.CLIP(
            **open_clip.get_model_config("ViT-B-16-quickgelu"), cast_dtype=None
        ).state_dict()
    state = {
        name: torch.empty(tensor.shape, dtype=torch.half).normal_(std=0.02)
        for name, tensor in shapes.items()
        if name != "attn_mask"
    }
    scalars = dict(input_resolution=224, context_length=77, vocab_size=49408)
    torch.save({**state, **{name: torch.tensor(value) for name, value in scalars.items()}}, path)


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
    steps, real = [], training.sdm_loss

    def observed(images, texts, identities, **options):
        loss = real(images, texts, identities, **options)
        steps.append((images.shape, texts.shape, options, loss.isfinite().item()))
        return loss

    monkeypatch.setattr(training, "sdm_loss", observed)
    with pytest.raises(Interrupted):
        train(config, on_epoch=interrupt_after(1))
    assert steps == [((2, 512), (2, 512), {"temperature": 0.02}, True)]
    trained = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
    assert sum(tensor.numel() for tensor in trained.values()) == 12_117_888


# Memory and speed


def test_out_of_memory_says_what_to_lower(data, tmp_path, monkeypatch):
    def too_large(self, *batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training._Trainer, "_step", too_large)
    message = (
        "batch_size 5 does not fit into the memory of cpu; lower batch_size, or set checkpoint"
    )
    with pytest.raises(ResourceError, match=message):
        train(tiny_config(data, tmp_path / "run"))


def test_compile_hands_over_the_vision_layers(finished, data, tmp_path, monkeypatch):
    """The compiler takes half a minute; that what it is given is used, and changes nothing, is seen
    without it."""
    calls = []

    def compiler(function, dynamic):
        return lambda *arguments: (calls.append(dynamic), function(*arguments))[1]

    monkeypatch.setattr(torch, "compile", compiler)
    run = train(tiny_config(data, tmp_path / "run", compile=True))
    assert set(calls) == {False} and len(calls) % 2 == 0
    assert run.metrics["metrics"] == finished.metrics["metrics"]


def test_other_runtime_errors_pass(data, tmp_path, monkeypatch):
    def backward(self, *batch):
        raise RuntimeError("something else")

    monkeypatch.setattr(training._Trainer, "_step", backward)
    with pytest.raises(RuntimeError, match="something else"):
        train(tiny_config(data, tmp_path / "run"))


def test_checkpointing_trains_to_the_same_result(finished, data, tmp_path):
    run = train(tiny_config(data, tmp_path / "run", checkpointing=True))
    for name, tensor in load_file(run.folder / "adapter.safetensors").items():
        torch.testing.assert_close(tensor, load_file(finished.folder / "adapter.safetensors")[name])


def test_frozen_matrices_are_cast_once_and_no_feature_changes(data):
    model = build_model(tiny_config(data, "unused"))
    images = torch.randn(2, 3, *model.image_size)
    tokens = model.tokenize(["a man", "a woman in red"])
    kept = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        before, after = model(images, tokens), model.cast_frozen(torch.bfloat16)(images, tokens)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert model.backbone.transformer.resblocks[0].mlp.c_fc.weight.dtype == torch.bfloat16
    assert_same_tensors(model.trainable_state(), kept)


def test_a_share_of_the_identities(data, tmp_path):
    train_split = load_dataset("CUHK-PEDES", data).train
    small, large = (subset(train_split, share, seed=3) for share in (1 / 3, 2 / 3))
    assert (len(set(small.image_identities)), len(set(large.image_identities))) == (2, 4)
    assert set(small.captions) < set(large.captions) < set(train_split.captions)
    for part in (small, large):
        paths = list(train_split.image_paths)
        for caption, image in zip(part.captions, part.caption_images, strict=True):
            whole = train_split.captions.index(caption)
            assert paths.index(part.image_paths[image]) == train_split.caption_images[whole]
        assert sorted(set(part.image_identities)) == list(range(len(set(part.image_identities))))
    run = train(tiny_config(data, tmp_path / "run", train_fraction=0.5, epochs=1))
    assert run.metrics["config"]["train_fraction"] == 0.5 and "-cskt-seed0-" in run_name(run.config)
    assert run_name(run.config) != run_name(tiny_config(data))
