"""What CSKT adds to a backbone, new: prompts, adapters and, to compare with, LoRA."""

from __future__ import annotations

import open_clip
from torch import nn

from cskt.config import CSKTConfig
from cskt.errors import ConfigurationError
from cskt.model.adapters import ParallelAdapter
from cskt.model.backbone import blocks
from cskt.model.lora import LowRankUpdate
from cskt.model.prompts import BidirectionalPrompts


def new_prompts(backbone: open_clip.CLIP, config: CSKTConfig) -> BidirectionalPrompts:
    """Prompts for both towers; :class:`ConfigurationError` where they do not fit."""
    shallower = min(len(blocks(backbone, "text")), len(blocks(backbone, "vision")))
    depth = shallower if config.prompt_depth is None else config.prompt_depth
    if depth > shallower:
        raise ConfigurationError(
            f"prompt_depth must be at most {shallower} (blocks of the shallower tower), "
            f"got {depth}."
        )
    context = backbone.context_length
    if config.prompts_per_tower > context - 3:
        raise ConfigurationError(
            f"prompt_length must leave room for a caption in {context} text positions, "
            f"got {config.prompt_length} ({config.prompts_per_tower} prompts)."
        )
    prompts = BidirectionalPrompts(
        depth,
        config.prompt_length,
        _width(backbone, "text"),
        _width(backbone, "vision"),
        config.text_to_vision,
        config.vision_to_text,
    )
    return prompts.to(backbone.visual.conv1.weight)


def new_adapters(backbone: open_clip.CLIP, config: CSKTConfig, tower: str) -> nn.ModuleList:
    """An adapter for each block of the ``"text"`` or ``"vision"`` tower; none if not wanted."""
    if tower == "text":
        wanted, scale = config.text_adapter, config.text_scale
    else:
        wanted, scale = config.vision_adapter, config.vision_scale
    adapters = nn.ModuleList()
    if wanted:
        width = _width(backbone, tower)
        zero_init = config.adapter_init == "zero"
        for block in blocks(backbone, tower):
            eps = block.ln_2.eps
            adapters.append(ParallelAdapter(width, config.reduction, scale, zero_init, eps))
    return adapters.to(backbone.visual.conv1.weight)


def new_lora(backbone: open_clip.CLIP, config: CSKTConfig, tower: str) -> nn.ModuleList:
    """For each block, an update of its map to queries, keys and values; none if not wanted."""
    updates = nn.ModuleList()
    if config.lora:
        width = _width(backbone, tower)
        for _ in blocks(backbone, tower):
            updates.append(LowRankUpdate(3 * width, width, config.lora_rank))
    return updates.to(backbone.visual.conv1.weight)


def _width(backbone: open_clip.CLIP, tower: str) -> int:
    if tower == "text":
        return backbone.token_embedding.embedding_dim
    return backbone.visual.conv1.out_channels
