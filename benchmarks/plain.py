"""CSKT written the naive way, with the weights of a :class:`cskt.CSKT`: what the benchmark and the
tests compare with.

Nothing is left out and nothing is shared between samples: start token and prompts run through every
layer for every sample, text is always as wide as its positions, token ids are spliced caption by
caption, the causal mask exists for every sample and head, and the last block computes rows that
nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cskt.model import CSKT


def splice(ids: Tensor, end_token: int, prompts: int, context: int) -> Tensor:
    """Token ids (B, L) -> (B, context): room for the prompts after the start token, the end token
    kept inside."""
    rows = []
    for caption in ids.tolist():
        caption += [0] * (context - len(caption))
        room = context - prompts
        words = caption[1:room]
        if caption.index(end_token) >= room:
            words[-1] = end_token
        start = caption[:1]
        rows.append(start + [0] * prompts + words)
    return torch.tensor(rows, device=ids.device)


def put_prompts(x: Tensor, prompts: Tensor, at: int) -> Tensor:
    """x (B, L, W) with the rows from ``at`` on replaced by the same prompts (P, W) in every
    sample."""
    before = x[:, :at]
    behind = x[:, at + len(prompts) :]
    return torch.cat([before, prompts.expand(len(x), -1, -1), behind], dim=1)


def run_blocks(
    blocks: Sequence[Any],
    adapters: Sequence[Any],
    x: Tensor,
    prompts: Sequence[Tensor],
    at: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Every row through every block; adapters beside the MLP, prompts put anew before each block
    that has its own."""
    for i, block in enumerate(blocks):
        if 1 <= i < len(prompts):
            x = put_prompts(x, prompts[i], at)
        x = x + block.ls_1(block.attention(block.ln_1(x), attn_mask=mask))
        y = x + block.ls_2(block.mlp(block.ln_2(x)))
        if adapters:
            adapter = adapters[i]
            narrow = adapter.down(adapter.norm(x)).relu()
            y = y + adapter.scale * adapter.up(narrow)
        x = y
    return x


def plain_encode_image(model: CSKT, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) -> features (B, D), as ``model.encode_image``."""
    visual = model.backbone.visual
    prompts = model.prompts.vision_rows()
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
    x = visual.patch_dropout(x + visual.positional_embedding)
    columns = x.shape[1]
    if prompts:
        first = prompts[0].expand(len(x), -1, -1)
        x = torch.cat([x, first], dim=1)
    x = visual.ln_pre(x)
    x = run_blocks(model.blocks("vision"), list(model.vision_adapters), x, prompts, at=columns)
    return visual.ln_post(x)[:, 0] @ visual.proj


def plain_encode_text(model: CSKT, token_ids: Tensor) -> Tensor:
    """Token ids (B, up to 77) -> features (B, D), as ``model.encode_text``."""
    backbone = model.backbone
    prompts = model.prompts.text_rows()
    ids = splice(token_ids, model.end_token, model.num_prompts, backbone.context_length)
    x = backbone.token_embedding(ids)
    if prompts:
        x = put_prompts(x, prompts[0], at=1)
    x = x + backbone.positional_embedding
    blocks = model.blocks("text")
    mask = backbone.attn_mask.repeat(len(x) * blocks[0].attn.num_heads, 1, 1)
    x = run_blocks(blocks, list(model.text_adapters), x, prompts, at=1, mask=mask)
    x = backbone.ln_final(x)
    ends = (ids == model.end_token).int().argmax(1)
    x = x[torch.arange(len(x)), ends]
    projection = backbone.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection
