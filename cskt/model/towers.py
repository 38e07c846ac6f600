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

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.utils.checkpoint import checkpoint

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
            rows = rows.new_zeros(self.batch * self.columns, rows.shape[1]).index_copy(
                0, self.index, rows
            )
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
        held = torch.arange(columns, device=lengths.device) < lengths[:, None]
        return cls(len(lengths), columns, held.flatten().nonzero()[:, 0])

    def to(self, device: torch.device) -> Grid:
        """The same on another device."""
        return self if self.index is None else Grid(self.batch, self.columns, self.index.to(device))

    def filled(self) -> Tensor | None:
        """(batch, 1, 1, columns) bool: where rows are; None: everywhere."""
        if self.index is None:
            return None
        cells = torch.zeros(self.batch * self.columns, dtype=torch.bool, device=self.index.device)
        return cells.index_fill(0, self.index, True).view(self.batch, 1, 1, self.columns)


Keep = Callable[[Tensor], Tensor]  # sees attention weights on their way to the values


class Record:
    """What a tower does at ``layers`` (None: all), by layer: ``outputs`` (B, columns, W) of the
    blocks, ``attention`` (B, heads, columns, columns), each row of which sums to one over the
    columns it reads.

    With gradients enabled, ``attention`` can be differentiated by, where nothing is trained too.
    Only for ``encode_image`` and ``encode_text``; what they run then is every column, prompts and
    padding included.
    """

    def __init__(self, layers: Collection[int] | None = None) -> None:
        self.layers = layers
        self.outputs: dict[int, Tensor] = {}
        self.attention: dict[int, Tensor] = {}

    def wants(self, layer: int) -> bool:
        """Whether ``layer`` was asked for."""
        return self.layers is None or layer in self.layers

    def keep(self, layer: int) -> Keep | None:
        """What stores the attention weights of ``layer``; None where it was not asked for."""

        def store(weights: Tensor) -> Tensor:
            if torch.is_grad_enabled() and not weights.requires_grad:
                weights.requires_grad_()
            self.attention[layer] = weights
            return weights

        return store if self.wants(layer) else None


def attention(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, keep: Keep | None = None
) -> Tensor:
    """Scaled dot-product attention of q (B, heads, L, D) over k, v (B, heads, S, D) where
    ``seen``."""
    # torch's fused kernel for CPUs takes 2.6 times as long, forward and backward, as three products
    # do in bf16.
    if keep is not None or (q.dtype == torch.bfloat16 and q.device.type == "cpu"):
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        weights = (
            (scores if seen is None else scores.masked_fill(~seen, -torch.inf))
            .softmax(-1)
            .to(v.dtype)
        )
        return (weights if keep is None else keep(weights)) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight.T + bias`` in the weight's type, unless autocast decides."""
    return F.linear(
        x if torch.is_autocast_enabled(x.device.type) else x.to(weight.dtype), weight, bias
    )


