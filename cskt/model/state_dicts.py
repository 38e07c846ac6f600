"""State dicts: read from checkpoint files of any kind, and copied into a model if they fit."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cskt.errors import ModelError


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, unpickling nothing else: .safetensors, torch.save or
    TorchScript (OpenAI)."""
    path = Path(path)
    if not path.is_file():
        raise ModelError(
            f"checkpoint file {path} does not exist; give the path of an existing file."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = _load_pickled(path)
    except Exception as error:  # each reader has its own exceptions; the user needs the file's name
        raise ModelError(
            f"checkpoint file {path} cannot be read as tensors ({type(error).__name__}); give a "
            "complete file, saved from a plain state_dict."
        ) from error
    return unwrap_state(content, str(path))


def _load_pickled(path: Path) -> Any:
    # torch retires TorchScript, and says so, but OpenAI's files are made so
    with warnings.catch_warnings(action="ignore"):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except RuntimeError:  # a TorchScript archive
            return torch.jit.load(path, map_location="cpu").state_dict()


def unwrap_state(content: Any, source: str) -> dict[str, Tensor]:
    """A state dict, whole or under ``state_dict`` or ``model``, without the prefix of a
    data-parallel wrapper."""
    if isinstance(content, Mapping):
        for key in ("state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"{source} holds no state dict; save model.state_dict(), bare or under 'state_dict'."
        )
    state = {str(name): value for name, value in content.items()}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


@torch.no_grad()
def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Any], source: str) -> None:
    """Copies ``state`` into the tensors ``own`` by name; a :class:`ModelError` lists what is
    missing, surplus or of the wrong shape or type, and nothing is copied."""
    missing = [name for name in own if name not in state]
    surplus = [name for name in state if name not in own]
    wrong = []
    for name, tensor in own.items():
        if name not in state:
            continue
        shape = tuple(getattr(state[name], "shape", ("no tensor",)))
        if shape != tensor.shape:
            wrong.append(f"{name} (expected {tuple(tensor.shape)}, got {shape})")
        elif tensor.is_floating_point() and not state[name].is_floating_point():
            wrong.append(f"{name} (expected real numbers, got {state[name].dtype})")
    faults = []
    if missing:
        faults.append(f"missing: {', '.join(missing)}")
    if surplus:
        faults.append(f"surplus: {', '.join(surplus)}")
    if wrong:
        faults.append(f"of the wrong shape or type: {', '.join(wrong)}")
    if faults:
        raise ModelError(
            f"{source} does not fit the model ({'; '.join(faults)}); use a checkpoint made for "
            "this configuration."
        )
    for name, tensor in own.items():
        tensor.copy_(state[name])
