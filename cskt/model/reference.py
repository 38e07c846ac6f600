"""The parameter names of the authors' release (Liu-Yating/CSKT) <-> ours, so that checkpoints go both ways."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cskt.backbones import check_state, read_checkpoint, unwrap_state

_FIRST = {"text": "ctx", "vision": "vision", "text_to_vision": "tmap", "vision_to_text": "vmap"}
_LATER = {
    "text": "compound_prompts_text",
    "vision": "compound_prompts_vision",
    "text_to_vision": "compound_prompt_projections",
    "vision_to_text": "compound_prompt_projections_vision",
}


def reference_name(name: str) -> str:
    """The authors' name of one of our parameters, e.g. ``prompts.text.0`` -> ``prompt_learner.ctx``."""
    if name.startswith("backbone."):
        return "base_model." + name.removeprefix("backbone.")
    if prompt := re.fullmatch(r"prompts\.(\w+)\.(\d+)(.*)", name):
        kind, layer, rest = prompt[1], int(prompt[2]), prompt[3]
        return f"prompt_learner.{_FIRST[kind] if layer == 0 else f'{_LATER[kind]}.{layer - 1}'}{rest}"
    if adapter := re.fullmatch(r"(text|vision)_adapters\.(\d+)\.(norm|down|up)\.(\w+)", name):
        tower = "visual." if adapter[1] == "vision" else ""
        part = "ln_3" if adapter[3] == "norm" else f"adapter_mlp.{adapter[3]}"
        return f"base_model.{tower}transformer.resblocks.{adapter[2]}.{part}.{adapter[4]}"
    raise KeyError(name)


def reference_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter of a CSKT model under the authors' name."""
    return {reference_name(name): parameter for name, parameter in model.counted_parameters().items()}


def to_reference_state(model: nn.Module) -> dict[str, Tensor]:
    """A state dict that the authors' code loads; like ``state_dict()``, it shares memory with the model."""
    return {name: parameter.detach() for name, parameter in reference_parameters(model).items()}


def load_reference_checkpoint(model: nn.Module, checkpoint: Mapping[str, Any] | str | os.PathLike) -> None:
    """Loads a state dict, or the path of one, in the authors' names, whole or under ``model`` or ``state_dict``.

    It holds every parameter, or the trained ones only (then the backbone stays as it is). Missing, surplus and
    wrong-shaped entries are a :class:`cskt.config.CSKTError` that lists them, and nothing is loaded.
    """
    if isinstance(checkpoint, Mapping):
        source, state = "the reference checkpoint", unwrap_state(checkpoint, "the reference checkpoint")
    else:
        source, state = f"the reference checkpoint {os.fspath(checkpoint)}", read_checkpoint(checkpoint)
    state = {name: value for name, value in state.items() if not name.endswith("logit_scale")}
    expected = reference_parameters(model)
    trained = {name: parameter for name, parameter in expected.items() if parameter.requires_grad}
    if not any(name in expected and name not in trained for name in state):
        expected = trained
    check_state({name: parameter.shape for name, parameter in expected.items()}, state, source)
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(state[name])
