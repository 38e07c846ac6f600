"""Runs open_clip's transformer blocks with prompts and adapters: one code path for both towers.

Each block's own weights are used as they are, so with no prompts and no adapters the numbers are
open_clip's. Work that cannot change a feature is left out; the identities are exact (tests compare
with a plain model in float64):

1. While prompts are replaced at the next block, nothing reads what a block makes of them: they are
   keys and values only, and the same for every sample (:func:`prompt_keys_values`).
2. Under the causal mask the start token and the text prompts see no caption: they too are run once
   (:func:`prefix_keys_values`), and the text tower runs on words alone.
3. Captions lie packed, row after row; only attention sees the (batch, columns) grid with its
padding.
4. The last block computes the one row of each sample that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.checkpoint import checkpoint

from cskt.numerics import upload

QUICK_GELU = 1.702  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702


@dataclass(frozen=True)
class Grid:
    """How rows (R, W) form ``batch`` samples of ``columns``: row r is cell ``index[r]`` of the flat
    grid, or cell r."""

    batch: int
    columns: int
    index: Tensor | None = None

    def spread(self, rows: Tensor) -> Tensor:
        """(R, W) -> (batch, columns, W), zeros where no row is."""
        if self.index is not None:
            cells = rows.new_zeros(self.batch * self.columns, rows.shape[1])
            rows = cells.index_copy(0, self.index, rows)
        return rows.unflatten(0, (self.batch, self.columns))

    def pack(self, cells: Tensor) -> Tensor:
        """The inverse: (batch, columns, W) -> (R, W)."""
        cells = cells.flatten(0, 1)
        return cells if self.index is None else cells.index_select(0, self.index)

    def rows(self, columns: Tensor | int) -> Tensor:
        """The row in column ``columns[b]`` of each sample b."""
        device = columns.device if isinstance(columns, Tensor) else None
        cells = torch.arange(self.batch, device=device) * self.columns + columns
        return cells if self.index is None else torch.searchsorted(self.index, cells)

    @classmethod
    def packed(cls, lengths: Tensor) -> Grid:
        """The first ``lengths`` (batch,) >= 1 columns of every sample, packed."""
        columns = int(lengths.max())
        filled = torch.arange(columns, device=lengths.device) < lengths[:, None]
        return cls(len(lengths), columns, filled.flatten().nonzero()[:, 0])

    def to(self, device: torch.device) -> Grid:
        """The same on another device."""
        if self.index is None:
            return self
        return Grid(self.batch, self.columns, upload(self.index, device))

    def filled(self, shared: int = 0) -> Tensor | None:
        """(batch, 1, 1, shared + columns) bool: where rows are, behind ``shared`` columns that are
        full; None: everywhere."""
        if self.index is None:
            return None
        count = self.batch * self.columns
        cells = torch.zeros(count, dtype=torch.bool, device=self.index.device)
        cells = cells.index_fill(0, self.index, True)
        cells = cells.view(self.batch, 1, 1, self.columns)
        if shared:
            cells = F.pad(cells, (shared, 0), value=True)
        return cells


Keep = Callable[[Tensor], Tensor]  # sees attention weights on their way to the values


def attention(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, keep: Keep | None = None
) -> Tensor:
    """Scaled dot-product attention of q (B, heads, L, D) over k, v (B, heads, S, D) where
    ``seen``."""
    # torch's fused kernel for CPUs takes 2.6 times as long, forward and backward, as three products
    # do in bf16.
    slow_kernel = q.dtype == torch.bfloat16 and q.device.type == "cpu"
    if keep is None and not slow_kernel:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    weights = scores.softmax(-1).to(v.dtype)
    if keep is not None:
        weights = keep(weights)
    return weights @ v


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight.T + bias`` in the weight's type, unless autocast decides."""
    if not torch.is_autocast_enabled(x.device.type):
        x = x.to(weight.dtype)
    return F.linear(x, weight, bias)


