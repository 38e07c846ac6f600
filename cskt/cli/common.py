"""What the commands share: options, how settings are laid over each other, and messages."""

from __future__ import annotations

import ast
import logging
import sys
from typing import Annotated, Any

from typer import Option

from cskt.config import DATASETS, METHODS, MINI, TrainConfig
from cskt.errors import ConfigurationError

DATASET_HELP = f"One of {', '.join(DATASETS)}, or a name for your own data."
DataRoot = Annotated[str | None, Option(help="Folder of the data set, or its parent.")]
Backbone = Annotated[str | None, Option(help=f"{MINI} (default) or an open_clip model name.")]
Pretrained = Annotated[str | None, Option(help="A tag such as openai, or a checkpoint file.")]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set", metavar="NAME=VALUE", help="Any other setting, such as batch_size=64; repeatable."
    ),
]


def train_config(
    file_settings: dict[str, Any], options: dict[str, Any], settings: list[str] | None = None
) -> TrainConfig:
    """The backbone's and method's defaults; on top of them ``file_settings``, then ``settings``
    (``NAME=VALUE``), then those ``options`` that are not None.

    What belongs to a method (its switches and its learning rate) holds in a file for the file's
    method, not for another one that is asked for.
    """
    given = parse_settings(settings or [])
    for name, value in options.items():
        if value is not None:
            given[name] = value
    backbone = given.get("backbone", file_settings.get("backbone")) or MINI
    method = given.get("method", file_settings.get("method"))
    config = TrainConfig.for_backbone(backbone, method=method).to_dict()
    if "method" in given and method != file_settings.get("method", "cskt"):
        file_settings = _without_method(file_settings)
    _lay_over(config, file_settings)
    _lay_over(config, given)
    return TrainConfig.from_dict(config)


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """``["epochs=3", "selection=test"]`` -> ``{"epochs": 3, "selection": "test"}``."""
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigurationError(
                f"--set {name} must be --set NAME=VALUE, such as batch_size=64."
            )
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a word, as in selection=test
            values[name] = value
    return values


def _lay_over(config: dict[str, Any], layer: dict[str, Any]) -> None:
    """Change ``config`` by ``layer``; of ``cskt`` only the settings that the layer names."""
    switches = _switches(layer)
    for name, value in layer.items():
        if name != "cskt":
            config[name] = value
    config["cskt"].update(switches)


def _switches(layer: dict[str, Any]) -> dict[str, Any]:
    switches = layer.get("cskt") or {}
    if not isinstance(switches, dict):
        raise ConfigurationError(
            f"cskt must be a mapping of method settings, got {switches!r}; "
            "correct the configuration."
        )
    return switches


def _without_method(layer: dict[str, Any]) -> dict[str, Any]:
    """``layer`` without the learning rate and the switches that tell methods apart."""
    of_methods: set[str] = set()
    for method_switches in METHODS.values():
        of_methods.update(method_switches)
    switches = {name: value for name, value in _switches(layer).items() if name not in of_methods}
    rest = {name: value for name, value in layer.items() if name not in ("learning_rate", "cskt")}
    return {**rest, "cskt": switches}


def log_to_stderr() -> None:
    """Warnings and progress of the library as plain lines; also called in worker processes."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