@dataclass
class Layer:
    """One block of a tower and what CSKT, or LoRA, trains beside it."""

    block: nn.Module
    adapter: nn.Module | None = None
    lora: nn.Module | None = None

    def inward(self, normed: Tensor, part: slice) -> Tensor:
        """``part`` of the map of rows (R, W) to queries, keys and values."""
        attn = self.block.attn
        y = linear(normed, attn.in_proj_weight[part], attn.in_proj_bias[part])
        return y if self.lora is None else y + self.lora(normed, part)

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
        q = (
            grid.spread(self.queries(normed))
            if read is None
            else self.queries(normed[read])[:, None]
        )
        k, v = grid.spread(self.keys_values(normed)).chunk(2, dim=-1)
        seen = None if read is None or not causal else grid.filled()
        if front is not None:
            k, v = (
                torch.cat([shared.expand(grid.batch, -1, -1), own], dim=1)
                for shared, own in zip(front.chunk(2, dim=-1), (k, v), strict=True)
            )
            if seen is not None:
                seen = F.pad(seen, (len(front), 0), value=True)
        if causal and read is None:
            size, known = (
                (q.shape[1], k.shape[1]),
                q.is_cuda and keep is None,
            )  # on a GPU the kernel knows this mask
            seen = (
                causal_lower_right(*size)
                if known
                else q.new_ones(size).bool().tril(size[1] - size[0])
            )
        heads = self.block.attn.num_heads
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        out = attention(q, k, v, seen, keep).transpose(1, 2).flatten(2)
        return self.output(grid.pack(out) if read is None else out[:, 0])

    def output(self, rows: Tensor) -> Tensor:
        """The attention's last map."""
        return self.block.ls_1(self.block.attn.out_proj(rows))

    def feed_forward(self, x: Tensor) -> Tensor:
        """What MLP and adapter add to x (R, W)."""
        normed, (expand, activation, contract) = self.block.ln_2(x), self.block.mlp
        if isinstance(
            activation, QuickGELU
        ):  # silu is one pass over memory, and the factors cost nothing here
            hidden = F.silu(
                torch.addmm(
                    expand.bias, normed, expand.weight.t(), beta=QUICK_GELU, alpha=QUICK_GELU
                )
            )
            y = torch.addmm(contract.bias, hidden, contract.weight.t(), alpha=1 / QUICK_GELU)
        else:
            y = contract(activation(expand(normed)))
        y = self.block.ls_2(y)
        return y if self.adapter is None else y + self.adapter(x)


class FusedLayer(Layer):
    """A layer for inference, its matrices in ``dtype``: LoRA merged, MLP and adapter one pair of
    them behind one norm.

    Exact but for rounding: with n(x) = (x - mean) / deviation both norms are gain * n(x) + shift;
    gains and shifts go into the maps up, and QuickGELU's factor, the block's layer scale and the
    adapter's scale into the maps down."""

    @torch.no_grad()
    def __init__(self, layer: Layer, dtype: torch.dtype) -> None:
        super().__init__(layer.block)
        block, adapter = layer.block, layer.adapter
        expand, activation, contract = block.mlp
        self.quick, self.activation = isinstance(activation, QuickGELU), activation
        factor, scale = (
            QUICK_GELU if self.quick else 1.0,
            getattr(block.ls_2, "gamma", torch.ones(len(contract.bias))),
        )
        wide, scale = (
            block.ln_2.weight.dtype,
            scale.to(block.ln_2.weight),
        )  # a frozen matrix may have been cast
        up = [(block.ln_2, factor * expand.weight.to(wide), factor * expand.bias.to(wide))]
        down = [
            (scale[:, None] / factor * contract.weight.to(wide), scale * contract.bias.to(wide))
        ]
        if adapter is not None:
            up.append((adapter.norm, adapter.down.weight, adapter.down.bias))
            down.append((adapter.scale * adapter.up.weight, adapter.scale * adapter.up.bias))
        self.units = len(expand.bias)
        merged = block.attn.in_proj_weight.to(wide)
        pairs = {
            "inward": (
                merged if layer.lora is None else merged + layer.lora.merged(),
                block.attn.in_proj_bias,
            ),
            "outward": (block.attn.out_proj.weight, block.attn.out_proj.bias),
            "up": (
                torch.cat([weight * norm.weight for norm, weight, _ in up]),
                torch.cat([weight @ norm.bias + bias for norm, weight, bias in up]),
            ),
            "down": (
                torch.cat([weight for weight, _ in down], dim=1),
                sum(bias for _, bias in down),
            ),
        }
        self.maps = {name: tuple(part.to(dtype) for part in pair) for name, pair in pairs.items()}

    def inward(self, normed: Tensor, part: slice) -> Tensor:
        weight, bias = self.maps["inward"]
        return linear(normed, weight[part], bias[part])

    def output(self, rows: Tensor) -> Tensor:
        return self.block.ls_1(linear(rows, *self.maps["outward"]))

    def feed_forward(self, x: Tensor) -> Tensor:
        hidden = linear(F.layer_norm(x, x.shape[1:], eps=self.block.ln_2.eps), *self.maps["up"])
        if self.quick:
            F.silu(hidden[:, : self.units], inplace=True)
        else:
            hidden[:, : self.units] = self.activation(hidden[:, : self.units])
        F.relu(hidden[:, self.units :], inplace=True)
        return linear(hidden, *self.maps["down"])


