"""A table of a model's parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cskt.model.cskt import CSKT


def parameter_table(model: CSKT) -> str:
    """Trained and all parameters of each block, a line each, adding up to the totals."""
    trained: dict[str, int] = {}
    every: dict[str, int] = {}
    for name, parameter in model.counted_parameters().items():
        block = _block_of(name)
        trained.setdefault(block, 0)
        every.setdefault(block, 0)
        every[block] += parameter.numel()
        if parameter.requires_grad:
            trained[block] += parameter.numel()
    trained["total"] = model.num_trainable
    every["total"] = model.num_total

    backbone = model.source.get("name", type(model.backbone).__name__)
    height, width = model.image_size
    share = model.num_trainable / model.num_total
    lines = [
        f"CSKT on {backbone}, images {height} x {width}, {model.num_prompts} prompts per tower, "
        f"{share:.2%} trained",
        f"{'part':<20}{'trained':>14}{'all':>14}",
    ]
    for block in every:
        lines.append(f"{block:<20}{trained[block]:>14,}{every[block]:>14,}")
    return "\n".join(lines)


def _block_of(name: str) -> str:
    """The row of the table that a parameter belongs to."""
    if name.startswith("prompts."):
        return "prompts"
    tower = "vision" if name.startswith(("backbone.visual.", "vision_")) else "text"
    block = re.search(r"(?:resblocks|adapters|lora)\.(\d+)\.", name)
    return f"{tower} block {block[1]}" if block else f"{tower} ends"