def quick_gelu_mlp(x: Tensor, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """``contract(quick_gelu(expand(x)))`` of rows x (R, W), as silu, which is one pass over memory;
    the factors cost nothing within the products."""
    weight = expand.weight.t()
    hidden = torch.addmm(expand.bias, x, weight, beta=QUICK_GELU, alpha=QUICK_GELU)
    hidden = F.silu(hidden)
    return torch.addmm(contract.bias, hidden, contract.weight.t(), alpha=1 / QUICK_GELU)


@dataclass
class Layer:
    """One block of a tower and what CSKT, or LoRA, trains beside it."""

    block: ResidualAttentionBlock
    adapter: nn.Module | None = None
    lora: nn.Module | None = None

    def inward(self, normed: Tensor, outputs: slice) -> Tensor:
        """Some ``outputs`` of the map of rows (R, W) to queries, keys and values."""
        attn = self.block.attn
        y = linear(normed, attn.in_proj_weight[outputs], attn.in_proj_bias[outputs])
        return y if self.lora is None else y + self.lora(normed, outputs)

    def queries(self, normed: Tensor) -> Tensor:
        """Of rows (R, W) behind ``ln_1``: (R, W)."""
        return self.inward(normed, slice(normed.shape[1]))

    def keys_values(self, normed: Tensor) -> Tensor:
        """Of rows (R, W) behind ``ln_1``: (R, 2 W); apart from the queries, as the backward pass
        keeps only those."""
        return self.inward(normed, slice(normed.shape[1], None))

    def attend(
        self,
        x: Tensor,
        grid: Grid,
        causal: bool,
        front: Tensor | None,
        read: Tensor | None,
        keep: Keep | None = None,
    ) -> Tensor:
        """What attention adds to x (R, W), or to the rows ``read`` (batch,) of it: each row's
        sample and, before it, the keys and values ``front`` (S, 2 W) that all samples share."""
        normed = self.block.ln_1(x)
        if read is None:
            q = grid.spread(self.queries(normed))
        else:
            q = self.queries(normed[read])[:, None]
        k, v = grid.spread(self.keys_values(normed)).chunk(2, dim=-1)
        if front is not None:
            shared_k, shared_v = front.chunk(2, dim=-1)
            k = torch.cat([shared_k.expand(grid.batch, -1, -1), k], dim=1)
            v = torch.cat([shared_v.expand(grid.batch, -1, -1), v], dim=1)
        seen = None
        if causal and read is None:
            seen = causal_mask(q, k, fused=keep is None)
        elif causal:
            seen = grid.filled(shared=k.shape[1] - grid.columns)
        heads = self.block.attn.num_heads
        q = _by_head(q, heads)
        k = _by_head(k, heads)
        v = _by_head(v, heads)
        out = attention(q, k, v, seen, keep)
        out = out.transpose(1, 2).flatten(2)
        return self.output(grid.pack(out) if read is None else out[:, 0])

    def output(self, rows: Tensor) -> Tensor:
        """The attention's last map."""
        return self.block.ls_1(self.block.attn.out_proj(rows))

    def feed_forward(self, x: Tensor) -> Tensor:
        """What MLP and adapter add to x (R, W)."""
        normed = self.block.ln_2(x)
        expand, activation, contract = self.block.mlp
        if isinstance(activation, QuickGELU):
            y = quick_gelu_mlp(normed, expand, contract)
        else:
            y = contract(activation(expand(normed)))
        y = self.block.ls_2(y)
        return y if self.adapter is None else y + self.adapter(x)


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """(B, L, W) -> (B, heads, L, W / heads)."""
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


def causal_mask(q: Tensor, k: Tensor, fused: bool) -> Tensor:
    """What each of q (B, L, W) may see of k (B, S, W), the last of which are its own: itself and
    what stands before it. ``fused``: as a name that the attention kernel of a GPU knows."""
    queries, keys = q.shape[1], k.shape[1]
    if fused and q.is_cuda:
        with _disable_current_modes():  # in which torch cannot make one, as when FLOPs are counted
            return causal_lower_right(queries, keys)
    return q.new_ones(queries, keys).bool().tril(keys - queries)


@dataclass
class Tower:
    """What a tower runs: its layers, and the prompts (P, W) that the first of them read."""

    layers: list[Layer]
    prompts: list[Tensor]


def run_layer(
    layer: Layer,
    x: Tensor,
    grid: Grid,
    causal: bool,
    front: Tensor | None = None,
    read: Tensor | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """A block (equation 5 of book/method.md): ``h = x + attention``, ``h + mlp + adapter``; rows x
    (R, W) -> (R, W), or (batch, W) with ``read``."""
    rows = x if read is None else x[read]
    h = rows + layer.attend(x, grid, causal, front, read, keep)
    return h + layer.feed_forward(h)


def checkpointed(
    layer: Layer,
    x: Tensor,
    grid: Grid,
    causal: bool,
    front: Tensor | None = None,
    read: Tensor | None = None,
) -> Tensor:
    """:func:`run_layer` that keeps only x for the backward pass and computes the rest again: less
    memory, a third more time."""
    return checkpoint(run_layer, layer, x, grid, causal, front, read, use_reentrant=False)


Step = Callable[[Layer, Tensor, Grid, bool, Tensor | None, Tensor | None], Tensor]


def run_layers(
    layers: Sequence[Layer],
    x: Tensor,
    grid: Grid,
    causal: bool,
    front: Sequence[Tensor] = (),
    step: Step = run_layer,
) -> Tensor:
    """Every row x (R, W) through all layers. ``front[i]`` is what all samples share at layer i (the
    layers behind its end share nothing); ``step`` runs a layer, as :func:`run_layer` or
    :func:`checkpointed` does."""
    for i, layer in enumerate(layers):
        shared = front[i] if i < len(front) else None
        x = step(layer, x, grid, causal, shared, None)
    return x


def run_tower(
    layers: Sequence[Layer],
    x: Tensor,
    grid: Grid,
    causal: bool,
    front: Sequence[Tensor] = (),
    read: Tensor | int = 0,
    step: Step = run_layer,
) -> Tensor:
    """:func:`run_layers`, and of the last layer only what is read: the row in column ``read``, or
    ``read[b]``, of each sample: (batch, W)."""
    x = run_layers(layers[:-1], x, grid, causal, front, step)
    shared = front[-1] if len(front) == len(layers) else None
    return step(layers[-1], x, grid, causal, shared, upload(grid.rows(read), x.device))


def prompt_keys_values(layers: Sequence[Layer], prompts: Sequence[Tensor]) -> list[Tensor]:
    """Keys and values (P, 2 W) of the prompts (P, W) of the first layers."""
    shared = []
    for layer, rows in zip(layers, prompts, strict=False):
        shared.append(layer.keys_values(layer.block.ln_1(rows)))
    return shared


def prefix_keys_values(tower: Tower, start: Tensor) -> list[Tensor]:
    """Keys and values (1 + P, 2 W) at each layer of the start token (1, W) and the text prompts
    behind it."""
    layers, prompts = tower.layers, tower.prompts
    x = start
    shared = []
    for i, layer in enumerate(layers):
        if i < len(prompts):
            x = torch.cat([x[:1], prompts[i]])
        shared.append(layer.keys_values(layer.block.ln_1(x)))
        if i + 1 < len(prompts):
            x = x[:1]  # prompts that are replaced next need not be run
        if i + 1 < len(layers):
            x = run_layer(layer, x, Grid(1, len(x)), causal=True)
    return shared


def put_rows(
    x: Tensor, grid: Grid, rows: Tensor, at: int, replaced: int = 0
) -> tuple[Tensor, Grid]:
    """x (R, W) with the same rows (P, W) in every sample, in place of ``replaced`` columns from
    ``at`` on; and the grid that they form together."""
    cells = grid.spread(x)
    before = cells[:, :at]
    behind = cells[:, at + replaced :]
    new = rows.to(x.dtype).expand(grid.batch, -1, -1)
    cells = torch.cat([before, new, behind], dim=1)
    return cells.flatten(0, 1), Grid(grid.batch, cells.shape[1])