def run_layer(
    layer: Layer,
    x: Tensor,
    grid: Grid,
    causal: bool,
    front: Tensor | None = None,
    read: Tensor | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """``x + attention``, then ``x + mlp + adapter``: rows (R, W) -> (R, W), or (batch, W) with
    ``read``."""
    x = (x if read is None else x[read]) + layer.attend(x, grid, causal, front, read, keep)
    return x + layer.feed_forward(x)


# The same, keeping only x for the backward pass and computing the rest again: less memory, a third
# more time.
checkpointed = functools.partial(checkpoint, run_layer, use_reentrant=False)


def prompt_keys_values(layers: Sequence[Layer], prompts: Sequence[Tensor]) -> list[Tensor]:
    """Keys and values (P, 2 W) of the prompts (P, W) of the first layers."""
    return [
        layer.keys_values(layer.block.ln_1(rows))
        for layer, rows in zip(layers, prompts, strict=False)
    ]


def prefix_keys_values(
    layers: Sequence[Layer], prompts: Sequence[Tensor], start: Tensor
) -> list[Tensor]:
    """Keys and values (1 + P, 2 W) at each layer of the start token (1, W) and the text prompts
    behind it."""
    x, shared = start, []
    for i, layer in enumerate(layers):
        if i < len(prompts):
            x = torch.cat([x[:1], prompts[i]])
        shared.append(layer.keys_values(layer.block.ln_1(x)))
        if i + 1 < len(layers):
            x = (
                x[:1] if i + 1 < len(prompts) else x
            )  # prompts that are replaced next need not be run
            x = run_layer(layer, x, Grid(1, len(x)), causal=True)
    return shared


def run_tower(
    layers: Sequence[Layer],
    x: Tensor,
    grid: Grid,
    *,
    causal: bool,
    read: Tensor | int = 0,
    front: Sequence[Tensor] = (),
    prompts: Sequence[Tensor] = (),
    at: int = 0,
    rows_from: int = 0,
    step: Callable[..., Tensor] = run_layer,
    record: Record | None = None,
) -> Tensor:
    """All layers: rows x (R, W) -> the row in column ``read``, or ``read[b]``, of each sample:
    (batch, W).

    ``front[i]`` is what all samples share at layer i. Where prompts are read, they are rows of
    every sample: before layer i >= ``rows_from``, ``prompts[i]`` (P, W) go before column ``at``, in
    place of those of the layer before. ``step`` runs a layer, as :func:`run_layer` or
    :data:`checkpointed` does, unless there is something to ``record``.
    """
    placed = 0
    for i, layer in enumerate(layers):
        if rows_from <= i < len(prompts):
            cells, new = grid.spread(x), prompts[i].to(x.dtype).expand(grid.batch, -1, -1)
            cells, placed = (
                torch.cat([cells[:, :at], new, cells[:, at + placed :]], dim=1),
                new.shape[1],
            )
            x, grid = cells.flatten(0, 1), Grid(*cells.shape[:2])
        shared = front[i] if i < len(front) else None
        if record is not None:
            x = run_layer(layer, x, grid, causal, shared, keep=record.keep(i))
            if record.wants(i):
                record.outputs[i] = grid.spread(x)
        else:
            x = step(
                layer,
                x,
                grid,
                causal,
                shared,
                grid.rows(read).to(x.device) if i == len(layers) - 1 else None,
            )
    return x if record is None else x[grid.rows(read)]
