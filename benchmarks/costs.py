"""How many FLOPs and bytes the matrix products of training and encoding take, counted by hand."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from torch import nn

from cskt import CSKT

VARIANTS = ("bpt", "dat", "lora")  # for the table of training steps, in the last precision only
OURS = ("cskt", "compiled", *VARIANTS)  # methods that the package's own towers run
ITEMSIZE = {"fp32": 4, "bf16": 2}


class Cost:
    """``flops`` and ``bytes`` of the matrix products of one training step, or of encoding.

    Counted are patch embedding, linear maps, attention and adapters, two FLOPs per multiply-add. In
    training a map is paid for again for its input's gradient and, if it is trained, for its
    weight's; attention twice again. Of ``cskt`` only what its identities leave to do counts (no
    rows of prompts, start token and padding, no hidden keys, one row in the last block, no gradient
    of the first block's input): utilisation takes no credit for work that was saved. Bytes:
    operands read and results written once. Left out, under one percent: pointwise work, prompts,
    projections.
    """

    def __init__(self, model: CSKT, method: str, precision: str, training: bool) -> None:
        self.flops = 0
        self.bytes = 0
        self.model = model
        self.shortened = method in OURS
        self.frozen = self.shortened or method == "plain"
        self.training = training
        self.itemsize = ITEMSIZE[precision]
        self.prompts = model.num_prompts if self.frozen else 0
        self.of_trained_map = 3 if training else 1  # times that it is paid for
        self.of_map = self.of_trained_map
        if training and self.frozen:
            self.of_map = 2

    def add_product(self, rows: int, inside: int, outside: int, times: int) -> None:
        """(rows, inside) x (inside, outside), so many times."""
        self.flops += times * 2 * rows * inside * outside
        moved = rows * (inside + outside) + inside * outside
        self.bytes += times * self.itemsize * moved

    def add_image(self, batch: int) -> None:
        """The vision tower."""
        visual = self.model.backbone.visual
        patches = math.prod(visual.grid_size)
        keys = 1 + patches + self.prompts
        rows = 1 + patches if self.shortened else keys
        pixels = visual.conv1.weight[0].numel()
        times = 2 if self.training and not self.frozen else 1
        self.add_product(batch * patches, pixels, visual.conv1.out_channels, times)
        self._add_tower("vision", batch, batch * rows, batch * rows * keys, batch * keys)

    def add_text(self, ends: np.ndarray) -> None:
        """The text tower; ``ends`` (B,): places of the end tokens."""
        batch = len(ends)
        columns = self.model.backbone.context_length
        words = ends.clip(max=columns - 1 - self.prompts)
        read = words + 1 + self.prompts
        rows = batch * columns
        pairs = batch * columns**2
        if self.shortened:
            rows = int(words.sum())
            before = words * (1 + self.prompts)
            among = words * (words + 1) // 2
            pairs = int((before + among).sum())
        self._add_tower("text", batch, rows, pairs, int(read.sum()))

    def _add_tower(self, tower: str, batch: int, rows: int, pairs: int, pairs_read: int) -> None:
        blocks = self.model.blocks(tower)
        for i, block in enumerate(blocks):
            queries, seen = rows, pairs
            if self.shortened and i == len(blocks) - 1:
                queries, seen = batch, pairs_read
            inward = self.of_map
            if self.shortened and i == 0:
                inward = 1
            width = block.attn.embed_dim
            self.add_product(rows, width, 2 * width, inward)  # keys and values
            self.add_product(queries, width, width, inward)
            self.add_product(queries, width, width, self.of_map)
            hidden = block.mlp.c_fc.out_features
            self.add_product(queries, width, hidden, 2 * self.of_map)
            self._add_attention(width, rows + queries, seen)
            self._add_trained(tower, i, width, rows, queries)

    def _add_attention(self, width: int, rows: int, pairs: int) -> None:
        self.flops += self.of_trained_map * 4 * width * pairs
        self.bytes += self.of_trained_map * 2 * self.itemsize * width * rows

    def _add_trained(self, tower: str, layer: int, width: int, rows: int, queries: int) -> None:
        adapters: Sequence[Any] = list(_trained(self.model, tower, "adapters"))
        lora: Sequence[Any] = list(_trained(self.model, tower, "lora"))
        if lora:
            rank = len(lora[layer].down)
            self.add_product(rows, width, rank, self.of_trained_map)
            self.add_product(rows, rank, 3 * width, self.of_trained_map)
        if self.frozen and adapters:
            narrow = adapters[layer].down.out_features
            self.add_product(queries, width, narrow, 2 * self.of_trained_map)


def _trained(model: CSKT, tower: str, kind: str) -> nn.ModuleList:
    modules = getattr(model, f"{tower}_{kind}")
    assert isinstance(modules, nn.ModuleList)
    return modules


def cost(
    model: CSKT,
    ends: np.ndarray,
    method: str,
    precision: str,
    training: bool,
    towers: Collection[str] = ("image", "text"),
) -> Cost:
    """The cost of a step, or of encoding with some ``towers``; ``ends`` (B,): places of the end
    tokens."""
    total = Cost(model, method, precision, training)
    if "image" in towers:
        total.add_image(len(ends))
    if "text" in towers:
        total.add_text(ends)
    return total
