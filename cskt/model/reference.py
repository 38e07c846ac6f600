"""The parameter names of the authors' release (Liu-Yating/CSKT) <-> ours, so that checkpoints go
both ways."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cskt.config import CSKTConfig
from cskt.errors import ModelError
from cskt.model.state_dicts import copy_state, read_checkpoint, unwrap_state

if TYPE_CHECKING:
    from cskt.model.cskt import CSKT


@dataclass(frozen=True)
class _Names:
    """The release's name at layer 0, and of its list of the later layers."""

    first: str
    later: str

    def at(self, layer: int) -> str:
        return self.first if layer == 0 else f"{self.later}.{layer - 1}"


_PROMPTS = {
    "text": _Names("ctx", "compound_prompts_text"),
    "vision": _Names("vision", "compound_prompts_vision"),
    "text_to_vision": _Names("tmap", "compound_prompt_projections"),
    "vision_to_text": _Names("vmap", "compound_prompt_projections_vision"),
}
_ROUNDING = 2e-3  # of the largest value: what half precision and resized positions explain


def reference_name(name: str) -> str:
    """The authors' name of one of our parameters, e.g. ``prompts.text.0`` ->
    ``prompt_learner.ctx``."""
    prompt = re.fullmatch(r"prompts\.(\w+)\.(\d+)(.*)", name)
    if prompt:
        kind, layer, rest = prompt.groups()
        return f"prompt_learner.{_PROMPTS[kind].at(int(layer))}{rest}"
    adapter = re.fullmatch(r"(text|vision)_adapters\.(\d+)\.(\w+)\.(\w+)", name)
    if adapter:
        tower, layer, module, value = adapter.groups()
        prefix = "visual." if tower == "vision" else ""
        theirs = "ln_3" if module == "norm" else f"adapter_mlp.{module}"
        return f"base_model.{prefix}transformer.resblocks.{layer}.{theirs}.{value}"
    return "base_model." + name.removeprefix("backbone.")


def reference_parameters(model: CSKT) -> dict[str, nn.Parameter]:
    """Every parameter of a CSKT model under the authors' name; :class:`ModelError` for LoRA, which
    they do not have."""
    if model.config.lora:
        raise ModelError(
            "the authors' code has no LoRA; only a model without it goes to or from their "
            "checkpoints."
        )
    parameters = model.counted_parameters()
    return {reference_name(name): parameter for name, parameter in parameters.items()}


def to_reference_state(model: CSKT) -> dict[str, Tensor]:
    """A state dict that the authors' code loads; like ``state_dict()``, it shares memory with the
    model."""
    return {name: parameter.detach() for name, parameter in reference_parameters(model).items()}


def reference_config(state: Mapping[str, Tensor]) -> CSKTConfig:
    """The method's sizes as the shapes of a checkpoint in the authors' names have them; scales are
    the paper's."""
    text = "prompt_learner." + _PROMPTS["text"].first
    vision = "prompt_learner." + _PROMPTS["vision"].first
    later = "prompt_learner." + _PROMPTS["text"].later + "."
    down = [name for name in state if name.endswith("adapter_mlp.down.weight")]
    if not down or text not in state or vision not in state:
        raise ModelError(
            "the checkpoint holds no prompts and adapters in the authors' names "
            "(prompt_learner.ctx, ...adapter_mlp.down.weight); give one that their code saved."
        )
    narrow, width = state[down[0]].shape
    return CSKTConfig(
        prompt_length=len(state[text]),
        prompt_depth=1 + sum(name.startswith(later) for name in state),
        reduction=width // narrow,
    )


def foreign_backbone(model: CSKT, state: Mapping[str, Tensor]) -> list[str]:
    """Frozen tensors that a checkpoint in the authors' names holds and that are not the model's
    own, further apart than half precision explains: the release computes in fp16 throughout and
    resizes positions before it rounds."""
    foreign = []
    for name, own in reference_parameters(model).items():
        if own.requires_grad or name not in state:
            continue
        if not _alike(own, state[name]):
            foreign.append(name)
    return foreign


def _alike(own: Tensor, other: Tensor) -> bool:
    if own.shape != other.shape:
        return False
    apart = (other.float() - own.float()).abs().max()
    return not bool(apart > _ROUNDING * own.float().abs().max())


def load_reference_checkpoint(
    model: CSKT, checkpoint: Mapping[str, Any] | str | os.PathLike
) -> None:
    """Loads a state dict, or the path of one, in the authors' names, whole or under ``model`` or
    ``state_dict``.

    It holds every parameter, or the trained ones only (then the backbone stays as it is). Missing,
    surplus and wrong-shaped entries are a :class:`ModelError` that lists them, and nothing is
    loaded.
    """
    source = "the reference checkpoint"
    if isinstance(checkpoint, Mapping):
        state = unwrap_state(checkpoint, source)
    else:
        source = f"{source} {os.fspath(checkpoint)}"
        state = read_checkpoint(checkpoint)
    state = {name: value for name, value in state.items() if not name.endswith("logit_scale")}
    own = reference_parameters(model.unfuse())
    trained = {name: parameter for name, parameter in own.items() if parameter.requires_grad}
    frozen = own.keys() - trained.keys()
    copy_state(own if frozen & state.keys() else trained, state, source)
