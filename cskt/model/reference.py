"""The parameter names of the authors' release (Liu-Yating/CSKT) <-> ours, so that checkpoints go
both ways."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cskt.backbones import copy_state, read_checkpoint, unwrap_state
from cskt.config import CSKTConfig
from cskt.errors import CSKTError

_PROMPTS = {  # ours: the release's name at layer 0, its list of the later layers
    "text": ("ctx", "compound_prompts_text"),
    "vision": ("vision", "compound_prompts_vision"),
    "text_to_vision": ("tmap", "compound_prompt_projections"),
    "vision_to_text": ("vmap", "compound_prompt_projections_vision"),
}


def reference_name(name: str) -> str:
    """The authors' name of one of our parameters, e.g. ``prompts.text.0`` ->
    ``prompt_learner.ctx``."""
    if prompt := re.fullmatch(r"prompts\.(\w+)\.(\d+)(.*)", name):
        (first, later), layer = _PROMPTS[prompt[1]], int(prompt[2])
        return f"prompt_learner.{f'{later}.{layer - 1}' if layer else first}{prompt[3]}"
    if adapter := re.fullmatch(r"(text|vision)_adapters\.(\d+)\.(\w+)\.(\w+)", name):
        tower = "visual." if adapter[1] == "vision" else ""
        part = "ln_3" if adapter[3] == "norm" else f"adapter_mlp.{adapter[3]}"
        return f"base_model.{tower}transformer.resblocks.{adapter[2]}.{part}.{adapter[4]}"
    return "base_model." + name.removeprefix("backbone.")


def reference_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter of a CSKT model under the authors' name; :class:`CSKTError` for LoRA, which
    they do not have."""
    if model.config.lora:
        raise CSKTError(
            "the authors' code has no LoRA; only a model without it goes to or from their checkpoints."
        )
    return {
        reference_name(name): parameter for name, parameter in model.counted_parameters().items()
    }


def to_reference_state(model: nn.Module) -> dict[str, Tensor]:
    """A state dict that the authors' code loads; like ``state_dict()``, it shares memory with the
    model."""
    return {name: parameter.detach() for name, parameter in reference_parameters(model).items()}


def reference_config(state: Mapping[str, Tensor]) -> CSKTConfig:
    """The method's sizes as the shapes of a checkpoint in the authors' names have them; scales are
    the paper's."""
    names = {kind: f"prompt_learner.{first}" for kind, (first, _) in _PROMPTS.items()}
    down = next((name for name in state if name.endswith("adapter_mlp.down.weight")), None)
    if down is None or not {names["text"], names["vision"]} <= set(state):
        raise CSKTError(
            "the checkpoint holds no prompts and adapters in the authors' names (prompt_learner.ctx, "
            "...adapter_mlp.down.weight); give one that their code saved."
        )
    later = sum(name.startswith(f"prompt_learner.{_PROMPTS['text'][1]}.") for name in state)
    return CSKTConfig(
        prompt_length=len(state[names["text"]]),
        prompt_depth=1 + later,
        reduction=state[down].shape[1] // state[down].shape[0],
    )


def foreign_backbone(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Frozen tensors that a checkpoint in the authors' names holds and that are not the model's
    own, further apart than half precision explains: the release computes in fp16 throughout and
    resizes positions before it rounds."""
    return [
        name
        for name, own in reference_parameters(model).items()
        if not own.requires_grad
        and name in state
        and (
            state[name].shape != own.shape
            or (state[name].float() - own.float()).abs().max() > 2e-3 * own.float().abs().max()
        )
    ]


def load_reference_checkpoint(
    model: nn.Module, checkpoint: Mapping[str, Any] | str | os.PathLike
) -> None:
    """Loads a state dict, or the path of one, in the authors' names, whole or under ``model`` or
    ``state_dict``.

    It holds every parameter, or the trained ones only (then the backbone stays as it is). Missing,
    surplus and wrong-shaped entries are a :class:`cskt.errors.CSKTError` that lists them, and
    nothing is loaded.
    """
    source = "the reference checkpoint"
    if isinstance(checkpoint, Mapping):
        state = unwrap_state(checkpoint, source)
    else:
        source, state = f"{source} {os.fspath(checkpoint)}", read_checkpoint(checkpoint)
    state = {name: value for name, value in state.items() if not name.endswith("logit_scale")}
    own = reference_parameters(model.unfuse())
    trained = {name: parameter for name, parameter in own.items() if parameter.requires_grad}
    copy_state(
        own if any(name in own and name not in trained for name in state) else trained,
        state,
        source,
    )
