"""Configurations refuse values out of range by name and survive the way through plain data."""

import pytest

from cskt.config import METHODS, MINI_LEARNING_RATES, CSKTConfig, TrainConfig, cache_dir
from cskt.errors import CSKTError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt_length", 0),
        ("prompt_length", True),
        ("prompt_depth", -1),
        ("reduction", 0),
        ("vision_scale", "0.1"),
        ("text_scale", float("nan")),
        ("text_adapter", 1),
        ("prompt_init", "a picture"),
        ("adapter_init", "ones"),
    ],
)
def test_bad_method_values_are_named(field, value):
    with pytest.raises(CSKTError, match=f"^{field} must be"):
        CSKTConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset", "Market-1501"),
        ("image_size", (384,)),
        ("epochs", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("flip", 1.5),
        ("selection", "train"),
        ("precision", "fp16"),
        ("seed", -1),
    ],
)
def test_bad_run_values_are_named(field, value):
    with pytest.raises(CSKTError, match=f"^{field} must be"):
        TrainConfig(**{field: value})


def test_methods_switch_the_parts():
    prompts = {name: CSKTConfig().for_method(name).prompts_per_tower for name in METHODS}
    assert prompts["cskt"] == prompts["bpt"] == 8
    assert prompts["prompts-text-to-image"] == prompts["prompts-image-to-text"] == 4
    assert prompts["dat"] == prompts["full"] == prompts["zero-shot"] == 0
    assert CSKTConfig(prompt_depth=0).prompts_per_tower == 0
    with pytest.raises(CSKTError, match="method 'lora2' is unknown"):
        CSKTConfig().for_method("lora2")


def test_round_trip_and_unknown_fields():
    for config in (TrainConfig.paper(), TrainConfig.mini("SynthPEDES-B", method="dat", seed=3)):
        assert TrainConfig.from_dict(config.to_dict()) == config
    for name in ("epoch", "selection_split"):
        with pytest.raises(CSKTError, match=f"no field {name};"):
            TrainConfig.from_dict({name: 3})


def test_every_method_has_a_rate_of_its_own_on_the_embedded_backbone():
    assert set(MINI_LEARNING_RATES) == set(METHODS)
    assert {
        method: TrainConfig.mini(method=method).learning_rate for method in METHODS
    } == MINI_LEARNING_RATES
    assert TrainConfig.mini().learning_rate == MINI_LEARNING_RATES["cskt"]
    assert TrainConfig.mini(method="lora", learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(CSKTError, match="method 'lora2' is unknown"):
        TrainConfig.mini(method="lora2")


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("CSKT_CACHE")
    assert cache_dir().name == "cskt"
