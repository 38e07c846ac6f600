"""Towers whose every column is run and whose outputs and attention are kept, for analyses."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from cskt.model.towers import Grid, Keep, Tower, put_rows, run_layer


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
        if not self.wants(layer):
            return None

        def store(weights: Tensor) -> Tensor:
            if torch.is_grad_enabled() and not weights.requires_grad:
                weights.requires_grad_()
            self.attention[layer] = weights
            return weights

        return store


def run_recorded(
    tower: Tower, x: Tensor, grid: Grid, *, causal: bool, at: int, record: Record
) -> tuple[Tensor, Grid]:
    """Every column through every layer, as the method's equations have it: rows x (R, W) without
    prompts -> all rows behind the last layer, with the grid that they form then.

    Before each layer with prompts (P, W) of its own, these go before column ``at`` of every sample,
    in place of those of the layer before.
    """
    placed = 0
    for i, layer in enumerate(tower.layers):
        if i < len(tower.prompts):
            prompts = tower.prompts[i]
            x, grid = put_rows(x, grid, prompts, at, placed)
            placed = len(prompts)
        x = run_layer(layer, x, grid, causal, keep=record.keep(i))
        if record.wants(i):
            record.outputs[i] = grid.spread(x)
    return x, grid
