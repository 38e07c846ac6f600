"""From options, settings and a file to one configuration."""

import pytest

from cskt.cli.common import parse_settings, train_config
from cskt.config import METHODS, MINI, CSKTConfig, TrainConfig
from cskt.errors import ConfigurationError


def test_defaults_are_the_backbones_own():
    assert train_config({}, {"epochs": None}) == TrainConfig.mini()
    assert train_config({}, {"backbone": "ViT-B-16-quickgelu"}) == TrainConfig.paper()
    assert train_config({}, {"seed": 3}) == TrainConfig.mini(seed=3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", [MINI, "ViT-B-16-quickgelu"])
def test_each_method_has_its_own_learning_rate(backbone, method):
    expected = TrainConfig.for_backbone(backbone, method=method)
    assert train_config({}, {"backbone": backbone, "method": method}) == expected


@pytest.mark.parametrize("method", METHODS)
def test_written_configuration_reads_back(method):
    config = TrainConfig.mini(method=method, seed=2)
    assert train_config(config.to_dict(), {}) == config


def test_options_override_the_file_and_a_partial_file_the_defaults():
    file_settings = {"epochs": 9, "cskt": {"prompt_length": 2}}
    config = train_config(file_settings, {"epochs": 4})
    assert config == TrainConfig.mini(epochs=4, cskt=CSKTConfig.mini(prompt_length=2))
    assert config.backbone == MINI


def test_settings_override_the_file_and_options_override_settings():
    assert train_config({"epochs": 9}, {}, ["epochs=5"]).epochs == 5
    assert train_config({"epochs": 9}, {"epochs": 4}, ["epochs=5"]).epochs == 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("written", METHODS)
def test_method_option_brings_its_own_switches(written, method):
    file_settings = TrainConfig.mini(method=written).to_dict()
    assert train_config(file_settings, {"method": method}) == TrainConfig.mini(method=method)


def test_ablation_switches_in_a_file_are_kept():
    file_settings = {"method": "cskt", "cskt": {"text_adapter": False}}
    assert not train_config(file_settings, {"seed": 1}).cskt.text_adapter


@pytest.mark.parametrize("layer", [{"cskt": [1]}, {"cskt": 3}])
def test_method_settings_must_be_a_mapping(layer):
    with pytest.raises(ConfigurationError, match="cskt must be a mapping"):
        train_config(layer, {})
    with pytest.raises(ConfigurationError, match="cskt must be a mapping"):
        train_config({}, layer)


def test_any_field_can_be_set():
    settings = [
        "learning_rate=3e-4",
        "image_size=(64, 32)",
        "selection=test",
        "cskt={'prompt_length': 2}",
    ]
    config = train_config({"cskt": {"text_scale": 2.0}}, {}, settings)
    assert config == TrainConfig.mini(
        learning_rate=3e-4,
        image_size=(64, 32),
        selection="test",
        cskt=CSKTConfig.mini(prompt_length=2, text_scale=2.0),
    )


def test_a_setting_is_a_literal_or_a_word():
    assert parse_settings(["pad=2", "erasing=0.5", "compile=True", "selection=test"]) == {
        "pad": 2,
        "erasing": 0.5,
        "compile": True,
        "selection": "test",
    }
    with pytest.raises(ConfigurationError, match="^--set pad must be --set NAME=VALUE"):
        parse_settings(["pad"])
