"""Which epoch is kept: by the rule of the configuration, whatever happens in between."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from cskt import evaluation, training
from cskt.data.datasets import load_dataset
from cskt.evaluation import MEASURES, evaluate
from cskt.selection import note_choices
from cskt.training import train
from tests.tiny_runs import Interrupted, assert_same_tensors, tiny_config

pytestmark = [pytest.mark.numerics, pytest.mark.usefixtures("own_cache")]

VAL_R1 = (30.0, 50.0, 40.0)  # after the epochs 1, 2, 3
TEST_R1 = (60.0, 20.0, 45.0)


@pytest.fixture
def known_scores(monkeypatch):
    """The text-to-image R@1 after each epoch is one of :data:`VAL_R1` and :data:`TEST_R1`."""
    real_evaluate = evaluation.evaluate
    scores = {"val": iter(VAL_R1), "test": iter(TEST_R1)}

    def scored(model, loaded, *arguments, **options):
        metrics = real_evaluate(model, loaded, *arguments, **options)
        if options.get("resamples") == 0:  # without intervals: after an epoch
            metrics["text_to_image"]["R@1"] = next(scores[loaded.split.name])
        return metrics

    monkeypatch.setattr(evaluation, "evaluate", scored)


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [None, 1, 2, 3])
@pytest.mark.parametrize(("selection", "epoch"), [("val", 2), ("test", 1), ("last", 3)])
def test_the_kept_epoch_is_the_one_of_the_rule(
    tiny_data, tmp_path, known_scores, selection, epoch, interrupted
):
    config = tiny_config(tiny_data, tmp_path / "run", selection=selection)
    trained = {}

    def keep(row):
        state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
        trained[row["epoch"]] = state["model"]
        if row["epoch"] == interrupted:
            raise Interrupted

    if interrupted:
        with pytest.raises(Interrupted):
            train(config, on_epoch=keep)
    run = train(config, on_epoch=keep)
    assert run.record["best_epoch"] == epoch
    assert run.record["selection"] == selection
    assert_same_tensors(load_file(run.folder / "adapter.safetensors"), trained[epoch])
    for other in {1, 2, 3} - {epoch}:
        differing = [
            name
            for name in trained[epoch]
            if not torch.equal(trained[other][name], trained[epoch][name])
        ]
        assert differing
    selected = run.record["selected"]
    expected = {"val": (2, 20.0), "test": (1, 60.0), "last": (3, 45.0)}
    for rule, (rule_epoch, test_r1) in expected.items():
        assert selected[rule]["epoch"] == rule_epoch
        assert selected[rule]["metrics"]["text_to_image"]["R@1"] == test_r1
    assert [row["val R@1"] for row in run.history] == list(VAL_R1)
    assert [row["test R@1"] for row in run.history] == list(TEST_R1)


def metrics_of(r1, precision):
    """The same measures on val and on test."""
    measures = {**dict.fromkeys(MEASURES, 0.0), "R@1": r1, "mAP": precision}
    return {"val": {"text_to_image": measures}, "test": {"text_to_image": measures}}


def test_equal_recalls_are_decided_by_map_and_then_by_the_earlier_epoch():
    chosen = {}
    assert note_choices(chosen, 1, metrics_of(50.0, 30.0)) == ["val", "test", "last"]
    assert note_choices(chosen, 2, metrics_of(50.0, 40.0)) == ["val", "test", "last"]
    assert note_choices(chosen, 3, metrics_of(50.0, 40.0)) == ["last"]
    assert note_choices(chosen, 4, metrics_of(49.0, 90.0)) == ["last"]
    assert chosen["val"]["epoch"] == chosen["test"]["epoch"] == 2


def test_best_epoch_is_the_one_kept(finished, tiny_data):
    scores = [(row["val R@1"], row["val mAP"]) for row in finished.history]
    assert finished.record["best_epoch"] == scores.index(max(scores)) + 1
    model = finished.load_model()
    dataset = load_dataset("CUHK-PEDES", tiny_data)
    assert evaluate(model, dataset.test, "fp32") == finished.record["metrics"]
    assert evaluate(model, dataset.val, "fp32") == finished.record["val_metrics"]


def test_selected_figures_are_those_of_the_history_and_of_the_kept_model(finished):
    record = finished.record
    for choice in record["selected"].values():
        row = finished.history[choice["epoch"] - 1]
        for name in MEASURES:
            assert choice["metrics"]["text_to_image"][name] == row[f"test {name}"]
    for direction, measures in record["selected"]["val"]["metrics"].items():
        for name in MEASURES:
            assert measures[name] == record["metrics"][direction][name]
    assert record["selected"]["last"]["epoch"] == 3


def test_selection_on_test(tiny_data, tmp_path):
    run = train(tiny_config(tiny_data, tmp_path / "run", selection="test", epochs=2))
    best = run.history[run.record["best_epoch"] - 1]
    assert best["test R@1"] == run.record["metrics"]["text_to_image"]["R@1"]


def test_where_test_stands_in_for_val_it_is_evaluated_once(tiny_data, tmp_path, monkeypatch):
    real_evaluate = evaluation.evaluate
    calls = []

    def counted(*arguments, **options):
        calls.append(options)
        return real_evaluate(*arguments, **options)

    def load(name, root):
        dataset = load_dataset(name, root)
        return dataclasses.replace(dataset, val=dataset.test)

    monkeypatch.setattr(evaluation, "evaluate", counted)
    monkeypatch.setattr(training, "load_dataset", load)
    run = train(tiny_config(tiny_data, tmp_path / "run", epochs=2))
    assert len(calls) == 2  # once an epoch
    assert run.record["val_metrics"] == run.record["metrics"]
    assert run.record["zero_shot_val"] == run.record["zero_shot"]
    assert [row["val mAP"] for row in run.history] == [row["test mAP"] for row in run.history]
