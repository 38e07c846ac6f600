"""The numerics policy: on which device, and in which precision, anything is computed.

- *fp32* is the rule: every CPU computes in it unless somebody asks for something else, and so every
  result that comes with the package was made in it.
- *bf16* is what ``"auto"`` means on a CUDA device that computes it natively (the paper's setting),
  and what ``"bf16"`` means where the processor computes it natively. Weights that train, features,
  cosines and losses stay fp32.
- A gallery encodes its images and every query in one precision, and its record names it.
- The record of a run names precision, device, data version and package versions; no table and no
  mean joins records that differ in one of them.

bf16 is no faster way to the same numbers: it keeps eight bits of every product, so a training run
in it is another experiment. That is why the choice never follows from the chip alone on a CPU.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from cskt.errors import ConfigurationError, ResourceError

log = logging.getLogger(__name__)
PRECISIONS = ("fp32", "bf16")  # what is computed in; "auto" is resolved to one of them


def resolve_device(device: str) -> str:
    """``"auto"`` -> ``"cuda"`` where there is one, else ``"cpu"``; asking for a missing GPU is a
    :class:`ResourceError`."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            "device is 'cuda' but torch finds no CUDA GPU here; use device 'cpu' or 'auto'."
        )
    return device


def upload(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``, without waiting for a GPU.

    ``Tensor.to`` alone waits until a GPU has done all that it was given before. Sending without
    waiting is safe, since the copy takes its turn there; fetching is not, so that a copy to the CPU
    is waited for.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def computes_bf16(device: str) -> bool:
    """Whether ``"cuda"`` or ``"cpu"`` has bf16 arithmetic of its own; torch emulates it elsewhere,
    slowly."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        read_capabilities = getattr(torch.cpu, "get_capabilities", None)
        capabilities = read_capabilities() if read_capabilities else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def resolve_precision(precision: str, device: str) -> str:
    """``"auto"``, ``"fp32"`` or ``"bf16"`` on a resolved device -> one of :data:`PRECISIONS`.

    ``"auto"`` is bf16 only on a CUDA device that computes it natively, fp32 on every CPU.
    ``"bf16"`` where the device does not compute it natively is fp32, with a line in the log.
    :class:`ConfigurationError` for any other word.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ConfigurationError(f"precision must be 'auto', 'fp32' or 'bf16', got {precision!r}.")
    if precision == "fp32" or (precision == "auto" and device != "cuda"):
        return "fp32"
    if computes_bf16(device):
        return "bf16"
    if precision == "bf16":
        log.warning("This %s does not compute bf16 natively: fp32 is used instead.", device)
    return "fp32"
