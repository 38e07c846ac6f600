"""CSKT written the naive way, with the weights of a :class:`cskt.CSKT`: what the benchmark and the
tests compare with.

Nothing is left out and nothing is shared between samples: start token and prompts run through every
layer for every sample, text is always as wide as its positions, token ids are spliced caption by
caption, the causal mask exists for every sample and head, and the last block computes rows that
nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cskt.model import CSKT


def splice(ids: Tensor, end_token: int, prompts: int, context: int) -> Tensor:
    """Token ids (B, L) -> (B, context): room for the prompts after the start token, the end token
    kept inside."""
    rows = []
    for caption in ids.tolist():
        caption += [0] * (context - len(caption))
        if caption.index(end_token) < context - prompts:
            words = caption[1 : context - prompts]
        else:
            words = [*caption[1 : context - 1 - prompts], end_token]
        rows.append(caption[:1] + [0] * prompts + words)
    return torch.tensor(rows, device=ids.device)


def put_prompts(x: Tensor, prompts: Tensor, at: int) -> Tensor:
    """x (B, L, W) with the rows from ``at`` on replaced by the same prompts (P, W) in every
    sample."""
    return torch.cat([x[:, :at], prompts.expand(len(x), -1, -1), x[:, at + len(prompts) :]], dim=1)


def run_blocks(
    blocks: Sequence[nn.Module],
    adapters: Sequence[nn.Module],
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
        if len(adapters):
            adapter = adapters[i]
            y = y + adapter.scale * adapter.up(adapter.down(adapter.norm(x)).relu())
        x = y
    return x


def plain_encode_image(model: CSKT, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) -> features (B, D), as ``model.encode_image``."""
    visual, prompts = model.backbone.visual, model.prompts.vision_rows()
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = (
        torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        + visual.positional_embedding
    )
    x, at = visual.patch_dropout(x), x.shape[1]
    if prompts:
        x = torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1)
    x = run_blocks(
        visual.transformer.resblocks, model.vision_adapters, visual.ln_pre(x), prompts, at
    )
    return visual.ln_post(x)[:, 0] @ visual.proj


def plain_encode_text(model: CSKT, token_ids: Tensor) -> Tensor:
    """Token ids (B, up to 77) -> features (B, D), as ``model.encode_text``."""
    backbone, prompts = model.backbone, model.prompts.text_rows()
    ids = splice(token_ids, model.end_token, model.num_prompts, backbone.context_length)
    x = backbone.token_embedding(ids)
    if prompts:
        x = put_prompts(x, prompts[0], at=1)
    x = x + backbone.positional_embedding
    blocks = backbone.transformer.resblocks
    mask = backbone.attn_mask.repeat(len(x) * blocks[0].attn.num_heads, 1, 1)
    x = backbone.ln_final(run_blocks(blocks, model.text_adapters, x, prompts, at=1, mask=mask))
    x, projection = (
        x[torch.arange(len(x)), (ids == model.end_token).int().argmax(1)],
        backbone.text_projection,
    )
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection
