"""Configurations refuse values out of range by name and survive the way through plain data."""

import dataclasses
import json
from pathlib import Path

import pytest

from cskt.config import METHODS, MINI_LEARNING_RATES, CSKTConfig, TrainConfig, cache_dir
from cskt.errors import ConfigurationError
from cskt.runs import run_name

RUN_FILES = Path(__file__).parents[1] / "book" / "results" / "runs"


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("prompt_length", 0, "an integer from 1 to 32"),
        ("prompt_length", True, "an integer from 1 to 32"),
        ("prompt_depth", -1, r"None \(every block\) or an integer >= 0"),
        ("reduction", 0, "an integer >= 1"),
        ("vision_scale", "0.1", "a finite number"),
        ("text_scale", float("nan"), "a finite number"),
        ("text_adapter", 1, "True or False"),
        ("prompt_init", "a picture", "'random' or 'a photo of a'"),
        ("adapter_init", "ones", "'normal' or 'zero'"),
    ],
)
def test_a_bad_method_value_is_named_with_what_is_allowed(field, value, allowed):
    with pytest.raises(ConfigurationError, match=f"^{field} must be {allowed}, got {value!r}.$"):
        CSKTConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("dataset", "", "a name of 1 to 100 printable characters without , < and >"),
        ("image_size", (384,), r"\(height, width\) in pixels, at most 4096 each"),
        ("image_size", (384, 0), r"\(height, width\) in pixels, at most 4096 each"),
        ("epochs", 0, "an integer >= 1"),
        ("batch_size", 1, "an integer >= 2"),
        ("learning_rate", 0.0, "a number > 0"),
        ("weight_decay", -1.0, "a number >= 0"),
        ("train_fraction", 0, "a share > 0 and <= 1"),
        ("flip", 1.5, "a probability from 0 to 1"),
        ("selection", "train", "'val', 'test' or 'last'"),
        ("precision", "fp16", "'auto', 'fp32' or 'bf16'"),
        ("seed", -1, f"an integer from 0 to {2**63 - 1}"),
        ("noise", 1.5, "a probability from 0 to 1"),
        ("noise_index", 3, "the path of a .npy file while noise is 0"),
        ("cskt", {}, "a CSKTConfig"),
    ],
)
def test_a_bad_run_value_is_named_with_what_is_allowed(field, value, allowed):
    with pytest.raises(ConfigurationError, match=f"^{field} must be {allowed}, got "):
        TrainConfig(**{field: value})


def test_a_configuration_cannot_be_changed_but_copied():
    config = TrainConfig.mini()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 3
    assert dataclasses.replace(config, epochs=3) == TrainConfig.mini(epochs=3)
    with pytest.raises(ConfigurationError, match="^epochs must be"):
        dataclasses.replace(config, epochs=0)


@pytest.mark.parametrize("path", sorted(RUN_FILES.rglob("*.json")), ids=lambda path: path.stem)
def test_the_settings_of_a_committed_run_give_its_name(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    config = TrainConfig.from_dict(record["config"])
    expected = record["run"] if record["kind"] == "transfer" else path.stem
    assert run_name(config) == expected


def test_methods_switch_the_parts():
    prompts = {name: CSKTConfig().for_method(name).prompts_per_tower for name in METHODS}
    assert prompts["cskt"] == prompts["bpt"] == 8
    assert prompts["prompts-text-to-image"] == prompts["prompts-image-to-text"] == 4
    assert prompts["dat"] == prompts["full"] == prompts["zero-shot"] == 0
    assert CSKTConfig(prompt_depth=0).prompts_per_tower == 0
    with pytest.raises(ConfigurationError, match="method 'lora2' is unknown"):
        CSKTConfig().for_method("lora2")


@pytest.mark.parametrize(
    "config",
    [TrainConfig.paper(), TrainConfig.mini("SynthPEDES-B", method="dat", seed=3)],
    ids=["paper", "mini"],
)
def test_a_configuration_survives_the_way_through_plain_data(config):
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_field_is_named():
    with pytest.raises(ConfigurationError, match="^TrainConfig has no field epoch;"):
        TrainConfig.from_dict({"epoch": 3})
    with pytest.raises(ConfigurationError, match="^CSKTConfig has no field lenght;"):
        TrainConfig.from_dict({"cskt": {"lenght": 3}})


def test_settings_of_the_method_must_be_a_mapping():
    with pytest.raises(ConfigurationError, match="^cskt must be a mapping of method settings"):
        TrainConfig.from_dict({"cskt": 3})


def test_every_method_has_a_rate_of_its_own_on_the_embedded_backbone():
    assert set(MINI_LEARNING_RATES) == set(METHODS)
    for method in METHODS:
        assert TrainConfig.mini(method=method).learning_rate == MINI_LEARNING_RATES[method]
    assert TrainConfig.mini().learning_rate == MINI_LEARNING_RATES["cskt"]
    assert TrainConfig.mini(method="lora", learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(ConfigurationError, match="method 'lora2' is unknown"):
        TrainConfig.mini(method="lora2")


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CSKT_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("CSKT_CACHE")
    assert cache_dir().name == "cskt"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", ["cskt"], "method must be a name"),
        ("backbone", 3, "backbone must be a name"),
        ("pretrained", 3, "pretrained must be a path or None"),
        ("output", 5, "output must be a path or None"),
        ("data_root", ["a"], "data_root must be a path or None"),
        ("seed", 10**40, "seed must be an integer from 0 to"),
        ("image_size", [10**6, 10**6], "image_size must be .* at most 4096 each"),
        (5, 1, "TrainConfig has no field 5"),
        ("cskt", {3: 4}, "CSKTConfig has no field 3"),
    ],
)
def test_values_that_only_an_edited_file_can_have_are_refused(field, value, message):
    values = TrainConfig.mini().to_dict() | {field: value}
    with pytest.raises(ConfigurationError, match=message):
        TrainConfig.from_dict(values)
