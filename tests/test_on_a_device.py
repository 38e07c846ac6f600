"""What cskt does on a GPU, as far as a simulated one shows it (``tests/simulated_device.py``): no
operation mixes places, the numbers are the CPU's, and nothing waits for the device without need.

What cannot run here: autocast of CUDA (the CPU's, with another list of operations, stands for it);
its random numbers; its fused kernels of attention and solvers (``causal_lower_right`` is asked for,
and computed as a mask); ``torch.compile``; threads (the simulation holds in its own only); several
processes (their collectives live in C++). Reads by ``torch.save`` are not counted.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric

import cskt.training
from cskt.analysis.attention import prompt_maps, traffic
from cskt.analysis.grounding import ground
from cskt.analysis.knockout import knock_out
from cskt.config import METHODS
from cskt.data.augment import normalize
from cskt.data.datasets import load_dataset
from cskt.epoch import EpochLoop
from cskt.evaluation import embed, evaluate, evaluate_queries, load_split
from cskt.metrics import match_margins, rank_features
from cskt.model.towers import checkpointed
from cskt.optimizer import make_optimizer
from cskt.runs import build_model
from cskt.search.gallery import Gallery
from cskt.training import train
from tests import demos
from tests.probe_models import CAPTIONS, loaded_split, random_pictures, small_model
from tests.simulated_device import SimulatedDevice
from tests.tiny_runs import Interrupted, interrupt_after, tiny_config, without_seconds

SETTINGS = [{}, {"checkpointing": True}, {"micro_batch_size": 2}]  # ways to train a step
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # Adam adds up in another order there


@pytest.fixture(scope="module")
def model():
    return small_model()


def on_the_device(compute: Callable[[Any], Any], model: Any) -> tuple[Any, Counter[str]]:
    """What ``compute(model)`` gives where the model is on the device, and the waits on the way."""
    with SimulatedDevice() as device:
        moved = copy.deepcopy(model).to("cuda")
        device.waits.clear()
        result = compute(moved)
        waits = Counter(device.waits)
    return result, waits


# Training


def loop_of(config, fabric: Fabric) -> EpochLoop:
    """The epochs of a tiny run, where ``fabric`` puts them."""
    model = build_model(config)
    if config.checkpointing:
        model.steps = dict.fromkeys(model.steps, checkpointed)
    dataset = load_dataset(config.dataset, config.data_root)
    loaded = load_split(model, dataset.train)
    optimizer, _ = make_optimizer(model, config)
    if fabric._precision.precision == "bf16-mixed":
        model.cast_frozen(torch.bfloat16)
    wrapped, optimizer = fabric.setup(model, optimizer)
    return EpochLoop(config, fabric, wrapped, optimizer, loaded, hide_bar=True)


def epoch_of(config, fabric: Fabric, after_step: Callable[[], None]) -> tuple[float, dict]:
    """The mean loss of the first epoch of a tiny run, and the weights behind it."""
    loop = loop_of(config, fabric)
    loss = loop.run(0, after_step)
    weights = {name: tensor.cpu() for name, tensor in loop.wrapped.trainable_state().items()}
    return loss, weights


METHODS_ALONE = [{"method": "bpt"}, {"method": "lora"}, {"method": "full"}]


@pytest.mark.parametrize("settings", SETTINGS + METHODS_ALONE, ids=str)
def test_training_waits_for_nothing_between_steps(tiny_data, own_cache, settings):
    config = tiny_config(tiny_data, erasing=0.9, adam_eps=1e-3, **settings)
    expected_loss, expected_weights = epoch_of(config, Fabric(accelerator="cpu"), lambda: None)
    waits = []
    with SimulatedDevice() as device:
        loss, weights = epoch_of(
            config, device.fabric(), lambda: waits.append(device.waits.total())
        )
    assert len(waits) == 3
    assert waits[0] == waits[1] == waits[2], device.places
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    torch.testing.assert_close(weights, expected_weights, **TOLERANCE)


def test_the_first_step_waits_for_nothing_either(tiny_data, own_cache):
    config = tiny_config(tiny_data, erasing=0.9)
    with SimulatedDevice() as device:
        loop = loop_of(config, device.fabric())
        device.waits.clear()
        loop.run(0, lambda: None)
        assert device.waits == {"item": 1}, "the mean loss of the epoch"
        assert loop.diverged(0) is None
        assert device.waits == {"item": 1, "copy back": 1}, "the losses of all steps at once"


@pytest.fixture
def autocast_there(monkeypatch):
    """Autocast of CUDA is the CPU's, which casts what is simulated."""
    on_the_cpu = torch.autocast
    enabled = torch.is_autocast_enabled

    def autocast(device_type: str, **settings):
        return on_the_cpu("cpu", **settings)

    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(torch.amp, "autocast", autocast)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: enabled("cpu"))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_training_in_bf16_mixes_no_places_and_does_not_wait(
    tiny_data, own_cache, autocast_there, settings
):
    config = tiny_config(tiny_data, erasing=0.9, learning_rate=1e-4, **settings)
    expected_loss, _ = epoch_of(config, Fabric(accelerator="cpu"), lambda: None)
    waits = []
    with SimulatedDevice() as device:
        fabric = device.fabric("bf16-mixed")
        loss, _ = epoch_of(config, fabric, lambda: waits.append(device.waits.total()))
    assert waits[0] == waits[1] == waits[2], device.places
    assert loss != expected_loss
    assert loss == pytest.approx(expected_loss, rel=0.05)


