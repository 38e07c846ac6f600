"""What is lost without a part of a model."""

from __future__ import annotations

import torch

from cskt.analysis import knockout
from tests.probe_models import loaded_split, small_model


def test_knock_out_covers_every_part_and_layer():
    model = small_model(prompt_depth=2)
    table = knockout.knock_out(model, loaded_split(model), "fp32")
    layers = table.groupby(["tower", "part"])["layer"].agg(list).to_dict()
    assert len(layers) == 6
    for tower in ("vision", "text"):
        assert layers[tower, "own prompts"] == [-1, 0, 1]
        assert layers[tower, "projected prompts"] == [-1, 0, 1]
        assert layers[tower, "adapter"] == [-1, 0, 1, 2]


def test_an_unused_part_costs_nothing():
    model = small_model()
    for adapter in model.text_adapters:
        torch.nn.init.zeros_(adapter.up.weight)
        torch.nn.init.zeros_(adapter.up.bias)
    table = knockout.knock_out(model, loaded_split(model), "fp32")
    without_adapter = table.query("tower == 'text' and part == 'adapter'")
    assert len(without_adapter) == 4
    assert (without_adapter["lost"] == 0).all()


def test_only_adapters_are_taken_out_of_a_model_without_prompts():
    model = small_model(text_to_vision=False, vision_to_text=False)
    table = knockout.knock_out(model, loaded_split(model), "fp32")
    assert set(table["part"]) == {"adapter"}
