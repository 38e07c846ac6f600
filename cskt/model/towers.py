"""Runs open_clip's transformer blocks with prompts and adapters: one code path for both towers.

Each block's own ``ln_1``, ``attn``, ``ls_1``, ``ln_2``, ``mlp`` and ``ls_2`` are used as they are, so with no prompts
and no adapters the numbers are open_clip's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Row ``rows[b]`` of each sample: x (B, L, W), rows (B,) int -> (B, 1, W)."""
    return x.gather(1, rows[:, None, None].expand(-1, 1, x.shape[2]))


def put_rows(x: Tensor, prompts: Tensor, at: int, over: int = 0) -> Tensor:
    """A copy of x (B, L, W) with prompts (P, W) before row ``at``, in place of the ``over`` rows from there on."""
    return torch.cat([x[:, :at], prompts.to(x.dtype).expand(len(x), -1, -1), x[:, at + over:]], dim=1)


def attention(attn: nn.MultiheadAttention, x: Tensor, causal: bool, rows: Tensor | None = None) -> Tensor:
    """Self-attention with the weights of ``attn``; with ``rows`` (B,), only those queries: (B, 1, W)."""
    weight, bias, width = attn.in_proj_weight, attn.in_proj_bias, x.shape[-1]
    seen = None
    if rows is None:
        q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
    else:
        q = F.linear(take_rows(x, rows), weight[:width], bias[:width])
        k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        if causal:
            seen = (torch.arange(x.shape[1], device=x.device) <= rows[:, None])[:, None, None]
    q, k, v = (y.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal and rows is None)
    return attn.out_proj(out.transpose(1, 2).flatten(2))


def run_block(block: nn.Module, adapter: nn.Module | None, x: Tensor, causal: bool, rows: Tensor | None) -> Tensor:
    """``x + attn(ln_1(x))``, then ``x + mlp(ln_2(x)) + adapter(x)``: (B, L, W) -> (B, L, W), or (B, 1, W) with rows."""
    attended = block.ls_1(attention(block.attn, block.ln_1(x), causal, rows))
    x = (x if rows is None else take_rows(x, rows)) + attended
    y = x + block.ls_2(block.mlp(block.ln_2(x)))
    return y if adapter is None else y + adapter(x)


def run_blocks(blocks: Sequence[nn.Module], adapters: Sequence[nn.Module], x: Tensor, read: Tensor, *, causal: bool,
               prompts: Sequence[Tensor] = (), at: int = 0, record: list[Tensor] | None = None) -> Tensor:
    """All blocks of a tower: x (B, L, W), already holding the prompts of layer 0 -> row ``read`` (B,) of it: (B, W).

    ``prompts[i]`` (P, W) replaces the rows from ``at`` on before block i, for 1 <= i < len(prompts); later blocks keep
    what the previous block put out. ``adapters`` is empty or has one entry per block. A ``record`` list receives the
    full (B, L, W) output of every block; without it the last block computes the row that is read and no other.
    """
    for i, block in enumerate(blocks):
        if 1 <= i < len(prompts):
            x = put_rows(x, prompts[i], at, over=len(prompts[i]))
        rows = read if record is None and i == len(blocks) - 1 else None
        x = run_block(block, adapters[i] if len(adapters) else None, x, causal, rows)
        if record is not None:
            record.append(x)
    return (x if record is None else take_rows(x, read))[:, 0]