@pytest.fixture
def trained_there(monkeypatch):
    """``trained_there(config)``: the run, trained on a simulated device."""

    def trained(config, **settings):
        config = dataclasses.replace(config, device="cuda")
        with SimulatedDevice() as device, monkeypatch.context() as patch:
            patch.setattr(cskt.training, "resolve_device", lambda name: name)
            patch.setattr(cskt.training, "launched", lambda *arguments: device.fabric())
            patch.setattr(torch.cuda, "get_device_name", lambda: "simulated")
            return train(config, **settings)

    return trained


@pytest.mark.slow
def test_a_whole_run_is_that_of_the_cpu(tiny_data, own_cache, tmp_path, finished, trained_there):
    run = trained_there(tiny_config(tiny_data, tmp_path / "run"))
    assert run.record["precision"] == "fp32"
    expected_cost = finished.record["cost"]
    assert run.record["cost"]["per_query"]["flops"] == expected_cost["per_query"]["flops"]
    expected_rows = without_seconds(finished.history)
    for row, expected in zip(without_seconds(run.history), expected_rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_there(tiny_data, own_cache, tmp_path, finished, trained_there):
    config = tiny_config(tiny_data, tmp_path / "run", checkpoint_every=1)
    with pytest.raises(Interrupted):
        trained_there(config, on_epoch=interrupt_after(1))
    run = trained_there(config)
    assert len(run.history) == len(finished.history)
    assert run.history[-1]["loss"] == pytest.approx(finished.history[-1]["loss"], rel=1e-3)


# Encoding


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize(
    "settings", [{}, {"prompt_depth": 1}, METHODS["lora"]], ids=["cskt", "first layer", "lora"]
)
@torch.no_grad()
def test_features_are_those_of_the_cpu_without_a_wait(fused, settings):
    model = small_model(**settings)
    pictures = random_pictures(3, seed=0)
    ids = model.tokenize(CAPTIONS)

    def encode(model):
        if fused:
            model.fuse()
        pixels = normalize(pictures.to(model.device, non_blocking=True))
        return model(pixels, ids)

    expected = encode(copy.deepcopy(model))
    features, waits = on_the_device(encode, model)
    assert not waits
    torch.testing.assert_close(features, expected, **TOLERANCE)


@torch.no_grad()
def test_captions_on_the_device_are_looked_at_once_a_batch(model):
    ids = model.tokenize(CAPTIONS)

    def encode(model):
        return model.encode_text(ids.to(model.device, non_blocking=True))

    features, waits = on_the_device(encode, model)
    torch.testing.assert_close(features, encode(model), **TOLERANCE)
    assert waits == {"tolist": 1, "item": 1, "nonzero": 1}, "the check, the longest, the grid"


# Evaluation and ranking


def test_evaluation_is_that_of_the_cpu(model):
    split = loaded_split(model)

    def compute(model):
        return evaluate(model, split, "fp32", batch_size=2, resamples=20)

    metrics, _ = on_the_device(compute, model)
    assert metrics == compute(model)


def test_embedding_waits_once_however_many_batches(model):
    split = loaded_split(model)
    few_batches = on_the_device(lambda model: embed(model, split, "fp32", batch_size=6), model)
    many_batches = on_the_device(lambda model: embed(model, split, "fp32", batch_size=1), model)
    assert few_batches[1] == many_batches[1]
    assert many_batches[1].total() <= 1, "the order of the captions"


def test_what_an_evaluation_costs_is_counted_there(model):
    split = loaded_split(model)

    def compute(model):
        return evaluate_queries(model, split, "fp32")

    (metrics, queries, cost), _ = on_the_device(compute, model)
    expected_metrics, expected_queries, expected_cost = compute(model)
    assert metrics == expected_metrics
    np.testing.assert_equal(queries, expected_queries)
    assert cost["per_query"]["flops"] == expected_cost["per_query"]["flops"]
    assert cost["per_image"]["flops"] == expected_cost["per_image"]["flops"]


@pytest.mark.parametrize("queries", [4, 40, 400])
def test_ranking_waits_a_number_of_times_that_queries_do_not_change(queries):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(queries, 8, generator=generator)
    gallery = torch.randn(20, 8, generator=generator)
    query_ids = np.arange(queries) % 10
    gallery_ids = np.arange(20) % 10
    expected = rank_features(features, gallery, query_ids, gallery_ids)
    with SimulatedDevice() as device:
        moved = (features.to("cuda"), gallery.to("cuda"))
        device.waits.clear()
        assert rank_features(*moved, query_ids, gallery_ids) == expected
        most = 2  # relevant items of a query
        assert device.waits.total() <= 12 + most


def test_margins_are_those_of_the_cpu():
    similarity = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    query_ids = np.arange(6) % 4
    gallery_ids = np.arange(4)
    expected = match_margins(similarity, query_ids, gallery_ids)
    with SimulatedDevice():
        margins = match_margins(similarity.to("cuda"), query_ids, gallery_ids)
    np.testing.assert_array_equal(margins, expected)


# Probes


def test_attention_probes_are_those_of_the_cpu(model):
    pictures = normalize(random_pictures(3, seed=0))
    ids = model.tokenize(CAPTIONS)
    table, _ = on_the_device(lambda model: traffic(model, pictures, ids), model)
    pd.testing.assert_frame_equal(table, traffic(model, pictures, ids), rtol=1e-4)
    maps, waits = on_the_device(lambda model: prompt_maps(model, pictures), model)
    torch.testing.assert_close(maps, prompt_maps(model, pictures), **TOLERANCE)
    assert waits["copy back"] == 1


def test_grounding_is_that_of_the_cpu(model):
    pictures = random_pictures(3, seed=0)
    spans = [(1, 2), (0, 1), (3, 6)]

    def compute(model):
        return ground(model, pictures, CAPTIONS, spans, batch_size=2)

    maps, waits = on_the_device(compute, model)
    torch.testing.assert_close(maps, compute(model), **TOLERANCE)
    assert waits["copy back"] == math.ceil(len(CAPTIONS) / 2), "the maps, once a batch"


def test_knock_outs_are_those_of_the_cpu(model):
    split = loaded_split(model)
    table, _ = on_the_device(lambda model: knock_out(model, split, "fp32"), model)
    pd.testing.assert_frame_equal(table, knock_out(model, split, "fp32"))


# Search


def shown_page(folder: Path, device: str) -> str:
    """All html of the demo over new galleries after a search, a map and a search for more like a
    hit."""
    galleries = {}
    for name, model in demos.small_models().items():
        galleries[name] = Gallery(folder / f"{name}-{device}.db", model.to(device))
        galleries[name].add(demos.IMAGES, demos.FACTS)
    shown = demos.two_sided(galleries)
    shown.query.value = demos.QUERY
    cards = demos.cards(shown)
    cards[0].map.click()
    page = demos.page(shown)
    cards[1].more.click()
    page += demos.page(shown)
    assert demos.said(shown) == ""
    demos.close(galleries)
    return page


def test_the_demo_shows_what_it_shows_on_the_cpu(tmp_path):
    expected = shown_page(tmp_path, "cpu")
    with SimulatedDevice():
        assert shown_page(tmp_path, "cuda") == expected
